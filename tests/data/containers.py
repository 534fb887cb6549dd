"""Rows of a data set, written to every container that they come in."""

import bz2
import csv
import gzip
import json
import lzma

import pyarrow
from pyarrow import parquet

PACK = {
    ".gz": gzip.compress,
    ".bz2": bz2.compress,
    ".xz": lzma.compress,
    ".zst": lambda data: pyarrow.Codec("zstd").compress(data).to_pybytes(),
}


def dump(value):
    return json.dumps(value, ensure_ascii=False)


JSON = {
    "a.jsonl": lambda rows: "\n".join(map(dump, rows)),
    "a.ndjson": lambda rows: "\r\n\r\n".join(map(dump, rows)),
    "array.jsonl": dump,
    "a.json": lambda rows: json.dumps(rows, indent=1),
    "wrapped.json": lambda rows: dump({"data": rows, "of": 1}),
    "pretty.json": lambda rows: "".join(json.dumps(row, indent=2) for row in rows),
}
CONTAINERS = [*JSON, "a.parquet", "saved", "a.json.gz", *(f"a.jsonl{packed}" for packed in PACK)]


def hub_library():
    """Import it where it is used: every worker of pytest collects this file."""
    import datasets

    datasets.disable_progress_bars()
    return datasets


def write_rows(path, rows):
    """Write rows as a path is named, and return it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.name == "saved":
        hub_library().Dataset.from_list(rows).save_to_disk(str(path))
    elif path.suffix == ".parquet":
        parquet.write_table(pyarrow.Table.from_pylist(rows), path)
    elif path.suffix == ".csv":
        with path.open("w", encoding="utf-8", newline="") as file:
            writer = csv.DictWriter(file, rows[0])
            writer.writeheader()
            writer.writerows(rows)
    else:
        name = path.name.removesuffix(path.suffix) if path.suffix in PACK else path.name
        written = JSON.get(name, JSON["a.jsonl"])(rows)
        path.write_bytes(PACK.get(path.suffix, bytes)(written.encode("utf-8", "surrogatepass")))
    return path

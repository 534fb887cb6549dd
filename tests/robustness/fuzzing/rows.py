"""Files of random rows, and what must come of each row: itself, or a broken one."""

import csv
import gzip
import io
import json

import pyarrow
from pyarrow import parquet

from newllm_core.data.sources.base import Document, Message

BROKEN = "broken"
ODD = [
    "é",
    "日本",
    "𝄞",
    "\u2028",
    "\x85",
    "\0",
    "\ufeff",
    '"',
    "\\",
    "\t",
    "\r\n",
    "\n",
    "null",
    " ",
]
JUNK = [
    "NaN",
    "-Infinity",
    "1e999",
    "9" * 5000,
    "-0.0",
    "true",
    "null",
    "[]",
    '"\\ud800"',
    '"x\ty"',
]
JUNK += [
    "[" * 150 + "]" * 150,
    '{"text": "no", "messages": [{"role": "user"}]}',
    '{"a": 1, "a": 2}',
]
NAMES = ["id", "meta", "TEXT", "text ", "", "é", "hash"]
NO_TEXTS = ["3", "1e999", "NaN", "null", "true", "[]", '["x"]', '{"text": "x"}', '"half \\udfff"']
ROLES = {"user": "user", "human": "user", "gpt": "assistant", "tool": "tool", "é": "é"}
DAMAGED = [
    "{",
    '{"text": "x"',
    "x",
    '{"text": }',
    '{"text": "a",, "b": 1}',
    "[" * 100_000,
    "\ufffd",
]
NO_OBJECTS = ["[]", "3", "null", '"text"', '["text"]']


def text(chance):
    words = (chance.choice([*ODD, "word"]) for _ in range(chance.randrange(12)))
    return " ".join(words)


def spelled(chance, value):
    """JSON of a value in one of its spellings."""
    return json.dumps(value, ensure_ascii=chance.random() < 0.5, indent=chance.choice([None, 1]))


def with_junk(chance, fields):
    """An object of these fields, written as JSON, and others among them."""
    taken = {json.loads(name) for name, _ in fields}
    junk = [
        (json.dumps(chance.choice(NAMES)), chance.choice(JUNK)) for _ in range(chance.randrange(4))
    ]
    fields = fields + [(name, value) for name, value in junk if json.loads(name) not in taken]
    chance.shuffle(fields)
    return "{" + ", ".join(f"{name}: {value}" for name, value in fields) + "}"


def text_row(chance):
    said = text(chance)
    fields = [('"text"', spelled(chance, said))]
    if chance.random() < 0.1:
        return '{"text": 1, ' + with_junk(chance, fields)[1:], Document(
            text=said
        )  # the last counts
    return with_junk(chance, fields), Document(text=said)


def chat_row(chance):
    turns = [(chance.choice(list(ROLES)), text(chance)) for _ in range(chance.randrange(4))]
    names = chance.choice([("role", "content"), ("from", "value")])
    written = []
    for role, content in turns:
        value = content
        if chance.random() < 0.2:
            value = [{"type": "text", "text": part} for part in content.partition(" ")]
        written.append({names[0]: role, names[1]: value})
    column = chance.choice(['"messages"', '"conversations"'])
    messages = tuple(Message(ROLES[role], content) for role, content in turns)
    return with_junk(chance, [(column, spelled(chance, written))]), Document(messages=messages)


def instruction_row(chance):
    asked, answer = text(chance), text(chance)
    fields = [('"instruction"', spelled(chance, asked)), ('"output"', spelled(chance, answer))]
    messages = (Message("user", asked), Message("assistant", answer))
    return with_junk(chance, fields), Document(messages=messages)


def bad_row(chance):
    value = chance.choice(NO_TEXTS)
    turn = f'{{"role": "user", "content": {value}}}'
    if value.startswith("[]"):
        turn = f'{{"role": {value}, "content": "x"}}'
    name, value = chance.choice(
        [('"text"', value), ('"messages"', f"[{turn}]"), ('"other"', value)]
    )
    return with_junk(chance, [(name, value)]), BROKEN


def no_object(chance):
    return chance.choice(NO_OBJECTS), BROKEN


def damaged_row(chance):
    return chance.choice(DAMAGED), BROKEN


def json_file(chance):
    """Name, bytes and expected documents of a file of JSON."""
    name = chance.choice(
        ["a.jsonl", "a.ndjson", "array.json", "a.json", "a.jsonl.gz", "array.jsonl"]
    )
    makers = [text_row, text_row, chat_row, instruction_row, bad_row, no_object]
    in_lines = not name.startswith("array") and "jso" in name and name != "a.json"
    if in_lines:
        makers.append(damaged_row)
    rows = [text_row(chance), *(chance.choice(makers)(chance) for _ in range(chance.randrange(9)))]
    if in_lines:
        rows = [(" ".join(row.split("\n")), expected) for row, expected in rows]
    elif name == "a.json":  # an array among objects would be one of rows
        rows = [(row, expected) for row, expected in rows if not row.startswith("[")]
    end = chance.choice(["\n", "\r\n", "\n\n \n"])
    written = f",{end}".join(row for row, _ in rows) if name.startswith("array") else ""
    written = f"[{written}]" if written else end.join(row for row, _ in rows)
    data = chance.choice([b"", b"\xef\xbb\xbf"]) + written.encode("utf-8", "surrogatepass")
    return name, gzip.compress(data) if name.endswith("gz") else data, [e for _, e in rows]


def csv_file(chance):
    texts = [text(chance) for _ in range(chance.randrange(1, 9))]
    file = io.StringIO(newline="")
    csv.writer(file, chance.choice(["excel", "unix"])).writerows(
        [["id", "text"], *([f"{n}", said] for n, said in enumerate(texts))]
    )
    return "a.csv", file.getvalue().encode(), [Document(text=said) for said in texts]


def parquet_file(chance):
    values = [chance.choice([text(chance).encode(), b"\xff\xfe", None]) for _ in range(9)]
    column = pyarrow.array(values, pyarrow.binary()).view(pyarrow.string())
    when = pyarrow.array([chance.randrange(1 << 52) for _ in values], pyarrow.timestamp("s"))
    file = io.BytesIO()
    parquet.write_table(pyarrow.table({"when": when, "text": column}), file)
    expected = [
        BROKEN if value in (None, b"\xff\xfe") else Document(text=value.decode())
        for value in values
    ]
    return "a.parquet", file.getvalue(), expected


def random_file(chance):
    return chance.choice([json_file] * 6 + [csv_file, parquet_file])(chance)

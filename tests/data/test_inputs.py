"""How people bring text: compressed, on stdin, in other encodings, under any name; and advice."""

import gzip
import json
import os

import numpy as np
import pytest

from newllm_core.data.prepared import open_dataset
from newllm_core.data.sources.text_file import TextFile, TextFileOptions, split_chunks
from newllm_core.data.sources.wikitext import WikiText
from newllm_core.errors import ConfigError, InputError
from tests.cli.inside import CommandLine, save_checkpoint

from .cases import BLANK, Recorder, assert_one_line_error, documents_of, read, run, write
from .containers import PACK

LINES = "".join(f"line {i} of é text\n\n" for i in range(30))
TEXT = ("--source=text-file", r"--document-separator=\n\n")
PARTS = {".gz": lambda data: gzip.compress(data[:50]) + gzip.compress(data[50:])}


def texts(path, **options):
    return [document.text for document in read(TextFile, path, **options)]


@pytest.fixture
def newllm(monkeypatch, capsys, tmp_path):
    monkeypatch.chdir(tmp_path)
    return CommandLine(monkeypatch, capsys)


@pytest.mark.parametrize(("ending", "pack"), (PACK | PARTS).items())
def test_compressed_text_is_the_text(tmp_path, ending, pack):
    path = tmp_path / f"a.txt{ending}"
    data = pack(LINES.encode())
    path.write_bytes(data)
    assert texts(path) == [LINES]
    for damaged in (data[:-9], b"plain text"):
        path.write_bytes(damaged)
        with assert_one_line_error(InputError, path, ending[1:]):
            texts(path)


def test_wikitext_may_be_compressed(tmp_path):
    for name in ("train.txt.gz", "valid.txt.gz"):
        (tmp_path / name).write_bytes(gzip.compress(b" \n = A = \n \n x \n"))
    splits = [document.split for document in WikiText(str(tmp_path)).documents()]
    assert splits == ["validation", "train"]


def test_stdin_is_read_like_a_file(newllm, tmp_path):
    write(tmp_path / "a.txt", "\ufeff" + LINES)
    rows = "".join(json.dumps({"text": f"row {i}"}) + "\n" for i in range(30))
    common = ("--vocab-size=300", "--val-token-policy=keep", "--json")
    separated = (*common, "--source=text-file", r"--document-separator=\n\n")
    from_file = newllm("prepare", *separated, "--input=a.txt", "--out=a").json
    piped = newllm("prepare", *separated, "--input=-", "--out=b", stdin=LINES.encode())
    assert piped.json["hash"] == from_file["hash"]
    done = newllm("prepare", *common, "--source=rows", "--input=-", "--out=c", stdin=rows.encode())
    assert done.json["splits"]["train"]["documents"] == 28
    packed = newllm("prepare", *separated, "--input=-", "--out=d", stdin=gzip.compress(b"text"))
    packed.one_line("stdin is compressed: pipe its text, as zcat FILE | newllm … does")
    with assert_one_line_error(ConfigError, "stdin"):
        run(tmp_path / "d", input="-", val_input="-")
    (tmp_path / "-").write_text("a file of that name|another", encoding="utf-8")
    assert texts("./-") == ["a file of that name|another"]


def test_evaluate_reads_stdin_and_compressed_text(newllm, tmp_path):
    save_checkpoint(tmp_path / "a.safetensors")
    write(tmp_path / "a.txt", LINES)
    (tmp_path / "a.txt.gz").write_bytes(gzip.compress(LINES.encode()))
    whole = newllm("evaluate", "a.safetensors", "--text=a.txt", "--json").json["text"]
    assert newllm("evaluate", "a.safetensors", "--text=a.txt.gz", "--json").json["text"] == whole
    piped = newllm("evaluate", "a.safetensors", "--text=-", "--json", stdin=LINES.encode())
    assert piped.json["text"] == whole
    assert whole["num_bytes"] == len(LINES.encode())


def test_every_command_that_reads_a_text_reads_other_encodings(newllm, tmp_path):
    path = save_checkpoint(tmp_path / "a.safetensors")
    write(tmp_path / "a.txt", LINES)
    (tmp_path / "b.txt").write_bytes(LINES.encode("cp1252"))
    (tmp_path / "c.txt").write_bytes(LINES.encode("utf-16"))
    few = ("--max-tokens=3", "--json")
    for command, option, others in (
        ("evaluate", "--text", ("--json",)),
        ("generate", "--prompt-file", few),
        ("contexts", "--text", ("--out=o.npy", "--overwrite", "--json")),
    ):
        found = []
        for name, encoding in (("a.txt", "utf-8"), ("b.txt", "cp1252"), ("c.txt", "utf-16")):
            line = (command, path, f"{option}={name}", *others)
            if encoding != "utf-8":  # the advice is followed
                with_advice = f"--encoding {encoding}"
                refused = newllm(*line)
                assert (refused.code, with_advice in refused.err) == (3, True), refused.err
            done = newllm(*line, f"--encoding={encoding}").json
            found.append({key: done[key] for key in done if key not in ("file", "text")})
            found[-1]["text"] = done["text"] if command != "contexts" else None
        assert found[0] == found[1] == found[2]
        none = newllm(command, path, f"{option}=b.txt", *others, "--encoding=klingon")
        assert (none.code, "--encoding is 'klingon'" in none.err) == (2, True)
    for command, option in (("evaluate", "--text"), ("generate", "--prompt-file")):
        done = newllm(command, path, "--encoding=cp1252")
        assert (done.code, option in done.err) == (2, True)


def test_home_folders_are_found(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    write(tmp_path / "a.txt", "x")
    assert texts("~/a.txt") == ["x"]


@pytest.mark.parametrize("encoding", ["cp1252", "utf-16", "utf-16-be", "latin-1", "gb18030"])
def test_other_encodings(tmp_path, encoding):
    (tmp_path / "a.txt").write_bytes(LINES.encode(encoding))
    assert texts(tmp_path / "a.txt", encoding=encoding) == [LINES]


@pytest.mark.parametrize("name", ["klingon", "hex", "rot13", "a\0b", ""])
def test_encodings_that_are_none(tmp_path, name):
    with assert_one_line_error(ConfigError, "source.encoding", "cp1252"):
        TextFile("x", TextFileOptions(encoding=name))


@pytest.mark.parametrize("option", [("--source=rows", "a.jsonl"), (*TEXT, "a.txt")])
@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-32", "punycode"])
def test_text_that_is_not_in_the_encoding_given(newllm, tmp_path, option, encoding):
    *source, name = option
    write(tmp_path / name, b'{"text": "one"}\n{"text": "two"}\n"')
    done = newllm("prepare", *source, f"--input={name}", f"--encoding={encoding}")
    assert done.code == 3, done.err
    assert f"{name} is not {encoding}".lower() in done.err.lower()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("a\r\n\r\nb", ["a", "b"]),
        ("a\r\rb", ["a", "b"]),
        ("a\n \t\nb", ["a", "b"]),
        ("a\r\n  \r\nb\r\nc", ["a", "b\r\nc"]),
        ("a\r\nb", ["a\r\nb"]),  # one line end, not two
        ("a \n\n b", ["a ", " b"]),
        ("a\n" + " " * 500 + "\nb", ["a\n" + " " * 500 + "\nb"]),
    ],
)
@pytest.mark.parametrize("separator", ["\n\n", "\r\n\r\n", "\n \n"])
def test_line_ends_of_separators_are_those_of_any_system(text, expected, separator):
    for size in (1, 2, 3, 1000):
        chunks = [text[first : first + size] for first in range(0, len(text), size)]
        assert [part for part, _ in split_chunks(chunks, separator, 10_000)] == expected


def test_names_of_files_are_bytes(tmp_path):
    source = tmp_path / os.fsdecode(b"caf\xe9.txt")
    write(source, LINES)
    out = tmp_path / os.fsdecode(b"out\xff")
    progress = Recorder()
    info = run(out, BLANK, input=source, progress=progress, keep=True)
    assert info.source.input == str(tmp_path / "caf\\udce9.txt")
    assert open_dataset(out).info.data["input"] == info.source.input
    assert any("caf\\udce9.txt" in label for label in progress.done)
    folder = tmp_path / os.fsdecode(b"\xfe")
    write(folder / os.fsdecode(b"\xfd.txt"), LINES)
    assert run(tmp_path / "b", BLANK, source="text-dir", input=folder, keep=True).hash == info.hash
    source.unlink()
    with assert_one_line_error(InputError, "caf\\udce9.txt"):
        run(tmp_path / "c", input=source)


@pytest.mark.parametrize("batch", [64, 1 << 20])
@pytest.mark.parametrize("text", [LINES, LINES.replace("\n", " "), "é日" * 200])
def test_one_long_text_is_divided_by_position(tmp_path, text, batch, monkeypatch):
    monkeypatch.setattr("newllm_core.data.spool.BATCH_BYTES", batch)
    progress = Recorder()
    path = write(tmp_path / "a.txt", text)
    shares = {"val_fraction": 0.2, "test_fraction": 0.1}
    run(tmp_path / "out", input=path, progress=progress, keep=True, **shares)
    parts = [part for split in documents_of(tmp_path / "out") for part in split]
    assert "".join(parts) == text
    lengths = [len(part) / len(text) for part in parts]
    assert lengths == pytest.approx([0.7, 0.2, 0.1], abs=0.05)
    assert all(part[-1] in "\n 日é" for part in parts)
    said = [line for line in progress.messages if "is one document" in line]
    assert [line.rpartition(" ")[2] for line in said] == ["validation", "test"]


def test_ids_of_one_document_are_divided_by_position(tmp_path, byte_tokenizer):
    path = tmp_path / "train.bin"
    np.arange(200, dtype="<u2").tofile(path)
    run(tmp_path / "out", source="tokens", input=path, tokenizer=byte_tokenizer, keep=True)
    dataset = open_dataset(tmp_path / "out")
    assert dataset.train.tokens.tolist() == [*range(190)]
    assert dataset.validation.tokens.tolist() == [*range(190, 200)]


def test_splits_that_exist_are_used_whatever_is_read_of_them(tmp_path):
    for name in ("train", "valid", "test"):
        articles = (f" \n = {name} {i} = \n \n text {i} . \n" for i in range(9))
        write(tmp_path / f"{name}.txt", "".join(articles))
    info = run(tmp_path / "out", source="wikitext", input=tmp_path, max_documents=6, keep=True)
    counts = {split: found.documents for split, found in info.splits.items()}
    assert counts == {"train": 6, "validation": 6, "test": 6}
    train, validation, test = map("".join, documents_of(tmp_path / "out"))
    assert ("train 5" in train, "valid 5" in validation, "test 5" in test) == (True, True, True)
    progress = Recorder()
    other = write(tmp_path / "other.txt", " \n = O = \n \n text . \n")
    inputs = {"source": "wikitext", "input": tmp_path, "val_input": other}
    run(tmp_path / "b", keep=True, progress=progress, **inputs)
    assert any("9 validation documents" in line for line in progress.messages)


def test_much_that_is_dropped_is_a_warning(tmp_path, byte_tokenizer):
    train = write(tmp_path / "a.txt", "ab\n")
    val = write(tmp_path / "b.txt", "aba\n" + "x\n" * 199)
    common = {"input": train, "tokenizer": byte_tokenizer}
    progress = Recorder()
    run(tmp_path / "out", val_input=val, progress=progress, **common)
    (warning,) = progress.warnings
    assert "99.50% of validation lines" in warning
    write(val, "aba\n" * 199 + "x\n")
    run(tmp_path / "b", val_input=val, progress=progress, **common)
    assert len(progress.warnings) == 1
    assert any("0.50% of validation lines" in line for line in progress.messages)


FILES = {
    "utf16.txt": LINES.encode("utf-16"),
    "cp1252.txt": LINES.encode("cp1252"),
    "crlf.txt": LINES.replace("\n", "\r\n").encode(),
    "same.txt": b"one\n\none\n\none",
    "other.txt": b"two one",
    "rows.jsonl": b'{"id": "1", "body": "one"}\n{"id": "2", "body": "two"}\n',
    "rows.json": b'{"text": "one"}\n{"text": \n{"text": "two"}\n',
    "rows.txt": b'{"text": "one"}\n{"text": "two"}\n',
    "half.jsonl": b'{"text": "one"}\n{"text": "two"}\n{"text": \n',
    "latin.jsonl": b'{"text": "caf\xe9"}\n{"text": "two"}\n',
    "unseen.txt": b"zz",
    "ids.json": b"[[1], [2]]",
    "notes/a.md": b"one\n\ntwo",
}
ROWS = ("--source=rows",)


@pytest.mark.parametrize(
    ("arguments", "advice", "followed"),
    [
        ((*TEXT,), "--input PATH", ("--input=crlf.txt",)),
        ((*TEXT, "--input=utf16.txt"), "--encoding utf-16", ("--encoding=utf-16",)),
        ((*TEXT, "--input=cp1252.txt"), "--encoding cp1252", ("--encoding=cp1252",)),
        ((*TEXT, "--input=same.txt"), "--val-input", ("--val-input=other.txt",)),
        ((*TEXT, "--input=crlf.txt", "--out=there"), "--overwrite", ("--overwrite",)),
        (
            (*TEXT, "--input=same.txt", "--val-input=unseen.txt"),
            "--val-token-policy keep",
            ("--val-token-policy=keep",),
        ),
        (
            ("--source=text-dir", "--input=notes"),
            "set source.pattern",
            ("--set=source.pattern=*.md", r"--document-separator=\n\n"),
        ),
        ((*ROWS, "--input=rows.jsonl"), "set source.text", ("--set=source.text=body",)),
        ((*ROWS, "--input=rows.txt"), "source.format=jsonl", ("--set=source.format=jsonl",)),
        (
            (*ROWS, "--input=rows.json"),
            "named .jsonl",
            ("--set=source.format=jsonl", "--max-broken-share=.5"),
        ),
        (
            (*ROWS, "--input=half.jsonl"),
            "data.max_broken_share",
            ("--set=data.max_broken_share=.5",),
        ),
        ((*ROWS, "--input=latin.jsonl"), "source.encoding", ("--set=source.encoding=latin-1",)),
        (
            ("--source=tokens", "--input=ids.json"),
            "--tokenizer tokenizer.json",
            ("--tokenizer=there/tokenizer.json",),
        ),
    ],
)
def test_advice_leads_somewhere(newllm, tmp_path, arguments, advice, followed):
    for name, data in FILES.items():
        write(tmp_path / name, data)
    start = ("prepare", *(() if "tokenizer" in advice else ("--vocab-size=300",)))
    keep = () if "policy" in advice else ("--val-token-policy=keep",)
    made = newllm(*start, *TEXT, "--input=crlf.txt", "--out=there", "--val-token-policy=keep")
    assert made.code == 0, made.err
    refused = newllm(*start, *arguments, *keep)
    assert refused.code in (2, 3), refused.err
    assert advice in refused.err
    helped = newllm(*start, *arguments, *keep, *followed)
    assert helped.code == 0, helped.err

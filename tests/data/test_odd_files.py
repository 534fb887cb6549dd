"""Files as spreadsheets, databases and other tools leave them."""

import gzip

import pyarrow
import pytest
from pyarrow import parquet

from newllm_core.data.sources.rows import Rows
from newllm_core.data.sources.text_dir import TextDir
from newllm_core.data.sources.text_file import TextFile
from newllm_core.data.sources.tokens import Tokens
from newllm_core.errors import InputError

from .cases import assert_one_line_error, read, write
from .containers import write_rows

TEXTS = ["a, b; c", "é | d", "e"]


def texts(path, **options):
    return [getattr(part, "text", part) for part in read(Rows, path, **options)]


@pytest.mark.parametrize(
    ("head", "mark"),
    [
        ("id;text", ";"),
        ("id|text", "|"),
        ("id\ttext", "\t"),
        ("id, text", ","),
        ("a, then b;id;text", ";"),
        ("sep=;\r\nid;text, said", ";"),
        ("\ufeffsep=\t\nid\ttext;,;", "\t"),
        ("sep=x,text", ","),
        ('sep=",text', ","),
        ('"question; optional; short",text', ","),
        ("PAR1,text", ","),
    ],
)
def test_separators_of_csv(tmp_path, head, mark):
    before = [""] * head.startswith("a, then")
    rows = [mark.join([*before, "1", f'"{text}"']) for text in TEXTS]
    (tmp_path / "a.csv").write_text("\n".join([head, *rows]), encoding="utf-8")
    column = head.splitlines()[-1].split(mark)[-1].strip()
    assert texts(tmp_path / "a.csv", text=column) == TEXTS


def test_spaces_after_every_separator_are_no_part_of_cells(tmp_path):
    for head, expected in (("id, text", ["a, b", "c"]), ("id,text", [" c"])):
        (tmp_path / "a.csv").write_text(f'{head}\n1, "a, b"\n2, c\n')
        found = texts(tmp_path / "a.csv", text="text")
        assert [text for text in found if isinstance(text, str)] == expected


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        (['1\t"Hello', "2\tb", '3\tbye"', "4\tz"], ['"Hello', "b", 'bye"', "z"]),
        (['1\t"Hello" she said', '2\t"lone', "3\tb", ""], ['"Hello" she said', '"lone', "b"]),
        (['1\t"a', 'b"', '2\t"c\td"', '3\t"e ""f"""'], ["a\nb", "c\td", 'e "f"']),
    ],
)
def test_quotes_in_tab_separated_text_take_no_rows(tmp_path, lines, expected):
    (tmp_path / "a.tsv").write_text("\n".join(["id\ttext", *lines, ""]))
    assert texts(tmp_path / "a.tsv", text="text") == expected


def test_lines_are_counted_from_the_one_for_excel(tmp_path):
    (tmp_path / "a.csv").write_text("sep=;\nid;text\n1;a\n2\n3;b\n")
    first, broken, last = texts(tmp_path / "a.csv")
    assert (first, last) == ("a", "b")
    assert "line 4 has 1 cells" in broken.problem


@pytest.mark.parametrize("name", ["a.csv", "a.jsonl", "a.json", "a.jsonl.gz"])
def test_rows_as_utf16_are_told_from_damaged_ones(tmp_path, name):
    text = "text\na\nb\n" if name == "a.csv" else '{"text": "a"}\n{"text": "b"}\n'
    data = text.encode("utf-16")
    (tmp_path / name).write_bytes(gzip.compress(data) if name.endswith("gz") else data)
    with assert_one_line_error(InputError, name, "--encoding utf-16"):
        texts(tmp_path / name)
    assert texts(tmp_path / name, encoding="utf-16") == ["a", "b"]


@pytest.mark.parametrize("kind", ["string", "large_string", "binary", "large_binary"])
@pytest.mark.parametrize("packed", [False, True])
def test_text_in_parquet_whatever_its_type_is(tmp_path, kind, packed):
    values = [text.encode() for text in TEXTS] if "binary" in kind else TEXTS
    column = pyarrow.array(values, getattr(pyarrow, kind)())
    column = column.dictionary_encode() if packed else column
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    assert texts(tmp_path / "a.parquet") == TEXTS


def test_bytes_that_are_no_text_break_their_row_alone(tmp_path):
    column = pyarrow.array([b"a", b"\xff\xd8 a picture", b"b"], pyarrow.binary())
    parquet.write_table(pyarrow.table({"text": column}), tmp_path / "a.parquet")
    first, broken, last = texts(tmp_path / "a.parquet")
    assert (first, last) == ("a", "b")
    assert "row 2 has 'text' that is bytes, which are not UTF-8" in broken.problem


def test_bytes_count_where_the_only_column_of_texts_is_guessed(tmp_path):
    columns = {
        "name": pyarrow.array(["n", "m"]),
        "content": pyarrow.array([b"\xe9", "é".encode()], pyarrow.binary()),
        "picture": pyarrow.array([b"\xff\xd8", b"\x89PNG"], pyarrow.binary()),
    }

    def of(*names):
        parquet.write_table(
            pyarrow.table({name: columns[name] for name in names}), tmp_path / "a.parquet"
        )
        return texts(tmp_path / "a.parquet")

    note, broken, text = of("content", "picture")
    assert "'content'" in note
    assert text == "é"
    assert "not UTF-8" in broken.problem
    assert of("name", "picture")[1:] == ["n", "m"]
    assert all("set source.text" in row.problem for row in of("name", "content"))


def test_columns_within_columns(tmp_path):
    rows = [{"data": {"text": "x", "n": {"deep": "y"}}, "a.b": "z"}, {"data": "q"}]
    write_rows(tmp_path / "a.jsonl", rows)
    for column, expected in (("data.text", "x"), ("data.n.deep", "y"), ("a.b", "z")):
        found, broken = texts(tmp_path / "a.jsonl", text=column)
        assert found == expected
        assert f"row 2 has no column {column!r}" in broken.problem
    (broken, _) = texts(tmp_path / "a.jsonl", text="none")
    assert "(it has data.text, data.n, a.b)" in broken.problem


@pytest.mark.parametrize(
    ("source", "name"), [(TextDir, "0.txt"), (Rows, "0.jsonl"), (Tokens, "0.ds")]
)
def test_a_link_to_what_is_gone_is_not_left_out(tmp_path, source, name):
    write(tmp_path / f"a{name[1:]}", b'{"text": "one"}')
    (tmp_path / name).symlink_to("gone")
    with assert_one_line_error(InputError, tmp_path / name):
        read(source, tmp_path)


def test_hidden_files_are_no_text(tmp_path):
    for name in ("a.txt", ".a.txt", ".git/b.txt", "sub/.ipynb_checkpoints/c.txt", "sub/d.txt"):
        write(tmp_path / ".home" / "texts" / name, name)
    found = read(TextDir, tmp_path / ".home" / "texts")
    assert [part.text for part in found] == ["a.txt", "sub/d.txt"]


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"PK\3\4\x14\0\6\0", "zip archive"),
        (b"%PDF-1.7\n%\xe2\xe3\n", "PDF"),
        (b"PAR1\x15\4\x15 \x15", "newllm prepare --source rows"),
        (gzip.compress(b"text", mtime=0), ".gz"),
    ],
)
def test_what_is_no_text_is_named(tmp_path, data, words):
    for name in ("a.txt", "a.jsonl", "a.csv"):
        path = write(tmp_path / name, data)
        # An encoding in which every byte is a letter must not help.
        with assert_one_line_error(InputError, name, words):
            read(TextFile if name == "a.txt" else Rows, path, encoding="latin-1")

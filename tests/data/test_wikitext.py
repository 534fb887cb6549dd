import pytest
from hypothesis import given
from hypothesis import strategies as st

from newllm_core.data.measures import count_words
from newllm_core.data.sources.wikitext import WikiText, articles, split_files
from newllm_core.errors import InputError

from .cases import assert_one_line_error, joined
from .containers import write_rows

ONE = " \n = One = \n \n Text of one . \n \n = = Part = = \n \n = Goals ; A = \n More . \n"
TWO = " \n = Two words = \n \n Text é . \n"


def found(path):
    return [(document.split, document.text) for document in WikiText(str(path)).documents()]


def write_parquet(path, texts, column="text"):
    return write_rows(path, [{column: text} for text in texts])


def test_articles_start_at_titles_between_blank_lines_only():
    assert joined(articles((ONE + TWO).splitlines(keepends=True))) == [ONE, TWO]


def test_a_title_may_open_the_file_and_close_it():
    assert joined(articles([" = A = \n", " \n", "x\n"])) == [" = A = \n \nx\n"]
    assert joined(articles(["x\n", " \n", " = A = \n"])) == ["x\n \n = A = \n"]


def test_an_article_without_text_is_still_one():
    lines = [" \n", " = A = \n", " \n", " = B = \n", " \n", "x\n"]
    assert joined(articles(lines)) == [" \n = A = \n", " \n = B = \n \nx\n"]


def test_text_before_the_first_title_is_a_document():
    assert joined(articles(["x\n", *TWO.splitlines(keepends=True)])) == ["x\n", TWO]


LINES = st.sampled_from([" \n", " = A = \n", " = = B = = \n", "x\n", "\r\n", " = C = \r\n"])


@given(st.lists(LINES))
def test_no_line_is_lost(lines):
    text = "".join(lines)
    assert "".join(joined(articles(lines))) == (text if text.strip() else "")


def test_line_ends_stay_as_they_are(tmp_path):
    path = tmp_path / "windows.txt"
    content = (ONE + TWO).replace("\n", "\r\n").encode("utf-8")
    path.write_bytes(content)
    documents = found(path)
    assert len(documents) == 2
    assert "".join(text for _, text in documents).encode("utf-8") == content


def test_parquet_rows_of_the_hub_give_the_original_text(tmp_path):
    rows = ["" if line == " \n" else line for line in (ONE + TWO).splitlines(keepends=True)]
    path = write_parquet(tmp_path / "rows.parquet", rows)
    assert found(path) == [(None, ONE), (None, TWO)]
    without_ends = write_parquet(tmp_path / "bare.parquet", [row.rstrip("\n") for row in rows])
    assert found(without_ends) == [(None, ONE), (None, TWO)]


@pytest.mark.parametrize(
    "names",
    [
        ("train.txt", "valid.txt", "test.txt"),
        ("wiki.train.tokens", "wiki.valid.tokens", "wiki.test.tokens"),
        ("wiki.train.raw", "wiki.validation.raw", "LICENSE.txt"),
        ("Train.txt", "my_val.txt", "training-notes.md"),
    ],
)
def test_folders_come_divided_and_other_files_are_not_read(tmp_path, names):
    for name, text in zip(names, (ONE, TWO, ONE + "x\n"), strict=True):
        (tmp_path / name).write_text(text, encoding="utf-8")
    last = [("test", ONE + "x\n")] if "test" in names[2] else []
    assert found(tmp_path) == [("validation", TWO), *last, ("train", ONE)]


def test_a_folder_of_parquet_shards(tmp_path):
    for number, text in enumerate((ONE, TWO)):
        write_parquet(tmp_path / f"train-0000{number}-of-00002.parquet", [text])
    write_parquet(tmp_path / "validation-00000-of-00001.parquet", [TWO])
    write_parquet(tmp_path / "test-00000-of-00001.parquet", [ONE])
    assert found(tmp_path) == [("validation", TWO), ("test", ONE), ("train", ONE), ("train", TWO)]


def test_files_that_cannot_be_told_apart_or_have_no_text(tmp_path):
    (tmp_path / "train.txt").write_text(ONE, encoding="utf-8")
    write_parquet(tmp_path / "train.parquet", [ONE], column="body")
    with assert_one_line_error(InputError, tmp_path, "train.parquet, train.txt"):
        split_files(tmp_path)
    with assert_one_line_error(InputError, tmp_path / "train.parquet", "'text'", "body"):
        found(tmp_path / "train.parquet")


def test_real_wikitext_has_its_published_articles_and_words(shared_data):
    documents = found(shared_data / "wikitext-2")
    splits = [split for split, _ in documents]
    assert (splits.count("train"), splits.count("validation")) == (600, 60)
    words = sum(count_words(text) for split, text in documents if split == "validation")
    assert words == 217_646
    bytes_of_train = sum(len(t.encode("utf-8")) for split, t in documents if split == "train")
    assert bytes_of_train == (shared_data / "wikitext-2" / "train.txt").stat().st_size

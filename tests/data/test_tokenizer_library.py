"""What the library does with a `tokenizer.json` of somebody else."""

import os
import threading
import time

from tokenizers import normalizers

from newllm_core.data.prepared import open_dataset
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError

from .cases import assert_one_line_error, run, word_level, write


def test_what_others_print_while_a_foreign_tokenizer_works_arrives(capfd):
    tokenizer = TextTokenizer.adopt(word_level("?", "a").to_str())

    def report():
        for _ in range(50):
            os.write(2, b".")
            time.sleep(0.001)

    reporter = threading.Thread(target=report)
    reporter.start()
    while reporter.is_alive():
        tokenizer.decode(tokenizer.encode("a b " * 1000))
    assert capfd.readouterr().err == "." * 50


def test_a_panic_is_one_line():
    tokenizer = word_level("?", "a")
    tokenizer.normalizer = normalizers.Sequence(
        [normalizers.Replace("", "_"), normalizers.Lowercase()]
    )
    with assert_one_line_error(InputError, "the tokenizer failed: index out of bounds"):
        TextTokenizer.adopt(tokenizer.to_str()).encode("a b")


def test_one_that_no_checkpoint_has_room_for_is_refused_before_any_work(tmp_path, monkeypatch):
    path = write(tmp_path / "tokenizer.json", word_level("?", "a", "b").to_str())
    text = write(tmp_path / "a.txt", "a b\n\nb a")
    options = {"input": text, "tokenizer": path, "options": {"document_separator": r"\n\n"}}
    run(tmp_path / "out", **options)
    tokenizer = (tmp_path / "out" / "tokenizer.json").read_text("utf-8")
    TextTokenizer.from_json(tokenizer)
    limit = len(tokenizer.encode()) - 1
    monkeypatch.setattr("newllm_core.data.tokenizer.LARGEST_METADATA", limit)
    words = f"a tokenizer of {limit + 1:,} bytes", f"room for {limit:,}", "smaller vocabulary"
    with assert_one_line_error(InputError, *words):
        run(tmp_path / "new", **options)
    with assert_one_line_error(InputError, *words):  # as every training begins
        open_dataset(tmp_path / "out")

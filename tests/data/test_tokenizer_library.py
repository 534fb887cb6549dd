"""What the library does with a `tokenizer.json` of somebody else."""

import os
import threading
import time

from tokenizers import normalizers

from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import InputError

from .cases import assert_one_line_error, word_level


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

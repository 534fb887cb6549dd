"""Tokenizers to choose from: trained here, GPT-2's, or any tokenizer.json."""

import json
import os
import subprocess
import sys
import threading
import time

import pytest
from tokenizers import decoders, pre_tokenizers

from newllm_core.config import DataConfig
from newllm_core.data.make_tokenizer import load_base, train_bpe
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.data.tokenizer_library import panics_contained
from newllm_core.errors import ConfigError, InputError

from .cases import assert_one_line_error, word_level, write


def test_trained_vocabulary_has_the_size_asked_for_control_tokens_included(bpe):
    assert bpe.vocab_size == 270
    assert bpe.base_vocab_size == 267
    assert bpe.end_id == 267
    assert bpe.role_ids == {"assistant": 268, "user": 269}


def test_training_learns_the_most_frequent_pair(bpe):
    assert len(bpe.encode(" the")) == 1
    assert len(bpe.encode(" xyz")) == 4


def test_vocabulary_without_room_for_bytes_is_refused():
    with assert_one_line_error(ConfigError, "259", "data.vocab_size is 258"):
        train_bpe(["a"], 258, {"user", "assistant"})


def test_training_is_the_same_in_another_process(bpe):
    code = (
        "from newllm_core.data.make_tokenizer import train_bpe; import sys;"
        "texts = ['the cat sat on the mat.\\nthe dog sat on the log.\\n'] * 20;"
        "sys.stdout.write(train_bpe(texts, 270, {'user', 'assistant'}).to_json())"
    )
    environment = {**os.environ, "PYTHONHASHSEED": "7", "RAYON_NUM_THREADS": "1"}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, check=True, env=environment
    )
    assert done.stdout.decode("utf-8") == bpe.to_json()


def write_gpt2(folder, vocabulary_name, merges_name):
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    vocabulary = {letter: index for index, letter in enumerate([*alphabet, "th", "<|endoftext|>"])}
    write(folder / vocabulary_name, json.dumps(vocabulary))
    write(folder / merges_name, "#version: 0.2\nt h\n")
    return folder


@pytest.mark.parametrize("names", [("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe")])
@pytest.mark.parametrize("given_name", ["", 0, 1])
def test_gpt2_files_are_read_by_folder_or_either_file(tmp_path, names, given_name):
    folder = write_gpt2(tmp_path / "gpt2", *names)
    path = folder if given_name == "" else folder / names[given_name]
    base = load_base(DataConfig(tokenizer="gpt2", tokenizer_path=str(path)))
    made = TextTokenizer.adopt(base)
    assert (made.vocab_size, made.base_vocab_size, made.end_id) == (258, 258, 257)
    assert made.encode("th") == [256]
    assert made.decode(made.encode("é <|endoftext|>")) == "é <|endoftext|>"


def test_real_gpt2_ids(shared_data):
    path = str(shared_data / "gpt2-tokenizer")
    made = TextTokenizer.adopt(load_base(DataConfig(tokenizer="gpt2", tokenizer_path=path)))
    assert (made.vocab_size, made.base_vocab_size, made.end_id) == (50257, 50257, 50256)
    assert made.encode("Hello world") == [15496, 995]
    assert 50256 not in made.encode("<|endoftext|>")


def test_any_tokenizer_json_by_path_or_folder(tmp_path):
    tokenizer = word_level("?", "a")
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.save(str(tmp_path / "tokenizer.json"))
    for path in (tmp_path, tmp_path / "tokenizer.json"):
        base = load_base(DataConfig(tokenizer=str(path)))
        assert TextTokenizer.adopt(base).encode("a b") == [1, 0]


def test_bpe_needs_no_files():
    assert load_base(DataConfig()) is None


def test_tokenizer_errors(tmp_path):
    with assert_one_line_error(InputError, tmp_path / "no", "does not exist", "bpe, gpt2"):
        load_base(DataConfig(tokenizer=str(tmp_path / "no")))
    with assert_one_line_error(InputError, "data.tokenizer_path is gpt2, which", "leave it out"):
        load_base(DataConfig(tokenizer="gpt2", tokenizer_path="gpt2"))
    with assert_one_line_error(InputError, tmp_path, "vocab.json and merges.txt"):
        load_base(DataConfig(tokenizer="gpt2", tokenizer_path=str(tmp_path)))
    with assert_one_line_error(ConfigError, "tokenizer_path", "gpt2"):
        load_base(DataConfig(tokenizer_path=str(tmp_path)))
    broken = write(tmp_path / "tokenizer.json", '{"model": 3}')
    with assert_one_line_error(InputError, broken, "not a tokenizer.json"):
        load_base(DataConfig(tokenizer=str(broken)))
    broken.write_bytes(b"\xff\xfe")
    with assert_one_line_error(InputError, broken, "not UTF-8"):
        load_base(DataConfig(tokenizer=str(broken)))
    (tmp_path / "vocab.json").write_text("[]", encoding="utf-8")
    (tmp_path / "merges.txt").write_text("t", encoding="utf-8")
    with assert_one_line_error(InputError, tmp_path / "vocab.json"):
        load_base(DataConfig(tokenizer="gpt2", tokenizer_path=str(tmp_path / "vocab.json")))


def test_gpt2_without_files_and_offline_says_what_to_do(tmp_path, monkeypatch):
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda *arguments: None)
    with assert_one_line_error(InputError, "gpt2", "--tokenizer-path", "HF_HUB_OFFLINE"):
        load_base(DataConfig(tokenizer="gpt2"))


def test_threads_that_silence_the_library_together_leave_stderr_as_it_was():
    before, began = os.fstat(2), threading.Event()

    def first():
        with panics_contained():
            began.set()
            time.sleep(0.1)

    def second():
        began.wait()
        with panics_contained():
            time.sleep(0.2)

    threads = [threading.Thread(target=work) for work in (first, second)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    after = os.fstat(2)
    assert (after.st_dev, after.st_ino) == (before.st_dev, before.st_ino)

"""Tokenizers to choose from: a BPE trained here, GPT-2's, or any `tokenizer.json`."""

import os
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.config import DataConfig
from newllm_core.data.dataset_info import TOKENIZER_FILE
from newllm_core.data.hub import asking_hub
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.data.tokenizer_library import LARGEST_ID, panics_contained
from newllm_core.errors import ConfigError, InputError, reason
from newllm_core.files.from_strangers import read_text
from newllm_core.files.strict_json import parse_json

if TYPE_CHECKING:
    from tokenizers import Tokenizer, models

BYTES = 256
SAMPLE = "It's a text\nof 3 lines,\t\u00e9 \u4e00 \U0001d11e.\n"
GPT2_FILES = (("vocab.json", "merges.txt"), ("encoder.json", "vocab.bpe"))


def load_base(config: DataConfig) -> str | None:
    """Return the `tokenizer.json` that `config` asks for; None for a BPE, which is trained.

    `ConfigError` for a setting of another tokenizer, `InputError` for files that cannot be had.
    """
    if config.tokenizer_path is not None and config.tokenizer != "gpt2":
        raise ConfigError(
            f"data.tokenizer_path is for the gpt2 tokenizer, but data.tokenizer is "
            f"{config.tokenizer!r}: leave it out, or set data.tokenizer to gpt2"
        )
    if config.tokenizer == "bpe":
        return None
    if config.vocab_size != DataConfig.vocab_size:
        raise ConfigError(
            f"data.vocab_size is of a bpe that is trained, but data.tokenizer is "
            f"{config.tokenizer!r}, which has its own: leave one out"
        )
    if config.tokenizer == "gpt2" and config.tokenizer_path is None:
        return _gpt2_from_hub()
    path = Path(config.tokenizer_path or config.tokenizer)
    if not os.path.exists(path):  # also for a name that cannot be
        key, wanted = "tokenizer", "bpe, gpt2, or a file tokenizer.json"
        if config.tokenizer_path is not None:
            key, wanted = "tokenizer_path", "the folder of GPT-2's tokenizer, or leave it out"
        raise InputError(f"data.{key} is {path}, which does not exist: give {wanted}")
    text = _from_path(path)
    try:
        TextTokenizer.adopt(text).encode(SAMPLE)  # some failures show only then
    except InputError as error:
        raise InputError(f"tokenizer {path}: {error}") from error
    return text


def train_bpe(texts: Iterable[str], vocab_size: int, roles: Collection[str]) -> TextTokenizer:
    """Train a byte-level BPE with `vocab_size` tokens, control tokens included; or fewer.

    `ConfigError` if `vocab_size` has no room for bytes and control tokens.
    """
    from tokenizers import models, pre_tokenizers, trainers

    control = 1 + len(set(roles))
    if vocab_size < BYTES + control:
        raise ConfigError(
            f"data.vocab_size is {vocab_size}: at least {BYTES + control} "
            f"for {BYTES} bytes, the end token and {control - 1} chat roles"
        )
    tokenizer = _byte_level(models.BPE())
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size - control,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(texts, trainer)
    return TextTokenizer.adopt(tokenizer.to_str(), roles)


def _from_path(path: Path) -> str:
    """Return the `tokenizer.json` of a file or folder, or one made of GPT-2's two files."""
    folder = path if os.path.isdir(path) else path.parent
    whole = path / TOKENIZER_FILE if os.path.isdir(path) else path
    pairs = [pair for pair in GPT2_FILES if os.path.isdir(path) or path.name in pair]
    if os.path.exists(whole) and (os.path.isdir(path) or not pairs):
        return read_text(whole, "tokenizer")
    for vocabulary, merges in pairs:
        if os.path.exists(folder / vocabulary) and os.path.exists(folder / merges):
            return _from_gpt2_files(folder / vocabulary, folder / merges)
    names = ", or ".join(" and ".join(pair) for pair in pairs)
    raise InputError(f"{folder} lacks the files of a tokenizer: {TOKENIZER_FILE}, or {names}")


def _from_gpt2_files(vocabulary: Path, merges: Path) -> str:
    from tokenizers import models

    read_text(merges, "part of a tokenizer")  # that it is text of a size that can be held
    try:
        ids = parse_json(read_text(vocabulary, "part of a tokenizer"))
        if not isinstance(ids, dict) or not all(
            type(number) is int and 0 <= number < LARGEST_ID for number in ids.values()
        ):  # the library makes room for the largest one, and ends the process if it cannot
            raise ValueError(f"not every token has an id below {LARGEST_ID:,}")
        with panics_contained():
            return _byte_level(models.BPE.from_file(str(vocabulary), str(merges))).to_str()
    except Exception as error:  # tokenizers raises bare Exception
        raise InputError(
            f"{vocabulary} and {merges} are not GPT-2's vocabulary and merges: {reason(error)}"
        ) from error


def _byte_level(model: "models.BPE") -> "Tokenizer":
    """Return a tokenizer with GPT-2's rule for words."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers

    tokenizer = Tokenizer(model)
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


def _gpt2_from_hub() -> str:
    from huggingface_hub import hf_hub_download, try_to_load_from_cache

    path = try_to_load_from_cache("gpt2", TOKENIZER_FILE)
    if not isinstance(path, str):
        with asking_hub("the gpt2 tokenizer", "give its files with --tokenizer-path PATH"):
            path = hf_hub_download("gpt2", TOKENIZER_FILE)
    return Path(path).read_text(encoding="utf-8")

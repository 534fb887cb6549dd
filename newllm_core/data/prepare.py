"""`prepare`: from a source to a folder of token files. Same input and options, same bytes."""

import dataclasses
from collections.abc import Iterable, Iterator
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from newllm_core.config import Config, DataConfig
from newllm_core.data.dataset_info import INFO_FILE, TOKENIZER_FILE, DatasetInfo
from newllm_core.data.division import divide
from newllm_core.data.documents import extent, of_split
from newllm_core.data.make_tokenizer import load_base, train_bpe
from newllm_core.data.measures import contents, count_bytes
from newllm_core.data.pieces import cut_at_words
from newllm_core.data.policy import ValidationPolicy
from newllm_core.data.publish import NEW, publishing
from newllm_core.data.reading import open_source, read_source
from newllm_core.data.sources.opening import STDIN
from newllm_core.data.split_encoder import SplitEncoder, smallest_dtype, write_file
from newllm_core.data.spool import Spool
from newllm_core.data.text_counts import lost_text_in_words
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import ConfigError, InputError
from newllm_core.files.escapes import escaped
from newllm_core.runtime.progress import Progress, Silent

if TYPE_CHECKING:
    import numpy as np

# The trainer buffers 256 texts, so long ones are cut.
TRAINING_PIECE_CHARACTERS = 1 << 16


def prepare(
    config: Config, out: Path, *, overwrite: bool = False, progress: Progress | None = None
) -> DatasetInfo:
    """Read the sources of `config.data` and write a prepared data set to the folder `out`.

    A validation source of the same name shares the options `config.source`. The new folder appears
    only when everything is written; `overwrite` replaces a prepared data set. `config.run.seed` is
    that of the choice of held-out documents.

    Raises:
        ConfigError: an unknown source or option.
        InputError: an input cannot be read or divided, or `out` is in the way.
        PluginError: a source cannot be loaded or breaks its contract.
    """
    progress, data, seed = progress or Silent(), config.data, config.run.seed
    train_source = open_source(data.source, data.input, config.source)
    val_source = None
    if data.val_source is not None or data.val_input is not None:
        name = data.val_source or data.source
        shared = config.source if name == data.source else {}
        val_source = open_source(name, data.val_input, shared)
    if data.input == data.val_input == str(STDIN):
        raise ConfigError(
            "data.input and data.val_input are both stdin: give one of them as a file"
        )
    base = load_base(data)
    with (
        publishing(out, overwrite=overwrite) as work,
        closing(Spool(work / "spool", seed)) as spool,
    ):
        documents, broken, blank = read_source(train_source, spool, data, progress)
        separate = None
        if val_source is not None:
            separate, more_broken, more_blank = read_source(val_source, spool, data, progress)
            broken, blank = broken + more_broken, blank + more_blank
            unused = int(of_split(documents, "validation").sum())
            if unused:
                progress.message(
                    f"{unused:,} validation documents of {train_source} give way to those given"
                )
        if len(documents) == 1:
            held_out = {"validation": 0.0 if val_source else data.val_fraction}
            held_out["test"] = data.test_fraction
            documents = spool.cut(documents, held_out)
            for split in held_out:
                share = extent(documents[of_split(documents, split)])[0] / extent(documents)[0]
                if share:
                    said = f"{train_source} is one document: its last {share:.1%} are {split}"
                    progress.message(said)
        division = divide(documents, separate, data.val_fraction, data.test_fraction)
        share = extent(division.validation)[0] / max(1, extent(documents)[0])
        is_chosen = separate is None and not of_split(documents, "validation").any()
        if is_chosen and share > 2 * data.val_fraction + 0.05:
            can_divide = hasattr(train_source.source.options, "document_separator")
            divide_them = "divide them with --document-separator, or " if can_divide else ""
            progress.warning(
                f"{share:.0%} of the text is validation, as documents stay whole: {divide_them}"
                "give --val-input"
            )
        del documents, separate  # the division has copies
        if base is None:
            tokenizer = _train_tokenizer(data, spool, division.train, progress)
        else:
            tokenizer = TextTokenizer.adopt(base, spool.roles)
        folder = work / NEW
        encoder = SplitEncoder(folder, spool, tokenizer, progress, data.min_space_share)
        train, seen = encoder.write_whole("train", division.train, str(train_source))
        policy = ValidationPolicy(data.val_token_policy, tokenizer, seen)
        validation = encoder.write_validation(division, policy, str(val_source or train_source))
        test = None
        if len(division.test):
            test, _ = encoder.write_whole("test", division.test, str(train_source))
        tokenizer_file = write_file(folder / TOKENIZER_FILE, tokenizer.to_json().encode())
        info = DatasetInfo(
            dtype=smallest_dtype(tokenizer.vocab_size),
            vocab_size=tokenizer.vocab_size,
            base_vocab_size=tokenizer.base_vocab_size,
            end_id=tokenizer.end_id,
            roles=tokenizer.role_ids,
            train=train,
            validation=validation,
            policy=policy.report,
            duplicates_dropped=division.duplicates_dropped + encoder.duplicates,
            source=train_source.info,
            val_source=None if val_source is None else val_source.info,
            data=escaped(dataclasses.asdict(data)),
            seed=seed,
            files={TOKENIZER_FILE: tokenizer_file, **encoder.files},
            broken=broken,
            blank=blank,
            test=test,
        )
        write_file(folder / INFO_FILE, info.to_json().encode())
    _tell(info, data.max_dropped_share, progress)
    return info


def _train_tokenizer(
    config: DataConfig, spool: Spool, train: "np.ndarray", progress: Progress
) -> TextTokenizer:
    size, unit = extent(train)
    if unit == "token ids":
        raise InputError(
            f"source {config.source} has no text to train a bpe on: give the tokenizer of its ids "
            "with --tokenizer tokenizer.json"
        )
    most = config.tokenizer_bytes
    taken = f"{most:,} of {size:,}" if size > most else f"{size:,}"
    progress.message(f"training a tokenizer on {len(train):,} documents, {taken} bytes")

    def texts() -> Iterator[str]:
        due = 0.0
        with progress.task("training the tokenizer", min(size, most), "bytes") as task:
            for document in spool.documents(train, _pieces):
                for text in contents(document):
                    for piece in _pieces([text]):
                        length = count_bytes(piece)
                        # Evenly spread: as much as is due by now, and no more than one piece ahead.
                        due += length * min(1.0, most / size)
                        if due > 0:
                            due -= length
                            yield piece
                            task.advance(length)

    return train_bpe(texts(), config.vocab_size, spool.roles)


def _pieces(chunks: Iterable[str]) -> Iterator[str]:
    return cut_at_words(chunks, TRAINING_PIECE_CHARACTERS, TRAINING_PIECE_CHARACTERS)


def _tell(info: DatasetInfo, max_dropped_share: float, progress: Progress) -> None:
    for name, split in info.splits.items():
        if split.lost_share or split.unknown_share:
            progress.warning(
                f"{name}: {lost_text_in_words(split.unknown_share, split.lost_share)}; a tokenizer "
                "of bytes (--tokenizer bpe) loses none"
            )
    if info.duplicates_dropped:
        progress.message(
            f"dropped {info.duplicates_dropped:,} held-out documents that are in another split too"
        )
    report = info.policy
    if report.policy == "drop" and report.dropped_lines:
        much = max(report.dropped_line_share, report.dropped_byte_share) > max_dropped_share
        say = progress.warning if much else progress.message
        say(
            f"dropped {report.dropped_line_share:.2%} of validation lines"
            + (f" ({report.dropped_byte_share:.2%} of bytes)" if report.bytes else "")
            + f" with {report.unseen_types:,} token types that train lacks"
            + (": --val-token-policy keep keeps them" if much else "")
        )
    elif report.unseen_types:
        progress.warning(
            f"validation has {report.unseen_types:,} token types that train lacks, and keeps them"
        )

"""A checkpoint to work with in Python: contexts, figures, text, analysis."""

from collections.abc import Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from newllm_core.analysis.analyze import analyze
from newllm_core.checkpoint.format import Checkpoint, load
from newllm_core.checkpoint.kept import OF_PROBES, require_kept, require_probes
from newllm_core.config import Config
from newllm_core.config.values import convert, path_of, plain, shown
from newllm_core.data.prepared import PreparedDataset
from newllm_core.data.sources.decoding import UTF8, known_encoding, unicode_text
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.errors import ConfigError, InputError
from newllm_core.evaluation.contexts import contexts_in_order
from newllm_core.generation.session import Session
from newllm_core.generation.writer import Writer, encode_prompt
from newllm_core.model.language_model import LanguageModel
from newllm_core.pipeline.trained import evaluation_config, run_evaluate
from newllm_core.runtime.progress import Silent
from newllm_core.settings import Settings

# Decided when a checkpoint is opened, or of no concern to what one process does with it.
FIXED = ("device", "threads", "sharding", "check_interval_steps", "save_interval_seconds")


def open_checkpoint(path: str | PathLike[str], *, device: str = "auto") -> "OpenedCheckpoint":
    """Read a checkpoint of any phase.

    `device` is "cpu", "cuda", "mps", or "auto": as `NEWLLM_RUN_DEVICE` says, or CUDA if there is
    any.

    Raises:
        ConfigError: there is no such device.
        InputError: the file is missing, damaged or foreign.
    """
    given = Settings(None, {} if device == "auto" else {"run": {"device": device}})
    place = path_of(path, "the checkpoint")
    return OpenedCheckpoint(load(place, given=given), place)


class OpenedCheckpoint:
    """A model with its tokenizer. Wherever a path of a checkpoint is expected, this will do.

    Keyword arguments are the settings that are flags of the command of the same name, see
    `newllm_core.pipeline.front_door`.

    Attributes:
        checkpoint: everything that the file holds; its model is on the device to compute on.
        path: where it is saved.
    """

    def __init__(self, checkpoint: Checkpoint, path: Path) -> None:
        self.checkpoint = checkpoint
        self.path = path

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        return f"<{self.checkpoint.phase} checkpoint {self.path}>"

    @property
    def model(self) -> LanguageModel:
        """Return the model."""
        return self.checkpoint.model

    @property
    def config(self) -> Config:
        """Return the settings it was made with."""
        return self.checkpoint.config

    @cached_property
    def tokenizer(self) -> TextTokenizer:
        """Return the model's tokenizer."""
        return TextTokenizer.from_json(self.checkpoint.tokenizer_json)

    @property
    def device(self) -> torch.device:
        """Return where the model computes."""
        return self.model.device

    def contexts(self, text: str) -> Tensor:
        """Make the context after each token of a text, exactly: [T, C], on the model's device.

        The tokens are `tokenizer.encode(text)`. For texts that do not fit memory there is
        `evaluation.contexts.contexts_in_order`, and the command `newllm contexts`.

        Raises:
            ConfigError: it is no text.
            InputError: it is empty or not Unicode.
        """
        chunks = [unicode_text(text, "the text")]
        read = [part.contexts_TC for part in contexts_in_order(self.model, self.tokenizer, chunks)]
        if not read:
            raise InputError("the text is empty: it has no tokens")
        return torch.cat(read)

    def evaluate(
        self,
        text: "str | Path | PreparedDataset",
        *,
        split: str | None = None,
        encoding: str = UTF8,
        **keywords: Any,  # noqa: ANN401
    ) -> dict[str, Any]:
        """Say how well the heads predict a text: the figures of `newllm evaluate`.

        `text` is a text itself, the path of a file of that `encoding`, or a data set, whose figures
        are under "train" and "validation", or under the name of the one `split` asked for: "test"
        where there is one.

        Raises:
            ConfigError: it is none of these, or a `split` of a text is asked for.
            InputError: no head was trained, or there is no such text.
        """
        if not isinstance(text, str | Path | PreparedDataset):
            raise ConfigError(f"the text is {shown(text)}: expected a text, a Path or a data set")
        if split is not None and isinstance(text, str | Path):
            raise ConfigError(f"split {split!r} is one of a data set: a text is not divided")
        given = self._given(("run",), keywords, FIXED)
        config = evaluation_config(given, self.checkpoint)
        found = run_evaluate(
            self.checkpoint,
            text,
            config,
            progress=Silent(),
            split=split,
            encoding=known_encoding(encoding, "encoding"),
        )
        return found.get("text", found)

    def generate(self, prompt: str = "", *, stop: str | Sequence[str] = (), **keywords: Any) -> str:  # noqa: ANN401
        r"""Continue a prompt with the last head; the same seed gives the same text.

        Args:
            prompt: what the text begins with; it is not repeated.
            stop: strings before which the text ends, as they are: "\n" is a line feed.
            **keywords: what are flags of `generate`: `max_tokens`, `temperature`, `seed`, …

        Raises:
            ConfigError: the prompt or a stop string is no text.
            InputError: no head was trained, or the prompt is not Unicode text.
            DivergedError: logits are not finite.
        """
        strings = [stop] if isinstance(stop, str) else plain(stop)
        if strings:
            texts = convert(strings, tuple[str, ...], "stop")
            keywords["stop"] = [text.replace("\\", "\\\\") for text in texts]
        config = self._given(("generation", "run"), keywords, FIXED).resolve()
        self.checkpoint.require_trained_head()
        end_id = self.tokenizer.end_id
        session = Session(self.model, config.generation, seed=config.run.seed, start_id=end_id)
        writer = Writer(session, self.tokenizer, config.generation.stop_strings())
        writer.read(encode_prompt(self.tokenizer, prompt))
        text = "".join(writer.write(config.generation.max_tokens, {end_id}))
        return text + writer.finish()

    def analyze(self, **keywords: Any) -> dict[str, Any]:  # noqa: ANN401
        """Say whether contexts are diverse, settled and used: the report of `analyze --json`.

        Keywords say how much is looked at; `seed` is the checkpoint's by default. `DivergedError`
        if contexts are not finite.
        """
        given = self._given(("analysis", "run"), keywords, (*FIXED, *OF_PROBES))
        require_probes(given, self.config)
        return analyze(self.checkpoint, checkpoint_path=self.path, given=given)

    def _given(self, *keywords: Any) -> Settings:  # noqa: ANN401 - as `Settings.of_keywords`
        given = Settings.of_keywords(*keywords)
        require_kept(given, self.config)
        return given

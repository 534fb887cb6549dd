"""The command line in this process: no time for imports."""

import io
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import torch

from newllm_cli.__main__ import main
from newllm_core.checkpoint import format as checkpoints
from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Config
from newllm_core.data.prepared import open_dataset
from newllm_core.data.tokenizer import TextTokenizer
from tests.data.cases import run as prepare
from tests.generation.cases import bpe, make_model

TEXT = "the cat sat on the mat.\nça va, é? 日本\n"


@dataclass
class Done:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self):
        return json.loads(self.out)

    @property
    def lines(self):
        return self.err.splitlines()

    def one_line(self, *parts):
        """The only line on stderr that begins like an error, which has every part."""
        (line,) = [line for line in self.lines if line.startswith("newllm: ")]
        assert all(part in line for part in parts), line
        assert "Traceback" not in self.err
        return line


class CommandLine:
    """Runs commands; stdin is empty unless given."""

    def __init__(self, monkeypatch, capsys):
        self._monkeypatch = monkeypatch
        self._capsys = capsys

    def __call__(self, *arguments, stdin=b""):
        self._capsys.readouterr()
        with self._monkeypatch.context() as patch:
            patch.setattr(sys, "argv", ["newllm", *map(str, arguments)])
            patch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(stdin), encoding="utf-8"))
            try:
                main()
                code = 0
            except SystemExit as end:
                code = end.code or 0
        return Done(code, *self._capsys.readouterr())


def save_checkpoint(path: Path, tokenizer=None, *, phase="phase2", dataset=None, **model):
    """A checkpoint whose heads have opinions, without any training."""
    tokenizer = tokenizer or bpe()
    model = make_model(tokenizer.vocab_size, **model)
    with torch.no_grad():
        model.token_output[-1].bias[list(tokenizer.role_ids.values())] = 2.0
        model.token_output[-1].bias[tokenizer.encode("\n")] = 5.0
    probes = {split: torch.zeros(1, 4, dtype=torch.long) for split in ("train", "validation")}
    provenance = {"dataset_path": str(dataset)}
    checkpoints.save(
        Checkpoint(
            *(
                model,
                Config(model=model.config, cell=model.cell_options),
                tokenizer.to_json(),
                phase,
            ),
            probes=probes,
            warmup=0,
            provenance=provenance,
        ),
        path,
        overwrite=False,
    )
    return path


def save_dataset(folder: Path):
    """Prepared data, and its tokenizer."""
    (folder / "train.txt").write_text(TEXT * 8, encoding="utf-8")
    (folder / "validation.txt").write_text(TEXT * 4 + "the END", encoding="utf-8")
    inputs = {"input": folder / "train.txt", "val_input": folder / "validation.txt"}
    prepare(folder / "data", source="text-file", val_token_policy="keep", **inputs)
    return folder / "data", TextTokenizer.from_json(open_dataset(folder / "data").tokenizer_json)

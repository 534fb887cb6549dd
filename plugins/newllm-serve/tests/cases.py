"""Checkpoints of a second, servers of their own process, and clients."""

import re
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from openai import OpenAI

from newllm_core.checkpoint.format import Checkpoint, save
from newllm_core.data.make_tokenizer import train_bpe
from newllm_core.model.counting import count_bigrams
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Silent
from newllm_core.settings import resolve

TEXT = "the cat sat on the mat, and the dog sat on the log; é was there.\nThe end?\n" * 4
ROLES = ("system", "user", "assistant")


def make(roles=ROLES, vocab_size=300, **shape):
    """A checkpoint whose texts seldom end."""
    tokenizer = train_bpe([TEXT], vocab_size, roles)
    config = resolve(
        {"model": {"context_dim": 12, "embed_dim": 10} | shape, "phase1": {"reg": "none"}},
        {"run": {"seed": 3}},
    )
    model = LanguageModel(config.model, tokenizer.vocab_size, cell=config.cell, seed=3)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator) * 0.5)
        for token in (tokenizer.end_id, *tokenizer.role_ids.values()):
            model.heads()[-1].bias[token] -= 3
    if model.bigrams is not None:
        read = np.array(tokenizer.encode(TEXT), np.uint16)
        count_bigrams(model.bigrams, read, end_id=tokenizer.end_id, progress=Silent())
    ids = torch.randint(0, tokenizer.vocab_size, (2, 30), generator=generator)
    return Checkpoint(
        model=model,
        config=config,
        tokenizer_json=tokenizer.to_json(),
        phase="phase2",
        probes={"train": ids, "validation": ids},
        warmup=5,
        gate={"train": {"drift": 0.5, "mean_cosine": None, "num_tokens": 8, "context_dim": 12}},
    )


def write(folder, checkpoint=None):
    path = Path(folder) / "model.safetensors"
    save(checkpoint or make(), path, overwrite=True)
    return path


@dataclass
class Server:
    process: subprocess.Popen
    url: str
    log: Path

    def client(self, **options):
        return OpenAI(base_url=self.url + "/v1", api_key="none", **options)

    def end(self):
        """Ask it to stop; returns what it said after it was ready."""
        self.process.terminate()
        assert self.process.wait(30) == 0
        return self.log.read_text().partition("ends it)\n")[2]

    def kill(self):
        self.process.kill()
        self.process.wait(30)


def serve(path, *options):
    """Start `newllm serve` on a free port, and wait until it is ready."""
    log = path.with_suffix(".log")
    command = [sys.executable, "-m", "newllm_cli", "serve", str(path), "--port=0", *options]
    with log.open("w") as file:
        process = subprocess.Popen(command, stderr=file)
    for _ in range(3000):
        found = re.search(r" at (http://\S+:\d+), ", log.read_text())
        if found:
            return Server(process, found[1], log)
        assert process.poll() is None, log.read_text()
        time.sleep(0.1)
    process.kill()
    raise AssertionError(f"it does not start: {log.read_text()}")

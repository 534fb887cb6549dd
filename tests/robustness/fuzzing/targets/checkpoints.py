"""Checkpoints: loaded, and given to the whole command line."""

import contextlib
import dataclasses
import io
import json
import sys
from unittest import mock

import torch

from newllm_cli.__main__ import main
from newllm_core.checkpoint import format as checkpoints
from newllm_core.errors import DivergedError, InputError
from tests.robustness.fuzzing.targets.base import EQUAL, VALID, Target


class Checkpoint(Target):
    kind = "checkpoint"

    def __init__(self, home):
        super().__init__(home)
        self.path = self.folder / "model.safetensors"
        self.good = home.checkpoint.read_bytes()
        self.expected = checkpoints.load(home.checkpoint)

    def check(self):
        found = checkpoints.load(self.path)
        assert all(bool(torch.isfinite(p).all()) for p in found.model.parameters())
        assert all(int(p.min()) >= 0 and int(p.max()) < 280 for p in found.probes.values())
        assert all(found.warmup < p.shape[1] for p in found.probes.values())
        if not found.altered:
            assert_same(found, self.expected)
            return EQUAL
        again = self.folder / "again.safetensors"
        checkpoints.save(found, again, overwrite=True)
        assert_same(checkpoints.load(again), found)
        return VALID


def assert_same(found, expected):
    states = [checkpoint.model.state_dict() for checkpoint in (found, expected)]
    assert states[0].keys() == states[1].keys()
    assert all(torch.equal(states[0][name], states[1][name]) for name in states[0])
    for tensors in ("probes", "objective"):
        ours, theirs = getattr(found, tensors), getattr(expected, tensors)
        assert ours.keys() == theirs.keys()
        assert all(torch.equal(ours[name], theirs[name]) for name in ours)
    for field in dataclasses.fields(found):
        if field.name not in ("model", "probes", "objective", "altered"):
            assert getattr(found, field.name) == getattr(expected, field.name), field.name


class Analyze(Checkpoint):
    """The whole command on a damaged checkpoint."""

    OPTIONS = ("--num-pairs=50", "--dynamics-steps=8", "--dynamics-passages=2", "--memory-lags=2")

    def check(self):
        arguments = ["analyze", str(self.path), "--json", "--threads=1", *self.OPTIONS]
        code, out, err = newllm(arguments)
        if code:
            assert code in (3, 5), (code, err)
            *before, last = err.splitlines()
            assert last.startswith("newllm: "), err
            # Contexts that explode are found on the way; nothing else is.
            assert not before or code == 5, err
            raise (DivergedError if code == 5 else InputError)(last)
        report = json.loads(out)
        assert {"train", "validation", "verdicts"} <= report.keys()
        assert not [line for line in err.splitlines() if "Traceback" in line or "Warning" in line]
        return VALID if "not as newllm wrote it" in err else EQUAL


def newllm(arguments):
    """Run the command line in this process."""
    out, err = io.StringIO(), io.StringIO()
    with (
        mock.patch.object(sys, "argv", ["newllm", *arguments]),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
    return code, out.getvalue(), err.getvalue()

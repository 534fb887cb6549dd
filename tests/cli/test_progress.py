"""What a stranger can follow on a pipe."""

import time

import pytest

from newllm_cli import progress as module
from newllm_cli.progress import StderrProgress
from newllm_core.settings import Settings


@pytest.fixture
def clock(monkeypatch):
    """Time that passes when it is told to."""

    class Clock:
        now = 100.0

        def monotonic(self):
            return self.now

        def sleep(self, seconds):
            time.sleep(0.01)

    clock = Clock()
    monkeypatch.setattr(module, "time", clock)
    return clock


def limited(tokens):
    return StderrProgress(Settings(None, {"run": {"warn_tokens": tokens}}))


def test_lines_have_a_share_a_rate_and_the_time_left(clock, capsys):
    with limited(10**9).task("phase 1", 1000, "tokens") as task:
        clock.now += 6
        task.advance(250, "iteration 1/4")
    line = capsys.readouterr().err.splitlines()[0]
    assert line == "phase 1: 250 of 1,000 (25%) tokens, 42 tokens/s, 0:18 left; iteration 1/4"


def test_a_slow_rate_is_not_rounded_to_nothing(clock, capsys):
    with StderrProgress().task("benchmark", 63, "rounds") as task:
        clock.now += 60
        task.advance(11)
    assert "(17%) rounds, 0.18 rounds/s, 4:43 left" in capsys.readouterr().err


@pytest.mark.parametrize(("limit", "warned"), [(999, True), (1000, False)])
def test_much_to_read_is_announced_once_with_an_estimate(clock, capsys, limit, warned):
    progress = limited(limit)
    for _ in range(2):
        with progress.task("evaluating", 1000, "tokens") as task:
            clock.now += 1
            task.advance(1)  # the first steps are slower than the others
            clock.now += 1
            task.advance(19)
            task.advance(20)
    told = [line for line in capsys.readouterr().err.splitlines() if "warning" in line]
    expected = "warning: evaluating: 1,000 tokens to read, about 1:40 at 10 tokens/s"
    assert told == ([expected] if warned else [])


@pytest.mark.parametrize(("rate", "word"), [(20, ""), (16, "warning: ")])
def test_it_is_a_warning_from_a_minute_on(clock, capsys, rate, word):
    with limited(5).task("evaluating", 1000, "tokens") as task:
        clock.now += 2
        task.advance(2 * rate)
    (line,) = [line for line in capsys.readouterr().err.splitlines() if "about" in line]
    assert line.startswith(f"{word}evaluating: 1,000 tokens to read, about ")


def test_other_units_are_not_announced(clock, capsys):
    with limited(5).task("reading", 1000, "bytes") as task:
        clock.now += 2
        task.advance(10)
    assert "about" not in capsys.readouterr().err


def wait_until(happened, seconds=60):
    """Give other threads time; how much they need depends on what else the machine does."""
    deadline = time.time() + seconds
    while not happened():
        assert time.time() < deadline
        time.sleep(0.02)


def test_silence_is_broken_as_long_as_somebody_works(clock, capsys):
    progress = limited(5)
    progress.message("loading a large model")
    clock.now += 7
    progress._silence.look()
    assert "still at work" not in capsys.readouterr().err
    clock.now += 2
    told = ""

    def has_told():
        nonlocal told
        told += capsys.readouterr().err
        return "still at work" in told

    wait_until(has_told)
    assert told.count("still at work after: loading a large model") == 1
    silence = module.weakref.ref(progress._silence)
    del progress
    clock.now += 100
    # Nobody waits any more: it ends with what it belongs to.
    wait_until(lambda: silence() is None)
    assert "still at work" not in capsys.readouterr().err


def test_a_bar_is_no_silence_whatever_else_is_said(clock, capsys, monkeypatch):
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    progress = limited(5)
    with progress.task("reading", 10, "bytes"):
        progress.message("half way")
        clock.now += 100
        progress._silence.look()
    assert "still at work" not in capsys.readouterr().err
    clock.now += 100
    progress._silence.look()
    assert "still at work after: half way" in capsys.readouterr().err

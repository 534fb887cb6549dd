"""stdout, stderr and signals of a real process."""

import fcntl
import os
import pty
import signal
import subprocess
import sys
import termios
import time

import pytest
from rich.console import Console

from newllm_cli.progress import StderrProgress
from tests.forked import start

from .inside import save_dataset

COMMAND = (sys.executable, "-m", "newllm_cli")


needs_full_disk = pytest.mark.skipif(not os.path.exists("/dev/full"), reason="no /dev/full")


@needs_full_disk
@pytest.mark.parametrize("arguments", [("plugins",), ("plugins", "--json")])
def test_a_full_disk_behind_stdout_is_one_line(arguments):
    with open("/dev/full", "w") as full:
        done = subprocess.run(
            [*COMMAND, *arguments], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert done.returncode == 3
    assert done.stderr == "newllm: cannot write the output: No space left on device\n"


def test_stdout_and_stderr_may_be_closed():
    shell = f"{sys.executable} -m newllm_cli plugins"
    closed = subprocess.run([f"{shell} >&-"], shell=True, stderr=subprocess.PIPE, text=True)
    assert (closed.returncode, closed.stderr) == (0, "")
    closed = subprocess.run([f"{shell} 2>&-"], shell=True, stdout=subprocess.PIPE, text=True)
    assert closed.returncode == 0
    assert "covariance-ema" in closed.stdout


def test_json_for_a_stream_without_letters_loses_none():
    code = "from newllm_cli.output import print_json; print_json({'text': 'é日'})"
    environment = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, env=environment)
    assert b'"text": "\\u00e9\\u65e5"' in done.stdout


@pytest.mark.parametrize("arguments", ["plugins show covariance-ema --json", "--help"])
def test_a_reader_that_went_away_is_no_error(arguments):
    ours, theirs = os.pipe()
    os.close(ours)
    buffered = {k: v for k, v in os.environ.items() if k != "PYTHONUNBUFFERED"}
    done = subprocess.run(
        [*COMMAND, *arguments.split()],
        stdout=theirs,
        stderr=subprocess.PIPE,
        text=True,
        env=buffered,
    )
    os.close(theirs)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_signal_while_torch_is_imported_counts_afterwards(tmp_path, number):
    # As torch itself does, with an import of numpy that an exception comes out of.
    (tmp_path / "torch.py").write_text(
        "import time\n"
        "print('importing', flush=True)\n"
        "try:\n    time.sleep(0.5)\n"
        "except BaseException:\n    print('swallowed')\n"
        "print('imported', flush=True)\n"
    )
    program = (
        "from newllm_cli.signals import interrupt_on_signals\n"
        "interrupt_on_signals()\n"
        "import sys, time\n"
        "sys.path.insert(0, '.')\n"
        "import torch\n"
        "time.sleep(60)\n"
    )
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    running = subprocess.Popen([sys.executable, "-c", program], cwd=tmp_path, text=True, **pipes)
    assert running.stdout.readline() == "importing\n"
    running.send_signal(number)
    out, err = running.communicate(timeout=30)
    assert out == "imported\n"
    assert err.endswith("KeyboardInterrupt\n")


@pytest.mark.parametrize(
    "stderr", ["a closed terminal", pytest.param("/dev/full", marks=needs_full_disk)]
)
def test_a_run_whose_stderr_is_lost_still_saves_its_state(tmp_path, stderr):
    save_dataset(tmp_path)
    ours, theirs = pty.openpty()
    target = os.ttyname(theirs) if stderr == "a closed terminal" else stderr
    arguments = ("phase1", "--data=data", "--out=a.safetensors", "--max-iterations=1000000")
    small = ("--context-dim=16", "--embed-dim=16", "--threads=1", "--min-converged-ratio=1")
    running = start(*arguments, *small, cwd=tmp_path, stdout=target, stderr=target)
    log = tmp_path / "a.metrics.jsonl"
    while not (log.exists() and log.stat().st_size):
        assert running.exitcode is None
        time.sleep(0.05)
    os.close(theirs)
    os.close(ours)  # whoever writes to a terminal that is gone gets an error
    os.kill(running.pid, signal.SIGHUP)
    running.join(60)
    assert running.exitcode == 130
    assert (tmp_path / "a.resume").exists()


def unread(pipe):
    """How many bytes nobody has taken out of a pipe so far."""
    return int.from_bytes(fcntl.ioctl(pipe, termios.FIONREAD, bytes(4)), sys.byteorder)


def test_a_command_that_is_interrupted_says_so(tmp_path):
    streams = {name: tmp_path / name for name in ("stdin", "stdout", "stderr")}
    os.mkfifo(streams["stdin"])
    arguments = ("generate", "missing.safetensors", "--prompt-file=-")
    running = start(*arguments, cwd=tmp_path, **streams)
    with streams["stdin"].open("w") as prompt:
        print("the", file=prompt, flush=True)
        while unread(prompt):
            assert running.exitcode is None, streams["stderr"].read_text()
            time.sleep(0.05)
        os.kill(running.pid, signal.SIGINT)
        running.join(30)
    assert running.exitcode == 130
    assert streams["stdout"].read_text() == ""
    said = "newllm: interrupted; files that exist are as they were\n"
    assert streams["stderr"].read_text() == said


def test_a_bar_on_a_narrow_terminal_keeps_its_rate_and_the_time_left(monkeypatch, capsys):
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True, raising=False)
    progress = StderrProgress()
    progress._console = Console(stderr=True, width=60, force_terminal=True)
    with progress.task("phase 1", 1000, "tokens") as task:
        task.advance(10)
        time.sleep(0.1)
        task.advance(90, "iteration 3: ER/D 0.912 converged 93% and much more of that kind")
        time.sleep(0.3)
    lines = [line for line in capsys.readouterr().err.split("\r") if "iteration" in line]
    assert "phase 1" in lines[-1]
    assert "tokens/s" in lines[-1]
    assert "iteration 3" in lines[-1]
    assert "…" in lines[-1]

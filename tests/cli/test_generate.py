import json
import os
import pty
import select
import signal
import time

import pytest

from newllm_core.checkpoint import format as checkpoints
from newllm_core.data.tokenizer import TextTokenizer
from newllm_core.files.lock import exclusive
from newllm_core.generation.state import save_state
from newllm_core.generation.writer import Tail
from tests.forked import start
from tests.generation.cases import bpe, bytes_only, session_of, word_pieces

from .inside import save_checkpoint, save_dataset


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    return save_checkpoint(tmp_path_factory.mktemp("generate") / "a.safetensors")


@pytest.fixture(scope="module")
def mistaken(tmp_path_factory):
    """A folder with what should not be mixed up."""
    folder = tmp_path_factory.mktemp("mistakes")
    save_checkpoint(folder / "phase1.safetensors", phase="phase1")
    tokenizer = bpe()
    save_checkpoint(folder / "a.safetensors", tokenizer)
    save_checkpoint(folder / "plain.safetensors", save_dataset(folder)[1])
    checkpoint = checkpoints.load(folder / "a.safetensors")
    good = {"identity": checkpoint.identity(), "overwrite": False}
    save_state(session_of(checkpoint.model), Tail(), folder / "good.state", **good)
    content = bytearray((folder / "good.state").read_bytes())
    content[-1] ^= 1
    (folder / "damaged.state").write_bytes(content)
    return folder


def test_stdout_is_the_text_and_nothing_else(newllm, path):
    arguments = ["generate", path, "--prompt=the cat", "--max-tokens=50", "--seed=3"]
    shown, described = newllm(*arguments), newllm(*arguments, "--json").json
    assert shown.out == described["text"]
    assert shown.out == newllm(*arguments).out
    assert shown.out != newllm(*arguments, "--seed=4").out
    assert "50 tokens at" in shown.err
    tokenizer = TextTokenizer.from_json(checkpoints.load(path).tokenizer_json)
    assert tokenizer.decode(described["tokens"]).startswith(shown.out)
    assert {key: described[key] for key in described if key not in ("text", "tokens")} == {
        "schema": 1,
        "checkpoint": str(path),
        "prompt": "the cat",
        "num_prompt_tokens": len(tokenizer.encode("the cat")),
        "num_tokens": 50,
        "finish_reason": "length",
    }


def test_settings_come_from_flags_files_and_assignments(newllm, path, tmp_path):
    greedy = newllm("generate", path, "--temperature=0", "--max-tokens=9").out
    (tmp_path / "run.toml").write_text("[generation]\ntemperature = 0\nmax_tokens = 9\n")
    assert newllm("generate", path, "--config=run.toml", "--seed=5").out == greedy
    assert newllm("generate", path, "--top-k=1", "--set=generation.max_tokens=9").out == greedy
    assert newllm("generate", path, "--top-p=0", "--config=run.toml").out == greedy


def test_stop_strings_are_repeatable_and_may_be_typed_with_escapes(newllm, path, tmp_path):
    text = newllm("generate", path, "--max-tokens=150", "--seed=1").out
    assert "\n" in text
    first = text[3:5]
    cut = min(text.index("\n"), text.index(first))
    done = newllm(
        *("generate", path, "--max-tokens=150", "--seed=1", "--json"),
        *("--stop", r"\n", "--stop", first.replace("\\", "\\\\")),
    ).json
    assert (done["text"], done["finish_reason"]) == (text[:cut], "stop")


def test_prompts_come_from_files_and_pipes_as_they_are(newllm, path, tmp_path):
    prompt = "ça va,\n the cat\n"
    (tmp_path / "prompt.txt").write_text(prompt, encoding="utf-8", newline="")
    direct = newllm("generate", path, "--max-tokens=20", "--json", "--prompt", prompt).json
    arguments = ["generate", path, "--max-tokens=20", "--json", "--prompt-file"]
    assert newllm(*arguments, "prompt.txt").json == direct
    assert newllm(*arguments, "-", stdin=prompt.encode()).json == direct
    assert direct["prompt"] == prompt


@pytest.mark.parametrize("tokenizer", [None, bytes_only, word_pieces])
def test_a_saved_state_goes_on_with_exactly_the_same_text(newllm, tmp_path, tokenizer):
    path = save_checkpoint(tmp_path / "b.safetensors", tokenizer and tokenizer())
    arguments = ["generate", path, "--seed=2", "--stop=cat sat"]
    whole = newllm(*arguments, "--prompt=the", "--max-tokens=60").out
    parts = [newllm(*arguments, "--prompt=the", "--max-tokens=0", "--save-state=0.state").out]
    for number, count in enumerate((7, 1, 30, 22)):
        states = (f"--load-state={number}.state", f"--save-state={number + 1}.state")
        state = () if number < 3 else states[:1]
        # The seed is in the state.
        part = newllm(
            "generate", path, "--stop=cat sat", f"--max-tokens={count}", *(state or states)
        )
        assert part.code == 0, part.err
        parts.append(part.out)
    assert "".join(parts) == whole
    assert len(whole) > 20


def test_a_seed_makes_new_choices_from_the_same_state(newllm, path):
    newllm("generate", path, "--prompt=the cat", "--max-tokens=5", "--save-state=a.state")
    texts = [
        newllm("generate", path, "--load-state=a.state", "--max-tokens=40", *seed).out
        for seed in ((), (), ("--seed=7",), ("--seed=8",))
    ]
    assert texts[0] == texts[1]
    assert len(set(texts)) == 3


def test_a_state_can_be_saved_over_itself_when_told_so(newllm, path):
    assert newllm("generate", path, "--max-tokens=5", "--save-state=a.state").code == 0
    again = ("generate", path, "--load-state=a.state", "--max-tokens=5", "--save-state=a.state")
    assert newllm(*again).code == 3
    first, second = (newllm(*again, "--overwrite").out for _ in range(2))
    assert first != second


def test_two_cannot_save_one_state_and_the_second_is_told_before_its_work(newllm, path, tmp_path):
    arguments = ("generate", path, "--prompt=the", "--max-tokens=5", "--save-state=a.state")
    before = sorted(tmp_path.iterdir())
    with exclusive(tmp_path / "a.state"):
        done = newllm(*arguments)
    assert (done.code, done.out) == (3, "")
    done.one_line("another newllm is writing", "a.state: wait", "choose another --save-state")
    assert sorted(tmp_path.iterdir()) == before
    (tmp_path / ".a.state.x.tmp").mkdir()  # of one that was killed
    assert newllm(*arguments).code == 0
    assert sorted(tmp_path.iterdir()) == sorted([*before, tmp_path / "a.state"])


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["phase1.safetensors"], 3, ["phase1", "no trained head", "newllm phase2"]),
        (["a.safetensors", "--prompt=a", "--prompt-file=b"], 2, ["--prompt and --prompt-file"]),
        (["a.safetensors", "--chat", "--prompt=a"], 2, ["--chat", "stdin"]),
        (["plain.safetensors", "--chat"], 3, ["role user", "its roles: none", "ultrachat"]),
        (["a.safetensors", "--temperature=-1"], 2, ["generation.temperature", "at least 0"]),
        (["a.safetensors", "--top-p=1.5"], 2, ["generation.top_p", "at most 1"]),
        (["a.safetensors", "--stop="], 2, ["generation.stop is empty"]),
        (["a.safetensors", r"--stop=\d"], 2, ["generation.stop", r"\n \r \t"]),
        (["a.safetensors", "--prompt=\udcff"], 3, ["not Unicode"]),
        (["a.safetensors", "--prompt-file=none.txt"], 3, ["none.txt"]),
        (["a.safetensors", "--prompt-file=-"], 3, ["stdin is not UTF-8"]),
        (["a.safetensors", "--chat"], 3, ["stdin is not UTF-8"]),
        (["a.safetensors", "--load-state=none"], 3, ["no such state: none"]),
        (["a.safetensors", "--load-state=damaged.state"], 3, ["damaged.state is damaged"]),
        (["a.safetensors", "--load-state=a.safetensors"], 3, ["no state"]),
        (["plain.safetensors", "--load-state=good.state"], 3, ["another checkpoint"]),
        (["a.safetensors", "--save-state=good.state"], 3, ["good.state exists", "--overwrite"]),
        (["a.safetensors", "--save-state=a.safetensors", "--overwrite"], 3, ["no state that"]),
    ],
)
def test_a_mistake_is_one_helpful_line(newllm, mistaken, monkeypatch, arguments, code, words):
    monkeypatch.chdir(mistaken)
    done = newllm("generate", *arguments, stdin=b"\xff\n")
    assert (done.code, done.out) == (code, "")
    assert len(done.err.splitlines()) == 1
    assert all(word in done.err for word in words)


def test_lines_are_answered_one_by_one(newllm, path):
    arguments = ["generate", path, "--chat", "--max-tokens=12", "--stop=\\n"]
    lines = "the cat\n\n  \nça va?\r\n/quit\nnever\n"
    shown = newllm(*arguments, stdin=lines.encode())
    messages = newllm(*arguments, "--json", stdin=lines.encode()).json["messages"]
    assert [message["role"] for message in messages] == ["user", "assistant"] * 2
    assert [message["content"] for message in messages[::2]] == ["the cat", "ça va?"]
    assert shown.out == "".join(message["content"] + "\n" for message in messages[1::2])
    assert newllm(*arguments, stdin=b"").out == ""


def test_a_byte_order_mark_before_the_first_line_is_no_text(newllm, path):
    arguments = ["generate", path, "--chat", "--max-tokens=5", "--json"]
    marked = newllm(*arguments, stdin=b"\xef\xbb\xbfthe cat\n").json
    assert marked == newllm(*arguments, stdin=b"the cat\n").json


def test_the_system_speaks_first_and_a_role_that_is_not_there_is_refused(newllm, path):
    options = ("generate", path, "--system=be brief", "--role=assistant")
    done = newllm(*options, "--chat", stdin=b"the cat\n")
    assert (done.code, "role system (its roles: assistant, user)" in done.err) == (3, True)
    done = newllm(*options)
    assert (done.code, "add --chat" in done.err) == (2, True)


def test_two_kinds_of_states_never_replace_each_other(newllm, path, tmp_path):
    from newllm_core.checkpoint.run_state import State, save_state

    save_state(State({}, {}), tmp_path / "run.resume", {})
    before = (tmp_path / "run.resume").read_bytes()
    arguments = ("generate", path, "--max-tokens=3", "--save-state=run.resume", "--overwrite")
    done = newllm(*arguments)
    assert (done.code, "no state that generate saved" in done.err) == (3, True)
    assert (tmp_path / "run.resume").read_bytes() == before


@pytest.mark.parametrize("name", ["afile/x.state", "y" * 246 + ".state", "folder"])
def test_a_place_that_cannot_be_written_is_noticed_before_the_work(newllm, path, tmp_path, name):
    (tmp_path / "afile").touch()
    (tmp_path / "folder").mkdir()
    done = newllm("generate", path, "--max-tokens=3", f"--save-state={name}")
    assert (done.code, done.out) == (3, "")
    assert name in done.err
    assert sorted(item.name for item in tmp_path.iterdir()) == ["afile", "folder"]


def test_a_conversation_goes_on_from_a_state(newllm, path):
    arguments = ["generate", path, "--chat", "--max-tokens=12"]
    whole = newllm(*arguments, stdin=b"the cat\nsat on\nthe mat")
    first = newllm(*arguments, "--save-state=chat.state", stdin=b"the cat\nsat on\n")
    second = newllm(*arguments, "--load-state=chat.state", stdin=b"the mat\n")
    assert first.out + second.out == whole.out


def test_ctrl_c_ends_a_text_and_keeps_its_state(newllm, path, tmp_path):
    arguments = [path, "--max-tokens=100000000", "--seed=1", "--threads=1"]
    out, err = tmp_path / "out", tmp_path / "err"
    os.mkfifo(out)
    arguments = ["generate", *arguments, "--save-state=a.state"]
    running = start(*arguments, cwd=tmp_path, stdout=out, stderr=err)
    with out.open("rb") as pipe:
        text = pipe.read(20)  # it is under way, and text comes as it is written
        os.kill(running.pid, signal.SIGINT)
        text = (text + pipe.read()).decode("utf-8")
    running.join(60)
    assert running.exitcode == 130
    err = err.read_text("utf-8")
    assert "Traceback" not in err
    go_on = newllm("generate", path, "--load-state=a.state", "--max-tokens=30", "--json").json
    count = int(err.partition(" tokens at")[0].splitlines()[-1].replace(",", ""))
    whole = newllm("generate", path, "--seed=1", f"--max-tokens={count + 30}").out
    assert text + go_on["text"] == whole


@pytest.mark.parametrize("ending", ["\x04", "\x03"])
def test_a_conversation_on_a_terminal(path, tmp_path, ending):
    ours, theirs = pty.openpty()
    arguments = (path, "--chat", "--max-tokens=5", "--threads=1")
    streams = dict.fromkeys(("stdin", "stdout", "stderr"), os.ttyname(theirs))
    running = start("generate", *arguments, cwd=tmp_path, owns_terminal=True, **streams)
    seen = wait_for(ours, b"> ")
    os.write(ours, b"the cat\n")
    seen += wait_for(ours, b"> ")
    code = end_with(running, ours, ending.encode())
    os.close(theirs)
    os.close(ours)
    assert code == (130 if ending == "\x03" else 0)
    assert b"Traceback" not in seen
    assert b"Ctrl-D ends the conversation" in seen


def end_with(running, descriptor, key, seconds=60):
    """The exit code after `key`, pressed again where nothing happens.

    A signal that comes while the library gets ready to wait for a key is noticed with the next key.
    """
    for _ in range(seconds // 5):
        os.write(descriptor, key)
        running.join(5)
        if running.exitcode is not None:
            return running.exitcode
    raise AssertionError(f"still running {seconds} seconds after {key!r}")


def wait_for(descriptor, words, seconds=60):
    seen, end = b"", time.monotonic() + seconds
    while words not in seen and (left := end - time.monotonic()) > 0:
        if select.select([descriptor], [], [], left)[0]:
            seen += os.read(descriptor, 1000)
    assert words in seen, seen
    return seen


def test_json_holds_any_text(newllm, tmp_path):
    path = save_checkpoint(tmp_path / "b.safetensors", bytes_only())
    found = newllm("generate", path, "--json", "--temperature=2", "--top-p=1")
    assert json.loads(found.out)["num_tokens"] == len(found.json["tokens"])

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from newllm_core.checkpoint.format import Checkpoint
from newllm_core.config import Config
from newllm_core.errors import InputError
from newllm_core.generation.state import load_state, save_state
from newllm_core.generation.writer import Tail, Writer

from .cases import TOKENIZERS, make_model, session_of

TEXTS = {name: make() for name, make in TOKENIZERS.items()}
STOP = ["\n\n", "ab", "e é"]


def checkpoint_of(tokenizer, **shape):
    model = make_model(tokenizer.vocab_size, **shape)
    config = Config(model=model.config, cell=model.cell_options)
    return Checkpoint(model, config, tokenizer.to_json(), "phase2", probes={}, warmup=0)


class Text:
    """One command: from a prompt or a state to a text or a state."""

    def __init__(self, checkpoint, tokenizer, *, stop=(), load=None, **options):
        start = tokenizer.end_id if load is None else None
        self.checkpoint = checkpoint
        self.session = session_of(checkpoint.model, start_id=start, **options)
        tail = None
        if load is not None:
            state = load_state(load, checkpoint.model, tokenizer, identity=checkpoint.identity())
            state.restore(self.session)
            tail = state.tail
        self.ends = {tokenizer.end_id}
        self.writer = Writer(self.session, tokenizer, stop, tail)
        if load is None:
            self.writer.read(tokenizer.encode("the cat"))

    def write(self, count, save=None):
        text = "".join(self.writer.write(count, self.ends))
        if save is None:
            return text + self.writer.finish()
        identity = self.checkpoint.identity()
        save_state(self.session, self.writer.tail, save, identity=identity, overwrite=False)
        return text


@pytest.mark.parametrize("name", TEXTS)
@pytest.mark.parametrize(
    "options", [{}, {"temperature": 0, "repetition_penalty": 1.5}, {"top_k": 5, "stop": STOP}]
)
def test_two_parts_are_the_text_written_at_once(tmp_path, name, options):
    tokenizer = TEXTS[name]
    checkpoint = checkpoint_of(tokenizer)
    total = 24
    whole = Text(checkpoint, tokenizer, **options).write(total)
    for count in range(total + 1):
        path = tmp_path / f"{count}.state"
        first = Text(checkpoint, tokenizer, **options)
        text = first.write(count, save=path)
        if first.writer.finish_reason != "stop":  # else it would go on behind the stop string
            second = Text(checkpoint, tokenizer, load=path, **options | {"seed": 99})
            text += second.write(total - count)
        assert text == whole


def test_a_text_that_has_ended_stays_so_in_a_file(tmp_path):
    tokenizer = TEXTS["bpe"]
    checkpoint = checkpoint_of(tokenizer)
    with torch.no_grad():
        checkpoint.model.token_output[-1].bias[tokenizer.end_id] = 4
    whole = Text(checkpoint, tokenizer).write(1000)
    path = tmp_path / "a.state"
    text = Text(checkpoint, tokenizer)
    assert text.write(1000, save=path) == whole
    assert text.writer.finish_reason == "end"
    assert Text(checkpoint, tokenizer, load=path).write(100) == ""


@pytest.fixture
def saved(tmp_path):
    tokenizer = TEXTS["bytes"]
    checkpoint = checkpoint_of(tokenizer)
    path = tmp_path / "a.state"
    Text(checkpoint, tokenizer).write(5, save=path)
    return path, checkpoint, tokenizer


def test_its_size_does_not_depend_on_the_text(tmp_path, saved):
    _, checkpoint, tokenizer = saved
    Text(checkpoint, tokenizer).write(100, save=tmp_path / "b.state")
    longer = tmp_path / "c.state"
    Text(checkpoint, tokenizer).write(700, save=longer)
    assert abs(longer.stat().st_size - (tmp_path / "b.state").stat().st_size) < 64
    assert longer.stat().st_size < 10_000


def test_nothing_is_overwritten_without_being_told(saved):
    path, checkpoint, tokenizer = saved
    before = path.read_bytes()
    text = Text(checkpoint, tokenizer, seed=1)
    with pytest.raises(InputError, match="--save-state"):
        text.write(3, save=path)
    assert path.read_bytes() == before
    save_state(text.session, Tail(), path, identity="x", overwrite=True)
    assert path.read_bytes() != before
    assert [item.name for item in path.parent.iterdir()] == ["a.state"]


def test_another_checkpoint_is_refused(saved):
    path, _, tokenizer = saved
    same = checkpoint_of(tokenizer)
    assert load_state(path, same.model, tokenizer, identity=same.identity()).pending is not None
    with torch.no_grad():
        same.model.token_output[-1].bias[3] += 1e-6
    others = [
        same,
        checkpoint_of(tokenizer, seed=1),
        checkpoint_of(tokenizer, cell={"layernorm_mix": 0.5}),
    ]
    renamed = checkpoint_of(tokenizer)
    renamed.tokenizer_json += " "
    for other in [*others, renamed]:
        with pytest.raises(InputError, match="another checkpoint") as caught:
            load_state(path, other.model, tokenizer, identity=other.identity())
        assert "\n" not in str(caught.value)


def test_damage_anywhere_is_noticed(saved):
    path, checkpoint, tokenizer = saved
    content = bytearray(path.read_bytes())
    for place in [*range(0, 1200, 7), *range(1200, len(content), 311), len(content) - 1]:
        damaged = bytearray(content)
        damaged[place] ^= 0x04
        path.write_bytes(damaged)
        with pytest.raises(InputError) as caught:
            load_state(path, checkpoint.model, tokenizer, identity=checkpoint.identity())
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
    for size in (0, 7, 100, len(content) - 1):
        path.write_bytes(content[:size])
        with pytest.raises(InputError, match="not a readable state"):
            load_state(path, checkpoint.model, tokenizer, identity=checkpoint.identity())


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"format": "newllm"}, "no state"),
        ({"format_version": "3"}, "format version '3'"),
        ({"sha256": "0"}, "hash is wrong"),
    ],
)
def test_foreign_files_are_told_apart(saved, change, words):
    path, checkpoint, tokenizer = saved
    with safe_open(path, framework="pt") as file:
        metadata = file.metadata()
    save_file(load_file(path), path, metadata | change)
    with pytest.raises(InputError, match=words):
        load_state(path, checkpoint.model, tokenizer, identity=checkpoint.identity())
    with pytest.raises(InputError, match="no such state"):
        load_state(path.with_name("none"), checkpoint.model, tokenizer, identity="x")

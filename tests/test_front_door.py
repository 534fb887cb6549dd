"""The front door for Python does what the command line does, and docs/PYTHON.md works."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
import torch

import newllm_core as newllm
from newllm_core.data.prepared import open_dataset
from newllm_core.errors import ConfigError, InputError
from newllm_core.model.counting import count_embeddings
from newllm_core.model.language_model import LanguageModel
from newllm_core.runtime.progress import Silent
from tests.cli.inside import CommandLine
from tests.few import FEW, FEW_FLAGS
from tests.open_gate import OPEN_GATE

PAGE = Path(__file__).parents[1] / "docs" / "PYTHON.md"
# Of the page: it leaves these.
ALL = {"data", "model", "contexts", "report", "correct", "heads", "text", "figures"}


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The folder and the names that the page leaves, its blocks run in order."""
    folder = tmp_path_factory.mktemp("page")
    names = {"__name__": "page"}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for block in re.findall(r"```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S):
            exec(compile(block, str(PAGE), "exec"), names)
    return folder, names


@pytest.fixture
def command(page, monkeypatch, capsys):
    monkeypatch.chdir(page[0])
    return CommandLine(monkeypatch, capsys)


def test_the_page_works_and_its_probe_reads_contexts(page):
    _, names = page
    assert names.keys() >= ALL
    assert names["correct"] > 0.6
    assert 1 < names["rank"] <= 16


def test_importing_loads_nothing_heavy():
    program = (
        "import sys, newllm_core\n"
        "assert 'open_checkpoint' in dir(newllm_core)\n"
        "print([m for m in ('torch', 'numpy', 'tokenizers') if m in sys.modules])\n"
        "print(newllm_core.prepare.__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert done.stdout.splitlines() == ["[]", "prepare False"], done.stderr


def test_every_name_of_the_front_door_is_there():
    assert all(getattr(newllm, name) for name in newllm.__all__)
    with pytest.raises(AttributeError, match="phase3"):
        newllm.phase3  # noqa: B018


def test_training_is_that_of_the_command_line(page, command):
    arguments = (
        *("phase1", "--data=data", "--out=runs/cli.safetensors", "--config=preset:tiny"),
        *("--threads=1", "--max-iterations=3", "--context-dim=16", "--embed-dim=16", "--cell=gru"),
        *("--set=analysis.probe_tokens=512", "--set=analysis.probe_passages=4"),
    )
    assert command(*arguments).code == 0
    own, other = page[1]["model"], newllm.open_checkpoint("runs/cli.safetensors")
    assert own.config == other.config
    for name, value in other.model.state_dict().items():
        torch.testing.assert_close(own.model.state_dict()[name], value)


def test_counted_embeddings_are_those_of_the_training_text_and_are_trained_on(page, command):
    shape = ("--data=data", "--context-dim=8", "--embed-dim=16", "--max-iterations=0")
    counted = ("--embeddings=counts", "--counted-tokens=900", "--out=runs/counted.safetensors")
    made = command("phase1", *shape, *counted, *FEW_FLAGS)
    assert made.code == 0
    assert "900 tokens of training text" in made.err
    model = newllm.open_checkpoint("runs/counted.safetensors").model
    wanted = LanguageModel(model.config, model.vocab_size)
    tokens = open_dataset(Path("data")).train.tokens[:900]
    count_embeddings(wanted.embedding.weight, tokens, seed=0, progress=Silent())
    torch.testing.assert_close(model.embedding.weight, wanted.embedding.weight)
    trained = newllm.phase2(
        "runs/counted.safetensors", epochs=1, untrained_blocks=True, threads=1, **OPEN_GATE
    )
    assert not torch.equal(trained.model.embedding.weight, model.embedding.weight)
    alone = command("phase1", *shape, "--counted-tokens=900", "--out=runs/alone.safetensors")
    assert alone.code == 2
    assert "--embeddings counts" in alone.err
    bigrams = ("--head-bigrams=90", "--counted-tokens=900")
    mixed = command("phase1", *shape, *bigrams, "--out=runs/mixed.safetensors", *FEW_FLAGS)
    assert mixed.code == 0, mixed.err


def test_text_figures_and_analysis_are_those_of_the_command_line(command):
    path = "runs/heads.safetensors"
    heads = newllm.open_checkpoint(path)
    Path("line.txt").write_text("The fish sees the ça bird.\n" * 30, encoding="utf-8")
    found = command("evaluate", path, "--text=line.txt", "--json").json["text"]
    assert heads.evaluate(Path("line.txt").read_text(encoding="utf-8")) == found
    assert heads.evaluate(Path("line.txt")) == found
    given = ("generate", path, "--prompt=The cat", "--max-tokens=25", "--json")
    found = command(*given, "--seed=3", "--temperature=0.9").json["text"]
    written = heads.generate("The cat", max_tokens=25, seed=3, temperature=0.9)
    assert written == found
    assert heads.generate("The cat", max_tokens=25, seed=4, temperature=0.9) != found
    letter = next(letter for letter in found[3:] if letter.isprintable())
    stopped = heads.generate("The cat", max_tokens=25, seed=3, temperature=0.9, stop=letter)
    assert stopped == found[: found.index(letter)]
    report = command("analyze", path, "--json", "--num-pairs=500", "--dynamics-steps=64").json
    assert heads.analyze(num_pairs=500, dynamics_steps=64) == report


def test_the_environment_stands_between_preset_and_keywords(page, monkeypatch):
    monkeypatch.chdir(page[0])
    heads = newllm.open_checkpoint("runs/heads.safetensors")
    short = heads.generate("The", max_tokens=3)
    monkeypatch.setenv("NEWLLM_GENERATION_MAX_TOKENS", "3")
    assert heads.generate("The") == short
    assert heads.generate("The", max_tokens=9).startswith(short)
    assert heads.generate("The", settings={"generation": {"max_tokens": 0}}) == ""


def test_nothing_is_printed(page, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    opened, threads = open_dataset(page[0] / "data"), {"threads": 1}
    book = {"source": "text-file", "input": page[0] / "book.txt", "vocab_size": 300}
    newllm.prepare(out="d", document_separator="\n\n", val_token_policy="keep", **book)
    shape = {"context_dim": 8, "embed_dim": 8, "layer_structure": [1, 1]}
    probes = {"analysis": FEW["analysis"]}
    made = newllm.phase1(data=opened, max_iterations=0, settings=probes, **shape, **threads)
    made = newllm.phase2(made, epochs=1, untrained_blocks=True, **OPEN_GATE, **threads)
    made = newllm.expand(made, **threads)
    assert made.model.num_heads == 2
    assert made.path == Path("runs/expanded.safetensors")
    made.evaluate("The cat")
    made.generate("The cat", max_tokens=3)
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: newllm.phase1(max_iteratoins=1), ConfigError, "did you mean 'max_iterations'"),
        (lambda: newllm.phase1(preset="tny"), ConfigError, "did you mean 'tiny'"),
        (lambda: newllm.phase1(preset="tiny", config="a.toml"), ConfigError, "exclude each other"),
        (lambda: newllm.phase1(settings={"cel": {}}), ConfigError, "did you mean 'cell'"),
        (lambda: newllm.phase1(config={"run": {}}), ConfigError, "config is .*: expected a path"),
        (lambda: newllm.phase1(progress=True), ConfigError, "progress is true: expected a newllm"),
        (lambda: newllm.phase2("a", progress=1), ConfigError, "progress is 1: expected a newllm"),
        (lambda: newllm.expand("a", progress=1), ConfigError, "progress is 1: expected a newllm"),
        (lambda: newllm.prepare(progress=print), ConfigError, "progress is .*: expected a newllm"),
        (lambda: newllm.phase1(overwrite="no"), ConfigError, "overwrite is 'no': expected True or"),
        (lambda: newllm.phase2("a", resume=1), ConfigError, "resume is 1: expected True or"),
        (lambda: newllm.expand("a", overwrite=None), ConfigError, "overwrite is None: expected"),
        (lambda: newllm.use_plugin_file(None), ConfigError, "the plugin is None: expected a path"),
        (lambda: newllm.phase1(settings=[1]), ConfigError, "settings is .1.: write {section"),
        (lambda: newllm.phase1(settings={"model": {3: 1}}), ConfigError, "unknown key model.3"),
        (lambda: newllm.phase1(preset=3), ConfigError, "unknown preset '3'"),
        (lambda: newllm.phase1(cell="gur"), ConfigError, "gur"),
        (lambda: newllm.prepare(vocab_sise=3), ConfigError, "did you mean 'vocab_size'"),
        (lambda: newllm.expand("none.safetensors", epochs=1), ConfigError, "keyword epochs"),
        (lambda: newllm.phase2("none.safetensors"), InputError, "no such checkpoint"),
        (lambda: newllm.open_checkpoint("none.safetensors"), InputError, "no such checkpoint"),
        (lambda: newllm.open_checkpoint(None), ConfigError, "the checkpoint is None: expected a"),
        (lambda: newllm.phase2(b"a"), ConfigError, "checkpoint is b'a': expected a path"),
        (lambda: newllm.expand("a.safetensors", out=3), ConfigError, "out is 3: expected a path"),
        (lambda: newllm.phase1(data=3), ConfigError, "data is 3: expected a path"),
        (lambda: newllm.prepare(out=3), ConfigError, "out is 3: expected a path"),
        (lambda: newllm.phase1(track=3), ConfigError, "track is 3: expected a name"),
        (lambda: newllm.phase1(track=[None]), ConfigError, "track is .None.: expected a name"),
        (lambda: newllm.open_checkpoint("a", device="gpu"), ConfigError, "auto, cpu, cuda"),
    ],
)
def test_mistakes_are_the_errors_of_the_command_line(tmp_path, monkeypatch, call, error, words):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(error, match=words):
        call()


@pytest.mark.parametrize(
    ("change", "default", "before"),
    [
        (torch.set_default_dtype, torch.float64, torch.float32),
        (torch.set_default_device, "meta", None),
    ],
)
def test_other_defaults_of_torch_are_refused(page, monkeypatch, change, default, before):
    monkeypatch.chdir(page[0])
    calls = (
        lambda: newllm.phase1(data="data", out="runs/f64.safetensors", context_dim=8),
        lambda: newllm.open_checkpoint("runs/a.safetensors"),
    )
    change(default)
    try:
        for call in calls:
            with pytest.raises(ConfigError, match=f"PyTorch makes .*{default} by default"):
                call()
    finally:
        change(before)


def test_inference_mode_is_no_hindrance(page, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made = {}
    for name in ("plain", "inference"):
        blocks = {"max_iterations": 2, "context_dim": 8, "embed_dim": 8, "settings": FEW}
        heads = {"epochs": 1, "untrained_blocks": True, **OPEN_GATE}
        with torch.inference_mode(name == "inference"):
            data = page[0] / "data"
            opened = newllm.phase1(data=data, out=f"{name}.safetensors", threads=1, **blocks)
            model = newllm.phase2(opened, out=f"{name}-2.safetensors", threads=1, **heads)
            model = newllm.expand(model, out=f"{name}-3.safetensors", threads=1)
            opened = newllm.open_checkpoint(model)
            text = opened.generate("The cat", max_tokens=5)
        made[name] = (opened.analyze(), model.analyze(num_pairs=500), text)
        for report in made[name][:2]:
            del report["checkpoint"]
    assert made["plain"] == made["inference"]


def test_what_a_checkpoint_cannot_do_is_said(page, monkeypatch):
    model = page[1]["model"]
    with pytest.raises(InputError, match="no trained head"):
        model.generate("The")
    with pytest.raises(InputError, match="no trained head"):
        model.evaluate("The")
    heads = page[1]["heads"]
    with pytest.raises(InputError, match="empty"):
        heads.evaluate("")
    with pytest.raises(ConfigError, match="a text is not divided"):
        heads.evaluate("The cat", split="test")
    with pytest.raises(InputError, match="not Unicode"):
        heads.contexts("\ud800")
    with pytest.raises(ConfigError, match="keyword device"):
        heads.generate("The", device="cpu")
    with pytest.raises(ConfigError, match="keyword probe_tokens"):
        heads.analyze(probe_tokens=3)
    with pytest.raises(InputError, match="the text is empty: it has no tokens"):
        heads.contexts("")
    for call, words in (
        (lambda: heads.contexts(["a", "b"]), "the text is .'a', 'b'.: expected text"),
        (lambda: heads.generate(3), "the prompt is 3: expected text"),
        (lambda: heads.generate("The", stop=3), "stop is 3: give a list such as a,b"),
        (lambda: heads.generate("The", stop=[3]), "stop is 3: expected text"),
        (lambda: heads.evaluate(["a"]), "the text is .'a'.: expected a text, a Path or"),
    ):
        with pytest.raises(ConfigError, match=words):
            call()

"""What a broken plugin does to the command that asks for it, and to those that do not."""

import json
import subprocess
import sys

import pytest

BASE = "from newllm_core.regularizers.base import Regularizer\n"
LOSS = "    def loss(self, contexts_ND, *, tokens_N):\n        return "
OPTIONS = (
    "from dataclasses import dataclass\nfrom newllm_core.config import option\n"
    f"{BASE}@dataclass\nclass O:\n    {{}}\n"
    f"class Broken(Regularizer):\n    Options = O\n{LOSS}0.0"
)

# What is wrong: source of the module, and what the line must say besides who it is.
BROKEN = {
    "raises": (
        "raise RuntimeError('two\\nlines')",
        "two lines (broken_plugin.py:1; NEWLLM_DEBUG=1",
    ),
    "exits": ("raise SystemExit('leaving')", "SystemExit: leaving"),
    "exits at once": ("import sys\nsys.exit()", "SystemExit"),
    "raises a base": ("raise BaseException('odd')", "BaseException: odd"),
    "syntax": ("def f(:", "SyntaxError"),
    "no such import": ("import not_a_module_anywhere", "ModuleNotFoundError"),
    "no such class": ("", "AttributeError"),
    "no class": ("Broken = 3", "is not a subclass of newllm_core.regularizers.base:Regularizer"),
    "a module": ("import json as Broken", "it is a module: write module:Class"),
    "another class": ("class Broken: pass", "is not a subclass of"),
    "a data source": (
        "from newllm_core.data.sources.base import DataSource as Broken",
        "is not a subclass of",
    ),
    "no loss": (BASE + "class Broken(Regularizer): pass", "does not define loss"),
    "options no dataclass": (
        BASE + f"class Broken(Regularizer):\n    Options = dict\n{LOSS}0.0",
        "has Options that are no dataclass: add @dataclass(frozen=True) above class dict",
    ),
    "default out of bounds": (
        OPTIONS.format("margin: float = option(5.0, 'Margin.', low=0, high=2)"),
        "has a default out of its bounds: option.margin is 5.0: at most 2",
    ),
    "default that is no choice": (
        OPTIONS.format("form: str = option('c', 'Form.', choices=('a', 'b'))"),
        "has a default out of its bounds: option.form is 'c': choose one of a, b",
    ),
    "default that it refuses": (
        OPTIONS.format("a: int = 1\n    def __post_init__(self):\n        raise ValueError('odd')"),
        "has Options that cannot be made of their defaults: ValueError: odd",
    ),
    "default of another type": (
        OPTIONS.format("sizes: tuple[int, ...] = option((1.5,), 'Sizes.')"),
        "has options that cannot be read once they are saved: ConfigError: option.sizes is 1.5",
    ),
    "options that count themselves": (
        OPTIONS.format(
            "share: float = 3.0\n    def __post_init__(self):\n"
            "        object.__setattr__(self, 'share', self.share / 100)"
        ),
        "has options that change when they are saved: share is 0.03, and then 0.0003",
    ),
    "option that nobody gives": (
        OPTIONS.format("a: int = field(init=False, default=3)").replace(
            "import dataclass", "import dataclass, field"
        ),
        "has the option 'a' that nobody can give: leave out init=False",
    ),
    "options of an odd type": (
        "from dataclasses import dataclass\nfrom typing import Literal\n"
        f"{BASE}@dataclass\nclass O:\n    form: Literal['a', 'b'] = 'a'\n"
        f"class Broken(Regularizer):\n    Options = O\n{LOSS}0.0",
        "has the option 'form' of type Literal['a', 'b']: use bool, int",
    ),
    "option without default": (
        f"from dataclasses import dataclass\n{BASE}@dataclass\nclass O:\n    form: str\n"
        f"class Broken(Regularizer):\n    Options = O\n{LOSS}0.0",
        "has the option 'form' without a default",
    ),
    "weight of text": (
        BASE + f"class Broken(Regularizer):\n    default_weight = '0.5'\n{LOSS}0.0",
        "default_weight is '0.5': must be a number from 0 to 1",
    ),
    "weight above 1": (
        BASE + f"class Broken(Regularizer):\n    default_weight = 3.0\n{LOSS}0.0",
        "default_weight is 3.0: must be a number from 0 to 1",
    ),
    "cannot be made": (
        BASE + "class Broken(Regularizer):\n"
        f"    def __init__(self, dim, options=None):\n        raise OSError('no disk')\n{LOSS}0.0",
        "OSError: no disk (broken_plugin.py:4",
    ),
    "parent not made": (
        f"import torch\n{BASE}class Broken(Regularizer):\n"
        f"    def __init__(self, *given):\n        self.a = torch.nn.Linear(2, 2)\n{LOSS}0.0",
        "__init__() call: call super().__init__(…) first (broken_plugin.py:5",
    ),
    "loss raises": (
        BASE + f"class Broken(Regularizer):\n{LOSS}1 / 0",
        "by zero (broken_plugin.py:4",
    ),
    "NaN": (
        BASE + f"class Broken(Regularizer):\n{LOSS}contexts_ND.mean() * float('nan')",
        "nan for ",
    ),
    "infinite": (
        BASE + f"class Broken(Regularizer):\n{LOSS}contexts_ND.mean() * float('inf')",
        "inf for ",
    ),
    "no tensor": (BASE + f"class Broken(Regularizer):\n{LOSS}0.5", "0.5"),
    "a vector": (BASE + f"class Broken(Regularizer):\n{LOSS}contexts_ND.mean(0)", "shape ["),
    "gradient not finite": (
        BASE + f"class Broken(Regularizer):\n{LOSS}(contexts_ND * 0).sum().sqrt()",
        "gradient",
    ),
}


CHECKED = OPTIONS.format(
    "sizes: tuple[int, ...] = option((4, 8), 'Sizes.', choices=(4, 8, 16))\n"
    "    form: str | None = option(None, 'Form.', choices=('a', 'b'))\n"
    "    def __post_init__(self):\n        assert self.form != 'b', 'b is late'"
).replace(f"{LOSS}0.0", f"{LOSS}contexts_ND.square().mean()")


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("sizes=4,5", "(4, 5): choose one of 4, 8, 16"),
        ("form=c", "'c': choose one of a, b"),
        ("form=b", "regularizer 'broken' refuses its options: AssertionError: b is late"),
        ("sizes=16,4", None),
        ("form=a", None),
    ],
)
def test_options_may_have_choices_and_check_themselves(setting, said, phase1, tmp_path):
    (tmp_path / "broken.py").write_text(CHECKED)
    done = phase1(
        "--plugin", tmp_path / "broken.py", "--reg=broken", f"--set=regularizer.{setting}"
    )
    if said is None:
        assert done.code == 0, done.err
    else:
        assert done.code == 2
        done.one_line(said)


def test_what_show_says_can_be_pasted(newllm, tmp_path):
    (tmp_path / "broken.py").write_text(CHECKED)
    out = newllm("plugins", "show", "broken", "--plugin", tmp_path / "broken.py").out
    assert "--set regularizer.sizes=4,8\n" in out
    assert "4|8|16" in out


@pytest.fixture(params=BROKEN, ids=lambda name: name.replace(" ", "-"))
def broken(request, site):
    """What the line about the installed broken plugin must say."""
    source, reason = BROKEN[request.param]
    site.install("newllm-broken", {"broken": "broken_plugin:Broken"}, broken_plugin=source)
    return reason


def test_a_broken_plugin_is_one_line_and_exit_code_4(broken, phase1, tmp_path):
    done = phase1("--reg", "broken")
    done.one_line("regularizer 'broken' of newllm-broken 1.2 (broken_plugin:Broken)", broken)
    assert done.code == 4
    assert not done.out
    assert not list(tmp_path.glob("*.safetensors"))


def test_check_finds_each_and_listing_does_not_mind(site, newllm):
    for number, (source, _) in enumerate(BROKEN.values()):
        module = f"broken_plugin{number}"
        site.install(f"newllm-b{number}", {f"b{number}": f"{module}:Broken"}, **{module: source})
    assert newllm("plugins").code == 0
    done = newllm("plugins", "--check", "--json")
    assert done.code == 4
    assert "Traceback" not in done.err
    found = {entry["name"]: entry for entry in done.json["plugins"]}
    problems = []
    for number, (_, reason) in enumerate(BROKEN.values()):
        entry = found.pop(f"b{number}")
        assert entry["status"] == "broken"
        origin = f"newllm-b{number} 1.2 (broken_plugin{number}:Broken)"
        assert entry["problem"].startswith(f"regularizer 'b{number}' of {origin}")
        assert reason.replace("broken_plugin.py", f"broken_plugin{number}.py") in entry["problem"]
        problems.append(f"newllm: {entry['problem']}")
    assert sorted(line for line in done.lines if line.startswith("newllm: ")) == sorted(problems)
    assert all(entry["status"] == "ok" for entry in found.values())


# When it is imported, looked at, made and used.
@pytest.mark.parametrize(
    "broken", ["exits", "no class", "cannot be made", "loss raises"], indirect=True
)
def test_other_commands_neither_fail_nor_mention_it(broken, phase1):
    done = phase1("--reg", "none")
    assert done.code == 0
    assert "broken" not in done.out + done.err


def test_debug_shows_the_traceback(site, phase1, monkeypatch):
    source = "raise RuntimeError('deep inside')"
    site.install("newllm-broken", {"broken": "broken_plugin:Broken"}, broken_plugin=source)
    monkeypatch.setenv("NEWLLM_DEBUG", "1")
    with pytest.raises(Exception, match="deep inside") as caught:
        phase1("--reg", "broken")
    assert isinstance(caught.value.__cause__, RuntimeError)


def test_no_gradient_is_said_before_training_and_after(site, phase1):
    source = BASE + f"class Flat(Regularizer):\n{LOSS}contexts_ND.detach().square().mean()"
    site.install("newllm-flat", {"flat": "flat_plugin:Flat"}, flat_plugin=source)
    done = phase1("--reg", "flat", "--json")
    assert done.code == 0
    first, last = [line for line in done.lines if "newllm-flat 1.2 (flat_plugin:Flat)" in line]
    assert "has no gradient with respect to the contexts: it trains nothing" in first
    assert "vacuous term: regularizer" in last
    assert done.json["vacuous_terms"] == ["regularizer"]


def test_the_look_beforehand_moves_no_statistics(site, phase1, tmp_path):
    """A plugin that is a built-in by another name trains to the same history."""
    source = (
        "import torch\n"
        "from newllm_core.regularizers.covariance_ema import CovarianceEma\n"
        "class Twin(CovarianceEma):\n"
        "    def __init__(self, *given):\n        super().__init__(*given)\n        torch.rand(3)\n"
    )
    site.install("newllm-twin", {"twin": "twin_plugin:Twin"}, twin_plugin=source)
    reports = [
        phase1("--reg", name, "--json", out=tmp_path / f"{name}.safetensors").json
        for name in ("twin", "covariance-ema")
    ]
    assert reports[0]["last_iteration"] == reports[1]["last_iteration"]


def test_printing_does_not_spoil_json(site, phase1):
    source = (
        f"import os, subprocess\n{BASE}print('hello from import')\nos.system('echo from a shell')\n"
        f"class Loud(Regularizer):\n"
        "    def loss(self, contexts_ND, *, tokens_N):\n"
        "        print('hello from loss')\n        return contexts_ND.square().mean()\n"
    )
    site.install("newllm-loud", {"loud": "loud_plugin:Loud"}, loud_plugin=source)
    done = phase1("--reg", "loud", "--json")
    assert done.code == 0
    assert done.json["schema"] == 1
    for text in ("hello from import", "from a shell", "hello from loss"):
        assert text in done.err


def test_check_and_show_keep_what_plugins_print_off_stdout(site, newllm):
    source = (
        f"{BASE}print('hello from import')\nclass Loud(Regularizer):\n"
        "    def loss(self, contexts_ND, *, tokens_N):\n"
        "        print('hello from loss')\n        return contexts_ND.square().mean()\n"
    )
    site.install("newllm-loud", {"loud": "loud_plugin:Loud"}, loud_plugin=source)
    done = newllm("plugins", "--check", "--json")
    assert done.code == 0
    assert {entry["status"] for entry in done.json["plugins"]} == {"ok"}
    assert newllm("plugins", "show", "loud", "--json").json["plugins"][0]["name"] == "loud"


def test_a_slow_import_is_named_while_it_lasts(site, newllm, caplog, monkeypatch):
    source = f"import time\n{BASE}time.sleep(0.5)\nclass Slow(Regularizer):\n{LOSS}0 * contexts_ND"
    for name in ("slow", "slower"):
        module = f"{name}_plugin"
        site.install(f"newllm-{name}", {name: f"{module}:Slow"}, **{module: source})
    assert newllm("plugins").code == 0
    assert newllm("plugins", "show", "slow").code == 0
    assert caplog.messages == []
    monkeypatch.setattr("newllm_core.plugins.guard.SLOW_IMPORT_SECONDS", 0.2)
    assert newllm("plugins", "show", "slower").code == 0
    (line,) = caplog.messages
    assert "regularizer 'slower' of newllm-slower 1.2 (slower_plugin:Slow)" in line
    assert "importing for 0.2 s" in line


def test_help_and_listing_import_no_plugin_and_no_torch(site):
    """However many there are and whatever they do."""
    site.install("newllm-exits", {"exits": "exits_plugin:X"}, exits_plugin="raise SystemExit(9)")
    for number in range(20):
        name = f"heavy_plugin{number}"
        source = {name: f"import torch\nprint('imported')\n{BASE}"}
        site.install(f"newllm-heavy-{number}", {f"heavy-{number}": f"{name}:Heavy"}, **source)
    code = (
        "import sys, json\n"
        f"sys.path.insert(0, {str(site.folder)!r})\n"
        "from newllm_cli.__main__ import main\n"
        "sys.argv = ['newllm', *sys.argv[1:]]\n"
        "try:\n    main()\n"
        "except SystemExit as end:\n    assert not end.code, end.code\n"
        "bad = {'torch', 'numpy', 'datasets', 'tokenizers', 'safetensors'} & set(sys.modules)\n"
        "bad |= {name for name in sys.modules if name.startswith(('heavy_', 'exits_'))}\n"
        "print(json.dumps(sorted(bad)), file=sys.stderr)\n"
    )
    for arguments in (["--help"], ["phase1", "--help"], ["plugins"], ["plugins", "--json"]):
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True
        )
        assert json.loads(done.stderr.splitlines()[-1]) == []
        assert "imported" not in done.stdout
    assert "heavy-19" in done.stdout


def test_a_step_of_a_recurrence_that_breaks_names_the_plugin(site, newllm, tmp_path):
    source = (
        "import torch\nfrom newllm_core.analysis.foreign.base import Foreign, Network\n"
        "def step(state, ids):\n    raise KeyError('gate')\n"
        "class Odd(Foreign):\n    def open(self, path, **given):\n"
        "        return Network(step=step, start=torch.zeros(1, 4))\n"
    )
    site.install("newllm-odd", {"odd": "odd_plugin:Odd"}, kind="recurrence", odd_plugin=source)
    (tmp_path / "ids.json").write_text(json.dumps([1, 2, 3] * 60))
    done = newllm("analyze", tmp_path / "x", "--as", "odd", "--tokens", tmp_path / "ids.json")
    done.one_line(
        "recurrence 'odd' of newllm-odd 1.2 (odd_plugin:Odd): step failed for token ids up to ",
        "KeyError: 'gate' (odd_plugin.py:4",
    )
    assert done.code == 4

"""What a loss that breaks does to the run that trains with it."""

import pytest

# Before it trains, a regularizer is called at most seven times to see whether it can be used.
LATE = """from newllm_core.regularizers.base import Regularizer

class Late(Regularizer):
    calls = 0
    def loss(self, contexts_ND, *, tokens_N):
        type(self).calls += 1
        is_late = type(self).calls > 7
"""
OBJECTIVE = "from newllm_core.objectives.base import Objective\n"


def test_a_loss_that_breaks_at_once_leaves_nothing(site, phase1, tmp_path):
    source = f"{OBJECTIVE}class First(Objective):\n    def loss(self, **given):\n        1 / 0\n"
    site.install("newllm-o", {"first": "o_plugin:First"}, kind="objective", o_plugin=source)
    done = phase1("--objective", "first")
    assert "--resume" not in done.one_line("newllm-o 1.2 (o_plugin:First) failed: ZeroDivision")
    assert done.code == 4
    assert not list(tmp_path.glob("phase1*"))


@pytest.mark.parametrize(
    ("reads", "said"),
    [
        ("('token_at:-1',)", "reads 'token_at:-1': choose from previous, second_reading"),
        ("('tokens_at:2',)", "reads 'tokens_at:2': choose from"),
        ("('previos',)", "reads 'previos': choose from previous"),
        ("'previous'", "reads is a tuple of names: write ('previous',)"),
    ],
)
def test_what_an_objective_reads_in_vain_names_it(phase1, tmp_path, reads, said):
    path = tmp_path / "first.py"
    path.write_text(
        f"{OBJECTIVE}class First(Objective):\n    reads = {reads}\n"
        "    def loss(self, *, final_NC, **given):\n        return final_NC.mean()\n"
    )
    done = phase1("--plugin", path, "--objective", "first")
    done.one_line("objective 'first' of file sha256:", f"({path}:First): ", said)
    assert done.code == 4


def test_a_loss_that_trains_only_itself_is_warned_of_once(phase1, tmp_path, caplog):
    path = tmp_path / "own.py"
    path.write_text(
        "import torch\n"
        f"{OBJECTIVE}class Own(Objective):\n"
        "    def __init__(self, *given):\n        super().__init__(*given)\n"
        "        self.head = torch.nn.Linear(self.context_dim, 1)\n"
        "    def loss(self, *, final_NC, **given):\n"
        "        return self.head(final_NC.detach()).square().mean()\n"
    )
    done = phase1("--plugin", path, "--objective", "own")
    assert done.code == 0
    (line,) = caplog.messages
    assert "has no gradient with respect to the contexts: it trains no recurrence" in line


def test_what_no_checkpoint_may_hold_is_refused_before_training(phase1, tmp_path):
    path = tmp_path / "masked.py"
    path.write_text(
        "import torch\n"
        "from newllm_core.model.cells.gru import GruCell\n"
        "class Masked(GruCell):\n"
        "    def __init__(self, *given):\n        super().__init__(*given)\n"
        "        self.register_buffer('mask', torch.full((2,), float('-inf')))\n"
    )
    done = phase1("--plugin", path, "--cell", "masked")
    done.one_line("cell 'masked'", "mask holds values that are not finite")
    assert done.code == 4


def test_a_loss_that_breaks_during_training_names_the_plugin(site, phase1, tmp_path):
    source = (
        f"{LATE}"
        "        if is_late:\n            raise KeyError('late')\n"
        "        return contexts_ND.square().mean()\n"
    )
    site.install("newllm-late", {"late": "late_plugin:Late"}, late_plugin=source)
    done = phase1("--reg", "late")
    done.one_line("newllm-late 1.2 (late_plugin:Late) failed: KeyError: 'late'", "pass --resume")
    assert done.code == 4
    assert (tmp_path / "phase1.resume").exists()


def test_who_mends_a_plugin_goes_on_and_is_told(phase1, tmp_path):
    file = tmp_path / "late.py"
    file.write_text(
        f"{LATE}"
        "        if is_late:\n            raise KeyError('late')\n"
        "        return contexts_ND.square().mean()\n"
    )
    given = ("--plugin", file, "--reg", "late")
    assert phase1(*given).code == 4
    file.write_text(f"{LATE}        return contexts_ND.square().mean()\n")
    done = phase1(*given, "--resume")
    assert done.code == 0, done.err
    (line,) = (line for line in done.err.splitlines() if "regularizer late" in line)
    assert "when the run stopped: it goes on with the new code" in line


def test_a_loss_that_becomes_no_tensor_names_the_plugin(phase1, tmp_path):
    (tmp_path / "late.py").write_text(
        f"{LATE}        return contexts_ND.square().mean() if not is_late else 0.5\n"
    )
    done = phase1("--plugin", tmp_path / "late.py", "--reg", "late")
    assert "newllm_plugin_file" not in done.one_line("regularizer 'late' of file", "late.py:Late")
    assert done.code == 4


def test_a_loss_that_becomes_nan_names_the_plugin(site, phase1):
    source = (
        f"{LATE}"
        "        scale = float('nan') if is_late else 1.0\n"
        "        return contexts_ND.square().mean() * scale\n"
    )
    site.install("newllm-late", {"late": "late_plugin:Late"}, late_plugin=source)
    done = phase1("--reg", "late")
    done.one_line("phase 1 diverged", "regularizer 'late' of newllm-late 1.2 (late_plugin:Late)")
    assert done.code == 5

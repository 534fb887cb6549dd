"""Up to a hub that is a folder, and down again; commands from the command line."""

import shutil
from dataclasses import replace
from pathlib import Path

import cases
import pytest
from huggingface_hub.errors import RepositoryNotFoundError
from newllm_hub import hub
from newllm_hub.export import export_folder
from newllm_hub.folder import COMPANION, FILES, MODEL
from newllm_hub.import_folder import import_checkpoint
from typer.testing import CliRunner

from newllm_cli.app import app
from newllm_core.analysis.analyze import analyze
from newllm_core.checkpoint.format import load
from newllm_core.errors import ConfigError, InputError, PluginError
from newllm_core.plugins.files import use_file
from newllm_core.plugins.plugin import FROM_FILES


class FakeHub:
    """What `HfApi` and `snapshot_download` do, in a folder."""

    def __init__(self, folder):
        self.folder = folder
        self.private = {}

    def create_repo(self, name, *, private, exist_ok):
        (self.folder / name).mkdir(parents=True, exist_ok=exist_ok)
        self.private.setdefault(name, private)

    def upload_folder(self, *, repo_id, folder_path, commit_message):
        assert commit_message
        shutil.copytree(folder_path, self.folder / repo_id, dirs_exist_ok=True)

    def list_repo_files(self, name, *, revision):
        assert revision is None
        if not (self.folder / name).is_dir():
            raise OSError(f"404 Client Error: no {name}")
        return [file.name for file in (self.folder / name).iterdir()]

    def download(self, name, *, revision, local_dir, allow_patterns):
        assert revision is None
        Path(local_dir).mkdir(exist_ok=True)
        for file in (self.folder / name).iterdir():
            if file.name in allow_patterns:
                shutil.copy(file, local_dir)


@pytest.fixture
def fake(tmp_path, monkeypatch):
    made = FakeHub(tmp_path / "hub")
    monkeypatch.setattr(hub, "HfApi", lambda: made)
    monkeypatch.setattr(hub, "snapshot_download", made.download)
    return made


def test_up_and_down_it_is_the_same_checkpoint(chat, fake, tmp_path):
    sizes = hub.push_checkpoint(chat, "me/model", private=True, analysis=False)
    assert fake.private == {"me/model": True}
    there = fake.folder / "me" / "model"
    assert {file.name: file.stat().st_size for file in there.iterdir()} == sizes
    (there / "evil.py").write_text("")
    hub.pull_folder("me/model", tmp_path / "model")
    assert sorted(file.name for file in (tmp_path / "model").iterdir()) == sorted(FILES)
    import_checkpoint(tmp_path / "model", tmp_path / "again.safetensors")
    assert load(tmp_path / "again.safetensors").identity() == load(chat).identity()


def test_a_dry_run_uploads_nothing(chat, fake):
    sizes = hub.push_checkpoint(chat, "me/model", dry_run=True, analysis=False)
    assert set(sizes) == set(FILES)
    assert sizes[MODEL] > 1000
    assert not fake.folder.exists()


def test_refusals_are_one_line(chat, fake, tmp_path):
    for name in ("no/such/name", "a b"):
        with pytest.raises(ConfigError, match="no name of a model"):
            hub.push_checkpoint(chat, name, analysis=False)
    with pytest.raises(InputError, match=r"cannot pull me/none: 404 .*no me/none"):
        hub.pull_folder("me/none", tmp_path / "none")
    (fake.folder / "me" / "other").mkdir(parents=True)
    (fake.folder / "me" / "other" / "config.json").write_text("{}")
    with pytest.raises(InputError, match=f"me/other has no {COMPANION}"):
        hub.pull_folder("me/other", tmp_path / "other")
    assert not (tmp_path / "other").exists()  # a corrected name can be pulled there
    with pytest.raises(InputError, match="no exported model"):
        hub.pull_folder("me/other", tmp_path)

    def refuse(*args, **options):
        raise RepositoryNotFoundError.__new__(RepositoryNotFoundError)

    fake.create_repo = refuse
    with pytest.raises(InputError, match="cannot push to me/model"):
        hub.push_checkpoint(chat, "me/model", analysis=False)


def test_the_real_client_offline_is_one_line(tmp_path):
    with pytest.raises(InputError, match="cannot pull me/model") as caught:
        hub.pull_folder("me/model", tmp_path / "model")
    assert "\n" not in str(caught.value)


def newllm(*arguments):
    """What the command line prints; it raises what ends it."""
    done = CliRunner().invoke(app, [str(argument) for argument in arguments])
    if done.exception is not None:
        raise done.exception
    return done.stdout


def test_commands(tmp_path):
    path = cases.write(cases.make(cell="mingru"), tmp_path)
    export = ("export", path, "--to", tmp_path / "m", "--no-analysis")
    assert newllm(*export).count(".safetensors") == 2
    again = tmp_path / "again.safetensors"
    assert "as it was exported" in newllm("import", tmp_path / "m", "--out", again)
    out = newllm("push", path, "me/model", "--dry-run", "--no-analysis")
    assert f"{(tmp_path / 'm' / MODEL).stat().st_size:,}  {MODEL}" in out
    assert "nothing was uploaded" in out
    with pytest.raises(InputError, match="--overwrite"):
        newllm(*export)
    with pytest.raises(InputError, match="cannot pull me/model"):
        newllm("pull", "me/model", "--to", tmp_path / "pulled")


PLUGIN = """from torch import nn
from newllm_core.model.cells.base import Cell
class TriedOut(Cell):
    "One matrix of the context, and the mean of the token."
    def __init__(self, context_dim, embed_dim, options=None):
        super().__init__(context_dim, embed_dim, options)
        self.update = nn.Linear(context_dim, context_dim)
    def forward(self, *, context, token):
        return (self.update(context) + token.mean(-1, keepdim=True)).tanh(), token
"""


def test_cells_in_files_are_known_and_refused_for_what_they_are(tmp_path):
    file = tmp_path / "mine.py"
    file.write_text(PLUGIN)
    use_file(file)
    path = cases.write(cases.make(cell="tried-out"), tmp_path)
    for command in (("export", path, "--to", tmp_path / "m"), ("push", path, "me/model")):
        FROM_FILES.clear()
        with pytest.raises(PluginError, match=r"'tried-out'.* cannot be exported"):
            newllm(*command, "--plugin", file)


def test_health_is_in_the_card(tmp_path):
    checkpoint = cases.make()
    few = {"probe_tokens": 60, "num_pairs": 100, "dynamics_steps": 4, "memory_lags": 2}
    few |= {"memory_tokens": 3, "dependency_contexts": 4, "dependency_tokens": 3, "readings": 4}
    few |= {"dynamics_passages": 2, "repeated_tokens": 4}
    analysis = replace(checkpoint.config.analysis, **few)
    checkpoint.config = replace(checkpoint.config, analysis=analysis)
    path = cases.write(checkpoint, tmp_path)
    export_folder(path, tmp_path / "m")
    card = (tmp_path / "m" / "README.md").read_text()
    report = analyze(load(path), checkpoint_path=path)
    for split, column in ((report["validation"], 1), (report["random_control"]["validation"], 2)):
        row = next(line for line in card.splitlines() if line.startswith("| effective rank"))
        shown = float(row.strip("| ").split("|")[column])
        assert shown == pytest.approx(split["effective_rank_ratio"], rel=1e-3)

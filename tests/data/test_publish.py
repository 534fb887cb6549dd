from pathlib import Path

import pytest

from newllm_core.data import split_encoder
from newllm_core.data.prepared import open_dataset
from newllm_core.errors import InputError

from .cases import BLANK, assert_one_line_error, contents_of, run, write


def test_an_existing_folder_is_not_overwritten_unless_asked(tmp_path, corpus):
    out = tmp_path / "out"
    first = run(out, BLANK, input=corpus)
    before = contents_of(out)
    with assert_one_line_error(InputError, out, "--overwrite"):
        run(out, BLANK, seed=3, input=corpus)
    assert contents_of(out) == before
    second = run(out, BLANK, seed=3, overwrite=True, input=corpus)
    assert second.hash != first.hash
    assert open_dataset(out).hash == second.hash
    (out / "train.tokens").write_bytes(b"damaged")
    assert run(out, BLANK, overwrite=True, input=corpus).hash == first.hash
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", "out"]


@pytest.mark.parametrize("existing", [False, True])
def test_a_link_stays_and_the_folder_that_it_points_to_is_replaced(tmp_path, corpus, existing):
    out, folder = tmp_path / "out", tmp_path / "elsewhere" / "data"
    out.symlink_to("elsewhere/data")
    if existing:
        run(folder, BLANK, input=corpus)
        with assert_one_line_error(InputError, folder, "--overwrite"):
            run(out, BLANK, input=corpus)
    made = run(out, BLANK, seed=3, overwrite=existing, input=corpus)
    assert out.is_symlink()
    assert open_dataset(folder).hash == open_dataset(out).hash == made.hash
    found = [sorted(path.name for path in where.iterdir()) for where in (tmp_path, folder.parent)]
    assert found == [["corpus.txt", "elsewhere", "out"], ["data"]]


def test_what_is_not_a_prepared_data_set_is_never_deleted(tmp_path, corpus):
    for make in (
        lambda out: out.mkdir(),
        lambda out: out.write_text("mine", encoding="utf-8"),
        lambda out: write(out / "dataset.json", '{"format": "other"}'),
        lambda out: write(out / "dataset.json", "["),
    ):
        out = tmp_path / f"out{len(list(tmp_path.iterdir()))}"
        make(out)
        with assert_one_line_error(InputError, out, "not a prepared data set"):
            run(out, BLANK, input=corpus, overwrite=True)
        assert out.exists()
    out = tmp_path / "kept"
    run(out, BLANK, input=corpus, overwrite=True)
    write(out / "notes.txt", "mine")
    with assert_one_line_error(InputError, out, "notes.txt"):
        run(out, BLANK, input=corpus, overwrite=True)
    assert (out / "notes.txt").read_text(encoding="utf-8") == "mine"


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError, OSError])
@pytest.mark.parametrize("existing", [False, True])
def test_an_interrupted_run_leaves_everything_as_it_was(
    tmp_path, corpus, monkeypatch, error, existing
):
    out = tmp_path / "out"
    if existing:
        run(out, BLANK, input=corpus)
    before = contents_of(out) if existing else None

    def stop(path, numbers):
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(split_encoder, "_write_array", stop)
        with pytest.raises(InputError if error is OSError else error):
            run(out, BLANK, overwrite=True, seed=1, input=corpus)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["corpus.txt", *["out"] * existing]
    assert (contents_of(out) if existing else None) == before


def test_a_failed_exchange_puts_the_old_folder_back(tmp_path, corpus, monkeypatch):
    out = tmp_path / "out"
    run(out, BLANK, input=corpus)
    before = contents_of(out)
    original = Path.rename

    def rename(self, target):
        if self.name == "new":
            raise OSError(28, "No space left on device")
        return original(self, target)

    monkeypatch.setattr(Path, "rename", rename)
    with assert_one_line_error(InputError, out, "No space left"):
        run(out, BLANK, overwrite=True, seed=1, input=corpus)
    assert contents_of(out) == before


def test_where_a_disk_is_mounted_no_folder_is_exchanged(tmp_path, corpus, monkeypatch):
    run(tmp_path / "out", BLANK, input=corpus)
    before = contents_of(tmp_path / "out")
    monkeypatch.setattr("os.path.ismount", lambda path: path == tmp_path / "out")
    with assert_one_line_error(InputError, "a disk is mounted at", tmp_path / "out"):
        run(tmp_path / "out", BLANK, input=tmp_path / "gone.txt", overwrite=True)
    assert contents_of(tmp_path / "out") == before


def test_an_out_that_cannot_be_written(tmp_path, corpus):
    with assert_one_line_error(InputError, corpus / "out"):
        run(corpus / "out", BLANK, input=corpus)


def test_missing_parents_of_out_are_made(tmp_path, corpus):
    run(tmp_path / "a" / "b" / "out", BLANK, input=corpus)
    assert open_dataset(tmp_path / "a" / "b" / "out").train.num_bytes > 0

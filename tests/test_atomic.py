"""A file is the old one or the new one."""

import os

import pytest

from newllm_core.errors import InputError
from newllm_core.files.atomic import refuse_existing, remove_leftovers, write_atomically


def names(folder):
    return sorted(item.name for item in folder.iterdir())


def test_a_new_file_and_its_folders(tmp_path):
    path = tmp_path / "a" / "b" / "file"
    write_atomically(path, lambda temporary: temporary.write_text("new"))
    assert path.read_text() == "new"
    assert names(path.parent) == ["file"]


@pytest.mark.parametrize("mask", [0o022, 0o077])
def test_others_may_read_it_as_the_umask_says(tmp_path, mask):
    path = tmp_path / "file"

    def write(temporary):
        temporary.write_bytes(b"x")
        temporary.chmod(0o600)

    before = os.umask(mask)
    try:
        write_atomically(path, write)
    finally:
        os.umask(before)
    assert path.stat().st_mode & 0o777 == 0o666 & ~mask


def test_the_temporary_file_is_beside_it_and_the_old_one_stays_until_the_end(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")
    seen = []

    def write(temporary):
        temporary.write_text("new")
        seen.append((temporary.parent.parent, path.read_text()))

    write_atomically(path, write)
    assert seen == [(tmp_path, "old")]  # a folder of its own, on the same file system
    assert path.read_text() == "new"
    assert names(tmp_path) == ["file"]


@pytest.mark.parametrize("error", [RuntimeError("midway"), KeyboardInterrupt(), ValueError("x")])
def test_a_writer_that_fails_midway_leaves_the_old_file_and_nothing_else(tmp_path, error):
    path = tmp_path / "file"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half of the n")
        raise error

    with pytest.raises(type(error)):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_a_full_disk_is_an_input_error_that_names_the_file(tmp_path):
    path = tmp_path / "file"
    path.write_text("old")

    def write(temporary):
        temporary.write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(InputError, match=r"cannot write .*file: No space left on device"):
        write_atomically(path, write)
    assert path.read_text() == "old"
    assert names(tmp_path) == ["file"]


def test_the_file_is_on_disk_before_it_gets_its_name(tmp_path, monkeypatch):
    calls = []
    fsync, replace = os.fsync, os.replace
    monkeypatch.setattr(os, "fsync", lambda fd: (calls.append("fsync"), fsync(fd)))
    monkeypatch.setattr(os, "replace", lambda a, b: (calls.append("replace"), replace(a, b)))
    write_atomically(tmp_path / "file", lambda temporary: temporary.write_text("new"))
    assert calls == ["fsync", "replace", "fsync"]


def test_a_folder_that_is_a_file(tmp_path):
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="cannot write"):
        write_atomically(tmp_path / "file" / "below", lambda temporary: temporary.write_text("y"))
    assert names(tmp_path) == ["file"]


def test_a_writer_that_writes_nothing(tmp_path):
    with pytest.raises(InputError, match="cannot write"):
        write_atomically(tmp_path / "file", lambda temporary: None)
    assert names(tmp_path) == []


def test_what_exists_is_replaced_only_on_request(tmp_path):
    path = tmp_path / "file"
    refuse_existing(path, overwrite=False)
    path.write_text("old")
    refuse_existing(path, overwrite=True)
    with pytest.raises(InputError, match=r"file exists: .*--overwrite") as caught:
        refuse_existing(path, overwrite=False)
    assert caught.value.exit_code == 3


@pytest.mark.parametrize("target", ["there", "gone"])
def test_a_link_stays_and_what_it_points_to_is_replaced(tmp_path, target):
    link, file = tmp_path / "link", tmp_path / target / "file"
    link.symlink_to(f"{target}/file")
    if target == "there":
        file.parent.mkdir()
        file.write_text("old")
    with pytest.raises(InputError, match=r"link exists: .*--overwrite"):
        refuse_existing(link, overwrite=False)
    refuse_existing(link, overwrite=True)
    seen = []

    def write(temporary):
        temporary.write_text("new")
        seen.append(temporary.parent.parent)

    write_atomically(link, write)
    assert seen == [file.parent]  # a file can only take the place of another on its own disk
    assert link.is_symlink()
    assert file.read_text() == link.read_text() == "new"
    assert [names(tmp_path), names(file.parent)] == [sorted(["link", target]), ["file"]]


def test_a_link_to_a_folder_is_a_folder_in_the_way(tmp_path):
    (tmp_path / "link").symlink_to(tmp_path)
    with pytest.raises(InputError, match="link is a folder: choose another --out"):
        refuse_existing(tmp_path / "link", overwrite=True)


def test_what_a_killed_writer_left_is_swept_where_a_link_points_to(tmp_path):
    (tmp_path / "there" / ".file.x.tmp").mkdir(parents=True)
    (tmp_path / "link").symlink_to("there/file")
    remove_leftovers(tmp_path / "link")
    assert names(tmp_path / "there") == []

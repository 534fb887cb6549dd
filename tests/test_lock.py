"""One writer at a time, whatever became of the last one."""

import os
import signal
import subprocess
import sys

import pytest

from newllm_core.errors import InputError
from newllm_core.files.lock import exclusive

HOLD = """
import sys, time
from pathlib import Path
from newllm_core.files.lock import exclusive
with exclusive(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(60)
"""
COUNT = """
import sys
from pathlib import Path
from newllm_core.errors import InputError
from newllm_core.files.lock import exclusive
path, done = Path(sys.argv[1]), 0
while done < 200:
    try:
        with exclusive(path):
            path.write_text(str(int(path.read_text()) + 1))
            done += 1
    except InputError:
        pass
"""


def names(folder):
    return sorted(item.name for item in folder.iterdir())


def test_the_second_is_refused_and_the_third_comes_after_the_first(tmp_path):
    path = tmp_path / "deep" / "file"
    with exclusive(path):
        assert names(path.parent) == [".file.lock"]
        with pytest.raises(InputError, match=r"another newllm is writing .*file"), exclusive(path):
            pass
        with exclusive(tmp_path / "deep" / "other"):
            pass
    assert names(path.parent) == []
    with exclusive(path):
        pass
    assert names(path.parent) == []


def test_a_file_and_a_link_to_it_have_one_lock(tmp_path):
    (tmp_path / "link").symlink_to("deep/file")
    link, file = tmp_path / "link", tmp_path / "deep" / "file"
    with exclusive(link), pytest.raises(InputError, match="another newllm"), exclusive(file):
        pass
    assert names(tmp_path / "deep") == []


def test_an_error_inside_frees_the_lock(tmp_path):
    with pytest.raises(RuntimeError), exclusive(tmp_path / "file"):
        raise RuntimeError
    assert names(tmp_path) == []


def test_the_lock_of_another_process_holds_until_it_is_killed(tmp_path):
    path = tmp_path / "file"
    holder = subprocess.Popen([sys.executable, "-c", HOLD, path], stdout=subprocess.PIPE)
    try:
        assert holder.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another newllm"), exclusive(path):
            pass
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()
    assert names(tmp_path) == [".file.lock"]
    with exclusive(path):
        pass
    assert names(tmp_path) == []


def test_no_two_are_ever_inside_at_once(tmp_path):
    """A lock file that is removed and made again is where such locks go wrong."""
    path = tmp_path / "count"
    path.write_text("0")
    workers = [subprocess.Popen([sys.executable, "-c", COUNT, path]) for _ in range(3)]
    assert [worker.wait(60) for worker in workers] == [0, 0, 0]
    assert path.read_text() == "600"
    assert names(tmp_path) == ["count"]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_that_cannot_be_written(tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(InputError, match=r"cannot write .*file"), exclusive(tmp_path / "file"):
        pass


@pytest.mark.parametrize("name", ["a" * 300, "nul\0inside"])
def test_a_name_that_cannot_be(tmp_path, name):
    with pytest.raises(InputError, match="cannot write"), exclusive(tmp_path / name):
        pass

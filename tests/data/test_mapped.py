import sys
from pathlib import Path

import numpy as np
import pytest

from newllm_core.files.npy_files import release_pages


def resident_file_pages():
    return int(Path("/proc/self/statm").read_text().split()[2]) * 4096


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from /proc")
def test_pages_are_given_back_and_read_again(tmp_path):
    size = 64 * 2**20
    path = tmp_path / "tokens"
    np.arange(size // 2, dtype=np.uint16).tofile(path)
    tokens = np.memmap(path, np.uint16, mode="r")
    before = resident_file_pages()
    total = tokens[:-1].sum(dtype=np.int64)
    assert resident_file_pages() - before > 0.9 * size
    release_pages(tokens[:100][3:])
    assert resident_file_pages() - before < 0.1 * size
    assert tokens[:-1].sum(dtype=np.int64) == total


def test_arrays_in_memory_are_left_alone():
    array = np.arange(5)
    release_pages(array)
    release_pages(array[1:])
    assert array.tolist() == [0, 1, 2, 3, 4]

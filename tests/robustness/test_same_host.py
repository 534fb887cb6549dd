"""Sums of processes of one host: the right ones, the same everywhere, and nothing left behind."""

import errno
import os
import time
from pathlib import Path

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file

from newllm_core import meeting, same_host

PROCESSES = 3
SIZES = (1, 1000, 7, 50_000, 50_000, 1)


def values(rank, size, dtype):
    generator = torch.Generator().manual_seed(100 * size + rank)
    return torch.randn(size, generator=generator, dtype=dtype)


def process(rank, folder, full):
    torch.set_num_threads(1)
    if full:

        def no_space(*_):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

        os.posix_fallocate = no_space
    dist.init_process_group(
        "gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=PROCESSES
    )
    sums = same_host.SharedSums()
    found = {}
    for number, size in enumerate(SIZES):
        if (rank, number) == (1, 3):
            time.sleep(2 * meeting.LOOK_SECONDS)  # the others have stopped looking
        for dtype in (torch.float32, torch.float64):
            whole = values(rank, size, dtype)
            made = sums.sum([whole[: size // 2], whole[size // 2 :]])
            found[f"{number} {dtype}"] = torch.empty(0) if made is None else torch.cat(made)
    save_file(found, f"{folder}/{rank}.safetensors")
    sums.close()
    dist.barrier()
    dist.destroy_process_group()


def run(folder, *, full):
    mp.spawn(process, args=(str(folder), full), nprocs=PROCESSES)
    assert list(Path("/dev/shm").glob("newllm*")) == []
    return [load_file(folder / f"{rank}.safetensors") for rank in range(PROCESSES)]


def test_every_process_has_the_sum_to_the_last_bit(tmp_path):
    found = run(tmp_path, full=False)
    for number, size in enumerate(SIZES):
        for dtype in (torch.float32, torch.float64):
            expected = sum(values(rank, size, dtype).double() for rank in range(PROCESSES))
            first, *others = (of_rank[f"{number} {dtype}"] for of_rank in found)
            torch.testing.assert_close(first.double(), expected, rtol=1e-6, atol=1e-6)
            assert all(torch.equal(first, other) for other in others)


def test_without_room_all_of_them_say_so(tmp_path):
    found = run(tmp_path, full=True)
    assert [len(made) for of_rank in found for made in of_rank.values()] == [0] * 2 * PROCESSES * 6


def mixed(rank, folder):
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    sums = same_host.SharedSums()
    narrow, wide = sums.sum([torch.ones(3, dtype=torch.bfloat16), torch.tensor([[1 / 3 + rank]])])
    if rank == 1:
        sums.close()  # as if it had been killed
    else:
        with pytest.raises((RuntimeError, OSError)):
            sums.sum([torch.ones(1)])
        save_file({"narrow": narrow, "wide": wide}, f"{folder}/0.safetensors")
    dist.barrier()
    dist.destroy_process_group()


def test_no_digit_is_lost_beside_narrow_numbers_and_an_end_is_heard_of(tmp_path):
    mp.spawn(mixed, args=(str(tmp_path),), nprocs=2)
    found = load_file(tmp_path / "0.safetensors")
    assert found["narrow"].tolist() == [2, 2, 2]
    torch.testing.assert_close(found["wide"], torch.tensor([[5 / 3]]), rtol=1e-6, atol=0)

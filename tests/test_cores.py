import ctypes
import os
import signal
import threading
import time

import pytest
import torch

from newllm_core import cores, native
from newllm_core.helper_threads import Call, helpers


@pytest.mark.parametrize("look_out", [False, True])
def test_actions_run_at_the_same_time_with_one_thread_each_and_without_gradients(
    using_threads, look_out
):
    using_threads(3)
    barrier = threading.Barrier(3, timeout=10)

    def action():
        barrier.wait()  # breaks unless all three are there
        return threading.get_ident(), torch.get_num_threads()

    weight = torch.ones(2, requires_grad=True)
    with cores.undivided(look_out=look_out):
        done = cores.at_once(action, action, action)
        doubled = cores.at_once(lambda: weight * 2, lambda: weight * 2)
    assert len({thread for thread, _ in done}) == 3
    assert [threads for _, threads in done] == [1, 1, 1]
    assert not any(tensor.requires_grad for tensor in doubled)
    assert torch.get_num_threads() == 3


def test_results_come_in_order_and_one_core_works_in_turn(using_threads):
    using_threads(1)
    threads = cores.at_once(threading.get_ident, threading.get_ident)
    assert threads == [threading.get_ident()] * 2
    using_threads(2)

    def slow():
        time.sleep(0.05)
        return "slow"

    assert cores.at_once(slow, lambda: "fast") == ["slow", "fast"]


def test_a_helper_that_is_busy_holds_nobody_up(using_threads):
    using_threads(2)
    begun, go_on = threading.Event(), threading.Event()

    def busy():
        begun.set()
        assert go_on.wait(10)

    (helper,) = helpers(1)
    helper.give(Call([busy], helpers=1, look_out=0))
    assert begun.wait(10)
    here = [threading.get_ident()] * 2
    assert cores.at_once(threading.get_ident, threading.get_ident) == here
    go_on.set()


def test_an_interrupt_does_not_leave_a_helper_at_work(using_threads):
    using_threads(2)
    done = []

    def action():
        if threading.current_thread() is threading.main_thread():
            while not done:  # until the helper has begun
                time.sleep(0.01)
            signal.setitimer(signal.ITIMER_REAL, 0.1)  # while this thread waits for the helper
        else:
            done.append("begun")
            time.sleep(0.3)
            done.append("ended")

    before = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            cores.at_once(action, action)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert done == ["begun", "ended"]
    assert cores.available() == 2


def test_looking_out_ends_with_its_time_or_a_change():
    if native.library() is None:
        pytest.skip("the loops in C were not compiled when newllm was installed")
    number = ctypes.c_int64(7)
    begun = time.perf_counter()
    native.call("look_out", ctypes.addressof(number), 7, 20_000_000)
    waited = time.perf_counter() - begun
    native.call("look_out", ctypes.addressof(number), 8, 60_000_000_000)
    assert 0.02 <= waited < 10
    assert time.perf_counter() - begun - waited < 10


def test_an_error_in_another_thread_arrives_and_threads_are_as_before(using_threads):
    using_threads(2)
    with pytest.raises(ZeroDivisionError), cores.undivided():
        cores.at_once(lambda: 1, lambda: 1 // 0)
    assert torch.get_num_threads() == 2
    assert cores.available() == 2


def test_an_action_has_one_core_for_actions_of_its_own(using_threads):
    using_threads(2)
    barrier = threading.Barrier(2, timeout=10)

    def action():
        barrier.wait()
        return cores.available(), cores.at_once(threading.get_ident, threading.get_ident)

    with cores.undivided():
        (here, own), (there, others) = cores.at_once(action, action)
        assert cores.available() == 2
    assert (here, there) == (1, 1)
    assert own == [threading.get_ident()] * 2
    assert others[0] == others[1] != own[0]


def test_a_forked_process_has_threads_of_its_own(using_threads):
    using_threads(2)
    cores.at_once(int, int)
    child = os.fork()
    if child == 0:
        signal.alarm(20)  # rather than wait for the parent's threads for ever
        os._exit(3 if cores.at_once(lambda: 1, lambda: 2) == [1, 2] else 4)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 3


@pytest.mark.parametrize(
    ("size", "least", "lengths"),
    [(10, 1, [3, 3, 4]), (10, 4, [5, 5]), (10, 11, [10]), (2, 1, [1, 1]), (0, 1, [0])],
)
def test_shares_are_all_and_about_equal(using_threads, size, least, lengths):
    using_threads(3)
    shares = cores.shares(size, least)
    assert [s.stop - s.start for s in shares] == lengths
    assert [i for s in shares for i in range(size)[s]] == list(range(size))

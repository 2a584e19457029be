"""Locks of threads in forked processes."""

import os
import signal
import threading
from collections.abc import Callable

import pytest

from circuitry.encoder import Encoder
from circuitry.runs import InputError
from circuitry.runs.turns import TurnLock
from tests.support.towers import make_tower

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork"),
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning"),
]


def in_a_fork(does: Callable[[], object]) -> str:
    """Return what a forked process says: a word, or the message of an InputError."""
    read, write = os.pipe()
    child = os.fork()
    if not child:
        signal.alarm(10)  # one that hangs is ended, and says nothing
        try:
            does()
            said = "done"
        except InputError as error:
            said = str(error)
        os.write(write, said.encode())
        os._exit(0)
    os.close(write)
    with open(read) as answer:
        said = answer.read()
    os.waitpid(child, 0)
    return said


def use(lock: TurnLock) -> None:
    with lock:
        pass


def test_a_fork_in_another_threads_turn_is_told_instead_of_hanging() -> None:
    encoder = Encoder.from_tower(make_tower("resnet"))
    held, free = threading.Event(), threading.Event()

    def hold() -> None:
        with encoder.running():
            held.set()
            free.wait(20)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait(20)
    said = in_a_fork(lambda: encoder.hooked_sites)
    free.set()
    thread.join()
    assert "encoder" in said
    assert "spawn" in said
    assert in_a_fork(lambda: encoder.hooked_sites) == "done"


def test_a_fork_in_its_own_turn_goes_on() -> None:
    lock = TurnLock("the tower")
    with lock, lock:
        assert in_a_fork(lambda: use(lock)) == "done"
    assert in_a_fork(lambda: use(lock)) == "done"

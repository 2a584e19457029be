"""Locks by which threads take turns, and which a forked process does not wait for in vain."""

import os
import threading
import weakref
from types import TracebackType

from circuitry.runs.errors import InputError


class TurnLock:
    """A re-entrant lock of threads; what it guards is unusable in a process forked within another thread's turn.

    There the holder does not exist, so that nobody would ever give the lock free, and what it guards is half changed.

    Example:
        >>> lock = TurnLock("the encoder")
        >>> with lock:
        ...     encoder(images)
    """

    def __init__(self, what: str) -> None:
        self._what, self._lock, self._lost = what, threading.RLock(), False
        _LOCKS.add(self)

    def __enter__(self) -> None:
        if self._lost:
            raise InputError(
                f"This process was forked while another thread used {self._what}, which is unusable here: fork at "
                "another time, or start processes with multiprocessing.get_context('spawn')."
            )
        self._lock.acquire()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._lock.release()

    def begin_after_fork(self) -> None:
        """Find out, in a forked process, whether a thread that is not there holds the lock."""
        if self._lock.acquire(blocking=False):
            self._lock.release()
        else:
            self._lost = True


_LOCKS: "weakref.WeakSet[TurnLock]" = weakref.WeakSet()


def _begin_all_after_fork() -> None:
    for lock in list(_LOCKS):
        lock.begin_after_fork()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_all_after_fork)

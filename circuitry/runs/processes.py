"""Processes of this machine that work together and end together, however one of them is ended."""

import gc
import multiprocessing
import multiprocessing.forkserver
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, Future, ProcessPoolExecutor
from contextlib import contextmanager
from types import FrameType
from typing import Any, NoReturn


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM raises a KeyboardInterrupt with the signal's number, so that this process tidies up.

    Only the main thread handles signals: in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the tidying
    raise KeyboardInterrupt(number)


@contextmanager
def process_pool(
    workers: int,
    prepare: Callable[[], object] | None = None,
    *,
    preload: Sequence[str] = (),
) -> Iterator[Executor]:
    """Yield a pool of processes, each prepared first; they end when the block raises, and when this process ends.

    One worker is this process, as it is. Several are no copies of this process, whose threads may hold locks: a script
    calls this under ``if __name__ == "__main__":``. A server without threads imports the modules to ``preload``,
    beginning at once, and the processes are forked from it; on Windows each imports them.
    """
    if workers == 1:
        yield _Here()
        return
    before = multiprocessing.active_children()
    forked = "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forked else "spawn")
    if forked and preload:
        multiprocessing.set_forkserver_preload(
            ["circuitry.runs.library_server", *preload]
        )
        multiprocessing.forkserver.ensure_running()
    with ProcessPoolExecutor(
        workers, context, _begin, (prepare, sys.stdout is sys.stderr)
    ) as pool:
        try:
            yield pool
        except BaseException:
            for process in set(multiprocessing.active_children()).difference(before):
                process.terminate()
            raise


class _Here(Executor):
    """This process, which does a task when it is submitted."""

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _begin(prepare: Callable[[], object] | None, to_stderr: bool) -> None:
    """Prepare this process of a pool; it does not outlive its parent, which alone takes the user's Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.enable()
    if to_stderr:  # as its parent, whose standard output is for a result alone
        sys.stdout = sys.stderr
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    parent.join()
    os._exit(1)


def usable_cores() -> int:
    """Return how many cores this process may use: as many as OpenMP is told to, else all that it may run on."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        return int(told)
    return (
        len(os.sched_getaffinity(0))
        if hasattr(os, "sched_getaffinity")
        else os.cpu_count() or 1
    )

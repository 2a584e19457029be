"""Processes of this machine that work together. If the process that started them ends, all of them end."""

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
    """Let SIGTERM raise a KeyboardInterrupt during the block, so that this process tidies up before it ends.

    The argument of the exception is the number of the signal. Only the main thread can handle signals; in any other
    thread this function has no effect.
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
    signal.signal(number, signal.SIG_IGN)  # a second signal would interrupt the tidying
    raise KeyboardInterrupt(number)


@contextmanager
def process_pool(
    workers: int,
    prepare: Callable[[], object] | None = None,
    *,
    preload: Sequence[str] = (),
) -> Iterator[Executor]:
    """Yield a pool of processes. They end if the block raises an exception, or if this process ends.

    If there is only one worker, the tasks run in this process, and ``prepare`` and ``preload`` are ignored. Otherwise
    each worker is a new process. New processes are not copies of this process, because threads of this process may hold
    locks. Therefore a script has to call this function under ``if __name__ == "__main__":``.

    Args:
        workers: How many processes the pool has.
        prepare: Called in each new process before its first task.
        preload: Modules to import only once. A server process without threads imports them, and the processes of the
            pool are forked from this server. The argument is ignored on Windows, where no process can be forked.
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
    """An executor that does each task in this process, as soon as the task is submitted."""

    def submit(
        self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any
    ) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


def _begin(prepare: Callable[[], object] | None, to_stderr: bool) -> None:
    """Prepare this process of a pool for its tasks.

    The process ends with its parent, and ignores the user's Ctrl-C, which the parent handles.

    Args:
        prepare: Called at the end, if given.
        to_stderr: Whether to print to the standard error output instead of the standard output.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.enable()
    if to_stderr:  # like the parent, whose standard output is reserved for the result
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
    """Return how many cores this process may use.

    This is the number in ``OMP_NUM_THREADS`` if it is set, otherwise the number of cores that the process may run on.
    """
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        return int(told)
    return allowed_cores()


def allowed_cores() -> int:
    """Return how many cores this process may run on."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1

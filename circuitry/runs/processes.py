"""Processes of this machine that work together and end together, however one of them is ended.

A request to end (SIGTERM) interrupts a process as Ctrl-C does: it tidies up, its locks are free, and the processes that
it started end, too. When it is killed, they notice, and end.
"""

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
from functools import partial
from multiprocessing.connection import wait as wait_for_any
from types import FrameType
from typing import Any, NoReturn

AGAIN = 0.1
"""Seconds until a signal whose interrupt was lost is sent again."""


@contextmanager
def interrupted_by_sigterm() -> Iterator[None]:
    """Within the block SIGTERM raises a KeyboardInterrupt with the number of the signal.

    Only the main thread handles signals: in another one nothing changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before, hook = signal.signal(signal.SIGTERM, _interrupt), sys.unraisablehook
    sys.unraisablehook = partial(_interrupt_again, hook)
    try:
        yield
    finally:
        sys.unraisablehook = hook
        signal.signal(signal.SIGTERM, before)


def _interrupt(number: int, _: FrameType | None) -> NoReturn:
    signal.signal(number, signal.SIG_IGN)  # a second one would interrupt the tidying
    raise KeyboardInterrupt(number)


def _interrupt_again(hook: Callable[[Any], object], lost: Any) -> None:
    """Send the signal again where Python drops its interrupt, as it drops all errors of finalizers."""
    if not isinstance(lost.exc_value, KeyboardInterrupt):
        hook(lost)
        return
    number = lost.exc_value.args[0] if lost.exc_value.args else signal.SIGINT
    if number == signal.SIGTERM:
        signal.signal(number, _interrupt)
    again = threading.Timer(AGAIN, os.kill, (os.getpid(), number))  # when the finalizer is done
    again.daemon = True
    again.start()


@contextmanager
def spawned_processes(
    workers: int, prepare: Callable[[], object] | None = None, *, preload: Sequence[str] = ()
) -> Iterator[ProcessPoolExecutor]:
    """Yield a pool of processes, each prepared first; they end when the block raises, and when this process ends.

    They are spawned, not forked: a child forked while torch runs threads never sees their locks released. So a script
    calls this under ``if __name__ == "__main__":``. With modules to preload, a server that runs no threads imports
    these, beginning at once, and the processes are forked from it; on Windows each imports them.
    """
    others = multiprocessing.active_children()
    forked = bool(preload) and "forkserver" in multiprocessing.get_all_start_methods()
    context = multiprocessing.get_context("forkserver" if forked else "spawn")
    if forked:
        context.set_forkserver_preload(["circuitry.runs.library_server", *preload])
        multiprocessing.forkserver.ensure_running()
    begin = partial(_begin, prepare, sys.stdout is sys.stderr)
    with _Pool(workers, mp_context=context, initializer=begin) as pool:
        try:
            yield pool
        except BaseException:
            started = [process for process in multiprocessing.active_children() if process not in others]
            for process in started:
                process.terminate()
            for process in started:
                process.join()
            raise


@contextmanager
def one_thread_each(workers: int, *, preload: Sequence[str] = ()) -> Iterator[Executor]:
    """Yield a pool of processes with one thread each; one worker is this process, with the threads that it has."""
    if workers == 1:
        yield _Here()
        return
    with spawned_processes(workers, _take_one_thread, preload=preload) as pool:
        yield pool


class _Here(Executor):
    """This process, which does a task when it is submitted."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        done: Future[Any] = Future()
        done.set_result(fn(*args, **kwargs))
        return done


class _Pool(ProcessPoolExecutor):
    """A pool whose processes end at SIGTERM: at once without a task, else when the task has tidied up."""

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        return super().submit(_ending, fn, *args, **kwargs)


def _ending(task: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
    """Run a task of a pool. Interrupted, it ends its process, which would otherwise take the next task."""
    try:
        with interrupted_by_sigterm():
            return task(*args, **kwargs)
    except KeyboardInterrupt:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(128 + signal.SIGTERM)


def _begin(prepare: Callable[[], object] | None, to_stderr: bool) -> None:
    """Prepare this process of a pool; it does not outlive its parent, which alone takes the user's Ctrl-C."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    gc.freeze()  # what is loaded stays: looking for garbage in it takes long, and copies what a fork shares
    gc.enable()
    if to_stderr:  # as its parent, whose standard output is for a result alone
        sys.stdout = sys.stderr
    threading.Thread(target=_end_with_parent, daemon=True).start()
    if prepare is not None:
        prepare()


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait_for_any([parent.sentinel])
    os._exit(1)


def usable_cores() -> int:
    """Return how many cores this process may use: as many as OpenMP is told to, else all that it may run on."""
    told = os.environ.get("OMP_NUM_THREADS", "")
    if told.isdecimal() and int(told):
        return int(told)
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _take_one_thread() -> None:
    import torch  # here, so that stored circuits can be studied without it

    torch.set_num_threads(1)

"""A folder of results that several processes make together, and that a later run resumes where it stopped.

1. The folder is claimed: ``manifest.json`` says what made it, and another configuration is refused with the difference.
2. A job is a tuple of names, such as (class, domain). It is done by the process that holds its lock; the system frees
   the lock of a process that ends, however it ends. Each worker does its own share first, then jobs that others have
   left, then waits for jobs that others are doing.
3. A job's files are written whole or not at all. When all of them are there, ``checksums/`` gets a sealed record of
   configuration, job and files. A job counts as done while its record is whole and its own, and its files agree.
4. Missing and damaged files are made again. What killed processes left goes.
"""

import hashlib
import logging
import os
import re
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, TypeVar

from circuitry.runs.arguments import Natural
from circuitry.runs.errors import InputError
from circuitry.runs.files import file_lock, remove_leftovers
from circuitry.runs.manifest import claim, read_sealed, write_sealed
from circuitry.runs.progress import Bar
from circuitry.runs.provenance import difference, digest, versions
from circuitry.runs.workers import ALONE, Rank

Job = tuple[str, ...]
"""Names that tell a job from the others."""

Item = TypeVar("Item")

CHECKSUMS = "checksums"

log = logging.getLogger(__name__)


class JobFolder:
    """Results of many jobs in one folder, shared out among processes, resumed, checked and repaired.

    Args:
        path, format_name, config, listings: See `claim`, which refuses a folder of another format or configuration.
        jobs: All jobs, in the order in which one process does them.

    Example:
        >>> from circuitry.runs import JobFolder, whole_file
        >>> results = JobFolder(Path("runs/means"), "my measure 1", {"seed": 0}, [("clock",), ("cup",)])
        >>> def read(job):
        ...     return circuitry.models.read_images(clip, folder.select(job[0], "real"))[1]
        >>> def do(job, images):
        ...     path = results.path / f"{job[0]}.csv"
        ...     with whole_file(path) as temporary:
        ...         pd.Series(images.mean(dim=(1, 2, 3))).to_csv(temporary)
        ...     return [path]
        >>> list(results.run(do, prepare=read))
        [('clock',), ('cup',)]
        >>> results.run(do, prepare=read)  # all is done
        {}
    """

    def __init__(
        self,
        path: Path,
        format_name: str,
        config: Mapping[str, Any],
        jobs: Sequence[Job],
        listings: Mapping[str, Mapping[str, str]] | None = None,
    ) -> None:
        self.path = Path(path)
        self.jobs = tuple(jobs)
        listed = [list(job) for job in self.jobs]
        self._manifest = claim(self.path, format_name, config, listings, jobs=listed)
        # Only a folder with jobs left would get numbers of two versions.
        changed = difference(versions(), self._manifest["versions"])
        if changed and not all(self.has_record(job) for job in self.jobs):
            log.warning(
                "%s was begun by other versions; what is left is made by those of today: %s",
                self.path,
                changed,
            )

    @classmethod
    def made(cls, path: Path, manifest: dict[str, Any]) -> "JobFolder":
        """Return a folder that is there, to read it."""
        folder = cls.__new__(cls)
        folder.path = path
        folder._manifest = manifest
        folder.jobs = tuple(tuple(map(str, job)) for job in manifest["jobs"])
        return folder

    def whole(self, job: Job, path: Path, command: str = "what made it") -> Path:
        """Return the path of a file of a job; `InputError` unless the file is as the job of the command left it."""
        if not path.is_file():
            raise InputError(f"{path} is missing: run {command} again, which makes it.")
        name = path.relative_to(self.path).as_posix()
        if self._entries(job).get(name) != _sha256(path):
            raise InputError(
                f"{path} is damaged or was edited, its checksum does not fit: run {command} again, which repairs it."
            )
        return path

    def has_record(self, job: Job) -> bool:
        """Return whether there is a record of the files that a job left; there may be none while they are made."""
        return self._record(job).is_file()

    def seal(self, job: Job, write: Callable[[Path], object], path: Path) -> None:
        """Write a file that is made outside of `run`, and the record of it."""
        self._record(job).unlink(missing_ok=True)  # it is of the file before
        write(path)
        self._keep(job, [path])

    def unfinished(self) -> list[Job]:
        """Return the jobs whose files are missing or damaged; damaged ones are named in the log."""
        left = list[Job]()
        for job in self.jobs:
            damage = self._damage(job)
            if damage:  # an empty text is a job that was never done, which is no news
                log.warning("%s is made again: %s", " in ".join(job), damage)
            if damage is not None:
                left.append(job)
        return left

    def is_done(self, job: Job) -> bool:
        """Return whether a job's files are there and agree with their checksums."""
        return self._damage(job) is None

    def files(self, job: Job) -> list[Path]:
        """Return the files that a finished job left, in the order in which it wrote them; refuse damaged ones."""
        if not self.has_record(job):
            raise InputError(f"The job {job} of {self.path} is not done: run it first.")
        return [self.whole(job, self.path / name) for name in self._entries(job)]

    def run(
        self,
        do: Callable[[Job, Any], Sequence[Path]],
        *,
        prepare: Callable[[Job], Any] = lambda job: (),
        rank: Rank = ALONE,
        most: Natural | None = None,
        only: Sequence[Job] | None = None,
        sizes: Mapping[Job, int] | None = None,
        progress: str | None = None,
        unit: str = "job",
    ) -> dict[Job, float]:
        """Do the unfinished jobs: first this worker's share, then jobs that others left; then wait for the others.

        Args:
            do: Does a job with what ``prepare`` returned, writes its files with `whole_file` and returns their paths.
            prepare: Reads what a job needs, in a thread, while the job before runs. None means that there is nothing
                to do: the job leaves no files, and is asked again by the next run.
            most: Stop after so many jobs, to see how long they take.
            only: Jobs to do; the others are left as they are.
            sizes: How much of the bar a job is; 1 by default.
            progress: Name of the bar; no bar by default.
            unit: Name of the things that the bar counts.

        Returns:
            Seconds by job, of the jobs that this call did.
        """
        if not 0 <= rank.worker < rank.workers:
            raise InputError(
                f"Workers are numbered 0 to {rank.workers - 1}, but this one is number {rank.worker}."
            )
        seconds: dict[Job, float] = {}
        todo = [job for job in self.unfinished() if only is None or job in only]
        if not todo:
            remove_leftovers(self.path)
            return seconds
        # Asked before any job begins: a job that is done removes and writes its record.
        damaged = {job for job in todo if self._record(job).is_file()}
        order = rank.order(todo)
        size = sizes or dict.fromkeys(todo, 1)
        with Bar(
            total=sum(size[job] for job in todo),
            desc=progress,
            unit=unit,
            disable=progress is None,
        ) as bar:
            for job, inputs in chain(
                self._claimed(order, prepare), self._waited_for(order, damaged, prepare)
            ):
                started = time.perf_counter()
                if inputs is not None:
                    self._keep(job, do(job, inputs))
                seconds[job] = time.perf_counter() - started
                bar.update(size[job])
                bar.set_postfix_str(
                    f"{len(seconds)} of {len(todo)} jobs, {' in '.join(job)}"
                )
                if len(seconds) == most:
                    return seconds
        remove_leftovers(self.path)
        return seconds

    def _claimed(
        self, order: Sequence[Job], prepare: Callable[[Job], Any]
    ) -> Iterator[tuple[Job, Any]]:
        """Yield the jobs that no other worker has, with their inputs; the inputs of the next job are read meanwhile."""
        with ExitStack() as locks:
            held = ((job, self._lock(job, locks)) for job in order)
            mine = ((job, lock) for job, lock in held if lock is not None)
            for (job, lock), inputs in _prefetch(mine, lambda pair: prepare(pair[0])):
                yield job, inputs
                lock.close()

    def _lock(self, job: Job, locks: ExitStack) -> ExitStack | None:
        """Lock a job until the returned stack or ``locks`` closes; return None for a job that is locked or done."""
        lock = locks.enter_context(ExitStack())
        try:
            lock.enter_context(file_lock(self.path, self._name(job), wait=False))
        except BlockingIOError:
            return None
        if self.is_done(job):
            lock.close()
            return None
        # A record of damaged files: other workers wait for the new one.
        self._record(job).unlink(missing_ok=True)
        return lock

    def _waited_for(
        self, order: Sequence[Job], damaged: Set[Job], prepare: Callable[[Job], Any]
    ) -> Iterator[tuple[Job, Any]]:
        """Wait for the jobs that other workers had, and yield those that they did not finish.

        The record of a damaged job may still be the old one, when the worker that has it is about to begin.
        """
        for job in order:
            # A job whose record was written by this call, or by another worker, needs no lock.
            if job in damaged or not self._record(job).is_file():
                with file_lock(self.path, self._name(job)):
                    if not self.is_done(job) and (inputs := prepare(job)) is not None:
                        yield job, inputs

    def _keep(self, job: Job, paths: Sequence[Path]) -> None:
        # Relative names: a folder of results may be moved.
        files = dict[str, str]()
        for path in paths:
            relative = Path(os.path.relpath(path, self.path))
            files[relative.as_posix()] = _sha256(path)
        write_sealed(self._record(job), {**self._owner(job), "files": files})

    def _damage(self, job: Job) -> str | None:
        """Return the damage to the files of a job in words: None without damage, an empty text without a record."""
        record = self._record(job)
        if not record.is_file():
            return ""
        try:
            entries = self._entries(job)
        except InputError as error:
            return str(error)
        for name, checksum in entries.items():
            path = self.path / name
            if not path.is_file():
                return f"{path} is missing"
            if _sha256(path) != checksum:
                return f"{path} is damaged, its checksum does not fit"
        return None

    def _entries(self, job: Job) -> dict[str, str]:
        """Return the checksums of a job's files by their names; `InputError` for a damaged record, or another job's."""
        record = read_sealed(self._record(job), "do the job again")
        files: dict[str, str] = record.pop("files", {})
        if record != self._owner(job):
            raise InputError(
                f"{self._record(job)} is damaged, or of another job: do the job again."
            )
        return files

    def _owner(self, job: Job) -> dict[str, Any]:
        return {"config_hash": self._manifest["config_hash"], "job": list(job)}

    def _record(self, job: Job) -> Path:
        return self.path / CHECKSUMS / f"{self._name(job)}.json"

    @staticmethod
    def _name(job: Job) -> str:
        """Return a file name for a job: readable, of bounded length, another one for every job."""
        # Names may be alike in their letters, or too long for a file: the digest tells them apart.
        readable = re.sub("[^0-9A-Za-z]", "_", "-".join(job))
        return f"{readable[:60]}-{digest(list(job))[:8]}"


def _prefetch(
    items: Iterable[Item], prepare: Callable[[Item], Any]
) -> Iterator[tuple[Item, Any]]:
    """Yield each item with the result of ``prepare``; the result of the next item is computed meanwhile."""
    started = ((item, _in_a_thread(prepare, item)) for item in items)
    # Pairs with the next one, which is begun before this one is given away.
    for this, _ in pairwise(chain(started, [None])):
        assert this is not None
        item, prepared = this
        yield item, prepared.result()


def _in_a_thread(prepare: Callable[[Item], Any], item: Item) -> "Future[Any]":
    """Prepare in a thread that ends with the item: its OpenMP team, if it stayed, would halve the speed of ours."""
    pool = ThreadPoolExecutor(1)
    future = pool.submit(prepare, item)
    pool.shutdown(wait=False)
    return future


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

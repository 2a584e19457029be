"""A folder of results that several processes fill together, and that a later run resumes.

1. The first run claims the folder: ``manifest.json`` records the configuration. A run with another configuration is
   refused, and the message names the difference.
2. A job is a tuple of names, such as (class, domain). The process that holds the lock of a job does the job. The
   operating system frees the locks of a process that ends, however the process ends. Each worker first does its own
   share of the jobs. Then it does jobs that other workers have left. At last it waits for jobs that other workers are
   doing.
3. Each file of a job is written completely or not at all. When all files are written, a record with a checksum is
   written into the folder ``checksums``. It contains the digest of the configuration, the job, and the checksum of each
   file. A job is done if its record is undamaged and belongs to this job and configuration, and if its files agree with
   their checksums.
4. Missing and damaged files are made again. Files that killed processes left are removed.
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

from circuitry.runs.errors import InputError
from circuitry.runs.files import file_lock, remove_leftovers
from circuitry.runs.manifest import NAME, claim, read_sealed, write_sealed
from circuitry.runs.progress import Bar
from circuitry.runs.provenance import difference, digest, versions
from circuitry.runs.workers import ALONE, Rank

Job = tuple[str, ...]
"""Names that identify a job among the jobs of its folder."""

Item = TypeVar("Item")

CHECKSUMS = "checksums"

log = logging.getLogger(__name__)


class JobFolder:
    """The results of many jobs in one folder.

    The jobs are shared out among processes. A later run does the jobs that are left, and repairs damaged files.

    Args:
        path, format_name, config, listings: See `claim`, which refuses a folder of another format or configuration.
        jobs: All jobs, in the order in which a single process does them.

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
        # If jobs are left, the folder will contain results of two versions.
        changed = difference(versions(), self._manifest["versions"])
        if changed and not all(self.has_record(job) for job in self.jobs):
            log.warning(
                "%s was begun by other versions; what is left is made by those of today: %s",
                self.path,
                changed,
            )

    @classmethod
    def made(cls, path: Path, manifest: dict[str, Any]) -> "JobFolder":
        """Return a `JobFolder` for a folder that exists, to read its results.

        Args:
            manifest: The manifest of the folder, as `read_manifest` returns it.
        """
        folder = cls.__new__(cls)
        folder.path = path
        folder._manifest = manifest
        folder.jobs = tuple(tuple(map(str, job)) for job in manifest["jobs"])
        return folder

    def whole(self, job: Job, path: Path, command: str = "what made it") -> Path:
        """Check that a file of a job is as the job left it, and return its path.

        Args:
            path: The file.
            command: The command that made the file, for the message.

        Raises:
            InputError: if the file is missing, damaged or edited.
        """
        if not path.is_file():
            raise InputError(f"{path} is missing: run {command} again, which makes it.")
        name = path.relative_to(self.path).as_posix()
        if self._entries(job).get(name) != _sha256(path):
            raise InputError(
                f"{path} is damaged or was edited, its checksum does not fit: run {command} again, which repairs it."
            )
        return path

    def has_record(self, job: Job) -> bool:
        """Return whether there is a record of the files of a job.

        A job may have no record while its files are made.
        """
        return self._record(job).is_file()

    def seal(self, job: Job, write: Callable[[Path], object], path: Path) -> None:
        """Write the only file of a job, and the record that the job is done.

        This replaces a call of `run` for a job with a single file.

        Args:
            write: Writes the file at the path that it is given.
            path: Path of the file.
        """
        self._record(job).unlink(missing_ok=True)  # it describes the old file
        write(path)
        self._keep(job, [path])

    def unfinished(self) -> list[Job]:
        """Return the jobs that were never done, and the jobs whose files are missing or damaged.

        The log names the damage.
        """
        left = list[Job]()
        for job in self.jobs:
            damage = self._damage(job)
            if damage:  # an empty text means that the job was never done, which needs no warning
                log.warning("%s is made again: %s", " in ".join(job), damage)
            if damage is not None:
                left.append(job)
        return left

    def is_done(self, job: Job) -> bool:
        """Return whether all files of a job exist and agree with their checksums."""
        return self._damage(job) is None

    def files(self, job: Job) -> list[Path]:
        """Return the paths of the files of a finished job, in the order in which the job returned them.

        Raises:
            InputError: if the job is not done, or if one of its files is missing or damaged.
        """
        if not self.has_record(job):
            raise InputError(f"The job {job} of {self.path} is not done: run it first.")
        return [self.whole(job, self.path / name) for name in self._entries(job)]

    def run(
        self,
        do: Callable[[Job, Any], Sequence[Path]],
        *,
        prepare: Callable[[Job], Any] = lambda job: (),
        rank: Rank = ALONE,
        only: Sequence[Job] | None = None,
        sizes: Mapping[Job, int] | None = None,
        progress: str | None = None,
        unit: str = "job",
    ) -> dict[Job, float]:
        """Do the unfinished jobs, together with the other workers.

        This worker first does its own share, then jobs that other workers have left. Finally it waits for the jobs that
        other workers are doing. If another worker ends without finishing its job, this worker does the job.

        Args:
            do: Takes a job and the result of ``prepare``. Does the job, writes its files with `whole_file`, and returns
                their paths.
            prepare: Reads the inputs of a job, in a thread, while the previous job runs. If it returns None, there is
                nothing to do: the job leaves no files, and the next run prepares it again.
            rank: The number of this worker, and how many workers there are.
            only: Jobs to do. Other jobs are left as they are.
            sizes: How much of the progress bar each job fills; 1 by default.
            progress: Name of the progress bar; no bar by default.
            unit: What the bar counts.

        Returns:
            Seconds that each job took, for the jobs that this call did.
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
        # This is read before any job begins, because doing a job removes and writes its record.
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
        remove_leftovers(self.path)
        return seconds

    def _claimed(
        self, order: Sequence[Job], prepare: Callable[[Job], Any]
    ) -> Iterator[tuple[Job, Any]]:
        """Lock the unfinished jobs that no other worker has locked, and yield each job with its inputs.

        While the caller does a job, the inputs of the next job are read.
        """
        with ExitStack() as locks:
            held = ((job, self._lock(job, locks)) for job in order)
            mine = ((job, lock) for job, lock in held if lock is not None)
            for (job, lock), inputs in _prefetch(mine, lambda pair: prepare(pair[0])):
                yield job, inputs
                lock.close()

    def _lock(self, job: Job, locks: ExitStack) -> ExitStack | None:
        """Lock a job, and return a stack that frees the lock when the stack is closed.

        The result is None if another worker has locked the job, or if the job is done.

        Args:
            job: The job.
            locks: A stack for the locks of several jobs. When it is closed, all of these locks are freed.
        """
        lock = locks.enter_context(ExitStack())
        try:
            lock.enter_context(file_lock(self.path, self._name(job), wait=False))
        except BlockingIOError:
            return None
        if self.is_done(job):
            lock.close()
            return None
        # The old record describes damaged files. Without it other workers wait for the new record.
        self._record(job).unlink(missing_ok=True)
        return lock

    def _waited_for(
        self, order: Sequence[Job], damaged: Set[Job], prepare: Callable[[Job], Any]
    ) -> Iterator[tuple[Job, Any]]:
        """Wait for the jobs that other workers had locked. Yield each job that they did not finish, with its inputs.

        Args:
            damaged: Jobs that had a record when the run began, although their files were missing or damaged. If such a
                job still has a record, this does not prove that the job is done now: the worker that locked the job
                may not have removed the old record yet.
        """
        for job in order:
            # A job whose record was written by this call, or by another worker, needs no lock.
            if job in damaged or not self._record(job).is_file():
                with file_lock(self.path, self._name(job)):
                    if not self.is_done(job) and (inputs := prepare(job)) is not None:
                        yield job, inputs

    def _keep(self, job: Job, paths: Sequence[Path]) -> None:
        # The names are relative, because a folder of results may be moved.
        files = dict[str, str]()
        for path in paths:
            relative = Path(os.path.relpath(path, self.path))
            files[relative.as_posix()] = _sha256(path)
        write_sealed(self._record(job), {**self._owner(job), "files": files})

    def _damage(self, job: Job) -> str | None:
        """Describe the damage to the files of a job.

        The result is None if there is no damage, and an empty text if there is no record of the job.
        """
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
        """Return the checksums of the files of a job, by the names of the files.

        Raises:
            InputError: if the record is damaged, or if it belongs to another job or configuration.
        """
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
        """Return a file name for a job that is readable, unique and of limited length."""
        # Two names may have the same letters, or be too long for a file; the digest makes the result unique.
        readable = re.sub("[^0-9A-Za-z]", "_", "-".join(job))
        return f"{readable[:60]}-{digest(list(job))[:8]}"


def jobs_left(
    path: Path, jobs: Sequence[Job], claim_folder: Callable[[], JobFolder]
) -> list[Job]:
    """Return the jobs that are not done, without making a folder that is not there yet.

    Args:
        path: The folder of the results.
        jobs: All jobs.
        claim_folder: Returns the `JobFolder`. It is called only if the folder was claimed before.
    """
    if (path / NAME).is_file():
        return claim_folder().unfinished()
    return list(jobs)


def _prefetch(
    items: Iterable[Item], prepare: Callable[[Item], Any]
) -> Iterator[tuple[Item, Any]]:
    """Yield each item with the result of ``prepare``. Meanwhile, the result for the next item is computed."""
    started = ((item, _in_a_thread(prepare, item)) for item in items)
    # Each item is paired with its successor, so that the successor is begun before the item is yielded.
    for this, _ in pairwise(chain(started, [None])):
        assert this is not None
        item, prepared = this
        yield item, prepared.result()


def _in_a_thread(prepare: Callable[[Item], Any], item: Item) -> "Future[Any]":
    """Start to prepare an item in a thread of its own, and return the future result.

    The thread ends with the item. If the thread stayed, its team of OpenMP threads would halve the speed of this
    thread's team.
    """
    pool = ThreadPoolExecutor(1)
    future = pool.submit(prepare, item)
    pool.shutdown(wait=False)
    return future


def _sha256(path: Path) -> str:
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()

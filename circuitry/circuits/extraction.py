"""Circuits of every (class, domain) of a data set, as a folder of graph files.

1. the selection of images and everything else that shapes a number go into ``manifest.json``;
2. each (class, domain) is one job: load its images, attribute all of them and each of two halves (the halves'
   circuits give the noise ceiling), write three graph files, each whole or not at all;
3. a second run skips what is there and sound; another configuration on the same folder is refused;
4. several processes work on one folder: each job is done by the one that holds its lock.
"""

import logging
import os
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import Any

import torch
from filelock import Timeout
from torch import Tensor
from tqdm import tqdm

from circuitry.circuits.attribution import AttributionSettings, attribute_halves
from circuitry.circuits.graph import AttributionGraph
from circuitry.data.batches import load_batches
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.models.clip import Clip
from circuitry.models.metrics import class_logit
from circuitry.models.prompts import as_patterns, default_templates
from circuitry.runs.errors import InputError
from circuitry.runs.files import file_lock, remove_locks
from circuitry.runs.manifest import claim, read_manifest
from circuitry.runs.provenance import digest, versions

FORMAT = "circuitry extraction 1"
_WHOLE, _HALVES = "all", ("half-0", "half-1")

Key = tuple[str, str]
"""(class, domain)."""

log = logging.getLogger(__name__)


class GraphFolder(Mapping[tuple[str, str], AttributionGraph]):
    """The graphs of a finished or unfinished extraction: (class, domain) -> graph, read when asked for.

    Example:
        >>> graphs = GraphFolder("runs/x")
        >>> graphs["cat", "sketch"].kept_units["layer4.0"]
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = Path(path)
        if not (self.path / "manifest.json").is_file():
            raise InputError(f"{self.path} is no folder of graphs (it has no manifest.json): make one with extract().")
        self.manifest = read_manifest(self.path, FORMAT)
        self._keys = tuple(
            (class_name, domain)
            for class_name, domain in self.manifest["jobs"]
            if self.file(class_name, domain).is_file()
        )

    def file(self, class_name: str, domain: str, part: str = _WHOLE) -> Path:
        """Return the path of a graph file."""
        return _file(self.path, (class_name, domain), part)

    def __getitem__(self, key: tuple[str, str]) -> AttributionGraph:
        if key not in self._keys:
            raise KeyError(key)
        return AttributionGraph.load(self.file(*key))

    def __iter__(self) -> Iterator[tuple[str, str]]:
        return iter(self._keys)

    def __len__(self) -> int:
        return len(self._keys)

    def halves(self) -> Iterator[tuple[AttributionGraph, AttributionGraph]]:
        """Yield the pair of half-graphs of every (class, domain) that has at least two images."""
        for class_name, domain in self._keys:
            first, second = (self.file(class_name, domain, part) for part in _HALVES)
            if first.is_file() and second.is_file():
                yield AttributionGraph.load(first), AttributionGraph.load(second)


def _file(folder: Path, key: Key, part: str = _WHOLE) -> Path:
    return folder / "graphs" / key[0] / f"{key[1]}.{part}.safetensors"


def extract(
    clip: Clip,
    images: DomainFolder,
    out: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    domains: Sequence[str] | None = None,
    n_images: int = 50,
    seed: int = 0,
    *,
    settings: AttributionSettings | None = None,
    templates: Sequence[str] | None = None,
    strict: bool = False,
    progress: bool = True,
    worker: int = 0,
    workers: int = 1,
) -> GraphFolder:
    """Attribute every (class, domain) and write the graphs into a folder; what is there and sound is kept.

    Args:
        clip: The model; see `load_clip`.
        images: The images, sorted by domain and class.
        out: Folder of the graphs.
        classes: A subset of the classes. Text weights are made for all classes of the data in any case.
        domains: A subset of the domains.
        n_images: Images per (class, domain), chosen by ``seed``; all where there are fewer. They are held in
            memory for the length of one job.
        seed: Seed of the choice.
        settings: How to attribute; see `AttributionSettings`, and there for the study's rule.
        templates: Prompt templates of the text weights; see `Clip.text_weights`.
        strict: Stop at an image that cannot be read, instead of leaving it out with a line in the log.
        progress: Show a bar over images.
        worker: Which of the workers this is, 0 to workers - 1: it starts with its own share of the jobs.
        workers: Processes that work on the folder at the same time.

    Raises:
        InputError: for unknown classes or domains, a folder made with another configuration (with the
            difference), and what `attribute` raises.

    Example:
        >>> graphs = extract(clip, DomainFolder("DomainNet"), "runs/rn50", n_images=50)
        >>> compare(graphs, measure="node_overlap")
    """
    plan = plan_extraction(clip, images, out, classes, domains, n_images, seed, settings, templates, strict)
    plan.run(worker, workers, progress=progress)
    return GraphFolder(out)


def plan_extraction(
    clip: Clip,
    images: DomainFolder,
    out: str | os.PathLike[str],
    classes: Sequence[str] | None = None,
    domains: Sequence[str] | None = None,
    n_images: int = 50,
    seed: int = 0,
    settings: AttributionSettings | None = None,
    templates: Sequence[str] | None = None,
    strict: bool = False,
) -> "Extraction":
    """Claim the folder and return the jobs of `extract`, whose arguments and errors these are, without running any."""
    settings = settings or AttributionSettings()
    if n_images < 1:
        raise InputError(f"A circuit needs at least one image, but n_images={n_images} was given.")
    selection = {
        (class_name, domain): images.select(class_name, domain, n_images, seed)
        for class_name in (images.classes if classes is None else classes)
        for domain in (images.domains if domains is None else domains)
    }
    patterns = default_templates() if templates is None else as_patterns(templates)
    config = _config(clip, images, selection, n_images, seed, settings, patterns)
    with file_lock(Path(out), "manifest"):
        claim(Path(out), FORMAT, config, jobs=[list(key) for key in selection])
    return Extraction(clip, images, Path(out), selection, settings, patterns, seed, strict)


@dataclass(frozen=True, eq=False)
class Extraction:
    """The jobs of a folder, which any number of processes may work off at the same time.

    A job is claimed by a lock that its process holds; the system frees it when the process ends, however it ends.
    """

    clip: Clip
    images: DomainFolder
    out: Path
    selection: Mapping[Key, Sequence[ImageRecord]]
    settings: AttributionSettings
    patterns: Sequence[str]
    seed: int
    strict: bool

    def unfinished(self) -> list[Key]:
        """Return the jobs whose files are missing or damaged; those without images are no jobs."""
        return [key for key, records in self.selection.items() if records and not self._finished(key)]

    def run(
        self, worker: int = 0, workers: int = 1, *, most: int | None = None, progress: bool = True
    ) -> dict[Key, float]:
        """Do what is unfinished: first this worker's share, then what others have left, then wait for theirs.

        Args:
            worker, workers: See `extract`.
            most: Stop after so many jobs, to see how long they take.
            progress: Show a bar over images.

        Returns:
            Seconds by job, of the jobs that this call did.

        Raises:
            InputError: when ``worker`` is not one of the workers, and what `attribute` raises.
        """
        if not 0 <= worker < workers:
            raise InputError(f"Workers are numbered 0 to {workers - 1}, but this one is number {worker}.")
        for key, records in self.selection.items():
            if not records:
                log.warning("%s in %s: no images, so no circuit", *key)
        todo = self.unfinished()
        seconds: dict[Key, float] = {}
        if not todo:
            self._tidy()
            return seconds
        order = [key for i in range(workers) for key in todo[(worker + i) % workers :: workers]]
        weights = self.clip.text_weights(self.images.all_classes, self.patterns)
        size = sum(len(self.selection[key]) for key in todo)
        with tqdm(total=size, desc="circuits", unit="image", disable=not progress) as bar:
            for key, loaded in chain(self._claimed(order), self._waited_for(order)):
                started = time.perf_counter()
                if loaded is not None:
                    self._do(key, loaded, weights)
                seconds[key] = time.perf_counter() - started
                bar.update(len(self.selection[key]))
                bar.set_postfix_str(f"{len(seconds)} of {len(todo)} jobs, {key[0]} in {key[1]}")
                if len(seconds) == most:
                    return seconds
        self._tidy()
        return seconds

    def _claimed(self, order: Sequence[Key]) -> Iterator[tuple[Key, Tensor | None]]:
        """Yield the jobs that no other worker has, with their images; those of the next are read meanwhile."""
        waiting: deque[tuple[Key, ExitStack, Future[Tensor | None]]] = deque()
        with ExitStack() as locks:
            for key in [*order, None]:
                if key is not None:
                    lock = locks.enter_context(ExitStack())
                    try:
                        lock.enter_context(file_lock(self.out, "-".join(key), wait=False))
                    except Timeout:
                        continue
                    if self._finished(key):
                        lock.close()
                        continue
                    _file(self.out, key).unlink(missing_ok=True)  # a damaged one: others shall wait for the new one
                    waiting.append((key, lock, self._read_ahead(key)))
                while len(waiting) > (key is not None):
                    one, held, future = waiting.popleft()
                    yield one, future.result()
                    held.close()

    def _read_ahead(self, key: Key) -> "Future[Tensor | None]":
        """Read images in a thread that ends with them: its OpenMP team, if it stayed, would halve the speed of ours."""
        pool = ThreadPoolExecutor(1)
        future = pool.submit(self._load, key)
        pool.shutdown(wait=False)
        return future

    def _waited_for(self, order: Sequence[Key]) -> Iterator[tuple[Key, Tensor | None]]:
        """Wait for the jobs that other workers had, and yield those that they did not finish."""
        for key in order:
            if not self._there(key):
                with file_lock(self.out, "-".join(key)):
                    if not self._there(key) and (loaded := self._load(key)) is not None:
                        yield key, loaded

    def _do(self, key: Key, loaded: Tensor, weights: Tensor) -> None:
        metric = class_logit(weights, self.images.label(key[0]))
        whole, halves = attribute_halves(self.clip.encoder, loaded, metric, self.settings, progress=False)
        made = {**dict(zip(_HALVES, halves or (), strict=False)), _WHOLE: whole}
        provenance = {
            "model": self.clip.name,
            "model_digest": self.clip.digest,
            "seed": self.seed,
            "versions": versions(),
        }
        for part, graph in made.items():  # the whole comes last: where it is, the halves are
            path = _file(self.out, key, part)
            for left_behind in path.parent.glob(f".{path.name}.*"):  # by a process that was killed while writing
                left_behind.unlink()
            named = replace(graph, class_name=key[0], domain=key[1], provenance=provenance)
            named.save(path)

    def _load(self, key: Key) -> Tensor | None:
        return _load(self.clip, self.selection[key], f"{key[0]} in {key[1]}", self.strict)

    def _there(self, key: Key) -> bool:
        return _file(self.out, key).is_file()

    def _finished(self, key: Key) -> bool:
        """Whether a job's files are there and sound; halves are there whenever there is more than one image."""
        if not self._there(key):
            return False
        try:
            whole = AttributionGraph.load(_file(self.out, key))
            for part in _HALVES if whole.n_images > 1 else ():
                AttributionGraph.load(_file(self.out, key, part))
        except InputError as error:
            log.warning("%s in %s is made again: %s", *key, error)
            return False
        return True

    def _tidy(self) -> None:
        """Remove the locks when nothing is left to do."""
        if all(self._there(key) for key, records in self.selection.items() if records):
            remove_locks(self.out)


def _load(clip: Clip, records: Sequence[ImageRecord], what: str, strict: bool) -> Tensor | None:
    skipped: list[str] = []
    batches = load_batches(
        [record.path for record in records],
        clip.preprocess,
        batch_size=64,
        strict=strict,
        on_skip=lambda _, reason: skipped.append(reason),
    )
    loaded = list(batches)
    if skipped:
        log.warning("%s: %d images left out, first: %s", what, len(skipped), skipped[0])
    if not loaded:
        log.warning("%s: no image can be read, so no circuit", what)
        return None
    return torch.cat(loaded)


def _config(
    clip: Clip,
    images: DomainFolder,
    selection: Mapping[tuple[str, str], Sequence[ImageRecord]],
    n_images: int,
    seed: int,
    settings: AttributionSettings,
    patterns: Sequence[str],
) -> dict[str, Any]:
    """Everything that shapes a number, in plain values."""
    listing = [[*key, [record.relative for record in records]] for key, records in selection.items()]
    return {
        "model": clip.name,
        "model_digest": clip.digest,
        "classes": digest(images.all_classes),
        "images": digest(listing),
        "n_images": n_images,
        "seed": seed,
        "templates": digest(patterns),
        "baseline_digest": settings.resolved_baseline.digest,
        "sites": list(settings.sites or clip.encoder.sites),
        **settings.as_dict(),
    }

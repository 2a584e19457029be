"""Circuits of every class and domain of a data set, as a folder of graph files.

Each (class, domain) is one job of a `JobFolder`: load its images, attribute all of them and each fold of them in one
pass (`attribute_folds`; folds say how far circuits can be trusted), and write a graph file for each.
"""

import logging
import os
from collections.abc import Iterator
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from circuitry.circuits.attribution import attribute_folds
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.graph_folder import (
    EDGES,
    EXTRACTION_FORMAT,
    WHOLE,
    GraphFolder,
    graph_file,
    named,
    write_fold_edges,
)
from circuitry.circuits.methods import METHODS, without_others
from circuitry.circuits.quadrature import as_rule
from circuitry.circuits.tower_defaults import default_sites, with_rules
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.folds import Key, fold_numbers, item_of
from circuitry.data.names import chosen_names
from circuitry.data.splits import Records, Split
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.models.image_pass import read_images
from circuitry.questions.question_settings import ExtractionSettings
from circuitry.runs.arguments import Count, Names, Natural, Seed, checked
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.workers import Work

TIMED = 2
"""Jobs that an estimate does."""

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """The images of a job that can be read."""

    records: list[ImageRecord]
    images: Tensor  #: [B, 3, H, W].
    others: list[ImageRecord]  #: Of other classes.
    other_images: Tensor


@checked
def extract(
    clip: Clip,
    images: DomainFolder,
    out: str | os.PathLike[str],
    classes: Names | None = None,
    domains: Names | None = None,
    n_images: Count = 50,
    seed: Seed = 0,
    *,
    work: Work = Work(),
    **settings: Any,
) -> GraphFolder:
    """Attribute every (class, domain) and write the graphs into a folder; finished files that are sound are kept.

    Units are ranked by how much they change the answers on images of the class and of others in its domain; where there
    are no others, by their gradient.

    Args:
        classes: A subset of the classes. Text weights are made for all classes of the data in any case.
        n_images: Images per (class, domain), chosen by ``seed``; at most half of them, so that the others can test
            (`Split`), or all with ``leave_unseen=False``. They are held in memory for the length of one job.
        work: Which process this is, memory, and what to do with images that cannot be read; it changes no number.
        settings: Other fields of `ExtractionSettings`: metric, texts, baseline, sites, folds, items, and how to
            attribute. Without a rule, that of `DEFAULT_RULES` for this kind of tower is taken.

    Raises:
        InputError: for unknown classes or domains, a folder made with another configuration or other images (with the
            difference), and what `attribute` raises.

    Example:
        >>> graphs = circuitry.extract(
        ...     clip, folder, "runs/extracted", ["clock"], ["real", "sketch"], n_images=2,
        ...     rule="midpoint-1", folds=2, work=circuitry.Work(progress=False),
        ... )
        >>> compare(graphs, measure="node_overlap")
    """
    # A rule may be given by its name, such as "midpoint-1".
    for name in {"rule", "edge_rule"} & settings.keys():
        settings[name] = as_rule(settings[name])
    asked = ExtractionSettings(n_images=n_images, seed=seed, **settings)
    Extraction(clip, images, out, asked, classes, domains).run(work)
    return GraphFolder(out)


class Extraction(FolderWork):
    """The jobs of `extract`, before and while they are done.

    Example:
        >>> from circuitry.questions import Extraction, ExtractionSettings
        >>> settings = ExtractionSettings(n_images=2)
        >>> extraction = Extraction(clip, folder, "runs/begun", settings)
        >>> len(extraction.folder.jobs), len(extraction.folder.unfinished())
        (12, 12)
    """

    settings: ExtractionSettings

    def __init__(
        self,
        clip: Clip,
        images: DomainFolder,
        out: str | os.PathLike[str],
        settings: ExtractionSettings | None = None,
        classes: Names | None = None,
        domains: Names | None = None,
    ) -> None:
        """Refuse settings that do not fit the model and images; see `extract`."""
        settings = settings or ExtractionSettings()
        split = Split(images, settings.n_images, settings.seed, settings.leave_unseen)
        super().__init__(clip, images, settings, split)
        self.out = Path(out)
        chosen_classes = chosen_names("class", classes, images.classes)
        chosen_domains = chosen_names("domain", domains, images.domains)
        self.keys: list[Key] = list(product(chosen_classes, chosen_domains))

    @cached_property
    def selection(self) -> dict[Key, Records]:
        """The images that find, by (class, domain); none where the class has none in the domain."""
        return {key: self.split.found_on(key) for key in self.keys}

    @cached_property
    def others(self) -> dict[Key, Records]:
        """Images of other classes by (class, domain); none if no method asks."""
        return {key: self.split.others(key, self._n_others) for key in self.keys}

    @cached_property
    def folds(self) -> dict[ImageRecord, int]:
        """The fold of each chosen image."""
        # All domains of a class are cut together, so that an item is in the same fold everywhere.
        numbers = fold_numbers(self.selection, self.settings.folds, self.settings.items)
        folds: dict[ImageRecord, int] = {}
        for key, records in self.selection.items():
            folds |= zip(records, numbers[key].tolist(), strict=True)
        return folds

    @cached_property
    def folder(self) -> JobFolder:
        """The folder of results, claimed for this configuration."""
        jobs = [key for key in self.keys if self.selection[key]]
        looked_at = {key: self.selection[key] + self.others[key] for key in jobs}
        # Other items would make other folds, so they identify the folder as the images do.
        listings = {}
        if self.settings.items is not None:
            items: dict[str, str] = {}
            for record in self.folds:
                items[record.relative] = item_of(record, self.settings.items)
            listings["items"] = items
        return self.claim(
            self.out,
            EXTRACTION_FORMAT,
            jobs,
            looked_at,
            listings,
            n_folds=self.settings.folds,
            n_others=self._n_others,
            leave_unseen=self.settings.leave_unseen,
            templates=self._templates_of_jobs(),
            sites=list(self.sites),
            **with_rules(self.settings, self.clip.encoder).as_dict(),
        )

    def _templates_of_jobs(self) -> list[Any] | dict[str, list[Any]]:
        """Return the templates of the domains that are asked for, once where they are the same in all."""
        # Templates of other domains shape no number here.
        templates = {domain: list(self.templates[domain]) for _, domain in self.keys}
        first = next(iter(templates.values()))
        if list(templates.values()).count(first) == len(templates):
            return first
        return templates

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites to score."""
        if self.settings.sites is not None:
            return self.settings.sites
        return default_sites(self.clip.encoder, self.settings.budget)

    @property
    def _n_others(self) -> int:
        if METHODS[self.settings.method].takes_others:
            return self.settings.n_others
        return 0

    def run(self, work: Work = Work(), most: Natural | None = None) -> dict[Job, float]:
        """Do what is unfinished, together with other processes that do the same, and return the seconds by job done.

        Stop after the ``most`` jobs, to see how long they take.
        """
        empty = [" in ".join(key) for key in self.keys if not self.selection[key]]
        if empty:
            names = ", ".join(empty)
            log.warning("no images, so no circuit (%d): %s", len(empty), names)
        # Without other classes, a method that contrasts classes takes another score, and a warning names it.
        alone = [" in ".join(key) for key in self.keys if not self.others[key]]
        without_others(self.settings.method, alone)
        return self.folder.run(
            partial(self._attribute, work),
            prepare=partial(self._load, work),
            rank=work.rank,
            most=most,
            sizes={job: len(records) for job, records in self.selection.items()},
            progress=work.bar("circuits"),
            unit="image",
        )

    def estimate(self, work: Work = Work()) -> Iterator[str]:
        """Count the jobs, do the first ones, which stay done, and say how long the others will take, line by line."""
        jobs = self.folder.jobs
        sizes = dict[Job, int]()
        for key in self.keys:
            sizes[key] = len(self.selection[key])
        todo = self.folder.unfinished()
        n_finished = len(jobs) - len(todo)
        yield (
            f"{len(jobs)} jobs with {sum(sizes.values())} images, {n_finished} jobs finished"
        )
        if not todo:
            return
        seconds = self.run(work, most=min(TIMED, len(todo)))
        # Other processes did the rest meanwhile.
        if not seconds:
            return
        # Jobs have unequally many images, and time grows with these.
        rate = sum(seconds.values()) / sum(sizes[job] for job in seconds)
        left = rate * sum(sizes[job] for job in todo if job not in seconds)
        time = f"{left / 60:.1f} min"
        if left > 3600:
            time = f"{left / 3600:.1f} h"
        yield f"{len(seconds)} jobs done now at {rate:.2f} s per image; the others: {time} on this worker"

    def _load(self, work: Work, job: Job) -> Loaded | None:
        key = (job[0], job[1])
        chosen = self.selection[key]
        records, images = read_images(self.clip, chosen, strict=work.strict)
        n_lost = len(chosen) - len(records)
        if n_lost:
            message = "%s in %s: %d of %d images cannot be read"
            log.warning(message, *key, n_lost, len(chosen))
        # A job without images is done, and leaves no file.
        if not records:
            log.warning("%s in %s: no image can be read, so no circuit", *key)
            return None
        others = read_images(self.clip, self.others[key], strict=work.strict)
        return Loaded(records, images, *others)

    def _attribute(self, work: Work, job: Job, loaded: Loaded) -> list[Path]:
        key = (job[0], job[1])
        settings = with_rules(self.settings, self.clip.encoder)
        identity = self.identity | {"n_others": self._n_others}
        numbers = [self.folds[record] for record in loaded.records]
        # A task takes None for no images of other classes, but not an empty tensor.
        others = loaded.other_images if loaded.others else None
        task = self.task(key, loaded.images, others, self.sites, work)
        scored = attribute_folds(task, settings, np.array(numbers))
        edges = graph_file(self.out, *key, EDGES)
        write_fold_edges(edges, scored.edges, list(scored.folds))
        paths = [edges]
        # The graph of all images comes last: where it is, its folds are, too.
        graphs: dict[int | str, AttributionGraph] = dict(scored.folds.items())
        graphs[WHOLE] = scored.whole
        for fold, graph in graphs.items():
            used = loaded.records
            if fold != WHOLE:
                numbered = zip(loaded.records, numbers, strict=True)
                used = [record for record, number in numbered if number == fold]
            path = graph_file(self.out, *key, fold)
            named(graph, key, fold, identity, used, loaded.others).save(path)
            paths.append(path)
        return paths

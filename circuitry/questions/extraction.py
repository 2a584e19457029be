"""Circuits of every class and domain of a data set, as a folder of graph files.

Each (class, domain) is one job of a `JobFolder`. A job loads the images of the class in the domain, which are divided
into folds (disjoint sets). One pass over the images computes the scores of the units for each fold, and for all images
together. The job writes one graph file for all images, and one for each fold. If graphs of different folds differ, the
circuit depends on the choice of images.
"""

import logging
import os
from dataclasses import replace
from functools import cached_property, partial
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from torch import Tensor

from circuitry.bases.gated_reading import joined_sites
from circuitry.circuits.attribution import attribute_folds
from circuitry.circuits.edge_forwards import edge_forwards
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
from circuitry.circuits.tower_defaults import default_sites, default_size, with_rules
from circuitry.circuits.unit_methods import Counts
from circuitry.circuits.unit_scores import scoring_forwards
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.folds import Key, fold_numbers, item_of
from circuitry.data.names import chosen_names
from circuitry.data.splits import Records, Split
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.models.image_pass import read_images
from circuitry.questions.question_settings import ExtractionSettings
from circuitry.runs.arguments import Count, Names, Seed, checked
from circuitry.runs.jobs import Job, JobFolder, jobs_left
from circuitry.runs.plan import Forwards, Step
from circuitry.runs.workers import Work

log = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """The readable images of a job."""

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
    """Score the units of a model for every class in every domain, and write the graphs into a folder.

    Files of an earlier run are kept if they are not damaged. The default method ranks units by how much the model's
    answers depend on them, on images of the class and on images of other classes in the same domain. If there are no
    images of other classes, units are ranked by their gradient.

    Args:
        clip: The model.
        images: The images, by class and domain.
        out: The folder of the graphs. An existing folder is resumed.
        classes: A subset of the classes (default: all). Text weights are always made for all classes of the data.
        domains: A subset of the domains (default: all).
        n_images: The number of images per (class, domain), chosen by ``seed``. At most half of the images are used, so
            that the other half can test the circuits (`Split`). With ``leave_unseen=False`` all images may be used. The
            images of a job are held in memory while the job runs.
        seed: Seed of all random choices.
        work: How the work is carried out: rank of this process, memory, unreadable images, and progress bar. It does
            not change the scores, except for rounding.
        settings: Other fields of `ExtractionSettings`, such as metric, texts, baseline, sites, folds, items and method.
            If no rule is given, the rule of `DEFAULT_RULES` for this kind of tower is used.

    Returns:
        The folder of graphs.

    Raises:
        InputError: for unknown classes or domains, and for a folder that was made with another configuration or other
            images (the message says what differs). The errors of `attribute` are raised, too.

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
    """The jobs of `extract`: what they will do, and how far they are done.

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
        """Choose the images of each job.

        Args:
            clip: The model.
            images: The images, by class and domain.
            out: The folder of the graphs. An existing folder is resumed.
            settings: The settings of the search.
            classes: A subset of the classes (default: all).
            domains: A subset of the domains (default: all).

        Raises:
            InputError: for settings that do not fit the model and the images.
        """
        settings = settings or ExtractionSettings()
        split = Split(images, settings.n_images, settings.seed, settings.leave_unseen)
        super().__init__(clip, images, settings, split)
        self.out = Path(out)
        chosen_classes = chosen_names("class", classes, images.classes)
        chosen_domains = chosen_names("domain", domains, images.domains)
        self.keys: list[Key] = list(product(chosen_classes, chosen_domains))

    @cached_property
    def selection(self) -> dict[Key, Records]:
        """The images used to find the circuits, by (class, domain); empty if the class has no images in the domain."""
        return {key: self.split.found_on(key) for key in self.keys}

    @cached_property
    def others(self) -> dict[Key, Records]:
        """Images of other classes, by (class, domain); empty if the method does not use them."""
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

    @property
    def jobs(self) -> list[Key]:
        """The classes and domains that have images."""
        return [key for key in self.keys if self.selection[key]]

    @cached_property
    def folder(self) -> JobFolder:
        """The folder of the results. A folder that was made with other settings or images is refused."""
        jobs = self.jobs
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
        """Return the text templates of the chosen domains.

        If all domains have the same templates, the templates are returned once, as a list. Otherwise a dictionary from
        domains to lists of templates is returned.
        """
        # Templates of domains that were not chosen do not influence the results.
        templates = {domain: list(self.templates[domain]) for _, domain in self.keys}
        first = next(iter(templates.values()))
        if list(templates.values()).count(first) == len(templates):
            return first
        return templates

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites whose units are scored."""
        if self.settings.sites is not None:
            return self.settings.sites
        return default_sites(self.clip.encoder, self.settings.budget)

    @property
    def _n_others(self) -> int:
        if METHODS[self.settings.method].takes_others:
            return self.settings.n_others
        return 0

    def run(self, work: Work = Work()) -> None:
        """Do the unfinished jobs.

        Several processes may run this at the same time and divide the jobs among them.

        Args:
            work: How the work is carried out: rank of this process, memory, unreadable images, and progress bar.
        """
        empty = [" in ".join(key) for key in self.keys if not self.selection[key]]
        if empty:
            names = ", ".join(empty)
            log.warning("no images, so no circuit (%d): %s", len(empty), names)
        # If a class has no images of other classes, another method replaces a method that contrasts classes. A warning
        # names the new method.
        alone = [" in ".join(key) for key in self.keys if not self.others[key]]
        without_others(self.settings.method, alone)
        self.folder.run(
            partial(self._attribute, work),
            prepare=partial(self._load, work),
            rank=work.rank,
            sizes={job: self._forwards(job).count for job in self.jobs},
            progress=work.bar("circuits"),
            unit="forward",
        )

    def steps(self) -> list[Step]:
        """Return what the unfinished jobs need, as steps of a `Plan`. A folder that is not there yet is not made."""
        left = jobs_left(self.out, self.jobs, lambda: self.folder)
        if not left:
            return []
        forwards = Forwards()
        n_images = 0
        n_own = 0
        for class_name, domain in left:
            key = (class_name, domain)
            forwards += self._forwards(key)
            n_own += len(self.selection[key])
            n_images += len(self.selection[key]) + len(self.others[key])
        settings = with_rules(self.settings, self.clip.encoder)
        n_of_job = round(n_own / len(left))
        edges = edge_forwards(
            self.clip.encoder, self.sites, self._share, n_of_job, settings
        )
        forwards += edges * len(left)
        disk = len(left) * self._bytes_of_job
        circuits = Step("circuits", len(left), forwards, n_images, disk)
        return [self.baseline_step(self.keys), circuits]

    def _forwards(self, key: Key) -> Forwards:
        """Return what the job of a class in a domain runs, except for edges."""
        records = self.selection[key]
        others = self.others[key]
        settings = with_rules(self.settings, self.clip.encoder)
        if not others:
            settings = replace(settings, method=without_others(settings.method))
        n_units = sum(self._n_units.values())
        counts = Counts(len(records), len(others), len(self.sites), n_units)
        n_folds = len({self.folds[record] for record in records})
        return scoring_forwards(settings, counts, n_folds)

    @cached_property
    def _n_units(self) -> dict[str, int]:
        """The number of units of each site that is scored."""
        return self.clip.encoder.count_units(self.sites)

    @property
    def _share(self) -> float:
        """The share of the units that a circuit keeps."""
        return self.settings.size or default_size(self.clip.encoder)

    @property
    def _bytes_of_job(self) -> int:
        """About how many bytes a job writes, if each site keeps the same share of its units."""
        n_edges = 0.0
        for up, down in joined_sites(self.clip.encoder, self.sites):
            n_edges += self._share**2 * self._n_units[up] * self._n_units[down]
        # In double precision: effects and ranks of all units, and edges, of all images and of each fold. The edges of
        # the whole circuit are written for each fold, too.
        folds = self.settings.folds
        n_numbers = 2 * (1 + folds) * sum(self._n_units.values())
        return round(8 * (n_numbers + (1 + 2 * folds) * n_edges))

    def _load(self, work: Work, job: Job) -> Loaded | None:
        key = (job[0], job[1])
        chosen = self.selection[key]
        records, images = read_images(self.clip, chosen, strict=work.strict)
        n_lost = len(chosen) - len(records)
        if n_lost:
            message = "%s in %s: %d of %d images cannot be read"
            log.warning(message, *key, n_lost, len(chosen))
        # A job without readable images is done, but writes no file.
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
        # Without images of other classes, a task takes None and not an empty tensor.
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

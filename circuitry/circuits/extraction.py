"""Circuits of every class and domain of a data set, as a folder of graph files.

Each (class, domain) is one job of a `JobFolder`: load its images, attribute all of them and each part of them in one
pass (`attribute_parts`; parts say how far circuits can be trusted), and write a graph file for each.
"""

import logging
import os
from collections.abc import Iterator
from functools import cached_property, partial
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor

from circuitry.circuits.attribution import attribute_parts
from circuitry.circuits.extraction_settings import ExtractionSettings
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.graph_folder import (
    EDGES,
    EXTRACTION_FORMAT,
    WHOLE,
    GraphFolder,
    graph_file,
    named,
    write_part_edges,
)
from circuitry.circuits.methods import METHODS, without_others
from circuitry.circuits.quadrature import as_rule
from circuitry.circuits.tower_defaults import default_sites, with_rules
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.parts import Key, item_of, part_numbers
from circuitry.models.clip import Clip
from circuitry.models.folder_work import FolderWork
from circuitry.models.image_pass import read_images
from circuitry.runs.given import Count, Names, Natural, Seed, checked
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.workers import Work

Loaded = tuple[list[ImageRecord], Tensor, list[ImageRecord], Tensor]
"""The images of a job that can be read, and then those of other classes: records, and pixels [B, 3, H, W]."""

TIMED = 2
"""Jobs that an estimate does."""

log = logging.getLogger(__name__)


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
        n_images: Images per (class, domain), chosen by ``seed``; all where there are fewer. They are held in
            memory for the length of one job.
        work: Which process this is, memory, and what to do with images that cannot be read; it changes no number.
        settings: Other fields of `ExtractionSettings`: metric, texts, baseline, sites, parts, items, and how to
            attribute. Without a rule, that of `DEFAULT_RULES` for this kind of tower is taken.

    Raises:
        InputError: for unknown classes or domains, a folder made with another configuration or other images (with the
            difference), and what `attribute` raises.

    Example:
        >>> graphs = extract(clip, DomainFolder("DomainNet"), "runs/rn50", n_images=50, texts="own-style")
        >>> compare(graphs, measure="node_overlap")
    """
    settings |= {
        name: as_rule(settings[name])
        for name in ("rule", "edge_rule")
        if name in settings
    }
    asked = ExtractionSettings(n_images=n_images, seed=seed, **settings)
    extraction = Extraction(clip, images, Path(out), asked, classes, domains)
    extraction.run(work)
    return GraphFolder(out)


class Extraction(FolderWork):
    """The jobs of `extract`, before and while they are done.

    Example:
        >>> extraction = Extraction(clip, images, Path("runs/x"))
        >>> len(extraction.folder.jobs), len(extraction.folder.unfinished())
        >>> extraction.run(most=2)    # seconds by (class, domain)
    """

    settings: ExtractionSettings

    def __init__(
        self,
        clip: Clip,
        images: DomainFolder,
        out: Path,
        settings: ExtractionSettings | None = None,
        classes: Names | None = None,
        domains: Names | None = None,
    ) -> None:
        """Refuse settings that do not fit the model and images; see `extract`."""
        super().__init__(clip, images, settings or ExtractionSettings())
        self.out, self.classes, self.domains = out, classes, domains

    @cached_property
    def selection(self) -> dict[Key, tuple[ImageRecord, ...]]:
        """The chosen images by (class, domain); none where the class has none in the domain."""
        return {
            (class_name, domain): self.images.select(
                class_name, domain, self.settings.n_images, self.settings.seed
            )
            for class_name in (
                self.images.classes if self.classes is None else self.classes
            )
            for domain in (
                self.images.domains if self.domains is None else self.domains
            )
        }

    @cached_property
    def others(self) -> dict[Key, tuple[ImageRecord, ...]]:
        """Images of other classes by (class, domain): the first of each class that follows; none if no method asks."""
        if not self._n_others:
            return dict.fromkeys(self.selection, ())
        n, seed, domains = (
            self.settings.n_images,
            self.settings.seed,
            {domain for _, domain in self.selection},
        )
        first = {
            (c, d): self.images.select(c, d, n, seed)[:1]
            for c in self.images.classes
            for d in domains
        }
        return {
            (c, d): tuple(
                chain(*(first[other, d] for other in self.images.following(c)))
            )[: self._n_others]
            for c, d in self.selection
        }

    @cached_property
    def parts(self) -> dict[Key, dict[ImageRecord, int]]:
        """The part of each chosen image by (class, domain)."""
        numbers = part_numbers(self.selection, self.settings.parts, self.settings.items)
        return {
            key: dict(zip(self.selection[key], found.tolist(), strict=True))
            for key, found in numbers.items()
        }

    @cached_property
    def folder(self) -> JobFolder:
        """The folder of results, claimed for this configuration."""
        chosen = {key: records for key, records in self.selection.items() if records}
        looked_at = {
            key: (*records, *self.others[key]) for key, records in chosen.items()
        }
        items = self.settings.items
        listings = {}
        if items is not None:
            listings["items"] = {
                one.relative: item_of(one, items)
                for records in chosen.values()
                for one in records
            }
        templates = {
            domain: list(self.templates[domain]) for _, domain in self.selection
        }
        different = {tuple(of_domain) for of_domain in templates.values()}
        return self.claim(
            self.out,
            EXTRACTION_FORMAT,
            list(chosen),
            looked_at,
            listings,
            n_parts=self.settings.parts,
            n_others=self._n_others,
            templates=list(*different) if len(different) == 1 else templates,
            sites=list(self.sites),
            **with_rules(self.settings, self.clip.encoder).as_dict(),
        )

    @cached_property
    def sites(self) -> tuple[str, ...]:
        """The sites to score."""
        asked = self.settings.sites
        return (
            default_sites(self.clip.encoder, self.settings.budget)
            if asked is None
            else asked
        )

    @property
    def _n_others(self) -> int:
        takes_others = METHODS[self.settings.method].takes_others
        return self.settings.n_others if takes_others else 0

    def run(self, work: Work = Work(), most: Natural | None = None) -> dict[Job, float]:
        """Do what is unfinished, together with other processes that do the same, and return the seconds by job done.

        Stop after the ``most`` jobs, to see how long they take.
        """
        if empty := [
            f"{name} in {domain}"
            for (name, domain), records in self.selection.items()
            if not records
        ]:
            log.warning(
                "no images, so no circuit (%d): %s", len(empty), ", ".join(empty)
            )
        alone = [
            f"{name} in {domain}"
            for name, domain in self.selection
            if not self.others[name, domain]
        ]
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
        sizes = {
            job: len(records) for job, records in self.selection.items() if records
        }
        todo = self.folder.unfinished()
        yield f"{len(sizes)} jobs with {sum(sizes.values())} images, {len(sizes) - len(todo)} jobs finished"
        seconds = self.run(work, most=min(TIMED, len(todo))) if todo else {}
        if not seconds:
            return
        rate = sum(seconds.values()) / sum(sizes[job[0], job[1]] for job in seconds)
        left = rate * sum(sizes[job[0], job[1]] for job in todo if job not in seconds)
        time = f"{left / 3600:.1f} h" if left > 3600 else f"{left / 60:.1f} min"
        yield f"{len(seconds)} jobs done now at {rate:.2f} s per image; the others: {time} on this worker"

    def _load(self, work: Work, job: Job) -> Loaded | None:
        records = self.selection[job[0], job[1]]
        there, images = read_images(self.clip, records, strict=work.strict)
        if len(there) < len(records):
            log.warning(
                "%s in %s: %d of %d images cannot be read",
                *job,
                len(records) - len(there),
                len(records),
            )
        if not there:
            log.warning("%s in %s: no image can be read, so no circuit", *job)
            return None
        return (
            there,
            images,
            *read_images(self.clip, self.others[job[0], job[1]], strict=work.strict),
        )

    def _attribute(self, work: Work, job: Job, loaded: Loaded) -> list[Path]:
        class_name, domain = key = job[0], job[1]
        records, images, others, other_images = loaded
        settings = with_rules(self.settings, self.clip.encoder)
        identity = self.identity | {"n_others": self._n_others}
        numbers = [self.parts[key][record] for record in records]
        task = self.task(
            key, images, other_images if others else None, self.sites, work
        )
        found = attribute_parts(task, settings, np.array(numbers))
        paths = [graph_file(self.out, class_name, domain, EDGES)]
        write_part_edges(paths[0], found.edges, list(found.parts))
        graphs: list[tuple[int | str, AttributionGraph]] = [
            *found.parts.items(),
            (WHOLE, found.whole),
        ]
        for (
            part,
            graph,
        ) in (
            graphs
        ):  # the graph of all images comes last: where it is, its parts are, too
            path = graph_file(self.out, class_name, domain, part)
            used = [
                r
                for r, number in zip(records, numbers, strict=True)
                if part in (number, WHOLE)
            ]
            named(graph, key, part, identity, used, others).save(path)
            paths.append(path)
        return paths

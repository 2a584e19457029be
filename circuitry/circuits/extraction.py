"""Circuits of every (class, domain) of a data set, as a folder of graph files.

Each (class, domain) is one job of a `JobFolder`: load its images, attribute all of them and each part of them in one
pass (see `attribute_parts`; parts say how far circuits can be trusted), write a graph file for each.
"""

import logging
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from circuitry.circuits.attribution import attribute_parts
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.graph_folder import EDGES, FORMAT, WHOLE, GraphFolder, Key, graph_file, write_part_edges
from circuitry.circuits.rule_choice import RuleErrors
from circuitry.circuits.rule_of_run import IMAGES, ruled, spread
from circuitry.circuits.settings import AttributionSettings
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.images import image_listing
from circuitry.data.parts import DEFAULT_PARTS, ItemKey, item_of, part_numbers
from circuitry.models.clip import Clip
from circuitry.models.image_pass import image_batches
from circuitry.models.metrics import Metric, MetricOfClass, metric_name, metric_of_class
from circuitry.models.named_baselines import NamedBaseline
from circuitry.models.prompts import Template, as_patterns, templates_of
from circuitry.models.task import Task
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds, check_lists
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.provenance import versions
from circuitry.runs.workers import Work

Loaded = tuple[list[ImageRecord], Tensor]
"""The images of a job that can be read: their records, and their pixels [B, 3, H, W]."""

log = logging.getLogger(__name__)


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
    metric: str | MetricOfClass = "logit",
    texts: str | Sequence[Template] = "pooled",
    n_parts: int = DEFAULT_PARTS,
    items: ItemKey | None = None,
    work: Work | None = None,
) -> GraphFolder:
    """Attribute every (class, domain) and write the graphs into a folder; what is there and sound is kept.

    Units are ranked by the path of each site, since it alone scores the edges between kept units too. No ranking gives
    circuits that tell a class from others with all else ablated; for those that do see `find_circuit`.

    Args:
        clip: The model; see `load_clip`.
        images: The images, sorted by domain and class.
        out: Folder of the graphs.
        classes: A subset of the classes. Text weights are made for all classes of the data in any case.
        domains: A subset of the domains.
        n_images: Images per (class, domain), chosen by ``seed``; all where there are fewer. They are held in
            memory for the length of one job.
        seed: Seed of the choice.
        settings: How to attribute (default: `AttributionSettings`). Its baseline may be a name, too; see
            `named_baselines`. Where it has no rule, one is chosen before the first job: the cheapest that keeps its
            ``rule_error`` on a few of these images, see `cheapest_rule`; the folder's ``rule.json`` keeps the choice.
        metric: What a class is recognised by: ``"logit"``, ``"margin"`` (see `class_margin`), or a function of the
            text weights and a label that returns a metric.
        texts: What describes a class: ``"pooled"``, all default templates averaged; ``"own-style"``, the prompts of
            the images' own domain style; or templates of your own.
        n_parts: Parts into which the images of each (class, domain) are cut; the circuit of each is found, too.
        items: What each image shows, see `part_numbers`: an item is in one part of its class in every domain.
        work: Which process this is, memory, and what to do with images that cannot be read; it changes no number.

    Raises:
        InputError: for unknown classes or domains, a folder made with another configuration or other images (with the
            difference), and what `attribute` raises.

    Example:
        >>> graphs = extract(clip, DomainFolder("DomainNet"), "runs/rn50", n_images=50, texts="own-style")
        >>> compare(graphs, measure="node_overlap")
    """
    settings = settings or AttributionSettings()
    Extraction(clip, images, Path(out), classes, domains, n_images, seed, settings, metric, texts, n_parts, items).run(
        work
    )
    return GraphFolder(out)


@dataclass(frozen=True, eq=False)
class Extraction:
    """The jobs of `extract`, whose arguments and errors these are, before and while they are done.

    Example:
        >>> extraction = Extraction(clip, images, Path("runs/x"))
        >>> len(extraction.folder.jobs), len(extraction.folder.unfinished())
        >>> extraction.run(most=2)    # seconds by (class, domain)
    """

    clip: Clip
    images: DomainFolder
    out: Path
    classes: Sequence[str] | None = None
    domains: Sequence[str] | None = None
    n_images: int = 50
    seed: int = 0
    settings: AttributionSettings = field(default_factory=AttributionSettings)
    metric: str | MetricOfClass = "logit"
    texts: str | Sequence[Template] = "pooled"
    n_parts: int = DEFAULT_PARTS
    items: ItemKey | None = None

    def __post_init__(self) -> None:
        check_kinds(clip=(self.clip, Clip), images=(self.images, DomainFolder))
        check_lists(classes=self.classes, domains=self.domains)
        if self.n_images < 1:
            raise InputError(f"A circuit needs at least one image, but n_images={self.n_images} was given.")
        metric_of_class(self.metric)
        part_numbers({}, self.n_parts)  # which refuses too few, before the folder is claimed

    @cached_property
    def selection(self) -> dict[Key, tuple[ImageRecord, ...]]:
        """The chosen images by (class, domain); none where the class has none in the domain."""
        return {
            (class_name, domain): self.images.select(class_name, domain, self.n_images, self.seed)
            for class_name in (self.images.classes if self.classes is None else self.classes)
            for domain in (self.images.domains if self.domains is None else self.domains)
        }

    @cached_property
    def parts(self) -> dict[Key, dict[ImageRecord, int]]:
        """The part of each chosen image by (class, domain)."""
        numbers = part_numbers(self.selection, self.n_parts, self.items)
        return {key: dict(zip(self.selection[key], found.tolist(), strict=True)) for key, found in numbers.items()}

    @cached_property
    def folder(self) -> JobFolder:
        """The folder of results, claimed for this configuration."""
        jobs = [key for key, records in self.selection.items() if records]
        chosen = [record for records in self.selection.values() for record in records]
        listings = {"images": image_listing(chosen)}
        if self.items is not None:
            listings["items"] = {record.relative: item_of(record, self.items) for record in chosen}
        if self._named is not None:
            listings["baseline_images"] = image_listing(self._named.records_of(jobs))
        return JobFolder(self.out, FORMAT, self._config, jobs, listings)

    def run(self, work: Work | None = None, most: int | None = None) -> dict[Job, float]:
        """Do what is unfinished, together with other processes that do the same, and return the seconds by job done.

        Stop after the ``most`` jobs, to see how long they take.
        """
        work = work or Work()
        for key, records in self.selection.items():
            if not records:
                log.warning("%s in %s: no images, so no circuit", *key)
        named = None if self._named is None else replace(self._named, strict=work.strict)
        return self.folder.run(
            partial(self._attribute, work, named),
            prepare=partial(self._load, work),
            rank=work.rank,
            most=most,
            sizes={job: len(records) for job, records in self.selection.items()},
            progress=work.bar("circuits"),
            unit="image",
        )

    @cached_property
    def _ruled(self) -> tuple[AttributionSettings, dict[str, Any]]:
        """The settings with their rules, and the choice of these where they were chosen."""
        return ruled(self.settings, self.out, self._few_circuits)

    def _few_circuits(self) -> Iterator[RuleErrors]:
        """Yield the circuits that the rule is chosen by."""
        for class_name, domain in spread([key for key, records in self.selection.items() if records]):
            read = image_batches(self.clip.encoder, self.clip.preprocess, self.selection[class_name, domain][:IMAGES])
            if batches := [batch for _, batch in read]:
                images, named = torch.cat(batches), self._named
                some = slice(0, len(images))
                baseline = named.of(class_name, domain, len(images)) if named else self.settings.resolved_baseline
                metric, sites = self._metric(class_name, domain), self.settings.sites
                task = Task(self.clip.encoder, images, metric, baseline=baseline.select(some), sites=sites)
                yield RuleErrors(task, self.settings)

    @cached_property
    def _named(self) -> NamedBaseline | None:
        """The baseline where it is given by name."""
        name = self.settings.baseline
        return NamedBaseline(name, self.clip, self.images, self.n_images, self.seed) if isinstance(name, str) else None

    @cached_property
    def _templates(self) -> dict[str, tuple[str, ...]]:
        """Prompt templates by domain."""
        return {domain: templates_of(self.texts, domain) for _, domain in self.selection}

    @cached_property
    def _weights(self) -> dict[str, Tensor]:
        """Text weights of all classes of the data by domain."""
        made = {t: self.clip.text_weights(self.images.all_classes, t) for t in set(self._templates.values())}
        return {domain: made[templates] for domain, templates in self._templates.items()}

    def _metric(self, class_name: str, domain: str) -> Metric:
        return metric_of_class(self.metric)(self._weights[domain], self.images.label(class_name))

    def _load(self, work: Work, job: Job) -> Loaded | None:
        records = self.selection[job[0], job[1]]
        read = list(image_batches(self.clip.encoder, self.clip.preprocess, records, strict=work.strict))
        there = [record for part, _ in read for record in part]
        if len(there) < len(records):
            log.warning("%s in %s: %d of %d images cannot be read", *job, len(records) - len(there), len(records))
        if not there:
            log.warning("%s in %s: no image can be read, so no circuit", *job)
            return None
        return there, torch.cat([batch for _, batch in read])

    def _attribute(self, work: Work, named: NamedBaseline | None, job: Job, loaded: Loaded) -> list[Path]:
        class_name, domain = job
        records, batch = loaded
        baseline = self.settings.baseline if named is None else named.of(class_name, domain, len(batch))
        task = Task(
            self.clip.encoder,
            batch,
            self._metric(class_name, domain),
            baseline=baseline,
            sites=self.settings.sites,
            work=replace(work, progress=False),
        )
        numbers = [self.parts[class_name, domain][record] for record in records]
        found = attribute_parts(task, self._ruled[0], np.array(numbers))
        paths = [graph_file(self.out, class_name, domain, EDGES)]
        write_part_edges(paths[0], found.edges, list(found.parts))
        graphs: list[tuple[int | str, AttributionGraph]] = [*found.parts.items(), (WHOLE, found.whole)]
        for part, graph in graphs:  # where the whole is, so are the parts
            path = graph_file(self.out, class_name, domain, part)
            used = [r.relative for r, number in zip(records, numbers, strict=True) if part in (number, WHOLE)]
            provenance = self._made_by | {"images": used, "versions": versions()}
            asked = graph.settings | self._asked
            if named is not None:  # its name says it all, whatever rounding did to its values on another machine
                asked.pop("baseline_digest")
            replace(graph, class_name=class_name, domain=domain, settings=asked, provenance=provenance).save(path)
            paths.append(path)
        return paths

    @cached_property
    def _asked(self) -> dict[str, Any]:
        """What the circuits are asked for, in plain values."""
        texts = self.texts if isinstance(self.texts, str) else list(as_patterns(self.texts))
        return {"metric": metric_name(self.metric), "texts": texts, **self._ruled[1]}

    @cached_property
    def _made_by(self) -> dict[str, Any]:
        """The model, the seed, and the digest of a baseline that is given as an object."""
        given = {} if self._named is not None else {"baseline_digest": self.settings.resolved_baseline.digest}
        return {"model": self.clip.name, "model_digest": self.clip.digest, "seed": self.seed, **given}

    @cached_property
    def _config(self) -> dict[str, Any]:
        """Everything but images that shapes a number, in plain values."""
        different = set(self._templates.values())
        templates = {domain: list(found) for domain, found in self._templates.items()}
        return {
            **self._made_by,
            "classes": list(self.images.all_classes),
            "n_images": self.n_images,
            "n_parts": self.n_parts,
            "templates": list(*different) if len(different) == 1 else templates,
            "sites": list(self.settings.sites or self.clip.encoder.sites),
            **({"hooked_sites": list(self.clip.encoder.hooked_sites)} if self.clip.encoder.hooked_sites else {}),
            **self._asked,
            **self._ruled[0].as_dict(),
        }

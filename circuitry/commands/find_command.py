"""Which units of my model recognise a class, and are they enough?

Finds one circuit: of a class in a domain of a data set, or of a plain folder with images of one class. Half of the
images find it, the other half, unseen, test it: is the class recognised with the circuit alone, with as many random
units, and without the circuit? Prints the answer, and writes a report with the circuit drawn.

    circuitry find --model ViT-B-32 --pretrained openai --data pictures/of/cats --class cat --classes cat dog car
    circuitry find --model rn-tiny --checkpoint epoch_16.pt --data DomainNet --class axe --domain real --selectivity 0.8
    circuitry find --model ViT-B-32 --pretrained openai --units components --data DomainNet --class axe --domain real
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Annotated

import numpy as np
import pandas as pd
import tyro

from circuitry import AttributionGraph, Clip, Task, find_circuit, judge_circuit, midpoint_rule
from circuitry.circuits import AttributionSettings
from circuitry.circuits.edge_methods import edges_between
from circuitry.data.domains import ImageRecord
from circuitry.data.image_sources import IMAGE_SUFFIXES
from circuitry.data.names import chosen_names
from circuitry.interventions import METHODS, AblationSettings, FoundCircuit, MaskSettings, measure_circuits
from circuitry.interventions.counted_sites import counted_sites
from circuitry.interventions.search import Selectivity
from circuitry.models import ModelOptions
from circuitry.models.baselines import AnyBaseline, BaselineName
from circuitry.models.folder_work import MetricChoice, TextsChoice
from circuitry.models.image_pass import read_images
from circuitry.models.metrics import Metric, metric_of_class
from circuitry.models.named_baselines import NamedBaseline
from circuitry.models.prompts import templates_of
from circuitry.models.sites import INPUT
from circuitry.reports import Finding, Report, contact_sheet, write_results
from circuitry.reports.listings import listings_of_records
from circuitry.reports.page import Written
from circuitry.reports.sections.one_circuit import add_circuit, circuit_table, circuit_verdicts
from circuitry.runs import InputError, Work, versions
from circuitry.runs.given import Count, Natural, Seed, Share, one_of

DRAWN = 12
"""Units of a site that are drawn at most, with the edges between them."""


@dataclass(frozen=True, kw_only=True)
class Config(ModelOptions):
    """Settings of the search."""

    class_name: Annotated[str, tyro.conf.arg(name="class")]
    """The class."""
    domain: str | None = None
    """Its domain (default: the only one)."""
    out: Path = Path("runs/find")
    """Folder of the report, the tables and the circuit."""
    method: Annotated[str, one_of(*METHODS), tyro.conf.arg(metavar="{" + ",".join(METHODS) + "}")] = "learned"
    """How units are chosen: learned together as a mask, or by a score of each; gradient is the cheapest."""
    size: Share | None = None
    """Share of the units to keep (default: 0.3); or"""
    selectivity: Selectivity | None = None
    """what the circuit is to reach, as small as it can: 0.8 for 80 % of what separates the class from others."""
    n_images: Count = 20
    """Images of the class to find the circuit on, and as many to test it on; of fewer, half."""
    n_others: Natural = 20
    """The same of images of other classes."""
    metric: MetricChoice = "logit"
    """What the class is recognised by: logit, its cosine logit; margin, its lead over the other classes."""
    texts: TextsChoice = "pooled"
    """Texts of a class: pooled, own-style, or templates such as "a photo of a {}."."""
    baseline: BaselineName | None = None
    """What replaces ablated activations (default: mean-position; zero for a folder of one class)."""
    steps: Count = 300
    """Steps that masks are learned for."""
    seed: Seed = 0
    """Seed of all random choices."""


class Subject:
    """The model, the images of the class and of others, and what is asked."""

    def __init__(self, config: Config) -> None:
        self.config = config
        self.images = None if is_folder_of_images(config.data) else config.images()
        if self.images is None and config.baseline not in (None, "zero"):
            raise InputError(f"The baseline {config.baseline} takes images of other classes: {config.data} has none.")
        self.classes = self._classes()
        (self.class_name,) = chosen_names("class", (config.class_name,), self.classes)
        self.domain = self._domain()
        own, others = self._own(), self._others()
        if len(own) < 2:
            raise InputError(
                f"A circuit is found on some images and tested on others, but there is {len(own)} of {self.class_name} "
                f"in {self.domain}: give at least 2."
            )
        self.own, self.others = halves(own, config.n_images), halves(others, config.n_others)

    def _classes(self) -> tuple[str, ...]:
        if self.images is not None:
            return self.images.all_classes
        return tuple(dict.fromkeys((*(self.config.classes or ()), self.config.class_name)))

    def _domain(self) -> str:
        if self.images is None:
            return self.config.domain or self.config.data.resolve().name
        if self.config.domain is None and len(self.images.domains) > 1:
            raise InputError(
                f"A circuit is found in one domain, but {self.config.data} has {', '.join(self.images.domains)}: "
                "choose one with --domain."
            )
        (domain,) = chosen_names("domain", (self.config.domain or self.images.domains[0],), self.images.domains)
        return domain

    def _own(self) -> list[ImageRecord]:
        if self.images is not None:
            return list(self.images.select(self.class_name, self.domain, None, self.config.seed))
        paths = sorted(path for path in self.config.data.resolve().iterdir() if path.suffix.lower() in IMAGE_SUFFIXES)
        return [ImageRecord(path, path.name, self.domain, self.class_name) for path in paths]

    def _others(self) -> list[ImageRecord]:
        """Return images of other classes in the domain, one of each class, then the second of each."""
        if self.images is None:
            return []
        names = [name for name in self.images.classes if name != self.class_name]
        ranked = [self.images.select(name, self.domain, None, self.config.seed) for name in names]
        rounds = range(max(map(len, ranked), default=0))
        return [of_class[i] for i in rounds for of_class in ranked if i < len(of_class)]

    @cached_property
    def clip(self) -> Clip:
        """The model."""
        return self.config.clip()

    @cached_property
    def metric(self) -> Metric:
        """What the class is recognised by."""
        if self.config.texts is None:
            raise InputError("Expected texts of the classes, such as pooled, but none were given.")
        weights = self.clip.text_weights(self.classes, templates_of(self.config.texts, self.domain))
        return metric_of_class(self.config.metric or "logit")(weights, self.classes.index(self.class_name))

    def baseline(self, count: int) -> AnyBaseline:
        """Return what replaces ablated activations of so many images."""
        name = self.config.baseline or "mean-position"
        if name == "zero" or self.images is None:
            return "zero"
        named = NamedBaseline(name, self.clip, self.images, self.config.n_images, self.config.seed)
        return named.of(self.class_name, self.domain, count)

    def task(self, half: int) -> Task:
        """Return the task on the images that find the circuit (0), or on the unseen ones (1)."""
        (_, own), (_, others) = (read_images(self.clip, records[half]) for records in (self.own, self.others))
        if not len(own):
            raise InputError(f"No image of {self.class_name} in {self.domain} can be read: see the warnings above.")
        given = others if len(others) else None
        baseline = self.baseline(len(own) + len(others))
        task = Task(self.clip.encoder, own, self.metric, baseline=baseline, others=given, work=Work(progress=True))
        return replace(task, sites=counted_sites(task))


def main(config: Config) -> Written:
    """Find, test, write; print the answer."""
    if config.size is not None and config.selectivity is not None:
        raise InputError("A circuit has a size or a selectivity to reach: give one of --size and --selectivity.")
    subject = Subject(config)
    found_on, unseen = subject.task(0), subject.task(1)
    size = None if config.selectivity is not None else config.size or 0.3
    masks = MaskSettings(steps=config.steps, seed=config.seed)
    found = find_circuit(found_on, method=config.method, size=size, selectivity=config.selectivity, masks=masks)
    graph = replace(found.graph, class_name=subject.class_name, domain=subject.domain)
    found = replace(found, graph=graph)
    curve = measure_circuits(unseen, graph, [found.units], AblationSettings(random_draws=5, seed=config.seed))
    tested = judge_circuit(unseen, graph, AblationSettings(seed=config.seed), minimality=False)
    curves = pd.concat([curve.to_pandas(measure) for measure in ("selectivity", "faithfulness")], ignore_index=True)
    counts = int(curve.own.sum()), int((~curve.own).sum())
    findings = circuit_verdicts(graph.title, found.size, curves, tested, counts)
    tables = {"recovered": circuit_table(curves), "tests": tested, "curves": curves}
    graph.save(config.out / "circuit")
    print(tables["recovered"].to_string(index=False))
    return write_report(config, subject, found, with_edges(found_on, graph), tables, findings)


def is_folder_of_images(folder: Path) -> bool:
    """Return whether images lie in the folder itself."""
    return folder.is_dir() and any(path.suffix.lower() in IMAGE_SUFFIXES for path in folder.iterdir() if path.is_file())


def halves(records: Sequence[ImageRecord], most: int) -> tuple[list[ImageRecord], list[ImageRecord]]:
    """Return images to find a circuit on, and as many others to test it on."""
    n = min(most, (len(records) + 1) // 2)
    return list(records[:n]), list(records[n : 2 * n])


def with_edges(task: Task, graph: AttributionGraph) -> AttributionGraph:
    """Return the strongest kept units of every site with the edges between them, for a drawing."""
    strongest = {
        site: units[np.argsort(-np.abs(graph.node_scores[site][units]), kind="stable")][:DRAWN]
        for site, units in graph.kept_units.items()
    }
    with task.running(gradients=True):
        edges = edges_between(task, strongest, AttributionSettings(edge_rule=midpoint_rule(1)))
    return replace(graph, kept_units=strongest, edge_scores=edges)


def whole_sites(clip: Clip, found: FoundCircuit) -> str:
    """Say which sites a circuit's size counts, and which stay whole."""
    counted = found.graph.inner_sites
    whole = [site for site in clip.encoder.sites if site not in (*counted, INPUT)]
    said = f"Counted are the units of {', '.join(counted)}."
    return f"{said} {', '.join(whole)} only read out or repeat another site: they stay whole." if whole else said


def write_report(
    config: Config,
    subject: Subject,
    found: FoundCircuit,
    drawn: AttributionGraph,
    tables: dict[str, pd.DataFrame],
    findings: Sequence[Finding],
) -> Written:
    """Write the report, the tables and the circuit."""
    what = found.graph.title
    report = Report(
        f"Which units of {config.model} recognise {what}?",
        f"{found!r}\n\nIt was found on {len(subject.own[0])} images and tested on {len(subject.own[1])} others. "
        f"{whole_sites(subject.clip, found)}",
    )
    report.summary(findings)
    report.section("What the circuit recovers")
    report.table(tables["recovered"], "On unseen images: share of the whole model's measure, with 95 % intervals.")
    add_circuit(report, drawn.circuit(), f"At most {DRAWN} units of each site; into each unit its 3 strongest edges.")
    cells = {
        (row, column): [record.path for record in records[:8]]
        for row, halves_of in (("class", subject.own), ("others", subject.others))
        for column, records in zip(("found on", "tested on"), halves_of, strict=True)
    }
    sheet = contact_sheet(cells, ["class", "others"], ["found on", "tested on"], per_cell=8)
    report.image(sheet, "Images of the class, and of others.", alt=f"Images of {what} and of other classes")
    records = [record for of_kind in (subject.own, subject.others) for half in of_kind for record in half]
    provenance = {"model": config.model, **found.graph.settings, **versions()}
    return write_results(report, tables, config.out, None, provenance, None, listings_of_records(records))

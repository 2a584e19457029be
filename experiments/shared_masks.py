"""Do domains share the circuits that recover the answer? Learned masks beside attributed circuits.

For a few classes in every domain, a circuit of the same size is found by each method: on all images that circuits are
found on, on either half of them, and of masks on all from another seed. Two questions, on images not found on for the
second:

1. How alike are the circuits of two domains, against the ceiling of other images of one domain (`ratios`), and against
   the ceiling of the method itself, two seeds on the same images? Masks are refuted as a description of what domains
   share where two seeds are no more alike than two domains: then a circuit that works is one of many.
2. Does a domain's circuit do its work on another domain's images (selectivity with everything else ablated), and what
   does the exchange of its activations do?

    python experiments/shared_masks.py      # the model and images of the quickstart
    torchrun --nproc-per-node 8 experiments/shared_masks.py --device cuda ...
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from pathlib import Path
from typing import Any

from circuitry.runs import ALONE, InputError, Job, JobFolder, Rank, Work, WorkSettings, run_script, versions
from circuitry.analysis import QuickstartModel
from circuitry.circuits import LEARNED, METHODS, AttributionGraph, compare_domains
from circuitry.comparison import Comparison
from circuitry.data.names import chosen_names, drawn_by_name
from circuitry.data.parts import Key
from circuitry.encoder import Baseline, Task, class_margin, mean_baseline
from circuitry.interventions import (
    ClassScorer,
    MaskSettings,
    interchange,
    propose_circuits,
    transfer_circuits,
    transfer_matrix,
)
from circuitry.interventions.curves import HARDLY_ANY
from circuitry.models import FolderSettings, FolderWork
from circuitry.reports import Finding, Report, write_results
from circuitry.reports.figures import domain_marks, similarity_heatmap
from circuitry.reports.sections.findings import ANOTHER_MODEL, NO, PARTLY, UNKNOWN, WORKS_FROM, YES, how_much_shared
from experiments.unseen_images import ClassImages, ClassRecords, read_class, split_records

import numpy as np
import pandas as pd
import torch

FORMAT = "circuitry shared masks 1"
ALL, HALVES, SEED = "all", ("half 1", "half 2"), "other seed"
CEILINGS = {"other images": HALVES, "other seed": (ALL, SEED)}
"""What two circuits of one class and domain are made of, by what they are a ceiling of."""


@dataclass(frozen=True)
class Config(WorkSettings, QuickstartModel):
    """Settings; the defaults are the quickstart's model and images."""

    out: Path = Path("runs/shared_masks")
    """Folder for circuits, tables and the report."""
    results: Path | None = None
    """Also write the small tables and their provenance here."""
    shared: tuple[str, ...] = ()
    """Classes whose circuits are compared (default: drawn by the seed)."""
    n_classes: int = 4
    """How many."""
    n_images: int = 8
    """Images of the class in a domain, to find circuits on, and as many at most to measure on."""
    n_others: int = 24
    """Images of other classes in the domain, likewise."""
    methods: tuple[str, ...] = ("site-path", LEARNED)
    """Methods of `find_circuit`."""
    size: float = 0.3
    """Share of the units that a circuit keeps."""
    masks: MaskSettings = field(default_factory=lambda: MaskSettings(steps=200, batch_size=12))
    """How masks are learned."""
    seed: int = 0
    """Seed of all choices."""

    def __post_init__(self) -> None:
        if not self.methods or set(self.methods) - set(METHODS):
            raise InputError(f"The methods are some of {', '.join(METHODS)}, but {self.methods} was given.")


class Sharing(FolderWork):
    """A model and images, and what every job does with them."""

    def __init__(self, config: Config, rank: Rank = ALONE) -> None:
        asked = FolderSettings(n_images=config.n_images, seed=config.seed, metric="margin")
        super().__init__(config.clip(rank), config.images(), asked)
        self.config, names = config, self.images.classes
        drawn = sorted(names, key=lambda name: drawn_by_name(config.seed, name))[: config.n_classes]
        self.classes = list(chosen_names("class", config.shared or sorted(drawn), names))
        self.keys: list[Key] = [(name, domain) for name in self.classes for domain in self.images.domains]

    @property
    def jobs(self) -> list[Job]:
        """Class, domain, method and what the circuit is made of."""
        made = {m: (ALL, *HALVES, SEED) if m == LEARNED else (ALL, *HALVES) for m in self.config.methods}
        return [(*key, method, what) for key in self.keys for method, whats in made.items() for what in whats]

    @property
    def folder(self) -> JobFolder:
        """The folder of all circuits."""
        records = {key: [r for side in self.records(key) for part in side for r in part] for key in self.keys}
        return self.claim(self.config.out / "jobs", FORMAT, self.jobs, records, **self.shaped_by)

    @cached_property
    def mean(self) -> Baseline:
        """The mean over all images that circuits are found on, one for all domains."""
        return mean_baseline(self.clip.encoder, torch.cat([self.images_of(key, 0).together for key in self.keys]))

    def images_of(self, key: Key, side: int) -> ClassImages:
        """Return the images of a class and domain to find circuits on (0), or to measure on (1)."""
        return read_class(self.clip, self.records(key)[side])

    def records(self, key: Key) -> tuple[ClassRecords, ClassRecords]:
        """Return the images of a class and domain to find circuits on, and to measure on."""
        config = self.config
        return split_records(self.images, *key, config.n_images, config.n_others, config.seed)

    def ablating(self, key: Key, images: ClassImages, work: Work) -> Task:
        """Return the task of some images of a class, ablated to the mean."""
        return replace(self.task(key, *images, work=work), baseline=self.mean)

    def do(self, job: Job, images: ClassImages) -> list[Path]:
        """Find a circuit, and write it."""
        class_name, domain, method, what = job
        own, others = images.half(HALVES.index(what)) if what in HALVES else images
        masks = replace(self.config.masks, seed=self.config.seed + (what == SEED))
        task = self.ablating((class_name, domain), ClassImages(own, others), Work())
        (circuit,) = propose_circuits(task, [self.config.size], method=method, masks=masks)
        path = self.config.out / "jobs" / class_name / f"{domain}.{method}.{what.replace(' ', '-')}.safetensors"
        replace(circuit.source, class_name=class_name, domain=domain).save(path)
        return [path]

    def graphs(self, method: str, what: str) -> dict[Key, AttributionGraph]:
        """Return the circuits by class and domain."""
        folder = self.folder
        return {key: AttributionGraph.load(folder.files((*key, method, what))[0]) for key in self.keys}

    def work_elsewhere(self, method: str, work: Work) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return transfer and interchange of a method's circuits between domains."""
        unseen = {key: self.ablating(key, self.images_of(key, 1), work) for key in self.keys}
        weights = self.weights(self.images.domains[0])
        scorer = ClassScorer(weights, {name: self.images.label(name) for name in self.classes}, class_margin)
        graphs = self.graphs(method, ALL)
        circuits = {key: graph.circuit(None) for key, graph in graphs.items()}
        moved = transfer_circuits(unseen, circuits, scorer)
        exchanged = interchange(unseen, circuits, scorer, seed=self.config.seed)
        of = zip(exchanged["class"], exchanged["circuit_domain"], strict=True)
        return moved, exchanged.assign(whole_site=[keeps_a_site(graphs[key]) for key in of])

    @property
    def shaped_by(self) -> dict[str, Any]:
        """The settings that shape a number, besides those of `FolderSettings`."""
        config = self.config
        asked = {"n_others": config.n_others, "size": config.size, "masks": str(config.masks)}
        return asked | {"methods": list(config.methods), "compared": self.classes, "baseline": "mean"}


def main(config: Config) -> None:
    """Find the circuits, compare them, and write the report."""
    if not config.share_out(partial(find, config), config.out / "logs"):
        return
    sharing, work = Sharing(config), replace(config.work(), progress=False)
    report = Report(
        f"Do domains share the circuits of {sharing.clip.name} that recover its answer?",
        f"{', '.join(sharing.classes)} in {', '.join(sharing.images.domains)}; {config.size:.0%} of the units.",
    )
    tables: dict[str, list[pd.DataFrame]] = {"levels": [], "ratios": [], "transfer": [], "interchange": []}
    shared = []
    for method in config.methods:
        report.section(f"By {method}")
        found = overlaps(sharing, method)
        shared.append(how_much_shared(found["other images"], f"circuits, found by {method},"))
        for ceiling, comparison in found.items():
            names = {"method": method, "ceiling": ceiling}
            tables["levels"].append(comparison.levels().assign(**names))
            ratio, (low, high) = comparison.mean_ratio()
            mean = {"domain_a": "all", "domain_b": "all", "value": ratio, "low": low, "high": high}
            tables["ratios"].append(pd.concat([comparison.ratios(), pd.DataFrame([mean])]).assign(**names))
        moved, exchanged = sharing.work_elsewhere(method, work)
        tables["transfer"].append(moved.assign(method=method))
        tables["interchange"].append(exchanged.assign(method=method))
        draw(report, found["other images"], transfer_matrix(moved, "selectivity"), sharing.images.domains)
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    joined["work"] = pd.concat([how_circuits_work(joined["transfer"]), how_exchanges_work(joined["interchange"])])
    report.summary([*(whether_they_work(joined["work"], method) for method in config.methods), *shared])
    add_tables(report, joined)
    print(write_results(report, joined, config.out, config.results, sharing.made_with | sharing.shaped_by | versions()))


def find(config: Config, work: Work) -> None:
    """Find one process's share of the circuits."""
    sharing = Sharing(config, work.rank)
    sharing.folder.run(
        sharing.do,
        prepare=lambda job: sharing.images_of((job[0], job[1]), 0),
        rank=work.rank,
        progress=work.bar("circuits"),
    )


def overlaps(sharing: Sharing, method: str) -> dict[str, Comparison]:
    """Return the node overlap of a method's circuits, by the ceiling that it is read against."""
    made = {what: sharing.graphs(method, what) for what in (ALL, *HALVES, *([SEED] if method == LEARNED else []))}
    found = {}
    for ceiling, whats in CEILINGS.items():
        if not set(whats) <= set(made):
            continue

        def parts_of(name: str, domain: str, whats: Sequence[str] = whats) -> dict[int, AttributionGraph]:
            return {i: made[what][name, domain] for i, what in enumerate(whats)}

        found[ceiling] = compare_domains(made[ALL], parts=parts_of, measures=["node_overlap"])["node_overlap"]
    return found


def how_circuits_work(transfer: pd.DataFrame) -> pd.DataFrame:
    """Return the mean selectivity of circuits on their own domain's images, and on those of others."""
    rows = []
    for method, part in transfer.groupby("method", sort=False):
        matrix = transfer_matrix(part, "selectivity").to_numpy(float)
        own = np.eye(len(matrix), dtype=bool)
        for where, chosen in (("own domain", own), ("other domains", ~own)):
            rows.append((method, "selectivity with only the circuit", where, pd.Series(matrix[chosen]).mean()))
    return pd.DataFrame(rows, columns=["method", "what", "images of", "value"])


def whether_they_work(work: pd.DataFrame, method: str) -> Finding:
    """Answer whether a method's circuits tell their class from others: from `how_circuits_work`."""
    table = work[(work["method"] == method) & work["what"].str.startswith("selectivity")]
    own, others = table.set_index("images of")["value"].loc[["own domain", "other domains"]]
    told = UNKNOWN if pd.isna(own) else YES if own >= WORKS_FROM else PARTLY if own >= HARDLY_ANY else NO
    return Finding(
        f"Do the circuits of {method} tell their class from others? {told}: selectivity {own:.2f} in their own domain, "
        f"{others:.2f} in other domains; 1 is the whole model.",
        "Means over circuits, without an interval, on images that they were not found on.",
        f"Other images or sizes; {ANOTHER_MODEL}.",
    )


def keeps_a_site(graph: AttributionGraph) -> bool:
    """Return whether a circuit keeps every unit of a site: to exchange it is to exchange the image."""
    return any(len(graph.kept_units[site]) == len(graph.node_scores[site]) for site in graph.inner_sites)


def how_exchanges_work(exchanged: pd.DataFrame) -> pd.DataFrame:
    """Return the mean change of the margin by exchanged activations, of the circuit and of random units.

    NaN where all circuits keep a whole site; see `keeps_a_site`.
    """
    changes = ["change", "random_change"]
    exchanged = exchanged.assign(**{name: exchanged[name].mask(exchanged["whole_site"]) for name in changes})
    own = np.where(exchanged["circuit_domain"] == exchanged["image_domain"], "own domain", "other domains")
    long = exchanged.assign(**{"images of": own}).melt(["method", "images of"], changes)
    words = {"change": "change of margin, circuit", "random_change": "change of margin, random units"}
    means = long.assign(what=long["variable"].map(words)).groupby(["method", "what", "images of"], sort=False)["value"]
    return means.mean().reset_index()


def draw(report: Report, overlap: Comparison, transfer: pd.DataFrame, domains: Sequence[str]) -> None:
    """Add the heat maps of a method: overlap as a ratio to the ceiling, and transfer."""
    drawn = {"ratio to the ceiling": overlap.matrix(normalise=True), "selectivity": transfer}
    captions = (
        "Node overlap of parts of two domains' images as a share of that of two parts of one domain's.",
        "Selectivity of a domain's circuit (row) on images of another (column), everything else ablated.",
    )
    for (measure, matrix), caption in zip(drawn.items(), captions, strict=True):
        if matrix.notna().any(axis=None):
            figure = similarity_heatmap(matrix, title=measure, measure=measure, marks=domain_marks(domains))
            report.figure(figure, caption)


def add_tables(report: Report, tables: Mapping[str, pd.DataFrame]) -> None:
    """Add the tables that set the methods side by side."""
    report.section("Methods side by side")
    levels = tables["levels"].assign(against=lambda table: table["method"] + ", " + table["ceiling"])
    wide = levels.pivot_table("value", "what", "against", sort=False).rename_axis(columns=None).reset_index()
    report.table(wide, "Node overlap, mean over sites that count, classes and pairs.")
    means = tables["ratios"].query("domain_a == 'all'")[["method", "ceiling", "value", "low", "high"]]
    report.table(
        means.reset_index(drop=True), "Ratio to either ceiling, mean over pairs of domains, with 95 % intervals."
    )
    report.table(
        tables["work"].reset_index(drop=True),
        "What circuits do on images that they were not found on. Changes are unknown of circuits that keep every unit "
        "of a site: exchanging these is exchanging the image.",
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)

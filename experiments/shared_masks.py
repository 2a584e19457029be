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
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property

from circuitry.runs import Work, run_script
from circuitry import interventions
from circuitry.analysis import QuickstartModel
from circuitry.circuits import LEARNED, AttributionGraph, compare_domains
from circuitry.comparison import Comparison
from circuitry.data.names import drawn_by_name
from circuitry.data.parts import Key
from circuitry.encoder import Baseline, Task, mean_baseline
from circuitry.interventions import MaskSettings
from circuitry.models import FolderSettings, FolderWork
from circuitry.reports.result_tables import KeepSettings
from experiments.unseen_images import ClassImages, read_class, split_records

import numpy as np
import pandas as pd
import torch

ALL, HALVES, SEED = "all", ("half 1", "half 2"), "other seed"
MADE_OF = {"site-path": (ALL, *HALVES), LEARNED: (ALL, *HALVES, SEED)}
"""What the circuits of one class and domain are made of, by method."""
SIZE = 0.3
"""Share of the units that a circuit keeps."""
CEILINGS = {"other images": HALVES, "other seed": (ALL, SEED)}
"""What two circuits of one class and domain are made of, by what they are a ceiling of."""
Graphs = dict[str, dict[Key, AttributionGraph]]
"""Circuits of a method by what they are made of, class and domain."""


@dataclass(frozen=True)
class Config(QuickstartModel, KeepSettings):
    """Settings; the defaults are the quickstart's model and images."""

    n_classes: int = 4
    """Classes, drawn by the seed, whose circuits are compared."""
    n_images: int = 8
    """Images of the class in a domain, to find circuits on, and as many at most to measure on."""
    n_others: int = 24
    """Images of other classes in the domain, likewise."""
    masks: MaskSettings = field(default_factory=lambda: MaskSettings(steps=200, batch_size=12))
    """How masks are learned."""
    seed: int = 0
    """Seed of all choices."""


class Sharing(FolderWork):
    """A model and images, and what is done with them."""

    def __init__(self, config: Config) -> None:
        asked = FolderSettings(n_images=config.n_images, seed=config.seed, metric="margin")
        super().__init__(config.clip(), config.images(), asked)
        drawn = sorted(self.images.classes, key=lambda name: drawn_by_name(config.seed, name))[: config.n_classes]
        self.config, self.classes = config, sorted(drawn)
        self.keys: list[Key] = [(name, domain) for name in self.classes for domain in self.images.domains]

    @cached_property
    def mean(self) -> Baseline:
        """The mean over all images that circuits are found on, one for all domains."""
        return mean_baseline(self.clip.encoder, torch.cat([self.images_of(key, 0).together for key in self.keys]))

    def images_of(self, key: Key, side: int) -> ClassImages:
        """Return the images of a class and domain to find circuits on (0), or to measure on (1)."""
        asked = self.config.n_images, self.config.n_others, self.config.seed
        return read_class(self.clip, split_records(self.images, *key, *asked)[side])

    def ablating(self, key: Key, images: ClassImages) -> Task:
        """Return the task of some images of a class, ablated to the mean."""
        return replace(self.task(key, *images, work=Work(progress=False)), baseline=self.mean)

    def find(self, key: Key, method: str, what: str) -> AttributionGraph:
        """Return the circuit of a class and domain by a method, with its scores."""
        images = self.images_of(key, 0)
        own, others = images.half(HALVES.index(what)) if what in HALVES else images
        masks = replace(self.config.masks, seed=self.config.seed + (what == SEED))
        task = self.ablating(key, ClassImages(own, others))
        (circuit,) = interventions.propose_circuits(task, [SIZE], method=method, masks=masks)
        return replace(circuit.source, class_name=key[0], domain=key[1])

    def work_elsewhere(self, graphs: dict[Key, AttributionGraph]) -> tuple[pd.DataFrame, pd.DataFrame]:
        """Return transfer and interchange of circuits between domains."""
        unseen = {key: self.ablating(key, self.images_of(key, 1)) for key in self.keys}
        circuits = {key: graph.circuit(None) for key, graph in graphs.items()}
        moved = interventions.transfer_circuits(unseen, circuits)
        exchanged = interventions.interchange(unseen, circuits, seed=self.config.seed)
        of = zip(exchanged["class"], exchanged["circuit_domain"], strict=True)
        return moved, exchanged.assign(whole_site=[keeps_a_site(graphs[key]) for key in of])


def main(config: Config) -> None:
    """Find the circuits, compare them, print and write the tables."""
    sharing = Sharing(config)
    tables: dict[str, list[pd.DataFrame]] = {"levels": [], "ratios": [], "transfer": [], "interchange": []}
    for method, whats in MADE_OF.items():
        graphs = {what: {key: sharing.find(key, method, what) for key in sharing.keys} for what in whats}
        for ceiling, comparison in overlaps(graphs).items():
            names = {"method": method, "ceiling": ceiling}
            tables["levels"].append(comparison.levels().assign(**names))
            ratio, (low, high) = comparison.mean_ratio()
            mean = {"domain_a": "all", "domain_b": "all", "value": ratio, "low": low, "high": high}
            tables["ratios"].append(pd.concat([comparison.ratios(), pd.DataFrame([mean])]).assign(**names))
        moved, exchanged = sharing.work_elsewhere(graphs[ALL])
        tables["transfer"].append(moved.assign(method=method))
        tables["interchange"].append(exchanged.assign(method=method))
    joined = {name: pd.concat(parts, ignore_index=True) for name, parts in tables.items()}
    joined["work"] = pd.concat([how_circuits_work(joined["transfer"]), how_exchanges_work(joined["interchange"])])
    config.keep(joined, shown=("levels", "work"), model_digest=sharing.clip.digest, compared=sharing.classes)


def overlaps(made: Graphs) -> dict[str, Comparison]:
    """Return the node overlap of a method's circuits, by the ceiling that it is read against."""
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
        matrix = interventions.transfer_matrix(part, "selectivity").to_numpy(float)
        own = np.eye(len(matrix), dtype=bool)
        for where, chosen in (("own domain", own), ("other domains", ~own)):
            rows.append((method, "selectivity with only the circuit", where, pd.Series(matrix[chosen]).mean()))
    return pd.DataFrame(rows, columns=["method", "what", "images of", "value"])


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


if __name__ == "__main__":
    run_script(Config, main, __doc__)

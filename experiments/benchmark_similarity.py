"""How much time and memory does the comparison of the circuits of the study's full setting take?

Writes random graphs of RN50's size (1,644 kept units, 4,920 edges) for all images and for every part of them, of every
class and domain. Then it reads them and compares all pairs of domains, all pairs of parts and a few other classes by
node overlap, edge Jaccard index and Weisfeiler-Lehman kernels of depths 1 to 3, in one pass. More than a minute on two
cores for 100 classes, or more than 1.5 GiB, is too slow.

    python experiments/benchmark_similarity.py      # 100 classes in 6 domains, 4 parts: 4.8 GiB on disk
"""

import time
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

from circuitry.runs import claim, run_script
from circuitry import AttributionGraph, GraphFolder, compare_domains
from circuitry.circuits import Measure
from circuitry.circuits.budgets import strongest_units
from circuitry.circuits.graph_folder import EXTRACTION_FORMAT, WHOLE, graph_file
from circuitry.data.parts import DEFAULT_PARTS
from circuitry.reports.result_tables import KeepSettings
from circuitry.runs.workers import peak_memory_gib

import numpy as np
import pandas as pd

DOMAINS = ("clipart", "infograph", "painting", "quickdraw", "real", "sketch")
UNITS = {
    "input": 3,
    "act1": 32,
    "act2": 32,
    "act3": 64,
    "avgpool": 64,
    **{
        f"layer{stage}.{i}": 128 * 2**stage
        for stage, n in enumerate((3, 4, 6, 3), start=1)
        for i in range(n)
    },
    "attnpool": 1024,
}
"""Units of RN50 by site."""


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the benchmark."""

    out: Path = Path("runs/benchmark-similarity")
    """Folder of the graphs; a second run reuses them."""
    classes: int = 100
    """Classes, each in six domains."""
    parts: int = DEFAULT_PARTS
    """Parts of the images."""


def main(config: Config) -> None:
    """Write missing graphs, compare, print seconds and memory."""
    folder = config.out / f"{config.classes}-classes-{config.parts}-parts"
    if not (folder / "manifest.json").is_file():
        write_graphs(folder, config)
    started = time.perf_counter()
    measures = [
        Measure("node_overlap"),
        Measure("edge_jaccard"),
        *(Measure("wl_kernel", d) for d in (1, 2, 3)),
    ]
    comparisons = compare_domains(GraphFolder(folder), measures=measures)
    seconds = time.perf_counter() - started
    found = comparisons["edge_jaccard"]
    pairs = len(found.values) + len(found.parts)
    row = {
        "pairs": pairs,
        "measures": len(measures),
        "seconds": seconds,
        "peak GiB": peak_memory_gib(),
    }
    config.keep({"similarity": pd.DataFrame([row])})


def write_graphs(folder: Path, config: Config) -> None:
    """Write random graphs; graphs of a class share a part of their scores."""
    rng = np.random.default_rng(0)
    inner = [site for site in UNITS if site != "input"]
    jobs = [(f"class-{i}", domain) for i in range(config.classes) for domain in DOMAINS]
    for name, domain in jobs:
        if domain == DOMAINS[0]:
            shared = {site: rng.normal(size=n) for site, n in UNITS.items()}
        for part in (WHOLE, *range(config.parts)):
            scores = {
                site: shared[site] + rng.normal(size=n) for site, n in UNITS.items()
            }
            kept = strongest_units(scores, 0.1)
            edges = {
                (u, d): rng.normal(size=(len(kept[d]), len(kept[u])))
                for u, d in pairwise(inner)
            }
            graph = AttributionGraph(
                tuple(UNITS),
                scores,
                {},
                50,
                name,
                domain,
                kept_units=kept,
                edge_scores=edges,
            )
            graph.save(graph_file(folder, name, domain, part))
    claim(
        folder,
        EXTRACTION_FORMAT,
        {"n_parts": config.parts, "model": "random", "seed": 0},
        jobs=jobs,
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)

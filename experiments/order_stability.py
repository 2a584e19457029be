"""Does the order of the domains depend on how circuits are found and compared? Rank correlations with the default.

Domains are ordered by their mean node overlap with the other domains, over classes and sites. The same order is made
with one setting changed at a time:

1. from the circuits that are there: other shares of kept units, single parts of the images, other measures, and without
   the class whose absence changes the order most;
2. from circuits of a few classes that are found again: another baseline, other class texts, another metric, another
   rule. Another row has the default settings on these classes alone.

A rank correlation near 1 in every row would say that the order does not depend on these settings. No row has an
interval: orders of few domains or classes change easily.

    python experiments/order_stability.py --n-images 14 --results experiments/results/order_stability
    python experiments/order_stability.py --model RN50 --pretrained openai --data DomainNet --out runs/orders
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

from circuitry.runs import run_script
from circuitry import AttributionGraph, Comparison, GraphFolder, compare_domains, left_rule, midpoint_rule
from circuitry.analysis import QuickstartModel
from circuitry.circuits import Extraction, ExtractionSettings, ReadingSettings, strongest_units
from circuitry.circuits.graph_folder import Key
from circuitry.data.names import drawn_by_name
from circuitry.reports.result_tables import KeepSettings

import numpy as np
import pandas as pd

Varied = tuple[str, str]
"""A setting and its other value: ("baseline", "mean-position")."""


@dataclass(frozen=True)
class Config(QuickstartModel, KeepSettings):
    """Settings; the defaults are the quickstart's model and images."""

    n_images: int = 8
    """Images of a class in a domain: circuits are found on these."""
    n_classes: int = 4
    """Classes whose circuits are found again with other settings."""
    out: Path = Path("runs/order_stability")
    """Folder of the circuits."""
    seed: int = 0
    """Seed of the choice of images and classes."""


def main(config: Config) -> None:
    """Find circuits, vary what is asked of them, and print the table of orders."""
    plan = ExtractionSettings(n_images=config.n_images, seed=config.seed, method="site-path", budget="same-share")
    extraction = Extraction(config.clip(), config.images(), config.out / "circuits", plan)
    extraction.run()
    graphs = GraphFolder(extraction.out)
    default = overlap(graphs)
    classes = sorted(graphs.classes, key=lambda name: drawn_by_name(config.seed, name))[: config.n_classes]
    few = of_classes(default, classes)
    anew = {varied: overlap(found, default).matrix() for varied, found in found_again(extraction, classes).items()}
    tables = [
        orders(default.matrix(), stored_variants(graphs, default)).assign(n_classes=default.n_classes),
        orders(default.matrix(), {("classes", f"{len(classes)} of them"): few.matrix()}).iloc[1:],
        orders(few.matrix(), anew).iloc[1:],
    ]
    table = pd.concat([one.assign(n_classes=one.get("n_classes", len(classes))) for one in tables])
    config.keep({"order_stability": table}, model_digest=extraction.clip.digest)


def found_again(extraction: Extraction, classes: list[str]) -> dict[Varied, GraphFolder]:
    """Find the circuits of a few classes with one setting changed at a time; their edges do not count."""
    baseline = "zero" if extraction.settings.baseline is None else "mean-position"
    same = replace(extraction.settings, edge_rule=midpoint_rule(1), parts=2)
    changed = {
        ("baseline", baseline): replace(same, baseline=baseline),
        ("class texts", "own-style"): replace(same, texts="own-style"),
        ("metric", "margin"): replace(same, metric="margin"),
        ("rule", "left-10"): replace(same, rule=left_rule(10)),
    }
    found = {}
    for varied, settings in changed.items():
        out = extraction.out.with_name(f"{extraction.out.name}-{varied[1]}")
        Extraction(extraction.clip, extraction.images, out, settings, classes).run()
        found[varied] = GraphFolder(out)
    return found


def stored_variants(graphs: GraphFolder, default: Comparison) -> dict[Varied, pd.DataFrame]:
    """Return the similarities of domains by circuits that need no new attribution."""
    found: dict[Varied, pd.DataFrame] = {}
    for fraction in (0.05, 0.2, 0.5):
        cut = {
            key: replace(graph, kept_units=strongest_units(graph.ranked_by, fraction), edge_scores={})
            for key, graph in graphs.items()
        }
        found["share of kept units", f"{fraction:g}"] = overlap(cut, default).matrix()
    by_part: dict[int, dict[Key, AttributionGraph]] = {}
    for key in graphs:
        for part, graph in graphs.parts(*key).items():
            by_part.setdefault(part, {})[key] = graph
    for part, of_part in sorted(by_part.items()):
        if len({name for name, _ in of_part}) == len(of_part):  # no class is in two domains
            continue
        n = sum(graph.n_images for graph in of_part.values()) / len(of_part)
        found["images", f"part {part + 1} ({n:.3g} a class)"] = overlap(of_part, default).matrix()
    settings = ReadingSettings(chance_draws=0)
    for name, one in compare_domains(dict(graphs), measures=["edge_jaccard", "spearman"], settings=settings).items():
        found["measure", name] = one.matrix()
    names = default.groups["all"]
    without = {("classes", f"without {name}"): of_classes(default, {*names} - {name}).matrix() for name in names}
    worst = orders(default.matrix(), without).iloc[1:].sort_values("rho", kind="stable").iloc[0]
    found["classes", worst["setting"]] = without["classes", worst["setting"]]
    return {varied: matrix for varied, matrix in found.items() if set(matrix.index) == set(default.domains)}


def overlap(graphs: Mapping[Key, AttributionGraph], default: Comparison | None = None) -> Comparison:
    """Compare circuits by node overlap, over the sites that count for the default."""
    settings = ReadingSettings(chance_draws=0, other_classes=0)
    (found,) = compare_domains(dict(graphs), measures=["node_overlap"], settings=settings).values()
    return found if default is None else replace(found, left_out=default.left_out)


def of_classes(comparison: Comparison, classes: list[str] | set[str]) -> Comparison:
    """Return the comparison of some classes."""
    return replace(comparison, values=comparison.values[comparison.values["class"].isin(classes)], groups={})


def orders(default: pd.DataFrame, variants: Mapping[Varied, pd.DataFrame]) -> pd.DataFrame:
    """Return the rank correlations of the order of the domains under other settings with the default order.

    Args:
        default: Symmetric similarities of domains, as from `Comparison.matrix`; the diagonal does not count.
        variants: Similarities of the same domains under other settings.

    Returns:
        varied, setting, rho, rho_pairs, least, most, n_domains, the default first. rho is Spearman's rank correlation
        with the default over the domains' means with the others, rho_pairs over the pairs of domains (NaN if all are
        equal); least and most are the domains with the smallest and the largest mean.
    """
    rows = []
    for (varied, setting), matrix in {("default", ""): default, **variants}.items():
        here = matrix.loc[default.index, default.index]
        means = mean_with_others(here)
        rho = mean_with_others(default).corr(means, method="spearman")
        pairs = pairs_of(default).corr(pairs_of(here), method="spearman")
        known = means.dropna()  # none where no circuit of the variant has what is measured
        least, most = (str(known.idxmin()), str(known.idxmax())) if len(known) else (None, None)
        rows.append((varied, setting, rho, pairs, least, most, len(means)))
    return pd.DataFrame(rows, columns=["varied", "setting", "rho", "rho_pairs", "least", "most", "n_domains"])


def mean_with_others(matrix: pd.DataFrame) -> "pd.Series[float]":
    """Return each domain's mean over the other domains with a known value."""
    return matrix.where(~np.eye(len(matrix), dtype=bool)).mean(axis=1)


def pairs_of(matrix: pd.DataFrame) -> "pd.Series[float]":
    """Return the similarities of the pairs of domains."""
    return pd.Series(matrix.to_numpy(dtype=float)[np.triu_indices(len(matrix), 1)])


if __name__ == "__main__":
    run_script(Config, main, __doc__)

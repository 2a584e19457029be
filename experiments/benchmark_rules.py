"""Which quadrature rule is worth its cost? The error of node and edge scores by rule and site, on a trained model.

The scores of a few circuits by each rule are set against those of the midpoint rule with many points: relative error at
each site, and of the edges between two (`circuitry.circuits.relative_error`); the share of kept units that agree; and
the counted operations beside those of the study's rule. The image and sites where the integral does not converge, such
as the embedding, are in no mean. Intervals are over circuits, by Student's t of the mean over sites.

The cheapest rule whose error is small enough is chosen on fewer points and images. Its error there is the promise, and
is set against its error by many points on other circuits. A measured error refutes a promise if the error and its
interval are above the promised one. Nothing is promised where a second reference gives other scores; it has as many
points, nearer to the ends of the path.

    python experiments/benchmark_rules.py --circuits 6 --n-images 2 --rules left-10 midpoint-4 midpoint-10 gauss-radau-5

The commands of other models are in provenance.json of the folders of ``experiments/results/rules``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product
from typing import Annotated, Any

from circuitry.runs import InputError, one_of, run_script
from circuitry import Clip, DomainFolder, Task, class_logit
from circuitry.analysis import QuickstartModel
from circuitry.circuits import AttributionSettings, parse_rule, relative_error
from circuitry.circuits.graph_folder import Key
from circuitry.comparison import mean_interval
from circuitry.encoder import Metric
from circuitry.encoder.choices import BASELINE_NAMES
from circuitry.encoder.norms import has_rescaling_norms
from circuitry.encoder.sites import INPUT
from circuitry.models import FolderBaseline, read_images
from experiments.kept_tables import KeepSettings
from experiments.operations import count_operations

import pandas as pd
import torch

STUDY = "left-10"
"""The rule of the study, whose cost is 1."""
CANDIDATES = (
    "left-1",
    "gauss-radau-3",
    "midpoint-3",
    "gauss-legendre-4",
    "midpoint-4",
    "gauss-radau-5",
    "midpoint-5",
    "midpoint-6",
    "midpoint-8",
    "left-10",
    "midpoint-10",
    "midpoint-12",
    "midpoint-15",
    "midpoint-20",
)
"""Rules to choose from, in the order of their cost."""
REFERENCE = "midpoint-40"
"""Rule whose scores count as exact when a rule is chosen."""
SECOND = "gauss-legendre-40"
"""Rule whose scores the reference must agree with."""
ERROR = 0.1
"""Largest error that a chosen rule may have."""
FEW_CIRCUITS = 4
"""The least number of circuits to choose a rule by, one in every domain."""
FEW_IMAGES = 2
"""Images of each circuit that a rule is chosen by."""


@dataclass(frozen=True)
class Config(QuickstartModel, KeepSettings):
    """Settings of the comparison of rules."""

    baseline: Annotated[str | None, one_of(*BASELINE_NAMES)] = None
    """Where the paths end (default: as for finding circuits, by the tower)."""
    circuits: int = 8
    """How many circuits errors are measured on, after those that a rule is chosen by: the first class in the first
    domain, the second in the second, and so on."""
    n_images: int = 3
    """Images per circuit."""
    rules: tuple[str, ...] = (STUDY,)
    """Rules to compare, beside the chosen ones."""
    seed: int = 0
    """Seed of the choice of images."""
    reference: str = "midpoint-200"
    """Rule whose scores count as exact when errors are measured."""


def main(config: Config) -> None:
    """Choose a rule, score the circuits by every rule, and print the tables."""
    clip = config.clip()
    images = config.images()
    first, others = drawn_circuits(images, config)
    fewer = replace(config, n_images=min(FEW_IMAGES, config.n_images))
    few = list(circuits(clip, images, fewer, first))
    chosen = choose(measure(few, (SECOND, *CANDIDATES), REFERENCE), ERROR)
    rules = tuple(dict.fromkeys((*config.rules, *chosen["rule"])))
    by_circuit = measure(
        circuits(clip, images, config, others), rules, config.reference
    )
    table = summary(by_circuit).join(
        relative_costs(clip, few[0][1].metric, rules), on="rule"
    )
    tables = {
        "by_circuit": by_circuit,
        "by_site": by_circuit.groupby(["kind", "rule", "place", "apart"], sort=False)[
            "error"
        ]
        .mean()
        .reset_index(),
        "rules": table,
        "promise": promise(chosen, table),
    }
    config.keep(tables, shown=("rules", "promise"), model_digest=clip.digest)


def spread(keys: Sequence[Key], most: int) -> list[Key]:
    """Return at most so many (class, domain), spread over both: the first class in the first domain, and so on."""
    n_domains = len({domain for _, domain in keys})
    places = list[int]()
    for i in range(min(most, len(keys))):
        place = i * (n_domains + 1) % len(keys)
        while place in places:  # the step may share a factor with the number of keys
            place = (place + 1) % len(keys)
        places.append(place)
    return [keys[place] for place in places]


def drawn_circuits(images: DomainFolder, config: Config) -> tuple[list[Key], list[Key]]:
    """Return the (class, domain) that a rule is chosen by, and the ones that its promise is measured on."""
    with_images = list[Key]()
    for key in product(images.classes, images.domains):
        if images.select(*key, 1, config.seed):
            with_images.append(key)
    first = max(FEW_CIRCUITS, len(images.domains))
    first = min(first, len(with_images), config.circuits)
    keys = spread(with_images, first + config.circuits)
    # A promise that is measured on its own circuits would hold by itself.
    if len(keys) <= first:
        raise InputError(
            f"Expected more than {first} classes in domains, to choose a rule by some and measure it on others, but "
            f"{images.root} has images of {len(keys)}: give more classes or domains."
        )
    return keys[:first], keys[first:]


def circuits(
    clip: Clip, images: DomainFolder, config: Config, keys: Sequence[Key]
) -> Iterator[tuple[str, Task]]:
    """Yield (name, task) of circuits."""
    weights = clip.text_weights(images.all_classes)
    # The defaults for finding circuits: norms would scale up what is left of an activation near zero.
    name = config.baseline or (
        "mean-position" if has_rescaling_norms(clip.encoder.tower) else "zero"
    )
    baseline = FolderBaseline(name, clip, images, config.n_images, config.seed)
    for class_name, domain in keys:
        _, batch = read_images(
            clip,
            images.select(class_name, domain, config.n_images, config.seed),
            strict=True,
        )
        metric = class_logit(weights, images.label(class_name))
        end = baseline.of(class_name, domain, len(batch))
        yield (
            f"{class_name} in {domain}",
            Task(clip.encoder, batch, metric, baseline=end),
        )


def measure(
    tasks: Iterable[tuple[str, Task]], rules: Sequence[str], reference: str
) -> pd.DataFrame:
    """Return the errors of every rule for each circuit.

    Returns:
        Columns circuit, kind (``nodes``, ``edges``, or ``kept alike``, the share of kept units that agree), rule, place
        (a site, or a pair of sites), apart (True for nodes of a site where the integral does not converge), error.
    """
    tables = []
    for name, task in tasks:
        table = relative_error(
            task, rules, reference, AttributionSettings(budget="same-share")
        )
        apart = (table["kind"] != "edges") & ~table["place"].isin(converging(task))
        tables.append(table.assign(circuit=name, apart=apart))
        print(name, flush=True)
    return pd.concat(tables, ignore_index=True)[
        ["circuit", "kind", "rule", "place", "apart", "error"]
    ]


def converging(task: Task) -> list[str]:
    """Return the sites of nodes where the integral converges.

    The image is none of them. At other sites the integral diverges if half of the path does not change the metric: the
    embedding is then proportional to the activation, and a cosine does not depend on its scale. It changes at the end
    of the path alone, where its gradient grows as 1 / (1 - t).
    """
    sites = [site for site in task.sites if site != INPUT]
    with task.running():
        batch = next(task.batches())
        clean = batch.clean(sites)
        ends = batch.ends(clean)
        value = task.metric(task.encoder(batch.images))
        rounding = 100 * torch.finfo(value.dtype).eps * float(value.abs().max())
        moved = []
        for site in sites:
            half = clean[site].lerp(ends[site], 0.5)
            change = task.metric(task.encoder(half, start=site)) - value
            if float(change.abs().max()) > rounding:
                moved.append(site)
    return moved


def choose(measured: pd.DataFrame, error: float) -> pd.DataFrame:
    """Return the cheapest rule for nodes, and for edges, whose error is small enough; else the last candidate.

    Args:
        measured: Errors from `measure`, by the reference.
        error: The largest error.

    Returns:
        Columns kind, rule, asked (the largest error), promised (the error of the rule, NaN where the references differ)
        and references differ (their distance).
    """
    rows = []
    for kind in ("nodes", "edges"):
        of_kind = measured[measured["kind"] == kind]
        # A site that diverges in one circuit counts in none, so that all rules are judged on the same sites.
        diverging = of_kind.loc[of_kind["apart"], "place"]
        counted = of_kind[~of_kind["place"].isin(diverging)]
        means = (
            counted.groupby(["rule", "place"])["error"].mean().groupby("rule").mean()
        )
        rule = next(
            (name for name in CANDIDATES if means[name] <= error), CANDIDATES[-1]
        )
        # Where the references differ, the distance to one of them is no distance to the integral.
        agree = means[SECOND] <= error / 2
        promised = means[rule] if agree else float("nan")
        rows.append((kind, rule, error, promised, means[SECOND]))
    return pd.DataFrame(
        rows, columns=["kind", "rule", "asked", "promised", "references differ"]
    )


def summary(by_circuit: pd.DataFrame) -> pd.DataFrame:
    """Return the errors by kind and rule: the mean over sites and circuits, its interval, and the worst place.

    The mean errors of sites where the integral does not converge, and of the image, stand apart.
    """
    rows = []
    for (kind, rule), everywhere in by_circuit.groupby(["kind", "rule"], sort=False):
        counted = everywhere[~everywhere["apart"]]
        apart = everywhere[everywhere["apart"]]
        # The unit of replication: a mean over sites for each circuit.
        per_circuit = counted.groupby("circuit", sort=False)["error"].mean()
        n = len(per_circuit)
        interval = mean_interval(per_circuit.to_numpy())
        by_place = counted.groupby("place")["error"].mean()
        least = kind == "kept alike"  # a share: the smallest is the worst
        worst = (
            (by_place.min(), by_place.idxmin())
            if least
            else (by_place.max(), by_place.idxmax())
        )
        is_image = apart["place"] == INPUT
        at_input = apart[is_image]["error"].mean()
        diverging = apart[~is_image]["error"].mean()
        rows.append((kind, rule, *interval, n, *worst, diverging, at_input))
    columns = [
        "kind",
        "rule",
        "mean",
        "low",
        "high",
        "circuits",
        "worst",
        "worst at",
        "not converging",
        "image",
    ]
    return pd.DataFrame(rows, columns=columns)


def promise(chosen: pd.DataFrame, table: pd.DataFrame) -> pd.DataFrame:
    """Return the promised errors beside the errors that many points give on other circuits.

    Args:
        chosen: Rules from `choose`; a promise is NaN where the choice promised nothing.
        table: Errors and costs by kind and rule.
    """

    def measured(row: "pd.Series[Any]") -> "pd.Series[Any]":
        of_kind = table[table["kind"] == row["kind"]].set_index("rule")
        of_rule = of_kind.loc[row["rule"]]
        cost = "node cost" if row["kind"] == "nodes" else "edge cost"
        return pd.Series(
            {
                "measured": of_rule["mean"],
                "low": of_rule["low"],
                "high": of_rule["high"],
                "cost": of_rule[cost],
                "error of the study's rule": of_kind["mean"][STUDY],
            }
        )

    differ = chosen.pop("references differ")
    return chosen.join(chosen.apply(measured, axis=1)).assign(
        **{"references differ": differ}
    )


def relative_costs(clip: Clip, metric: Metric, rules: Sequence[str]) -> pd.DataFrame:
    """Return the counted operations of nodes and of edges by rule, relative to the operations of the study's rule."""
    counts = {}
    # The study's rule may be among the rules: a name is counted once.
    for name in dict.fromkeys((STUDY, *rules)):
        rule = parse_rule(name)
        asked = AttributionSettings(0.1, "same-share", rule, method="site-path")
        counts[name] = count_operations(clip.encoder, metric, asked)
    columns = ["node cost", "edge cost"]
    table = pd.DataFrame.from_dict(counts, "index", columns=columns)
    return (table / table.loc[STUDY]).rename_axis("rule")


if __name__ == "__main__":
    run_script(Config, main, __doc__)

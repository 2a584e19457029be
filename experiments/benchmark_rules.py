"""Which quadrature rule is worth its cost? The error of node and edge scores by rule and site, on a trained model.

The scores of a few circuits by each rule are set against those of the midpoint rule with many points: relative error at
each site, and of the edges between two (`circuitry.circuits.relative_error`); the share of kept units that agree; and
the counted operations beside those of the study's rule. The image and sites where the integral does not converge, such
as the embedding, are in no mean. Intervals are over circuits, by Student's t of the mean over sites. The cheapest rule
whose error is small enough is chosen on fewer points and images, and its error there, the promise, is set against what
the many points say of it on other circuits; nothing is promised where a second reference, with as many points nearer to
the ends of the path, gives other scores. A measured error beyond the promised one and its interval refutes a promise.

    python experiments/benchmark_rules.py --circuits 6 --n-images 2 --rules left-10 midpoint-4 midpoint-10 gauss-radau-5

The commands of other models are in provenance.json of the folders of ``experiments/results/rules``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
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
"""What a choice takes for exact."""
SECOND = "gauss-legendre-40"
"""What the reference must agree with."""
ERROR = 0.1
"""Error that a rule is chosen by."""
FEW_CIRCUITS = 4
"""The least number of circuits to choose a rule by, one in every domain."""
FEW_IMAGES = 2
"""Images of each of these."""


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
    """What is taken for exact."""


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
    """Return some (class, domain): the first class in the first domain, the second in the second, and so on."""
    n_domains = len({domain for _, domain in keys})
    places = list[int]()
    for i in range(min(most, len(keys))):
        place = i * (n_domains + 1) % len(keys)
        while place in places:  # the step may share a factor with the number of keys
            place = (place + 1) % len(keys)
        places.append(place)
    return [keys[place] for place in places]


def drawn_circuits(images: DomainFolder, config: Config) -> tuple[list[Key], list[Key]]:
    """Return the (class, domain) that a rule is chosen by, and others that its promise is measured on."""
    there = [
        (c, d)
        for c in images.classes
        for d in images.domains
        if images.select(c, d, 1, config.seed)
    ]
    first = min(max(FEW_CIRCUITS, len(images.domains)), len(there), config.circuits)
    found = spread(there, first + config.circuits)
    if len(found) <= first:
        raise InputError(
            f"Expected more than {first} classes in domains, to choose a rule by some and measure it on others, but "
            f"{images.root} has images of {len(found)}: give more classes or domains."
        )
    return found[:first], found[first:]


def circuits(
    clip: Clip, images: DomainFolder, config: Config, keys: Sequence[Key]
) -> Iterator[tuple[str, Task]]:
    """Yield (name, task) of circuits."""
    weights = clip.text_weights(images.all_classes)
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
    """Return the errors of every rule: circuit, kind, rule, place, apart, error; share of kept units as a kind."""
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
    """Return the sites of nodes where the integral converges: not the image, nor where half the path changes nothing.

    Wherever the embedding is proportional to the activation, a cosine has no scale: it changes at the end of the path
    alone, and its gradient grows as 1 / (1 - t).
    """
    sites = [site for site in task.sites if site != INPUT]
    with task.running():
        batch = next(task.batches())
        clean = batch.clean(sites)
        ends = batch.ends(clean)
        value = task.metric(task.encoder(batch.images))
        halves = {
            s: task.metric(task.encoder(clean[s].lerp(ends[s], 0.5), start=s))
            for s in sites
        }
    rounding = 100 * torch.finfo(value.dtype).eps * float(value.abs().max())
    return [
        site for site in sites if float((halves[site] - value).abs().max()) > rounding
    ]


def choose(measured: pd.DataFrame, error: float) -> pd.DataFrame:
    """Return the first candidates that keep an error, or the last: kind, rule, asked, promised, references differ."""
    rows = []
    for kind in ("nodes", "edges"):
        of_kind = measured[measured["kind"] == kind]
        counted = of_kind[
            ~of_kind["place"].isin(of_kind.loc[of_kind["apart"], "place"])
        ]
        means = (
            counted.groupby(["rule", "place"])["error"].mean().groupby("rule").mean()
        )
        rule = next(
            (name for name in CANDIDATES if means[name] <= error), CANDIDATES[-1]
        )
        # Else the distance to a reference is none to the integral.
        agree = means[SECOND] <= error / 2
        rows.append(
            (kind, rule, error, means[rule] if agree else float("nan"), means[SECOND])
        )
    return pd.DataFrame(
        rows, columns=["kind", "rule", "asked", "promised", "references differ"]
    )


def summary(by_circuit: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over sites and circuits by kind and rule, its interval over circuits, and the worst place."""
    rows = []
    for (kind, rule), everywhere in by_circuit.groupby(["kind", "rule"], sort=False):
        part = everywhere[~everywhere["apart"]]
        apart = everywhere[everywhere["apart"]]
        per_circuit = part.groupby("circuit", sort=False)["error"].mean()
        n = len(per_circuit)
        interval = mean_interval(per_circuit.to_numpy())
        by_place = part.groupby("place")["error"].mean()
        least = kind == "kept alike"  # a share: the smallest is the worst
        worst = (
            (by_place.min(), by_place.idxmin())
            if least
            else (by_place.max(), by_place.idxmax())
        )
        image = apart["place"] == INPUT
        at_input, diverging = (
            apart[place]["error"].mean() for place in (image, ~image)
        )
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
    """Return what the choice promised, NaN where it promised nothing, beside what many points say on other circuits."""

    def measured(row: "pd.Series[Any]") -> "pd.Series[Any]":
        of_kind = table[table["kind"] == row["kind"]].set_index("rule")
        cost = of_kind["node cost" if row["kind"] == "nodes" else "edge cost"][
            row["rule"]
        ]
        found = {
            "measured": of_kind["mean"][row["rule"]],
            **of_kind.loc[row["rule"], ["low", "high"]],
        }
        return pd.Series(
            found | {"cost": cost, "error of the study's rule": of_kind["mean"][STUDY]}
        )

    differ = chosen.pop("references differ")
    return chosen.join(chosen.apply(measured, axis=1)).assign(
        **{"references differ": differ}
    )


def relative_costs(clip: Clip, metric: Metric, rules: Sequence[str]) -> pd.DataFrame:
    """Return the counted operations of nodes and edges by kind and rule, beside those of the study's rule."""
    parsed = {name: parse_rule(name) for name in (STUDY, *rules)}
    asked = {
        name: AttributionSettings(0.1, "same-share", rule, method="site-path")
        for name, rule in parsed.items()
    }
    counts = {
        name: count_operations(clip.encoder, metric, one) for name, one in asked.items()
    }
    rows = [
        (r, n / counts[STUDY].nodes, e / counts[STUDY].edges)
        for r, (n, e) in counts.items()
    ]
    return pd.DataFrame(rows, columns=["rule", "node cost", "edge cost"]).set_index(
        "rule"
    )


if __name__ == "__main__":
    run_script(Config, main, __doc__)

"""Which quadrature rule is worth its cost? The error of node and edge scores by rule and site, on a trained model.

The scores of a few circuits by each rule are set against those of the midpoint rule with many points: relative error at
each site, and of the edges between two (see `circuitry.circuits.rule_choice`); the share of kept units that agree; and
the counted operations that the rule takes beside the study's left rule with ten points. The image, which is no node,
and sites where the integral does not converge, such as the embedding, stand apart and are in no mean. Intervals are
over circuits, by Student's t of the mean over sites. A rule is chosen as `extract` would choose it, on fewer points and
images, and its promise is set against what the many points say of it on other circuits. A promise is refuted where the
measured error is larger than the promised one beyond the interval.

    python experiments/benchmark_rules.py --circuits 6 --n-images 2 --rules left-10 midpoint-4 midpoint-10 gauss-radau-5
    python experiments/benchmark_rules.py --model efficientnet-lite0 --data RealStyles --domains photo --circuits 3 \\
        --n-images 1 --rules left-10 midpoint-10 --reference midpoint-100
    python experiments/benchmark_rules.py --model vit-tiny --checkpoint runs/vit-10/clip/checkpoints/epoch_10.pt \\
        --data runs/vit-10/toy --circuits 6 --n-images 2 --rules left-10 --reference midpoint-80 --baseline zero
    python experiments/benchmark_rules.py --checkpoint runs/emoji/clip/checkpoints/epoch_18.pt --data EmojiDomains \\
        --circuits 7 --n-images 2 --rules left-10 midpoint-10
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Literal

from circuitry.runs import InputError, run_script
from circuitry import Clip, DomainFolder, Task
from circuitry.analysis import QuickstartModel
from circuitry.circuits import (
    AttributionSettings,
    QuadratureRule,
    RuleChoice,
    RuleErrors,
    count_operations,
    describe_rule,
    parse_rule,
)
from circuitry.circuits.graph_folder import Key
from circuitry.circuits.rule_choice import cheapest_rule
from circuitry.circuits.rule_errors import REFERENCE
from circuitry.circuits.rule_of_run import IMAGES, spread
from circuitry.circuits.rule_report import RULE_CHOICE, references_agree
from circuitry.comparison import mean_interval
from circuitry.encoder import Metric, metric_of_class
from circuitry.encoder.baselines import BaselineName, default_baseline
from circuitry.encoder.sites import INPUT
from circuitry.models import FolderBaseline, read_images
from circuitry.reports.result_tables import KeepSettings

import pandas as pd

STUDY = "left-10"


@dataclass(frozen=True)
class Config(QuickstartModel, KeepSettings):
    """Settings of the comparison of rules."""

    baseline: BaselineName | None = None
    """Where the paths end (default: as for finding circuits, by the tower)."""
    metric: Literal["logit", "margin"] = "logit"
    """logit: the study's cosine logit; margin: its lead over the mean logit of the other classes."""
    circuits: int = 8
    """How many circuits errors are measured on, after those that a rule is chosen by: the first class in the first
    domain, the second in the second, and so on."""
    n_images: int = 3
    """Images per circuit."""
    rules: tuple[str, ...] = (
        *(STUDY, "left-1", "midpoint-3", "midpoint-4", "midpoint-5", "midpoint-6", "midpoint-8", "midpoint-10"),
        *("midpoint-15", "midpoint-20", "gauss-legendre-4", "gauss-legendre-6", "gauss-radau-4", "gauss-radau-5"),
        *("gauss-radau-7",),
    )
    """Rules to compare, beside the chosen ones."""
    seed: int = 0
    """Seed of the choice of images."""
    reference: str = "midpoint-200"
    """What is taken for exact."""
    error: float = 0.1
    """Error that a rule is chosen by."""


def main(config: Config) -> None:
    """Choose a rule, score the circuits by every rule, and print the tables."""
    clip, images = config.clip(), config.images()
    first, others = drawn_circuits(images, config)
    fewer = replace(config, n_images=min(IMAGES, config.n_images))
    few = [errors for _, errors in circuits(clip, images, fewer, first, REFERENCE)]
    choice = cheapest_rule(few, config.error)
    chosen = (choice.nodes.rule, choice.edges.rule)
    names = {RULE_CHOICE: choice.as_dict(), "node_rule": chosen[0].name, "edge_rule": chosen[1].name}
    print(describe_rule(names))
    rules = {rule.name: rule for rule in (*map(parse_rule, config.rules), *chosen)}
    by_circuit = measure(circuits(clip, images, config, others, parse_rule(config.reference)), rules)
    table = summary(by_circuit).join(relative_costs(clip, few[0].task.metric, rules), on="rule")
    tables = {
        "by_circuit": by_circuit,
        "by_site": by_circuit.groupby(["kind", "rule", "place", "apart"], sort=False)["error"].mean().reset_index(),
        "rules": table,
        "promise": promise(choice, table),
    }
    config.keep(tables, shown=("rules", "promise"), model_digest=clip.digest)


def drawn_circuits(images: DomainFolder, config: Config) -> tuple[list[Key], list[Key]]:
    """Return the (class, domain) that a rule is chosen by, and others that its promise is measured on."""
    there = [(c, d) for c in images.classes for d in images.domains if images.select(c, d, 1, config.seed)]
    first = min(len(spread(there)), config.circuits)
    found = spread(there, first + config.circuits)
    if len(found) <= first:
        raise InputError(
            f"Expected more than {first} classes in domains, to choose a rule by some and measure it on others, but "
            f"{images.root} has images of {len(found)}: give more classes or domains."
        )
    return found[:first], found[first:]


def circuits(
    clip: Clip, images: DomainFolder, config: Config, keys: Sequence[Key], reference: QuadratureRule
) -> Iterator[tuple[str, RuleErrors]]:
    """Yield (name, errors) of circuits."""
    weights = clip.text_weights(images.all_classes)
    name = config.baseline or default_baseline(clip.encoder)
    baseline = FolderBaseline(name, clip, images, config.n_images, config.seed)
    for class_name, domain in keys:
        _, batch = read_images(clip, images.select(class_name, domain, config.n_images, config.seed), strict=True)
        metric = metric_of_class(config.metric)(weights, images.label(class_name))
        task = Task(clip.encoder, batch, metric, baseline=baseline.of(class_name, domain, len(batch)))
        yield f"{class_name} in {domain}", RuleErrors(task, reference=reference)


def measure(measured_on: Iterable[tuple[str, RuleErrors]], rules: dict[str, QuadratureRule]) -> pd.DataFrame:
    """Return the errors of every rule: circuit, kind, rule, place, apart, error; share of kept units as a kind."""
    rows = []
    for name, errors in measured_on:
        for rule in rules.values():
            nodes, alike = errors.compare_nodes(rule)
            kinds = {"nodes": nodes, "edges": errors.edges(rule), "kept alike": alike}
            for kind, found in kinds.items():
                apart = set() if kind == "edges" else set(found) - set(errors.asked_at)
                rows += [(name, kind, rule.name, place, place in apart, value) for place, value in found.items()]
        print(f"{name}: {errors.n_images} images", flush=True)
    return pd.DataFrame(rows, columns=["circuit", "kind", "rule", "place", "apart", "error"])


def summary(by_circuit: pd.DataFrame) -> pd.DataFrame:
    """Return the mean over sites and circuits by kind and rule, its interval over circuits, and the worst place."""
    rows = []
    for (kind, rule), everywhere in by_circuit.groupby(["kind", "rule"], sort=False):
        part, apart = everywhere[~everywhere["apart"]], everywhere[everywhere["apart"]]
        per_circuit = part.groupby("circuit", sort=False)["error"].mean()
        n, interval = len(per_circuit), mean_interval(per_circuit.to_numpy())
        by_place = part.groupby("place")["error"].mean()
        least = kind == "kept alike"  # a share: the smallest is the worst
        worst = (by_place.min(), by_place.idxmin()) if least else (by_place.max(), by_place.idxmax())
        at_input, diverging = (
            apart[same]["error"].mean() for same in (apart["place"] == INPUT, apart["place"] != INPUT)
        )
        rows.append((kind, rule, *interval, n, *worst, diverging, at_input))
    columns = ["kind", "rule", "mean", "low", "high", "circuits", "worst", "worst at", "not converging", "image"]
    return pd.DataFrame(rows, columns=columns)


def promise(choice: RuleChoice, table: pd.DataFrame) -> pd.DataFrame:
    """Return what the choice promised, NaN where it promised nothing, beside what many points say on other circuits."""
    rows = []
    for kind, found in (("nodes", choice.nodes), ("edges", choice.edges)):
        of_kind = table[table["kind"] == kind].set_index("rule")
        cost = of_kind["node cost" if kind == "nodes" else "edge cost"][found.rule.name]
        measured = [of_kind[column][found.rule.name] for column in ("mean", "low", "high")]
        by_study = of_kind["mean"][STUDY]
        promised = found.mean if references_agree(choice.asked, found.references_differ) else float("nan")
        costs = (cost, by_study, found.references_differ)
        rows.append((kind, found.rule.name, choice.asked, promised, *measured, *costs))
    columns = ["kind", "rule", "asked", "promised", "measured", "low", "high", "cost", "error of the study's rule"]
    columns.append("references differ")
    return pd.DataFrame(rows, columns=columns)


def relative_costs(clip: Clip, metric: Metric, rules: dict[str, QuadratureRule]) -> pd.DataFrame:
    """Return the counted operations of nodes and edges by kind and rule, beside those of the study's rule."""
    counts = {
        name: count_operations(clip.encoder, metric, AttributionSettings(rule=rule))
        for name, rule in {STUDY: parse_rule(STUDY), **rules}.items()
    }
    rows = [(r, n / counts[STUDY].nodes, e / counts[STUDY].edges) for r, (n, e) in counts.items()]
    return pd.DataFrame(rows, columns=["rule", "node cost", "edge cost"]).set_index("rule")


if __name__ == "__main__":
    run_script(Config, main, __doc__)

"""Find and cut the circuits of a run in other ways, to see whether the order of the domains depends on it.

1. From stored node scores (`free_variants`): other shares of kept units, single parts of the images, other measures,
   each class left out.
2. By one more extraction each, on a few classes and node scores only (`extract_variants`): another rule, baseline,
   metric and other class texts. Sites that keep few units are left out; each site has the edges of one unit, since node
   overlap needs none.
3. `order_stability` compares both with the default.
"""

from collections.abc import Mapping
from dataclasses import replace

import pandas as pd

from circuitry.circuits.across_domains import compare_domains
from circuitry.circuits.budgets import SAME_SHARE, strongest_units
from circuitry.circuits.circuit_settings import DEFAULT_RULE, STUDY_RULE
from circuitry.circuits.class_pass import FEWEST_KEPT, ReadingSettings
from circuitry.circuits.extraction import Extraction
from circuitry.circuits.extraction_settings import ExtractionSettings
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.graph_folder import GraphFolder, Key
from circuitry.circuits.quadrature import midpoint_rule, parse_rule
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.order_stability import OrderStability, Varied, domain_order_stability
from circuitry.data.names import drawn_by_name
from circuitry.encoder.sites import INPUT
from circuitry.runs.workers import Work

_FRACTIONS = (0.05, 0.2, 0.5)
"""Other shares of kept units."""
_MEASURES = ("edge_jaccard", "spearman")
"""Other measures of the same circuits."""
VARIED_CLASSES = 4
"""Classes of the extractions with other settings."""
_FEWEST_PARTS = 2
_ONE_UNIT = 1e-9
"""Share of units that keeps one of them."""


def extract_variants(
    extraction: Extraction, n_classes: int = VARIED_CLASSES, work: Work = Work()
) -> dict[Varied, GraphFolder]:
    """Find the circuits of a few classes in other ways, beside the folder of a finished extraction.

    Each changes one setting: baseline (zero or mean-position), class texts (pooled or own-style), metric (logit or
    margin) or rule (the study's, or midpoint-10). The other settings, the chosen rule too, stay.

    Args:
        extraction: The default, finished.
        n_classes: Number of classes, at random by its seed; none for 0.
        work: See `extract`.

    Returns:
        A `GraphFolder` by name and value of the changed setting.
    """
    if n_classes < 1:
        return {}
    there = [name for (name, _), records in extraction.selection.items() if records]
    several = {name for name in there if there.count(name) > 1}
    settings = extraction.settings
    classes = sorted(several, key=lambda name: drawn_by_name(settings.seed, name))
    graphs = GraphFolder(extraction.out)
    if not graphs or not classes:
        return {}
    sites = settings.sites  # a global budget compares the scores of all of them
    if settings.budget == SAME_SHARE:
        kept = next(iter(graphs.values())).kept_units  # equally many in every graph, so any finished one will do
        sites = tuple(site for site in kept if site != INPUT and len(kept[site]) >= FEWEST_KEPT) or sites
    rule = parse_rule(graphs.manifest["config"]["node_rule"])
    one_unit = {"edge_rule": midpoint_rule(1), "node_fraction": _ONE_UNIT, "budget": SAME_SHARE, "parts": _FEWEST_PARTS}
    same = replace(settings, rule=rule, sites=sites, **one_unit)  # type: ignore[arg-type]
    baseline = "mean-position" if extraction.asked["baseline"] == "zero" else "zero"
    texts = "own-style" if settings.texts == "pooled" else "pooled"
    metric = "margin" if settings.metric == "logit" else "logit"
    other_rule = DEFAULT_RULE if rule.name == STUDY_RULE.name else STUDY_RULE
    changed: dict[Varied, ExtractionSettings] = {
        ("baseline", baseline): replace(same, baseline=baseline),
        ("class texts", texts): replace(same, texts=texts),
        ("metric", metric): replace(same, metric=metric),
        ("rule", other_rule.name): replace(same, rule=other_rule),
    }
    found = {}
    for (varied, setting), one in changed.items():
        out = extraction.out.with_name(f"{extraction.out.name}-{setting}")
        few = classes[:n_classes]
        Extraction(extraction.clip, extraction.images, out, one, few, extraction.domains).run(work)
        found[varied, setting] = GraphFolder(out)
    return found


def order_stability(
    graphs: GraphFolder, extracted: Mapping[Varied, Mapping[Key, AttributionGraph]] | None = None
) -> OrderStability:
    """Compare the order of the domains by node overlap with their order under other settings.

    Args:
        graphs: The default, from `extract`.
        extracted: From `extract_variants`; each is compared with the default on the same classes.

    Returns:
        The table, in which the default on the classes of ``extracted`` is another variant, and the comparisons.
    """
    default = _overlap(graphs)
    free = domain_order_stability(default.matrix(), free_variants(graphs, default))
    tables = [free.assign(n_classes=default.n_classes)]
    found, few = {}, default
    config = graphs.manifest["config"]
    share, budget = config["node_fraction"], config.get("budget", SAME_SHARE)
    for varied, others in (extracted or {}).items():
        found[varied] = _overlap({k: with_fraction(g, share, budget) for k, g in others.items()}, default.left_out)
    if found:
        classes = set(next(iter(found.values())).values["class"])
        few = replace(default, values=default.values[default.values["class"].isin(classes)], groups={})
        fewer: dict[Varied, pd.DataFrame] = {("classes", f"{len(classes)} of them"): few.matrix()}
        subset = domain_order_stability(default.matrix(), fewer if few.domains == default.domains else {})
        anew = domain_order_stability(few.matrix(), {varied: one.matrix() for varied, one in found.items()})
        tables += [table.iloc[1:].assign(n_classes=len(classes)) for table in (subset, anew)]
    return OrderStability(pd.concat(tables, ignore_index=True), few, found)


def free_variants(graphs: GraphFolder, default: Comparison) -> dict[Varied, pd.DataFrame]:
    """Return the similarities of domains by circuits that need no new attribution.

    Other shares of kept units, one part of the images at a time, other measures, and all classes except the one whose
    absence changes the order most.
    """
    found: dict[Varied, pd.DataFrame] = {}
    for fraction in _FRACTIONS:
        cut = {key: with_fraction(graph, fraction) for key, graph in graphs.items()}
        found["share of kept units", f"{fraction:g}"] = _overlap(cut, default.left_out).matrix()
    by_part: dict[int, dict[Key, AttributionGraph]] = {}
    for key in graphs:
        for part, graph in graphs.parts(*key).items():
            by_part.setdefault(part, {})[key] = graph
    for part, of_part in sorted(by_part.items()):
        if len({name for name, _ in of_part}) == len(of_part):  # no class is in two domains
            continue
        n = sum(graph.n_images for graph in of_part.values()) / len(of_part)
        found["images", f"part {part + 1} ({n:.3g} a class)"] = _overlap(of_part, default.left_out).matrix()
    other = compare_domains(graphs, measures=_MEASURES, settings=ReadingSettings(chance_draws=0), parts=_no_parts)
    for measure, comparison in other.items():
        found["measure", measure] = comparison.matrix()
    without = {}
    for name in default.groups["all"]:
        rest = default.values[default.values["class"] != name]
        if len(rest):
            without["classes", f"without {name}"] = replace(default, values=rest, groups={}).matrix()
    if without:
        worst = domain_order_stability(default.matrix(), without).iloc[1:].sort_values("rho", kind="stable").iloc[0]
        found["classes", worst["setting"]] = without["classes", worst["setting"]]
    return {varied: matrix for varied, matrix in found.items() if set(matrix.index) == set(default.domains)}


def with_fraction(graph: AttributionGraph, fraction: float, budget: str | None = None) -> AttributionGraph:
    """Return a graph that keeps another share of its units, without edges: their scores are of the former units.

    The budget stays unless another one is given.
    """
    budget = budget or graph.settings.get("budget", SAME_SHARE)
    kept = strongest_units(graph.node_scores, fraction, budget)
    settings = graph.settings | {"node_fraction": fraction, "budget": budget}
    return replace(graph, kept_units=kept, edge_scores={}, settings=settings)


def _no_parts(class_name: str, domain: str) -> dict[int, AttributionGraph]:
    return {}


def _overlap(graphs: Mapping[Key, AttributionGraph], left_out: Mapping[str, str] | None = None) -> Comparison:
    """Compare whole circuits by node overlap, over the sites that count for the default."""
    settings = ReadingSettings(chance_draws=0, other_classes=0)
    (found,) = compare_domains(graphs, measures=["node_overlap"], settings=settings, parts=_no_parts).values()
    return found if left_out is None else replace(found, left_out=dict(left_out))

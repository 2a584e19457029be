"""Answers to questions about circuits: results of tests and comparisons, as a report shows them.

Each answer has three methods. `findings` returns its conclusions in words, `tables` returns its tables, and `add_to`
adds its sections to a report. An `AnswerContext` holds the images, circuits and settings that all answers share; it is
passed to `tables` and `add_to` as ``of``. Does not import torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cached_property

import pandas as pd

from circuitry.circuits.graph import Circuit
from circuitry.circuits.graph_folder import GraphFolder
from circuitry.circuits.similarities_of_classes import ReadingSettings
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.domain_apart import (
    apart_over_depth,
    group_means,
    means_without,
)
from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.interventions.curve_reading import CURVE_MEASURES
from circuitry.interventions.curves import FaithfulnessCurve, curves_by_domain
from circuitry.interventions.scores_beside_effects import AttributionCheck
from circuitry.reports.figures.style import Mark, domain_marks
from circuitry.reports.page import Finding, Report
from circuitry.reports.sections.causal_curves import (
    add_faithfulness,
    add_selectivity_over_depth,
    faithfulness_findings,
)
from circuitry.reports.sections.circuits import (
    add_attribution_check,
    add_circuit_pair,
    add_circuit_stability,
    add_domain_apart,
    add_similarity,
    circuit_findings,
)
from circuitry.reports.sections.findings import UNKNOWN
from circuitry.reports.sections.one_circuit import add_circuit

CIRCUITS_DRAWN = 4
"""If nothing is compared, at most this many circuits are drawn, one by one."""
NOT_TESTED = Finding(
    f"Do the circuits work? {UNKNOWN}: they were not tested. A smaller --n-images leaves images to test them on.",
    "An attribution claims causes; it does not prove them.",
    "Tests on images that the circuits were not found on, beside random units.",
)
"""The finding for circuits that were not tested."""


@dataclass(frozen=True)
class AnswerContext:
    """The images and circuits that answers are about, and how a report shows them.

    Example:
        >>> from circuitry.questions import AnswerContext
        >>> AnswerContext(folder).domains
        ('quickdraw', 'real', 'sketch')
    """

    images: DomainFolder
    """The images that the model was given."""
    graphs: GraphFolder | None = None
    """The circuits; None if no circuits were found."""
    reading: ReadingSettings = field(default_factory=ReadingSettings)
    """How circuits are cut out of their graphs."""
    apart: str | None = None
    """A domain to compare with all other domains; None for no such comparison."""
    pair: tuple[str, str, str] | None = None
    """A class and two domains, whose two circuits are drawn side by side. By default it is the first class, with the
    two domains in which its circuits share the fewest edges."""

    @property
    def domains(self) -> tuple[str, ...]:
        """The domains of the circuits; if there are no circuits, the domains of the images."""
        return self.images.domains if self.graphs is None else self.graphs.domains

    @property
    def marks(self) -> Mapping[str, Mark]:
        """The colour and symbol of each domain in charts."""
        return domain_marks(self.domains)

    @cached_property
    def sites(self) -> list[str]:
        """The sites of the circuits; empty if there are no circuits."""
        if self.graphs is None:
            return []
        # All circuits of a folder have the same sites.
        return list(next(iter(self.graphs.values())).inner_sites)

    def circuit(self, key: Key) -> Circuit:
        """Return the circuit of a class and domain, with the edges that drawings show (see `reading`)."""
        # Only sections on circuits call this, and a report without circuits has no such sections.
        assert self.graphs is not None
        reading = self.reading
        graph = self.graphs[key]
        return graph.circuit(reading.edges_per_node, any_sign=reading.any_sign)


@dataclass
class CurvesAnswer:
    """The answer to the question whether circuits work, from faithfulness curves.

    Example:
        >>> from circuitry.questions import CurvesAnswer
        >>> CurvesAnswer([]).findings()[0].claim
        'Do the circuits work? Cannot be told: they were not tested. ...'
    """

    curves: list[FaithfulnessCurve]
    """A curve for each circuit and each ranking. The list is empty if no images were left to test on."""
    by_site: list[FaithfulnessCurve] = field(default_factory=list)
    """Curves that ablate at one site at a time."""

    def findings(self) -> list[Finding | None]:
        """Return findings on whether the circuits work."""
        if self.curves:
            return list(faithfulness_findings(self.curves, self.by_site))
        # Curves at single sites do not say whether circuits work, but they show that circuits were tested.
        return [] if self.by_site else [NOT_TESTED]

    def to_pandas(self) -> pd.DataFrame:
        """Return the rows of `FaithfulnessCurve.to_pandas` of all curves; no rows if there are no curves."""
        tables = [curve.to_pandas() for curve in (*self.curves, *self.by_site)]
        return pd.concat([pd.DataFrame(), *tables], ignore_index=True)

    def tables(self, of: AnswerContext) -> dict[str, pd.DataFrame]:
        """Return the tables of this answer by the names that they have in a report; ``of`` is ignored."""
        by_ranking: dict[str, list[FaithfulnessCurve]] = {}
        for curve in self.curves:
            by_ranking.setdefault(curve.ranking, []).append(curve)
        tables: dict[str, pd.DataFrame] = {}
        for measure in CURVE_MEASURES:
            name = measure.replace(" ", "_")
            for ranking, curves in by_ranking.items():
                # The name contains the ranking only if there are several rankings.
                ending = f"_{ranking}" if len(by_ranking) > 1 else ""
                tables[name + ending] = curves_by_domain(curves, measure)
            if self.by_site:
                tables[f"{name}_one_site"] = curves_by_domain(self.by_site, measure)
        return tables

    def add_to(self, report: Report, of: AnswerContext) -> None:
        """Add the sections on faithfulness to a report: at all sites together, and at one site at a time."""
        if self.curves:
            add_faithfulness(report, self.curves, of.marks)
        if self.by_site:
            add_selectivity_over_depth(report, self.by_site, of.marks, of.sites)


@dataclass(frozen=True)
class ScoresAnswer:
    """The scores of a single circuit next to exact effects.

    The exact effect of a unit is the change of the metric, measured in a run in which the unit is ablated.

    Example:
        >>> from circuitry.questions import AnswerContext, ScoresAnswer
        >>> alike = circuitry.attribute(encoder, images, metric, baseline="zero", progress=False)
        >>> check = circuitry.interventions.check_attribution(task, alike)
        >>> answer = ScoresAnswer(("clock", "real"), check)
        >>> sorted(answer.tables(AnswerContext(folder)))
        ['attribution_against_patching', 'scores_across_sites']
    """

    key: Key
    """The class and domain of the circuit."""
    check: AttributionCheck
    """The scores of the circuit next to the exact effects of its units."""

    def findings(self) -> list[Finding | None]:
        """Return an empty list, because one circuit allows no conclusion about all circuits."""
        return []

    def to_pandas(self) -> pd.DataFrame:
        """Return the table of `AttributionCheck.to_pandas`."""
        return self.check.to_pandas()

    def tables(self, of: AnswerContext) -> dict[str, pd.DataFrame]:
        """Return the tables of this answer by the names that they have in a report; ``of`` is ignored."""
        return {
            "attribution_against_patching": self.check.points,
            "scores_across_sites": self.check.across_sites(),
        }

    def add_to(self, report: Report, of: AnswerContext) -> None:
        """Add the section on scores to a report."""
        class_name, domain = self.key
        add_attribution_check(report, self.check, of.sites, f"{class_name} in {domain}")


@dataclass(frozen=True)
class ComparedAnswer:
    """The answer to the question whether circuits are shared between domains.

    It is empty if no class has circuits in two domains.

    Example:
        >>> from circuitry.questions import ComparedAnswer
        >>> ComparedAnswer().findings()
        []
    """

    comparisons: Mapping[str, Comparison] = field(default_factory=dict)
    """Comparisons by the name of their measure."""
    stability: pd.DataFrame = field(default_factory=pd.DataFrame)
    """A table of `circuit_stability`."""

    def findings(self) -> list[Finding | None]:
        """Return findings on whether circuits are shared between domains."""
        return circuit_findings(self.comparisons) if self.comparisons else []

    def to_pandas(self) -> pd.DataFrame:
        """Return the values of all comparisons, with the name of the measure in the column measure."""
        tables = [pd.DataFrame()]
        for measure, comparison in self.comparisons.items():
            tables.append(comparison.to_pandas().assign(measure=measure))
        return pd.concat(tables, ignore_index=True)

    def tables(self, of: AnswerContext) -> dict[str, pd.DataFrame]:
        """Return the tables of this answer by the names that they have in a report.

        If ``of`` has a domain to compare with all other domains (``apart``), there are additional tables on it.
        """
        tables: dict[str, pd.DataFrame] = {}
        for comparison in self.comparisons.values():
            tables |= comparison.tables()
        # All measures have the same groups, so one table holds them all.
        if any(len(comparison.groups) > 1 for comparison in self.comparisons.values()):
            tables["similarity_by_group"] = group_means(self.comparisons)
        if of.apart is not None and self.comparisons:
            overlap = self.comparisons["node_overlap"]
            tables["domain_apart_over_depth"] = apart_over_depth(overlap, of.apart)
            for name, comparison in self.comparisons.items():
                tables[f"{name}_without"] = means_without(comparison, of.apart)
        if len(self.stability):
            tables["circuit_stability"] = self.stability
        return tables

    def add_to(self, report: Report, of: AnswerContext) -> None:
        """Add sections to a report: on similarity, on a pair of circuits, and on the stability of circuits.

        If ``of`` has a domain to compare with all other domains (``apart``), a section on this domain follows. If there
        are no comparisons, the report only gets drawings of at most `CIRCUITS_DRAWN` single circuits.
        """
        # If no class has two domains, there is nothing to compare, but there are circuits to draw.
        if not self.comparisons:
            self._draw_one_by_one(report, of)
            return
        add_similarity(report, self.comparisons, of.marks)
        class_name, domain_a, domain_b = of.pair or self.least_similar()
        first = of.circuit((class_name, domain_a))
        second = of.circuit((class_name, domain_b))
        # The sites are taken from node overlap, which has a value at every compared site, with or without edges.
        sites = self.comparisons["node_overlap"].sites
        add_circuit_pair(report, first, second, sites, of.marks)
        if len(self.stability):
            add_circuit_stability(report, self.stability)
        if of.apart is not None:
            add_domain_apart(report, self.comparisons, of.apart, of.marks)

    def _draw_one_by_one(self, report: Report, of: AnswerContext) -> None:
        keys = list(of.graphs or ())
        for key in keys[:CIRCUITS_DRAWN]:
            circuit = of.circuit(key)
            n_images = circuit.source.n_images
            caption = f"The kept units at every site, found on {n_images} images, and the strongest edges into them."
            add_circuit(report, circuit, caption)
        if len(keys) > CIRCUITS_DRAWN:
            n_left = len(keys) - CIRCUITS_DRAWN
            report.text(f"{n_left} more circuits are not drawn here.")

    def least_similar(self) -> tuple[str, str, str]:
        """Return the first class, and the two domains in which its circuits share the fewest edges."""
        table = self.comparisons["edge_jaccard"].values
        of_class = table[table["class"] == min(table["class"])]
        # The sort is stable, so that among equal values every machine chooses the same pair.
        row = of_class.sort_values("value", kind="stable").iloc[0]
        return str(row["class"]), str(row["domain_a"]), str(row["domain_b"])

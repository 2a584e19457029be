"""Every number in a caption is one that its figure or table shows, or counts what is shown there.

`SECTIONS` has an example of every function that adds a section; one without an example fails the first test.
"""

import ast
import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Set
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest
from PIL import Image

import circuitry.reports.sections
from circuitry.circuits.consensus import STABILITY
from circuitry.comparison.significance import LEVEL
from circuitry.interventions import AttributionCheck
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.reports.sections import (
    accuracies,
    apart,
    causal_curves,
    circuits,
    compared,
    one_circuit,
    score_checks,
    transfers,
)
from tests.circuits.test_graph import small_graph
from tests.comparison.similarities import similarities
from tests.reports.sections import test_interventions as checks
from tests.reports.sections.test_accuracy import accuracy
from tests.reports.sections.test_circuits import comparisons
from tests.reports.sections.test_compared import MARKS, edges, overlap

NUMBER = re.compile(r"(?<![\w.-])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?%?")
DEFINED = {0.0, 1.0, 0.5, LEVEL}
"""Numbers that define a measure or a test."""


class ReadBack(Report):
    """A report that keeps each caption with what it stands under."""

    def __init__(self, folder: Path) -> None:
        super().__init__("t")
        self.folder = folder
        self.shown: list[tuple[str, list[Any]]] = []

    def figure(self, figure: go.Figure, caption: str) -> None:
        super().figure(figure, caption)
        layout = figure.layout.to_plotly_json()
        traces = [trace.to_plotly_json() for trace in figure.data]
        lines = [shape.get(end) for shape in layout.get("shapes", ()) for end in ("x0", "y0")]
        texts = [leaf for leaf in leaves(layout) if isinstance(leaf, str)]
        self.shown.append((caption, [*leaves(traces), *leaves(lines), *texts]))

    def table(
        self, table: pd.DataFrame, caption: str, *, formats: Mapping[str, str] | None = None, folded: bool = False
    ) -> None:
        super().table(table, caption, formats=formats, folded=folded)
        self.shown.append((caption, [*leaves(table.reset_index().to_dict("list")), *map(str, table.columns)]))

    def image(self, image: Image.Image, caption: str, *, alt: str) -> None:
        super().image(image, caption, alt=alt)
        self.shown.append((caption, []))


def leaves(value: Any) -> Iterator[float | str]:
    """Numbers and texts of a nested value; of intervals around values also the ends."""
    if isinstance(value, dict):
        for axis in "xy":
            if "array" in (bar := value.get(f"error_{axis}") or {}):
                middle = np.asarray(value[axis], dtype=float)
                yield from (middle + np.asarray(bar["array"], dtype=float)).tolist()
                yield from (middle - np.asarray(bar.get("arrayminus", bar["array"]), dtype=float)).tolist()
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, str):
        yield re.sub("<[^>]*>", " ", value)
    elif isinstance(value, Iterable):
        for item in np.asarray(value, dtype=object).ravel():
            yield from leaves(item)
    elif isinstance(value, int | float | np.number):
        yield float(value)


def written(text: str) -> list[str]:
    return [token for token in NUMBER.findall(text.replace("95 %", "")) if token]


def not_shown(caption: str, shown: list[float | str], defined: Set[float] = DEFINED) -> list[str]:
    """The numbers of a caption that are neither shown, to the printed digits, nor counts of what is shown."""
    known = [leaf for leaf in shown if isinstance(leaf, float)]
    known += [value(token) for leaf in shown if isinstance(leaf, str) for token in written(leaf)]
    numbers, wrong = np.array(known, dtype=float), []
    for token in written(caption):
        mantissa, _, power = token.rstrip("%").partition("e")
        digits = int(power or 0) - len(mantissa.partition(".")[2]) - 2 * token.endswith("%")
        near = np.abs(numbers - value(token)) <= 0.5 * 10.0**digits * (1 + 1e-6)
        if token.endswith("%"):  # of a figure with an axis in percent
            near |= np.abs(numbers / 100 - value(token)) <= 0.5 * 10.0**digits * (1 + 1e-6)
        count = token.isdigit() and int(token) <= len(shown)
        if not (near.any() or count or value(token) in defined):
            wrong.append(token)
    return wrong


def value(token: str) -> float:
    return float(token.rstrip("%").replace(",", "")) / (100 if token.endswith("%") else 1)


def test_the_check_itself() -> None:
    shown: list[float | str] = [0.607, 0.5, 12.4e-6, "3 / 4"]
    assert not_shown("0.61 at layer3.0 (95 % interval), 3 of 4 sites, 50.0%, +1.2e-05", shown) == []
    assert not_shown("0.60, 12 sites, 50.2%, 2e-05, -0.607", shown) == ["0.60", "12", "50.2%", "2e-05", "-0.607"]


# Examples


def circuit_pair(report: ReadBack) -> None:
    a, b = (small_graph(domain=domain).circuit(1) for domain in ("sketch", "real"))
    circuits.add_circuit_pair(report, a, b, ["conv", "head"])


def depth_of_two(report: ReadBack) -> None:
    two = {"of p": (0.2, 0.4), "of the others": (0.3, 0.1)}
    rows = [(name, site, v, v - 0.1, v + 0.1) for name, of in two.items() for site, v in zip("xy", of, strict=True)]
    apart.add_two_lines(
        report, pd.DataFrame(rows, columns=["domain", "site", "value", "low", "high"]), ["x", "y"], "overlap"
    )


def circuit_stability(report: ReadBack) -> None:
    rows = [("axe", "real", 4, 10, 0.8, 5, 0.5), ("cat", "real", 4, 10, 0.6, 5, 0.25)]
    circuits.add_circuit_stability(report, pd.DataFrame(rows, columns=list(STABILITY)))


def selectivity_over_depth(report: ReadBack) -> None:
    kept = (("a", 0.3), ("b", 0.6))
    curves = [checks.curve(domain, k, 0.1, site=site) for domain in ("real", "sketch") for site, k in kept]
    causal_curves.add_selectivity_over_depth(report, curves, checks.MARKS, ["a", "b"])


def transfer(report: ReadBack) -> None:
    table = pd.concat([checks.transfers("all", 0.0), checks.transfers("a", 0.0), checks.transfers("b", 0.1)])
    transfers.add_transfer(report, table, checks.SIMILARITY, checks.MARKS, ["a", "b"])


def interchange(report: ReadBack) -> None:
    table = checks.transfers("all", 0.0).assign(change=lambda t: t["metric"] - 1, random_change=-0.25, accuracy=0.5)
    transfers.add_interchange(report, table, checks.MARKS)


RULES = {"rule": "left 10", "site": "a", "sample": ["all", "top"], "pearson": [0.5, 0.25], "spearman": [0.75, 0.125]}
POINTS = {"site": ["a"] * 4, "unit": range(4), "top": True, "random": True, "attributed": [0.0, 1, 2, 3]}
PIXELS = {"whole model": np.eye(8)[None], "circuit": 0.7 * np.eye(8)[None] + 0.1}
SETTINGS: dict[str, Any] = {"node_rule": "left-10", "edge_rule": "left-10"}

SHARED = similarities(8)
SHARED_MARKS = domain_marks(SHARED.domains)

SECTIONS: dict[str, Callable[[ReadBack], None]] = {
    "add_comparison": lambda r: compared.add_comparison(r, SHARED, SHARED_MARKS, title="t"),
    "add_reading": lambda r: compared.add_reading(r, SHARED),
    "add_over_depth": lambda r: compared.add_over_depth(r, overlap(), MARKS),
    "add_matrix": lambda r: compared.add_matrix(r, edges(), MARKS, title="t"),
    "add_ratios": lambda r: compared.add_ratios(r, SHARED, SHARED_MARKS, title="t"),
    "add_levels": lambda r: compared.add_levels(r, SHARED),
    "add_summary": lambda r: compared.add_summary(r, [SHARED]),
    "add_tests": lambda r: compared.add_tests(r, SHARED),
    "add_similarity": lambda r: circuits.add_similarity(r, comparisons(), MARKS),
    "add_circuit": lambda r: one_circuit.add_circuit(r, small_graph().circuit(1), "A circuit."),
    "add_circuit_pair": circuit_pair,
    "add_guide": lambda r: circuits.add_guide(r, SETTINGS, "unseen images"),
    "add_circuit_stability": circuit_stability,
    "add_accuracy": lambda r: accuracies.add_accuracy(r, accuracy(), MARKS, test_domain="sketch"),
    "add_told_apart": lambda r: accuracies.add_told_apart(r, accuracy(), "Accuracies."),
    "add_domain_apart": lambda r: apart.add_domain_apart(r, comparisons(), "sketch", MARKS),
    "add_two_lines": depth_of_two,
    "add_faithfulness": lambda r: causal_curves.add_faithfulness(r, checks.curves_of(0.2), checks.MARKS),
    "add_selectivity_over_depth": selectivity_over_depth,
    "add_transfer": transfer,
    "add_interchange": interchange,
    "add_attribution_check": lambda r: score_checks.add_attribution_check(
        r, AttributionCheck(pd.DataFrame(POINTS | {"exact": [0.0, 1, 3, 2]})), ["a"], "cat in real"
    ),
    "add_rules": lambda r: score_checks.add_rules(r, pd.DataFrame(RULES)),
    "add_pixels": lambda r: score_checks.add_pixels(r, np.zeros((1, 8, 8, 3), np.uint8), PIXELS, ["real 1"], "cat"),
}  # fmt: skip
TEXT_ALONE = {name for name in SECTIONS if name.endswith("_guide")} | {"add_reading"}


def modules() -> list[Any]:
    package = circuitry.reports.sections
    names = [f"{package.__name__}.{module.name}" for module in pkgutil.iter_modules(package.__path__)]
    return [importlib.import_module(name) for name in names]


def test_every_section_has_an_example() -> None:
    names = [
        name for module in modules() for name, of in vars(module).items()
        if name.startswith("add_") and of.__module__ == module.__name__
    ]  # fmt: skip
    assert sorted(names) == sorted(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_number_of_a_caption_is_shown_above_it(name: str, tmp_path: Path) -> None:
    report = ReadBack(tmp_path)
    SECTIONS[name](report)
    assert (name in TEXT_ALONE) != bool(report.shown)
    for caption, shown in report.shown:
        assert not_shown(caption, shown, DEFINED) == [], caption
        assert "nan" not in caption


COMPUTES = {"mean", "nanmean", "std", "var", "median", "quantile", "corr", "corrcoef", "dot", "pivot_table", "agg"}


@pytest.mark.parametrize("module", modules(), ids=lambda module: str(module.__name__).rpartition(".")[2])
def test_a_section_computes_nothing(module: Any) -> None:
    tree = ast.parse(Path(str(module.__file__)).read_text(encoding="utf-8"))
    calls = [node.func for node in ast.walk(tree) if isinstance(node, ast.Call)]
    assert not [of.attr for of in calls if isinstance(of, ast.Attribute) and of.attr in COMPUTES]

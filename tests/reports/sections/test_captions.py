"""Every number in a caption is one that its figure or table shows, or counts what is shown there."""

import importlib
import pkgutil
import re
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import pandas as pd
import pytest

import circuitry.reports.sections
from circuitry.circuits.consensus import STABILITY
from circuitry.comparison.significance import LEVEL
from circuitry.interventions import AttributionCheck
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.reports.sections import (
    accuracies,
    causal_curves,
    circuits,
    compared,
    one_circuit,
    own_parts,
)
from tests.circuits.test_graph import small_graph
from tests.comparison.similarities import similarities
from tests.questions import test_own_parts
from tests.reports.sections import test_interventions as checks
from tests.reports.sections.test_circuits import comparisons
from tests.reports.sections.test_compared import MARKS, accuracy, edges, overlap

NUMBER = re.compile(r"(?<![\w.-])[-+]?\d+(?:,\d{3})*(?:\.\d+)?(?:e[-+]?\d+)?%?")
DEFINED = {0.0, 1.0, 0.5, LEVEL}
MODULES = [
    importlib.import_module(f"circuitry.reports.sections.{module.name}")
    for module in pkgutil.iter_modules(circuitry.reports.sections.__path__)
]


class ReadBack(Report):
    """A report that remembers each caption with the numbers and texts that it stands under."""

    def __init__(self) -> None:
        super().__init__("t")
        self.shown: list[tuple[str, list[float | str]]] = []

    def figure(self, figure: Any, caption: str) -> None:
        self.shown.append(
            (
                caption,
                [
                    *leaves([t.to_plotly_json() for t in figure.data]),
                    *leaves(plain(figure)),
                ],
            )
        )

    def table(self, table: pd.DataFrame, caption: str, **_: Any) -> None:
        self.shown.append(
            (
                caption,
                [
                    *leaves(table.reset_index().to_dict("list")),
                    *map(str, table.columns),
                ],
            )
        )


def plain(figure: Any) -> list[Any]:
    """The texts of a layout, and where its lines stand."""
    layout = figure.layout.to_plotly_json()
    lines = [
        shape.get(end) for shape in layout.get("shapes", ()) for end in ("x0", "y0")
    ]
    return [*lines, *(leaf for leaf in leaves(layout) if isinstance(leaf, str))]


def leaves(value: Any) -> Iterator[float | str]:
    """Numbers and texts of a nested value; of intervals around values their limits, too."""
    if isinstance(value, dict):
        for axis in "xy":
            if "array" in (bar := value.get(f"error_{axis}") or {}):
                middle, up = (
                    np.asarray(value[axis], dtype=float),
                    np.asarray(bar["array"], dtype=float),
                )
                yield from [
                    *(middle + up),
                    *(middle - np.asarray(bar.get("arrayminus", up), dtype=float)),
                ]
        for item in value.values():
            yield from leaves(item)
    elif isinstance(value, str):
        yield re.sub("<[^>]*>", " ", value)
    elif isinstance(value, Iterable):
        for item in np.asarray(value, dtype=object).ravel():
            yield from leaves(item)
    elif isinstance(value, int | float | np.number):
        yield float(value)


def value(token: str) -> float:
    return float(token.rstrip("%").replace(",", "")) / (
        100 if token.endswith("%") else 1
    )


def not_shown(caption: str, shown: list[float | str]) -> list[str]:
    """The numbers of a caption that are neither shown, to the printed digits, nor counts of what is shown."""
    numbers = np.array([leaf for leaf in shown if isinstance(leaf, float)], dtype=float)
    numbers = np.append(
        numbers,
        [
            value(t)
            for leaf in shown
            if isinstance(leaf, str)
            for t in NUMBER.findall(leaf)
        ],
    )
    wrong = []
    for token in NUMBER.findall(caption.replace("95 %", "")):
        mantissa, _, power = token.rstrip("%").partition("e")
        digits = (
            int(power or 0) - len(mantissa.partition(".")[2]) - 2 * token.endswith("%")
        )
        candidates = (
            np.append(numbers, numbers / 100) if token.endswith("%") else numbers
        )
        near = np.abs(candidates - value(token)) <= 0.5 * 10.0**digits * (1 + 1e-6)
        if not (
            near.any()
            or (token.isdigit() and int(token) <= len(shown))
            or value(token) in DEFINED
        ):
            wrong.append(token)
    return wrong


SHARED = similarities(8)
OF_SHARED = domain_marks(SHARED.domains)
SETTINGS: dict[str, Any] = {"node_rule": "left-10", "edge_rule": "left-10"}
POINTS = {
    "site": ["a"] * 4,
    "unit": range(4),
    "top": True,
    "random": True,
    "attributed": [0.0, 1, 2, 3],
}
STABLE = [("axe", "real", 4, 10, 0.8, 5, 0.5), ("cat", "real", 4, 10, 0.6, 5, 0.25)]

PAIR = [small_graph(domain=domain).circuit(1) for domain in ("sketch", "real")]
CURVES = [
    checks.curve(d, k, 0.1, site=site)
    for d in ("real", "sketch")
    for site, k in (("a", 0.3), ("b", 0.6))
]
TWO = pd.DataFrame(
    [
        (d, s, v, v - 0.1, v + 0.1)
        for d, s, v in (
            ("p", "x", 0.2),
            ("p", "y", 0.4),
            ("q", "x", 0.3),
            ("q", "y", 0.1),
        )
    ],
    columns=["domain", "site", "value", "low", "high"],
)
LESIONS, OVERLAPS = (
    table.assign(share=0.02, sites="everywhere")
    for table in (test_own_parts.lesions(0.5), test_own_parts.OVERLAPS)
)
SECTIONS: dict[str, Callable[[ReadBack], None]] = {
    "add_comparison": lambda r: compared.add_comparison(
        r, SHARED, OF_SHARED, title="t"
    ),
    "add_reading": lambda r: compared.add_reading(r, SHARED),
    "add_over_depth": lambda r: compared.add_over_depth(r, overlap(), MARKS),
    "add_matrix": lambda r: compared.add_matrix(r, edges(), MARKS, title="t"),
    "add_ratios": lambda r: compared.add_ratios(r, SHARED, OF_SHARED, title="t"),
    "add_levels": lambda r: compared.add_levels(r, SHARED),
    "add_summary": lambda r: compared.add_summary(r, [SHARED]),
    "add_tests": lambda r: compared.add_tests(r, SHARED),
    "add_similarity": lambda r: circuits.add_similarity(r, comparisons(), MARKS),
    "add_circuit": lambda r: one_circuit.add_circuit(
        r, small_graph().circuit(1), "A circuit."
    ),
    "add_circuit_pair": lambda r: circuits.add_circuit_pair(
        r, PAIR[0], PAIR[1], ["conv", "head"]
    ),
    "add_guide": lambda r: circuits.add_guide(r, SETTINGS, "unseen images"),
    "add_circuit_stability": lambda r: circuits.add_circuit_stability(
        r, pd.DataFrame(STABLE, columns=list(STABILITY))
    ),
    "add_accuracy": lambda r: accuracies.add_accuracy(
        r, accuracy(), MARKS, test_domain="sketch"
    ),
    "add_told_apart": lambda r: accuracies.add_told_apart(r, accuracy(), "Accuracies."),
    "add_domain_apart": lambda r: circuits.add_domain_apart(
        r, comparisons(), "sketch", MARKS
    ),
    "add_two_lines": lambda r: circuits.add_two_lines(r, TWO, ["x", "y"], "overlap"),
    "add_faithfulness": lambda r: causal_curves.add_faithfulness(
        r, checks.curves_of(0.2), checks.MARKS
    ),
    "add_selectivity_over_depth": lambda r: causal_curves.add_selectivity_over_depth(
        r, CURVES, checks.MARKS, ["a", "b"]
    ),
    "add_own_parts": lambda r: own_parts.add_own_parts(
        r, own_parts.own_part_tables(LESIONS, OVERLAPS), ["a", "b"]
    ),
    "add_attribution_check": lambda r: circuits.add_attribution_check(
        r,
        AttributionCheck(pd.DataFrame(POINTS | {"exact": [0.0, 1, 3, 2]})),
        ["a"],
        "cat in real",
    ),
}


def test_every_section_has_an_example() -> None:
    found = [
        (module, name)
        for module in MODULES
        for name in vars(module)
        if name.startswith("add_")
    ]
    assert {
        name
        for module, name in found
        if vars(module)[name].__module__ == module.__name__
    } == set(SECTIONS)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_number_of_a_caption_is_shown_above_it(name: str) -> None:
    report = ReadBack()
    SECTIONS[name](report)
    assert (name.endswith("_guide") or name == "add_reading") != bool(report.shown)
    for caption, shown in report.shown:
        assert not_shown(caption, shown) == [], caption
        assert "nan" not in caption

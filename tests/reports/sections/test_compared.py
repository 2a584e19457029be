"""The sections on a comparison against numbers worked out on paper."""

import html
import math
import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from circuitry import Comparison
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.reports.sections.accuracies import add_accuracy, recognised
from circuitry.reports.sections.compared import (
    add_comparison,
    add_matrix,
    add_over_depth,
    add_summary,
    with_intervals,
)
from tests.support.folds import folds_of_halves

DOMAINS = ("clipart", "real", "sketch")
MARKS = domain_marks(DOMAINS)


def accuracy() -> pd.DataFrame:
    """As `accuracy_kinds` makes it."""
    rows = [
        ("clipart", 0.825, 0.9, 0.6),
        ("real", 0.75, 0.5, 0.8),
        ("sketch", 0.5, 0.75, 0.25),
    ]
    table = pd.DataFrame(rows, columns=["domain", "all", "seen", "held_out"])
    kinds = {
        "alone": 0.7,
        "own_style": 0.4,
        "centred": 0.3,
        "predicted_held_out": 0.1,
        "harmonic_mean": 0.375,
    }
    return table.assign(
        **kinds,
        chance=0.125,
        chance_alone=0.5,
        sd=float("nan"),
        seeds=1,
        n_classes=2,
        held_out_classes="a, b",
    )


def test_accuracy_is_told_where_nobody_looks_at_the_test_domain(tmp_path: Path) -> None:
    add_accuracy(report := Report("t"), accuracy(), MARKS, test_domain="quickdraw")
    assert not any("quickdraw" in caption for caption in captions(report, tmp_path))


def test_classes_that_the_model_does_not_know_are_named() -> None:
    rows = [
        ("axe", "real", 0.25, 4, False),
        ("cat", "real", 1.0, 4, True),
        ("cat", "sketch", 0.5, 2, True),
    ]
    by_class = pd.DataFrame(
        rows, columns=["class", "domain", "right", "n_images", "known"]
    )
    said = recognised(by_class, accuracy())
    assert "? Partly: right answers in clipart 82%, real 75%" in said.claim
    assert "of 3 pairs of class and domain it knows 2." in said.claim
    assert said.claim.endswith(
        "Left out of own parts and comparisons: axe in real (25%)."
    )
    assert "10 images" in said.certainty
    assert "? Yes: " in recognised(by_class[by_class["known"]], accuracy()).claim


def table(values: dict[str, list[float]], site: str | None = None) -> pd.DataFrame:
    """Values of the pairs clipart-real, clipart-sketch, real-sketch by class."""
    pairs = [("clipart", "real"), ("clipart", "sketch"), ("real", "sketch")]
    rows = [
        (c, *pair, site, v)
        for c, found in values.items()
        for pair, v in zip(pairs, found, strict=True)
    ]
    return pd.DataFrame(
        rows, columns=["class", "domain_a", "domain_b", "site", "value"]
    )


def ceilings(values: list[float], site: str | None = None) -> pd.DataFrame:
    rows = [
        ("axe", domain, site, value)
        for domain, value in zip(DOMAINS, values, strict=True)
    ]
    return pd.DataFrame(rows, columns=["class", "domain", "site", "value"])


EDGES = {"axe": [0.2, 0.4, 0.6], "fish": [0.5, 0.2, 0.9]}

BY_SITE = {
    # Means with the others: clipart, real, sketch
    "conv": [0.2, 0.4, 0.6],  # 0.3 0.4 0.5
    "mid": [0.1, 0.2, 0.3],  # 0.15 0.2 0.25
    "head": [0.8, 0.6, 0.1],  # 0.7 0.45 0.35
}


def overlap() -> Comparison:
    halves = zip(BY_SITE, (0.9, 0.8, 0.7), strict=True)
    return Comparison(
        "node_overlap",
        pd.concat([table({"axe": v, "fish": v}, site) for site, v in BY_SITE.items()]),
        folds_of_halves(
            pd.concat([ceilings([v, v, v + 0.03], site) for site, v in halves])
        ),
        pd.DataFrame({"site": list(BY_SITE), "value": [0.05, 0.06, 0.08]}),
    )


def edges(values: dict[str, list[float]] = EDGES) -> Comparison:
    return Comparison(
        "edge_jaccard", table(values), folds_of_halves(ceilings([0.5, 0.8, 0.9]))
    )


def captions(report: Report, folder: Path) -> list[str]:
    page = report.write(folder / "report.html").read_text(encoding="utf-8")
    kinds = (
        "<figcaption>(.*?)</figcaption>",
        '<div class="table-of">(.*?)</p>',
        '<details class="table-of">(.*?)<div',
    )
    found = re.finditer("|".join(kinds), page, flags=re.DOTALL)
    captions = [
        re.sub(r"<[^>]+>", " ", next(filter(None, one.groups()))) for one in found
    ]
    return [html.unescape(" ".join(caption.split())) for caption in captions]


@pytest.mark.parametrize(
    ("comparison", "stated"),
    [
        (
            overlap(),
            ["head (0.70)", "mid (0.15)", "lowest value at 2 of 3", "0.71 to 0.91"],
        ),
        # With the others sketch is the largest at conv and mid, clipart at head.
        (
            replace(overlap(), alike=False),
            ["sketch has the highest value at 2 of 3 sites"],
        ),
    ],
)
def test_numbers_over_depth(
    comparison: Comparison, stated: list[str], tmp_path: Path
) -> None:
    report = Report("t")
    add_over_depth(report, comparison, MARKS)
    (depth,) = captions(report, tmp_path)
    assert all(words in depth for words in stated)


def test_a_matrix_leaves_out_the_sites_that_its_caption_leaves_out(
    tmp_path: Path,
) -> None:
    values = pd.concat(
        [table({"axe": v, "fish": v}, site) for site, v in BY_SITE.items()]
    )
    report = Report("t")
    add_matrix(
        report,
        Comparison("node_overlap", values, left_out={"head": "repeats mid"}),
        MARKS,
        title="x",
    )
    (caption,) = captions(report, tmp_path)
    # At conv and mid: 0.15, 0.3, 0.45; at all sites the most similar pair would be clipart and sketch, 0.4.
    assert "real and sketch (0.45)" in caption
    assert "clipart and real (0.15)" in caption


def test_a_single_class_and_missing_values_leave_no_nan(tmp_path: Path) -> None:
    report = Report("t")
    one = {name: values for name, values in EDGES.items() if name == "axe"}
    for values in (one, {"axe": [math.nan, 0.4, 0.6]}):
        add_comparison(report, edges(values), MARKS, title="x")
    add_matrix(report, edges({"axe": [math.nan] * 3}), MARKS, title="x")
    assert "nan" not in "".join(captions(report, tmp_path))


def test_the_summary_has_a_row_per_domain_and_group(tmp_path: Path) -> None:
    groups = {"all": ("axe", "fish", "key"), "held-out": ("axe", "fish")}
    found = replace(edges(EDGES | {"key": [0.3, 0.3, 0.3]}), groups=groups)
    report = Report("t")
    add_summary(report, [found, replace(found, measure="wl_kernel")])
    page = report.write(tmp_path / "report.html").read_text(encoding="utf-8")
    rows = [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row)
        for row in re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    ]
    assert rows[0] == [
        "domain",
        "group",
        "classes",
        "edge Jaccard index",
        "Weisfeiler-Lehman kernel, depth 1",
    ]
    assert [row[:2] for row in rows[1:]] == [[d, g] for d in DOMAINS for g in groups]
    # clipart, axe and fish: (0.3 + 0.35) / 2; Student's interval of two values is 12.706 times half their distance.
    assert ["clipart", "held-out", "2", *["0.325 [0.007, 0.643]"] * 2] in rows


@pytest.mark.parametrize(
    ("row", "spec", "column", "said"),
    [
        ((0.5, 0.25, 0.75), ".3f", "value", "0.500 [0.250, 0.750]"),
        ((0.5, math.nan, math.nan), ".3f", "value", "0.500"),
        ((0.5, -0.25, 0.75), "+.1f", "difference", "+0.5 [-0.2, +0.8]"),
    ],
)
def test_values_with_their_intervals(
    row: tuple[float, ...], spec: str, column: str, said: str
) -> None:
    assert with_intervals(
        pd.DataFrame([row], columns=[column, "low", "high"]), spec, column
    ).tolist() == [said]

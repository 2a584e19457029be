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
from circuitry.reports.sections.compared import (
    add_comparison,
    add_matrix,
    add_over_depth,
    add_summary,
    add_tests,
    with_intervals,
)
from tests.comparison.similarities import similarities
from tests.support.parts import parts_of_halves

DOMAINS = ("clipart", "real", "sketch")
MARKS = domain_marks(DOMAINS)


def table(values: dict[str, list[float]], site: str | None = None) -> pd.DataFrame:
    """Values of the pairs clipart-real, clipart-sketch, real-sketch by class."""
    pairs = [("clipart", "real"), ("clipart", "sketch"), ("real", "sketch")]
    rows = [(c, *pair, site, v) for c, found in values.items() for pair, v in zip(pairs, found, strict=True)]
    return pd.DataFrame(rows, columns=["class", "domain_a", "domain_b", "site", "value"])


def ceilings(values: list[float], site: str | None = None) -> pd.DataFrame:
    rows = [("axe", domain, site, value) for domain, value in zip(DOMAINS, values, strict=True)]
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
        parts_of_halves(pd.concat([ceilings([v, v, v + 0.03], site) for site, v in halves])),
        pd.DataFrame({"site": list(BY_SITE), "value": [0.05, 0.06, 0.08]}),
    )


def edges(values: dict[str, list[float]] = EDGES) -> Comparison:
    return Comparison("edge_jaccard", table(values), parts_of_halves(ceilings([0.5, 0.8, 0.9])))


def captions(report: Report, folder: Path) -> list[str]:
    page = report.write(folder / "report.html").read_text(encoding="utf-8")
    kinds = ("<figcaption>(.*?)</figcaption>", '<div class="table-of">(.*?)</p>', '<details class="table-of">(.*?)<div')
    found = re.finditer("|".join(kinds), page, flags=re.DOTALL)
    captions = [re.sub(r"<[^>]+>", " ", next(filter(None, one.groups()))) for one in found]
    return [html.unescape(" ".join(caption.split())) for caption in captions]


@pytest.mark.parametrize(
    ("comparison", "stated"),
    [
        (
            overlap(),
            [
                "clipart at head (0.70)",
                "clipart at mid (0.15)",
                "clipart has the lowest value at 2 of 3",
                "0.71 to 0.91",
            ],
        ),
        # With the others sketch is the largest at conv and mid, clipart at head.
        (replace(overlap(), alike=False), ["sketch has the highest value at 2 of 3 sites"]),
        (replace(overlap(), parts=overlap().parts.iloc[:0]), ["0.05 to 0.08"]),
    ],
)
def test_numbers_over_depth(comparison: Comparison, stated: list[str], tmp_path: Path) -> None:
    report = Report("t")
    add_over_depth(report, comparison, MARKS, "The end.")
    (depth,) = captions(report, tmp_path)
    assert all(words in depth for words in stated)
    assert ("Dashed" in depth) == (len(comparison.ceilings) > 0)
    assert depth.endswith("The end.")


@pytest.mark.parametrize("alike", [True, False])
def test_a_matrix_and_its_caption_state_one_number(alike: bool, tmp_path: Path) -> None:
    # Pairs: 0.35, 0.3, 0.75.
    report = Report("t")
    add_matrix(report, replace(edges(), alike=alike), MARKS, title="x", top=2.0)
    (caption,) = captions(report, tmp_path)
    assert caption.index("real and sketch (0.75)") < caption.index("clipart and sketch (0.30)")
    (figure,) = report.plotly_figures.values()
    assert figure.data[0].zmax == 2


def test_a_matrix_leaves_out_the_sites_that_its_caption_leaves_out(tmp_path: Path) -> None:
    values = pd.concat([table({"axe": v, "fish": v}, site) for site, v in BY_SITE.items()])
    report = Report("t")
    add_matrix(report, Comparison("node_overlap", values, left_out={"head": "repeats mid"}), MARKS, title="x")
    (caption,) = captions(report, tmp_path)
    # At conv and mid: 0.15, 0.3, 0.45; at all sites the most similar pair would be clipart and sketch, 0.4.
    assert "real and sketch (0.45)" in caption
    assert "clipart and real (0.15)" in caption


def test_where_the_order_matters_both_sides_are_named(tmp_path: Path) -> None:
    rows = [("all", a, b, None, v) for a, b, v in (("p", "p", 0.9), ("p", "q", 0.4), ("q", "p", 0.2), ("q", "q", 0.7))]
    values = pd.DataFrame(rows, columns=["class", "domain_a", "domain_b", "site", "value"])
    report = Report("t")
    directed = Comparison("transfer", values, directions=("circuit of", "images of"))
    add_matrix(report, directed, domain_marks(["p", "q"]), title="x")
    (caption,) = captions(report, tmp_path)
    assert caption.index("circuit of p, images of q (0.40)") < caption.index("circuit of q, images of p (0.20)")


def test_a_single_class_and_missing_values_leave_no_nan(tmp_path: Path) -> None:
    report = Report("t")
    one = {name: values for name, values in EDGES.items() if name == "axe"}
    for values in (one, {"axe": [math.nan, 0.4, 0.6]}):
        add_comparison(report, edges(values), MARKS, title="x")
    add_matrix(report, edges({"axe": [math.nan] * 3}), MARKS, title="x")
    assert "nan" not in "".join(captions(report, tmp_path))


def test_two_domains_are_not_ranked_or_tested(tmp_path: Path) -> None:
    both = [table({name: values[:1] * 3}).iloc[:1] for name, values in EDGES.items()]
    halves = parts_of_halves(ceilings([0.5, 0.8, 0.9]).iloc[:2])
    report = Report("t")
    add_comparison(report, Comparison("edge_jaccard", pd.concat(both), halves), MARKS, title="x")
    found = captions(report, tmp_path)
    assert found[0].endswith("Clipart and real (0.35).")
    assert "Student's t" not in " ".join(found)


def test_the_summary_has_a_row_per_domain_and_group(tmp_path: Path) -> None:
    groups = {"all": ("axe", "fish", "key"), "held-out": ("axe", "fish")}
    found = replace(edges(EDGES | {"key": [0.3, 0.3, 0.3]}), groups=groups)
    report = Report("t")
    add_summary(report, [found, replace(found, measure="wl_kernel")])
    page = report.write(tmp_path / "report.html").read_text(encoding="utf-8")
    rows = [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    ]
    assert rows[0] == ["domain", "group", "classes", "edge Jaccard index", "Weisfeiler-Lehman kernel, depth 1"]
    assert [row[:2] for row in rows[1:]] == [[d, g] for d in DOMAINS for g in groups]
    # clipart, axe and fish: (0.3 + 0.35) / 2; Student's interval of two values is 12.706 times half their distance.
    assert ["clipart", "held-out", "2", *["0.325 [0.007, 0.643]"] * 2] in rows


def test_tests_are_counted(tmp_path: Path) -> None:
    many = {f"c{i:02}": [0.1 + i / 100, 0.2 + i / 100, 0.9] for i in range(20)}
    report = Report("t")
    add_comparison(report, edges(many), MARKS, title="x")
    # With the others: clipart .15, real .5, sketch .55 in every class: all three pairs differ.
    assert captions(report, tmp_path)[-1].endswith("3 of 3 have p < 0.05.")
    report = Report("t")
    add_tests(report, similarities(4))
    assert captions(report, tmp_path)[-1].endswith("3 cannot be significant with so few classes.")


def test_everything_on_a_comparison_is_shown_with_how_to_read_it(tmp_path: Path) -> None:
    found = similarities(8)
    report = Report("t")
    add_comparison(report, found, domain_marks(found.domains), title="x")
    assert len(report.plotly_figures) == 4  # means and ratios over depth, matrices of both
    said = captions(report, tmp_path)
    ratios = found.ratios()["value"]
    assert f"({ratios.max():.2f}); smallest" in said[3]
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index("How to read node overlap") < page.index("<figcaption>")
    for images in ("40 a side", "10 a side"):
        assert images in page
    assert '<td class="number">10</td>' in page  # images of a part are counted, not measured


@pytest.mark.parametrize(
    ("row", "spec", "column", "said"),
    [
        ((0.5, 0.25, 0.75), ".3f", "value", "0.500 [0.250, 0.750]"),
        ((0.5, math.nan, math.nan), ".3f", "value", "0.500"),
        ((0.5, -0.25, 0.75), "+.1f", "difference", "+0.5 [-0.2, +0.8]"),
    ],
)
def test_values_with_their_intervals(row: tuple[float, ...], spec: str, column: str, said: str) -> None:
    assert with_intervals(pd.DataFrame([row], columns=[column, "low", "high"]), spec, column).tolist() == [said]

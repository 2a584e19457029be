"""Figures and sentences on representations hold the numbers of their tables."""

from pathlib import Path

import numpy as np
import pandas as pd
import plotly.graph_objects as go
import pytest

from circuitry.comparison import PARTS
from circuitry.reports import Report
from circuitry.reports.figures import domain_marks
from circuitry.representations import RepresentationSimilarity, SiteProbes
from circuitry.representations.probes import TARGETS
from circuitry.representations.similarity import cka_ceilings
from experiments.study.measure_charts import cka_over_depth, probes_over_depth
from experiments.study.represent_command import add_cka, add_probes, what_probes_decode
from tests.reports.sections.test_compared import captions

SITES = ("layer1.0", "act1")  # in the encoder's order, which is not that of the alphabet
DOMAINS = ("clipart", "real", "sketch")


def similarity() -> RepresentationSimilarity:
    # Pairs: clipart-real, clipart-sketch, real-sketch.
    pair_values = {"layer1.0": (0.2, 0.4, 0.1), "act1": (0.5, 0.9, 0.3)}
    pairs, domains = [], []
    for site, (cr, cs, rs) in pair_values.items():
        for kernel, shift in (("linear", 0.0), ("rbf", 0.05)):
            for a, b, value in (("clipart", "real", cr), ("clipart", "sketch", cs), ("real", "sketch", rs)):
                p = 0.01 if value > 0.15 else 0.2
                pairs.append((site, a, b, kernel, value + shift, 0.0, 1.0, 0.0, p, 7))
            means = {"clipart": (cr + cs) / 2, "real": (cr + rs) / 2, "sketch": (cs + rs) / 2}
            domains += [(site, d, kernel, v + shift, v - 0.1, v + 0.1, 0.01, 7) for d, v in means.items()]
    statistics = ["kernel", "value", "low", "high", "null_mean"]
    return RepresentationSimilarity(
        pd.DataFrame(pairs, columns=["site", "domain_a", "domain_b", *statistics, "p", "n_classes"]),
        pd.DataFrame(domains, columns=["site", "domain", *statistics, "n_classes"]),
        pd.DataFrame(columns=["site", "domain", *statistics, "n_classes"]),
    )


def parts() -> pd.DataFrame:
    """Ceilings of 0.6 and 0.8, each the mean over two pairs of parts."""
    rows = [
        ("all", "all", d, d, 0, part, s, v + shift, k)
        for s, v in zip(SITES, (0.6, 0.8), strict=True)
        for d in DOMAINS
        for k in ("linear", "rbf")
        for part, shift in ((1, 0.1), (2, -0.1))
    ]
    return pd.DataFrame(rows, columns=[*PARTS, "kernel"])


def probes() -> SiteProbes:
    values = {"layer1.0": (0.25, 0.875, 0.125), "act1": (0.75, 0.5, 0.625)}
    sites = [
        (site, target, value, value - 0.05, value + 0.05, 1 / 3 if target == "domain" else 0.1, 60)
        for site, found in values.items()
        for target, value in zip(TARGETS, found, strict=True)
    ]
    left_out = [(site, domain, 0.1 * i, 0.1, 20) for site in SITES for i, domain in enumerate(DOMAINS)]
    return SiteProbes(
        pd.DataFrame(sites, columns=["site", "target", "value", "low", "high", "chance", "n_images"]),
        pd.DataFrame(left_out, columns=["site", "domain", "value", "chance", "n_images"]),
    )


def line(figure: go.Figure, name: str) -> list[float]:
    return [float(y) for y in next(trace for trace in figure.data if trace.name == name).y]


# Figures


def test_lines_of_cka_are_the_domains_with_ceiling_and_null() -> None:
    figure = cka_over_depth(similarity().domains, cka_ceilings(parts()))
    assert line(figure, "clipart") == pytest.approx([0.3, 0.7])
    assert line(figure, "two parts, fewer images") == pytest.approx([0.6, 0.8])
    assert line(figure, "permuted classes") == pytest.approx([0.01, 0.01])
    assert list(figure.layout.xaxis.ticktext) == list(SITES)


def test_lines_of_probes_are_the_targets_with_guessing() -> None:
    figure = probes_over_depth(probes().sites)
    assert line(figure, "class") == [0.25, 0.75]
    assert line(figure, "domain") == [0.875, 0.5]
    assert line(figure, "class across domains") == [0.125, 0.625]
    guessing = {shape.y0 for shape in figure.layout.shapes}
    assert guessing == {1 / 3, 0.1}
    labels = {a.text: a.y for a in figure.layout.annotations if a.text.startswith("guessing")}
    assert labels == {"guessing the domain": 1 / 3, "guessing the class": 0.1}
    same = probes_over_depth(probes().sites.assign(chance=0.25)).layout.annotations
    assert [a.text for a in same if a.text.startswith("guessing")] == ["guessing the class and the domain"]


# Comparisons


def test_each_kernel_is_a_comparison_with_the_intervals_of_the_jackknife() -> None:
    found = similarity().comparisons(parts())
    assert list(found) == ["linear", "rbf"]
    rbf = found["rbf"]
    assert (rbf.measure, rbf.sites, rbf.n_classes) == ("cka_rbf", SITES, 7)
    expected = similarity().domains.query("kernel == 'rbf'").drop(columns="kernel")
    pd.testing.assert_frame_equal(rbf.over_depth(), expected)
    assert rbf.values["p"].tolist() == similarity().pairs.query("kernel == 'rbf'")["p"].tolist()
    matrix = rbf.at("act1").matrix()
    assert matrix.loc["clipart", "sketch"] == pytest.approx(0.95)
    assert rbf.at("act1").ceilings.set_index("domain")["value"]["real"] == pytest.approx(0.8)
    assert rbf.chance["value"].tolist() == pytest.approx([0.01, 0.01])
    assert similarity().comparisons()["linear"].ceilings.empty


# Sections


def test_a_domain_set_apart_is_drawn_beside_the_others(tmp_path: Path) -> None:
    rows = [
        (site, name, "linear", value, value - 0.1, value + 0.1, 0.0, 7)
        for site, values in (("layer1.0", (0.2, 0.4)), ("act1", (0.6, 0.5)))
        for name, value in zip(("sketch with the others", "the others among themselves"), values, strict=True)
    ]
    apart = pd.DataFrame(rows, columns=similarity().apart.columns)
    report = Report("title")
    add_cka(report, similarity()._replace(apart=apart), parts(), domain_marks(DOMAINS), "held-out")
    found = captions(report, tmp_path)
    # With the others: clipart 0.3, 0.7; real 0.15, 0.4; sketch 0.25, 0.6.
    for numbers in (
        "clipart at act1 (0.70)",
        "real at layer1.0 (0.15)",
        "lowest value at 2 of 2 sites",
        "0.60 to 0.80",
    ):
        assert numbers in found[0]
    assert found[1].endswith("lower at 1 of 2 sites.")
    assert line(report.plotly_figures["figure-2"], "sketch with the others") == [0.2, 0.6]
    heatmap = np.array(report.plotly_figures["figure-4"].data[0].z, dtype=float)
    np.testing.assert_allclose(heatmap, [[np.nan, 0.5, 0.9], [0.5, np.nan, 0.3], [0.9, 0.3, np.nan]])


def test_probes_are_decoded_best_and_worst_and_at_both_ends(tmp_path: Path) -> None:
    report = Report("title")
    add_probes(report, probes())
    figure, _ = captions(report, tmp_path)
    for numbers in ("act1 (0.75)", "layer1.0 (0.25)", "layer1.0 (0.88)", "act1 (0.50)", "act1 (0.62)"):
        assert numbers in figure
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    assert page.index("<td>layer1.0</td>") < page.index("<td>act1</td>")
    found = what_probes_decode(probes().sites)
    assert "At act1" in found.claim
    assert "the class 0.75 [0.70, 0.80], the domain 0.50 [0.45, 0.55]" in found.claim
    assert "the class 0.10, the domain 0.33" in found.certainty
    assert "layer1.0: the class 0.25 [0.20, 0.30]" in found.certainty

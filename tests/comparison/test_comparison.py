"""All tables of a comparison, and the sentences of its report against numbers worked out on paper."""

import html
import json
import math
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from circuitry import AttributionGraph, DomainFolder, InputError, compare, compare_halves, domain_matrix
from circuitry.circuits.similarity import compare_domains
from circuitry.comparison.comparison import COMPARED, Comparison
from circuitry.comparison.statistics import paired_tests, per_domain
from circuitry.reports.figures.style import domain_marks
from circuitry.reports.page import Report, write_results, write_tables
from circuitry.reports.sections.circuits import (
    add_accuracy,
    add_circuit_pair,
    add_reading_guide,
    add_similarity,
    comparison_report,
)
from tests.circuits.test_graph import small_graph
from tests.circuits.test_similarity import random_graph

DOMAINS = ("clipart", "real", "sketch")
CLASSES = ("axe", "cat", "fish")
Graphs = dict[tuple[str, str], AttributionGraph]


def graphs() -> Graphs:
    """Three classes in three domains; there is no sketch of a fish."""
    keys = [(c, d) for c in CLASSES for d in DOMAINS if (c, d) != ("fish", "sketch")]
    return {key: random_graph(i, *key) for i, key in enumerate(keys)}


def halves() -> list[tuple[AttributionGraph, AttributionGraph]]:
    return [(random_graph(50 + i, *key), random_graph(90 + i, *key)) for i, key in enumerate(graphs())]


def comparison() -> Comparison:
    return compare_domains(graphs(), halves(), {"held-out": ["fish"], "none": [], "unknown": ["dog"]})


# Tables


def test_every_measure_is_compared_with_its_ceiling() -> None:
    found = comparison()
    assert found.sites == ("a", "b", "c")
    assert tuple(found.similarity) == tuple(found.ceilings) == COMPARED
    for measure in COMPARED:
        pd.testing.assert_frame_equal(found.similarity[measure], compare(graphs(), measure))
        pd.testing.assert_frame_equal(found.ceilings[measure], compare_halves(halves(), measure))
    assert found.chance["site"].tolist() == ["a", "b", "c"]


def test_groups_hold_the_classes_that_are_there() -> None:
    assert comparison().groups == {"all": CLASSES, "held-out": ("fish",)}
    assert compare_domains(graphs(), []).groups == {"all": CLASSES}


def test_overlap_over_depth_is_that_of_each_domain_with_the_others() -> None:
    pd.testing.assert_frame_equal(comparison().depth(), per_domain(compare(graphs(), "node_overlap")))
    ceiling = comparison().ceiling_by_site().set_index("site")["value"]
    values = compare_halves(halves(), "node_overlap")
    assert ceiling["b"] == pytest.approx(values[values["site"] == "b"]["value"].mean())


def test_matrices_of_a_group_are_of_its_classes_alone() -> None:
    fish = {key: graph for key, graph in graphs().items() if key[0] == "fish"}
    own = [pair for pair in halves() if pair[0].class_name == "fish"]
    for normalise in (False, True):
        expected = domain_matrix(compare(fish), compare_halves(own), normalise=normalise)
        pd.testing.assert_frame_equal(comparison().matrix("edge_jaccard", "held-out", normalise=normalise), expected)
    whole = comparison().matrix("edge_jaccard")
    assert not np.isclose(whole.to_numpy(), comparison().matrix("edge_jaccard", "held-out").reindex_like(whole)).any()


def test_a_summary_has_every_domain_of_every_group() -> None:
    summary = comparison().summary("node_overlap")
    assert list(summary.columns) == ["group", "domain", "value", "low", "high", "n_classes"]
    value, low, high, classes = (
        summary.set_index(["group", "domain"])[c].to_dict() for c in ("value", "low", "high", "n_classes")
    )
    assert set(value) == {("all", d) for d in DOMAINS} | {("held-out", d) for d in ("clipart", "real")}
    # Over sites, then over the other domains, then over classes.
    table = compare(graphs(), "node_overlap")
    sketch = table[table["domain_b"] == "sketch"]
    assert value["all", "sketch"] == pytest.approx(
        np.mean([sketch[sketch["class"] == c]["value"].mean() for c in ("axe", "cat")])
    )
    assert classes["all", "sketch"] == 2
    assert low["all", "sketch"] < value["all", "sketch"] < high["all", "sketch"]
    assert math.isnan(low["held-out", "real"])


def test_tables_come_back_from_their_files(tmp_path: Path) -> None:
    tables = comparison().tables()
    expected = {"node_overlap_over_depth", "node_overlap_ceiling_by_site", "chance_node_overlap"}
    kinds = ("", "_ceilings", "_matrix", "_summary", "_paired_tests")
    assert set(tables) == expected | {f"{measure}{kind}" for measure in COMPARED for kind in kinds}
    write_tables(tables, tmp_path / "tables")
    assert {path.name for path in (tmp_path / "tables").iterdir()} == {f"{name}.csv" for name in tables}
    for name, table in tables.items():
        read = pd.read_csv(tmp_path / "tables" / f"{name}.csv")
        # An empty column of names is one of NaN in a file.
        known = table.astype({"site": float}) if "site" in table and table["site"].isna().all() else table
        pd.testing.assert_frame_equal(read, known, check_dtype=False, rtol=1e-5)
    pd.testing.assert_frame_equal(tables["wl_kernel_paired_tests"], paired_tests(compare(graphs(), "wl_kernel")))


def test_a_group_whose_classes_are_in_one_domain_alone_has_no_rows() -> None:
    some = {key: graph for key, graph in graphs().items() if key != ("fish", "real")}
    found = compare_domains(some, halves(), {"held-out": ["fish"]})
    assert set(found.summary("edge_jaccard")["group"]) == {"all"}
    assert math.isnan(found.matrix("edge_jaccard", "held-out")["clipart"].to_dict()["real"])


def test_a_comparison_needs_two_domains_of_a_class() -> None:
    lone = {("axe", "real"): random_graph(0, "axe", "real"), ("cat", "sketch"): random_graph(1, "cat", "sketch")}
    for few in (lone, {}):
        with pytest.raises(InputError, match="a class with circuits in at least two domains, but there is none: give"):
            compare_domains(few, [])


# Sentences


def table(values: dict[str, list[float]], site: str | None = None) -> pd.DataFrame:
    """Values of the pairs clipart-real, clipart-sketch, real-sketch by class."""
    pairs = [("clipart", "real"), ("clipart", "sketch"), ("real", "sketch")]
    rows = [(c, *pair, site, v) for c, found in values.items() for pair, v in zip(pairs, found, strict=True)]
    return pd.DataFrame(rows, columns=["class", "domain_a", "domain_b", "site", "value"])


def ceilings(values: list[float], site: str | None = None) -> pd.DataFrame:
    rows = [("axe", domain, site, value) for domain, value in zip(DOMAINS, values, strict=True)]
    return pd.DataFrame(rows, columns=["class", "domain", "site", "value"])


def hand_worked() -> Comparison:
    overlap = {
        # Means with the others: clipart, real, sketch
        "conv": [0.2, 0.4, 0.6],  # 0.3 0.4 0.5, mean 0.4
        "mid": [0.1, 0.2, 0.3],  # 0.15 0.2 0.25, mean 0.2
        "head": [0.8, 0.6, 0.1],  # 0.7 0.45 0.35, mean 0.5
    }
    edges = {"axe": [0.2, 0.4, 0.6], "fish": [0.5, 0.2, 0.9]}
    return Comparison(
        sites=tuple(overlap),
        similarity={
            "node_overlap": pd.concat([table({"axe": v, "fish": v}, site) for site, v in overlap.items()]),
            "edge_jaccard": table(edges),
            "wl_kernel": table({name: [1 - v for v in values] for name, values in edges.items()}),
        },
        ceilings={
            "node_overlap": pd.concat(
                [ceilings([v, v, v + 0.03], s) for s, v in zip(overlap, (0.9, 0.8, 0.7), strict=True)]
            ),
            "edge_jaccard": ceilings([0.5, 0.8, 0.9]),
            "wl_kernel": ceilings([1.0, 1.0, 1.0]),
        },
        chance=pd.DataFrame({"site": list(overlap), "value": [0.05, 0.06, 0.08]}),
        groups={"all": ("axe", "fish")},
    )


def captions(report: Report, folder: Path) -> list[str]:
    page = report.write(folder / "report.html").read_text(encoding="utf-8")
    found = re.findall(r"<(?:fig)?caption>(.*?)</(?:fig)?caption>", page, flags=re.DOTALL)
    return [html.unescape(re.sub(r"<[^>]+>", "", caption)) for caption in found]


def test_sentences_of_similarity_say_the_numbers_of_the_tables(tmp_path: Path) -> None:
    report = Report("t")
    add_similarity(report, hand_worked(), domain_marks(DOMAINS))
    depth, _, edges, kernel, summary, _ = captions(report, tmp_path)
    assert depth.endswith(
        "It is largest at head (0.50) and smallest at mid (0.20). clipart has the lowest overlap at 2 of 3 sites. "
        "Two halves of the same images overlap by 0.71 to 0.91 (dashed), random units by 0.05 to 0.08 (dotted)."
    )
    # Pairs: 0.35, 0.3, 0.75.  clipart: axe 0.3, fish 0.35; real: 0.4, 0.7; sketch: 0.5, 0.55; intervals of two values
    # are their ends.  Over the ceilings: 0.35/sqrt(0.5*0.8) = 0.55, 0.3/sqrt(0.5*0.9) = 0.447, 0.75/sqrt(0.72) = 0.884
    assert edges.endswith(
        "Mean over 2 classes. The most alike are real and sketch (0.750). With the other domains, real is the most "
        "alike (0.550, interval 0.400 to 0.700) and clipart the least (0.325, 0.300 to 0.350). Relative to the "
        "ceilings, pairs reach 45% to 88%."
    )
    assert "most alike are clipart and sketch (0.700)" in kernel
    assert "clipart is the most alike (0.675, interval 0.650 to 0.700) and real the least (0.450" in kernel
    assert summary.endswith("bootstrap intervals over classes.")


def test_sentences_without_ceilings_do_not_speak_of_them(tmp_path: Path) -> None:
    empty = {measure: found.iloc[:0] for measure, found in hand_worked().ceilings.items()}
    report = Report("t")
    add_similarity(report, replace(hand_worked(), ceilings=empty), domain_marks(DOMAINS))
    depth, _, edges, *_ = captions(report, tmp_path)
    assert depth.endswith("clipart has the lowest overlap at 2 of 3 sites.")
    assert edges.endswith("clipart the least (0.325, 0.300 to 0.350).")


def test_sentences_on_a_single_class_speak_of_no_interval(tmp_path: Path) -> None:
    one = {m: t[t["class"] == "axe"] for m, t in hand_worked().similarity.items()}
    report = Report("t")
    add_similarity(report, replace(hand_worked(), similarity=one, groups={"all": ("axe",)}), domain_marks(DOMAINS))
    captions(report, tmp_path)
    assert "nan" not in re.sub(r"<script.*?</script>", "", (tmp_path / "report.html").read_text(), flags=re.DOTALL)


def test_the_table_of_a_report_has_a_row_per_domain_and_group(tmp_path: Path) -> None:
    edges = {"axe": [0.2, 0.4, 0.6], "fish": [0.5, 0.2, 0.9], "key": [0.3, 0.3, 0.3]}
    similarity = hand_worked().similarity | {"edge_jaccard": table(edges)}
    groups = {"all": ("axe", "fish", "key"), "held-out": ("axe", "fish")}
    report = Report("t")
    add_similarity(report, replace(hand_worked(), similarity=similarity, groups=groups), domain_marks(DOMAINS))
    assert captions(report, tmp_path)[4].endswith("over classes, for all classes and for groups of them.")
    page = (tmp_path / "report.html").read_text(encoding="utf-8")
    rows = [
        re.findall(r"<t[dh][^>]*>(.*?)</t[dh]>", row) for row in re.findall(r"<tr>(.*?)</tr>", page, flags=re.DOTALL)
    ]
    assert ["domain", "group", "classes", "node overlap", "edge Jaccard index"] in [row[:5] for row in rows]
    assert [row[:2] for row in rows if len(row) == 6][1:7] == [[d, g] for d in DOMAINS for g in groups]
    # clipart, axe and fish: (0.3 + 0.35) / 2, of the ends 0.3 and 0.35.
    assert ["clipart", "held-out", "2", "0.325 [0.300, 0.350]"] in [[*row[:3], row[4]] for row in rows if len(row) > 4]


def accuracy() -> pd.DataFrame:
    rows = [
        ("clipart", "held-out", 0.6, 10),
        ("clipart", "seen", 0.9, 30),
        ("real", "held-out", 0.8, 50),
        ("real", "seen", 0.5, 10),
        ("sketch", "held-out", 0.25, 40),
        ("sketch", "seen", 0.75, 40),
    ]
    found = pd.DataFrame(rows, columns=["domain", "part", "accuracy", "n_images"])
    return found.assign(balanced_accuracy=found["accuracy"], n_classes=2)


def test_sentences_on_accuracy(tmp_path: Path) -> None:
    report = Report("t")
    add_accuracy(report, accuracy(), 0.125, domain_marks(DOMAINS), test_domain="sketch")
    (caption,) = captions(report, tmp_path)
    # By image: clipart (6 + 27) / 40, real (40 + 5) / 60, sketch (10 + 30) / 80.
    assert caption.endswith(
        "guessing would reach 12.5%. Best in clipart (82.5%), worst in sketch (50.0%). In sketch, the classes that "
        "were left out of it in training reach 25.0%, its other classes 75.0%; in the other domains, where nothing was "
        "left out, the same classes reach 70.0% on average."
    )


def test_sentences_on_accuracy_without_held_out_classes(tmp_path: Path) -> None:
    report = Report("t")
    seen = accuracy()[accuracy()["part"] == "seen"]
    add_accuracy(report, seen, 0.125, domain_marks(DOMAINS), test_domain="sketch")
    add_accuracy(report, accuracy(), 0.125, domain_marks(DOMAINS))
    for caption in captions(report, tmp_path):
        assert "Best in clipart" in caption
        assert "left out" not in caption


def test_sentences_on_a_pair_of_circuits(tmp_path: Path) -> None:
    # b keeps conv 1, 2 where a keeps 1, 3; the edges of a: 1->1, 3->2, 1->0 (one per node), of b: 1->1, 2->2, 1->0.
    a = small_graph()
    b = small_graph(domain="real", kept_units=a.kept_units | {"conv": np.array([1, 2])})
    report = Report("t")
    add_circuit_pair(report, a.circuit(1), b.circuit(1), ["conv", "head"])
    (caption,) = captions(report, tmp_path)
    assert "The kept units of alarm clock" in caption
    assert "in sketch and in real. Shared: 4 of 6 units and 2 of 4 edges." in caption
    assert caption.endswith("largest at head (100%) and smallest at conv (33%).")


# The whole report


def test_the_whole_report_is_one_page_with_every_figure(tmp_path: Path) -> None:
    for class_name, domain in graphs():
        folder = tmp_path / "images" / domain / class_name
        folder.mkdir(parents=True)
        Image.new("RGB", (8, 8), "red").save(folder / "0.png")
    report = comparison_report(
        "A title",
        "An introduction.",
        comparison(),
        graphs(),
        DomainFolder(tmp_path / "images"),
        ("axe", "real", "sketch"),
        accuracy=accuracy(),
        test_domain="sketch",
        edges_per_node=2,
    )
    add_reading_guide(report)
    page = report.write(tmp_path / "report.html").read_text(encoding="utf-8")
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", page)[:6] == [
        "The images",
        "Does the model recognise the classes?",
        "How much of the circuit is shared, site by site?",
        "Which domains share their circuits?",
        "One circuit in two domains: axe",
        "How to read this",
    ]
    assert page.count("<img ") == 1
    assert len(report.plotly_figures) == 1 + 1 + 3 + 1
    assert page.count('class="plotly-graph-div"') == len(report.plotly_figures)
    assert "guessing would reach 33.3%" in page  # one of three classes
    assert "Two test images of every class in every domain." in page
    edges = [set(graphs()["axe", d].circuit(2).graph.edges) for d in ("real", "sketch")]
    assert f"units and {len(edges[0] & edges[1])} of {len(edges[0] | edges[1])} edges" in page


def test_a_report_without_accuracies_has_no_section_on_them(tmp_path: Path) -> None:
    folder = tmp_path / "images"
    for class_name, domain in graphs():
        (folder / domain / class_name).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(folder / domain / class_name / "0.png")
    report = comparison_report("t", "i", comparison(), graphs(), DomainFolder(folder), ("axe", "real", "sketch"))
    assert "recognise the classes" not in report.write(tmp_path / "report.html").read_text(encoding="utf-8")
    assert len(report.plotly_figures) == 5


def test_results_are_written_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    tables = {"small": pd.DataFrame({"a": [1]}), "large": pd.DataFrame({"a": [2]})}
    made_by = {"model": "rn-tiny", "weights": Path("x.pt")}
    written = write_results(Report("t"), tables, tmp_path / "run", tmp_path / "committed", made_by, ["small"])
    assert sorted(path.name for path in (tmp_path / "run" / "tables").iterdir()) == ["large.csv", "small.csv"]
    assert sorted(path.name for path in (tmp_path / "committed").iterdir()) == ["provenance.json", "small.csv"]
    assert json.loads((tmp_path / "committed" / "provenance.json").read_text()) == {
        "model": "rn-tiny",
        "weights": "x.pt",
    }
    assert "rn-tiny" in (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert capsys.readouterr().out == ""  # a library does not print; a script does
    assert written.report == tmp_path / "run" / "report.html"
    assert {path.parent.name for path in written.tables} == {"tables", "committed"}
    assert all(path.is_file() for path in written.tables)
    assert str(written).splitlines()[0] == f"report: {written.report}"

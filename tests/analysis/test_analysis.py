"""All steps of a small analysis of the drawn set, and all of them a second time."""

import re
from dataclasses import replace
from pathlib import Path

import pandas as pd
import pytest

from circuitry import DomainFolder, InputError, load_clip
from circuitry.analysis import AccuracyAnswer, Analysis
from circuitry.circuits import ReadingSettings, midpoint_rule
from circuitry.interventions import CheckSettings
from circuitry.questions import CurvesAnswer, ExtractionSettings, OwnParts
from experiments.drawn import DrawingSettings, write_toy
from tests.explorer.made import unpack
from tests.support.work import QUIET

CLASSES, STYLES = ("fish", "key"), ("quickdraw", "real")
SITES = ("layer3.0", "layer4.0", "attnpool")
STEPS = ("circuits", "faithfulness", "one-site", "cards")
"""Folders of steps that resume."""


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> DomainFolder:
    drawing = DrawingSettings(0, 4, classes=CLASSES, styles=STYLES)
    return DomainFolder(
        write_toy(tmp_path_factory.mktemp("drawn"), drawing, progress=False),
        split="test",
    )


def begun(images: DomainFolder, out: Path, n_images: int = 2) -> Analysis:
    settings = ExtractionSettings(
        n_images=n_images, rule=midpoint_rule(1), folds=2, sites=SITES
    )
    return Analysis(
        load_clip("rn-tiny"),
        images,
        out,
        settings,
        CheckSettings(n_images=1, n_others=1),
        ReadingSettings(edges_per_node=1),
    )


def take_all_steps(run: Analysis) -> str:
    run.circuits(QUIET)
    run.accuracy(("key",), "quickdraw")
    run.curves(QUIET)
    run.curves_by_site(QUIET)
    run.scores(("fish", "real"), QUIET)
    run.compare({"held-out": ["key"]})
    run.cards(QUIET, n_images=3, exact_units=0)
    report = run.report(apart="quickdraw", pair=("fish", "real", "quickdraw")).report
    assert run.explore().page.is_file()
    return report.read_text(encoding="utf-8")


def test_the_explorer_has_the_reports_numbers_of_own_parts(tmp_path: Path) -> None:
    classes = ("car", "clock", "fish", "key")
    drawing = DrawingSettings(0, 4, classes=classes, styles=STYLES)
    drawn = DomainFolder(
        write_toy(tmp_path / "drawn", drawing, progress=False), split="test"
    )
    run = begun(drawn, tmp_path / "run")
    right = pd.DataFrame(
        [(name, style) for style in STYLES for name in classes],
        columns=["class", "domain"],
    )
    known = ~(
        (right["class"] == "clock") & (right["domain"] == "real")
    )  # of all its images too few are right
    run.answers.accuracy = AccuracyAnswer(right, right.assign(known=known))
    lesions = run.own_parts([0.01], QUIET).lesions
    assert lesions is not None
    cell = lesions[(lesions["class"] == "clock") & (lesions["domain"] == "real")]
    assert (
        cell["whole_right"] >= 0.5
    ).all()  # of the images that test parts enough are
    report = run.own_part_tables()
    own = report["by_style"].query(
        "cut == 'part' and answers == 'own class' and measure == 'right answers left'"
    )
    script = (run.explore().page.parent / "data" / "index.js").read_text(
        encoding="utf-8"
    )
    _, index, _ = unpack(script)
    (shown,) = index["comparisons"]
    rows = own[
        ["part_domain", "domain", "value", "low", "high", "n_classes"]
    ].to_numpy()
    assert [row[2] for row in shown["matrix"]] == pytest.approx(
        rows[:, 2].tolist(), rel=1e-3
    )
    assert [[a, b, n] for a, b, _, _, _, n in shown["matrix"]] == rows[
        :, [0, 1, 5]
    ].tolist()
    assert (
        own.set_index(["part_domain", "domain"]).loc[("real", "real"), "n_classes"]
        == len(classes) - 1
    )
    assert (
        index["nodeFraction"] == report["told"]["share"].iloc[0]
    )  # 12 of 1,104 units are 1 % in both


def files(out: Path, *folders: str) -> dict[Path, int]:
    return {
        path: path.stat().st_mtime_ns
        for name in folders
        for path in (out / name).rglob("*")
        if path.is_file()
    }


def test_steps_are_done_once(images: DomainFolder, tmp_path: Path) -> None:
    page, made = take_all_steps(begun(images, tmp_path)), files(tmp_path, *STEPS)
    tables = {
        path.name: path.read_bytes() for path in (tmp_path / "tables").glob("*.csv")
    }
    headings = re.findall(r"<h2[^>]*>(.*?)</h2>", page)
    asked = (
        "In short",
        "How to read this",
        "The images",
        "recognise",
        "work?",
        "Which domains",
        "site by site",
        "other measures",
        "One circuit in two domains: fish",
        "Would other images",
        "Quickdraw against",
        "removing a unit",
    )
    assert len(headings) == len(asked) + 1  # and where the numbers come from
    assert all(
        words in heading for words, heading in zip(asked, headings, strict=False)
    )
    known = "accuracy faithfulness selectivity_one_site"
    assert {f"{name}.csv" for name in known.split()} <= set(tables)
    saved = {path.name for path in (tmp_path / "comparisons").iterdir()}
    assert {"node_overlap", "edge_jaccard", "wl_kernel"} <= saved
    again = take_all_steps(begun(images, tmp_path))
    assert files(tmp_path, *STEPS) == made
    assert {
        path.name: path.read_bytes() for path in (tmp_path / "tables").glob("*.csv")
    } == tables
    assert re.findall(r"<h2[^>]*>(.*?)</h2>", again) == headings


def test_the_report_says_what_is_missing(images: DomainFolder, tmp_path: Path) -> None:
    photos = DomainFolder(
        images.root, split="test", domains=("real",), classes=("fish",)
    )
    run = begun(photos, tmp_path, n_images=4)
    run.settings = replace(run.settings, leave_unseen=False)
    run.circuits(QUIET)
    assert run.curves(QUIET) == []
    assert run.compare() == {}
    with pytest.raises(InputError, match="found on all of its 4 images"):
        run.scores()
    page = run.report().report.read_text(encoding="utf-8")
    assert all(
        words in page
        for words in (
            "Nothing was compared",
            "they were not tested",
            "The circuit of fish",
        )
    )


def test_a_report_says_which_step_comes_first(
    images: DomainFolder, tmp_path: Path
) -> None:
    run = begun(images, tmp_path)
    run.accuracy()
    for step in (run.report, run.compare, run.curves, run.explore):
        with pytest.raises(InputError, match=r"circuits"):
            step()
    run.circuits(QUIET)
    with pytest.raises(InputError, match=r"apart='real'.*compare\(\) first"):
        run.report(apart="real")


def test_own_parts_are_reported_without_circuits(
    images: DomainFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = begun(images, tmp_path)
    run.accuracy(least=0.0001)
    run.own_parts([0.01], QUIET)
    written = run.report()
    page = written.report.read_text(encoding="utf-8")
    assert "Own parts of" in page
    assert any("parts of their own?" in claim for claim in written.claims)
    assert {path.name for path in (tmp_path / "tables").iterdir()} > {"accuracy.csv"}
    # Own parts that were asked for first stay first, however often they are read.
    run.answers.curves = CurvesAnswer([])
    run.own_parts([0.01], QUIET)
    assert run.answers.own_parts_first
    # Another process may read the saved circuits meanwhile.
    run.own_part_tables()
    other = begun(images, tmp_path)
    other.own_parts([0.01], QUIET)
    other.answers = run.answers
    monkeypatch.setattr(OwnParts, "save_circuits", pytest.fail)
    assert run.own_part_tables()
    assert other.own_part_tables()

"""The quickstart runs from end to end on very little, and the example of the README runs."""

import ast
import csv
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitry import GraphFolder, InputError
from experiments.drawn import DrawingSettings, write_toy
from tests.commands.conftest import run_quickstart
from tests.support.scripts import (
    CLASSES,
    EXPERIMENTS,
    STYLES,
    assert_drawn,
    command_module,
    needs_browser,
)


def test_the_quickstart_leaves_graphs_tables_and_a_report(quickstart: Path) -> None:
    run = quickstart / "run"
    graphs = [
        path.name for path in (run / "circuits" / "graphs").rglob("*.all.safetensors")
    ]
    assert len(graphs) == len(CLASSES) * len(STYLES)
    similarity = pd.read_csv(run / "tables" / "edge_jaccard.csv")
    assert len(similarity) == len(CLASSES) * 3
    assert similarity["value"].between(0, 1).all()
    accuracy = pd.read_csv(run / "tables" / "accuracy.csv")
    assert set(accuracy["domain"]) == set(STYLES)
    assert (
        accuracy[["seen", "held_out", "alone", "own_style", "centred"]]
        .notna()
        .all(axis=None)
    )
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "star were left out of its quickdraw images" in page
    committed = {path.name for path in (quickstart / "results").iterdir()}
    tables = {
        "accuracy.csv",
        "edge_jaccard_summary.csv",
        "edge_jaccard_class_by_domain.csv",
    }
    assert tables | {"provenance.json", "classes.txt", "images.txt"} <= committed


def test_a_tiny_clip_is_trained_without_the_held_out_combination(
    quickstart: Path,
) -> None:
    with open(quickstart / "run" / "train.tsv", encoding="utf-8", newline="") as file:
        paths = [Path(row["filepath"]) for row in csv.DictReader(file, delimiter="\t")]
    trained_on = {(path.parts[-3], path.parts[-2]) for path in paths}
    assert trained_on == {(s, c) for s in STYLES for c in CLASSES} - {
        ("quickdraw", "key")
    }


def test_the_quickstart_with_a_transformer_finds_circuits_of_heads_and_neurons(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    classes = ("butterfly", "car", "fish", "key", "star")
    styles = ("quickdraw", "real")
    few = DrawingSettings(0, 2, classes=classes, styles=styles, first=30)
    images = write_toy(tmp_path / "toy", few, workers=1, progress=False)
    run_quickstart(tmp_path, classes, styles, images, model="vit-tiny", n_images=1)
    printed = capsys.readouterr().out
    assert printed.index("Do classes have parts of their own?") < printed.index(
        "circuits that are enough"
    )
    page = (tmp_path / "run" / "report.html").read_text(encoding="utf-8")
    assert page.index("Do classes have parts of their own?") < page.index(
        "Do the circuits work?"
    )
    assert "Own parts" in (tmp_path / "run" / "explorer" / "index.html").read_text(
        encoding="utf-8"
    )
    assert list(
        (tmp_path / "run" / "explorer" / "thumbnails").glob("*.webp")
    )  # from cards of units of own parts
    graphs = GraphFolder(tmp_path / "run" / "circuits")
    assert set(graphs) == {(c, d) for c in classes for d in ("quickdraw", "real")}
    heads, neurons = "transformer.resblocks.3.attn", "transformer.resblocks.2.mlp"
    assert [
        len(graphs["fish", "real"].node_scores[site]) for site in (heads, neurons)
    ] == [3, 384]
    assert (
        "transformer.resblocks.3.mlp" not in graphs["fish", "real"].sites
    )  # it reads out, through a norm alone
    assert (tmp_path / "results" / "edge_jaccard_class_by_domain.csv").is_file()


@needs_browser
def test_a_browser_draws_the_report_of_the_quickstart(quickstart: Path) -> None:
    # A model after three steps may have no lead: the report then has sentences in place of figures.
    page = (quickstart / "run" / "report.html").read_text(encoding="utf-8")
    for heading in ("Do the circuits work?", "s own?"):
        assert heading in page
    assert_drawn(
        quickstart / "run" / "report.html",
        figures=page.count('class="plotly-graph-div"'),
    )


def test_the_example_of_the_readme_runs(capsys: pytest.CaptureFixture[str]) -> None:
    text = (EXPERIMENTS.parent / "README.md").read_text(encoding="utf-8")
    example = text.split("```python\n")[1].split("```")[0]
    written = text.split("```text\n")[1].split("```")[0]
    statements = [
        statement
        for statement in ast.parse(example).body
        if not isinstance(statement, ast.Import | ast.ImportFrom)
    ]
    assert len(statements) <= 11
    exec(compile(example, "README.md", "exec"), {})
    (printed, shown) = (
        words_and_numbers(output) for output in (capsys.readouterr().out, written)
    )
    assert printed[0] == shown[0]
    # Another processor rounds in another way, and a unit at the edge of the part may change: one clock of eight.
    np.testing.assert_allclose(printed[1], shown[1], atol=0.13)


def words_and_numbers(output: str) -> tuple[list[str], list[float]]:
    pieces = output.split()
    numbers = [piece for piece in pieces if re.fullmatch(r"-?\d+(\.\d+)?", piece)]
    return [piece for piece in pieces if piece not in numbers], [
        float(number) for number in numbers
    ]


@pytest.mark.parametrize(
    ("wrong", "words"),
    [({"classes": ("fsh",)}, "fsh.*fish"), ({"domains": ("sketch",)}, "sketch.*real")],
)
def test_the_quickstart_has_these_pictures_alone(
    wrong: dict[str, tuple[str, ...]], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        command_module("quickstart").Config(**wrong)

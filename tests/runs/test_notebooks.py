"""Results show themselves in a notebook, and a job there leaves one line of progress."""

import html
import re
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch

from circuitry import DomainFolder, Encoder, Task
from circuitry.circuits import DirectEffects
from circuitry.gates import PatchEffects
from circuitry.interventions import AttributionCheck
from circuitry.runs import Bar, notebooks
from circuitry.runs.notebooks import MOST_COLUMNS, MOST_ROWS, Shown
from tests.circuits.test_graph import small_graph
from tests.comparison.test_comparison import comparison
from tests.reports.sections.test_interventions import curve
from tests.support.noise_images import write_noise
from tests.support.towers import make_tower

CELL = re.compile(r"<td[^>]*>(.*?)</td>")


class Table(Shown):
    """A result with a name and a table."""

    def __init__(self, name: str, table: pd.DataFrame) -> None:
        self.name = name
        self.table = table

    def __repr__(self) -> str:
        return self.name

    def to_pandas(self) -> pd.DataFrame:
        return self.table


def task(folder: Path) -> Task:
    encoder = Encoder.from_tower(make_tower("resnet"))
    return Task(encoder, torch.zeros(2, 3, 64, 64), lambda found: found[:, 0])


def patches(folder: Path) -> PatchEffects:
    scores = {"late": np.array([1.0, -0.5]), "early": np.array([0.25, 0.0])}
    return PatchEffects(("late", "early"), scores, "unit", "noise", 1.0, {}, 2)


def check(folder: Path) -> AttributionCheck:
    points = {"site": "conv", "unit": [0, 1, 2], "top": True, "random": True}
    points |= {"attributed": [1.0, 2, 3], "exact": [1.0, 2, 4]}
    return AttributionCheck(pd.DataFrame(points))


RESULTS: dict[str, Callable[[Path], Shown]] = {
    "task": task,
    "graph": lambda folder: small_graph(),
    "circuit": lambda folder: small_graph().circuit(),
    "own part": lambda folder: small_graph().circuit(None),
    "patch effects": patches,
    "comparison": lambda folder: comparison(),
    "curve": lambda folder: curve("real", 0.75, 0.0),
    "attribution check": check,
    "direct effects": lambda folder: DirectEffects(
        ("embed", "blocks.0.mlp"), np.ones((1, 2)), np.zeros(1), np.ones(1)
    ),
    "pictures": lambda folder: DomainFolder(write_noise(folder, ["real"], ["axe"], 2)),
}
"""Results that a notebook shows; `Explanation` is tested where it is made."""


@pytest.mark.parametrize("name", RESULTS)
def test_a_result_shows_its_sentence_and_its_table(name: str, tmp_path: Path) -> None:
    result = RESULTS[name](tmp_path)
    page = result._repr_html_()
    table = result.shown_table()
    assert len(table)
    assert len(table) <= MOST_ROWS
    shown = CELL.findall(page)
    expected = []
    for row in table.itertuples(index=False, name=None):
        expected += list(row[:MOST_COLUMNS])
    # The mark of columns that are left out is a cell, too.
    shown = [cell for cell in shown if cell != "..."]
    assert len(shown) == len(expected)
    for cell, value in zip(shown, expected, strict=True):
        if isinstance(value, float):
            number = float(cell or "nan")
            assert number == pytest.approx(value, rel=1e-2, nan_ok=True)
        else:
            assert html.unescape(cell) == str(value)
    assert str(result) in html.unescape(page)
    assert "<script" not in page


def test_a_curve_shows_its_circuit_at_each_size() -> None:
    measured = curve("real", 0.75, 0.0)
    shown = measured.shown_table().loc["faithfulness"]
    assert list(shown) == list(measured.faithfulness)
    sizes = [float(str(name)) for name in measured.shown_table()]
    assert sizes == list(measured.sizes)


def test_a_part_with_no_unit_is_shown() -> None:
    assert "0 units" in small_graph().circuit(None).nothing()._repr_html_()


def test_long_tables_are_cut() -> None:
    page = Table("long", pd.DataFrame({"a": range(100)}))._repr_html_()
    assert len(CELL.findall(page)) == MOST_ROWS + 1  # and the mark of the others


def test_names_are_no_html() -> None:
    table = pd.DataFrame({"<i>": ["<b>", 1.0]}, index=["<u>", "<s>"])
    page = Table("<p>", table)._repr_html_()
    for tag in ("b", "i", "u", "s", "p"):
        assert f"&lt;{tag}&gt;" in page
    for tag in ("b", "i", "u", "s"):
        assert f"<{tag}>" not in page


def test_the_largest_number_has_the_strongest_colour() -> None:
    page = patches(Path())._repr_html_()
    colours = re.findall(r"rgba\((.*?)\)", page)
    assert colours == [
        "95, 171, 217, 1.00",
        "235, 154, 108, 0.50",
        "95, 171, 217, 0.25",
    ]
    unknown = pd.DataFrame({"a": [np.nan, 2.0]})
    colours = re.findall(r"rgba\((.*?)\)", Table("", unknown)._repr_html_())
    assert colours[-1] == "95, 171, 217, 1.00"
    # A table with words is no matrix.
    assert "rgba" not in small_graph().circuit()._repr_html_()


class Cells:
    """A notebook that keeps what is displayed, a list of texts for each output."""

    def __init__(self) -> None:
        self.outputs = list[list[str]]()
        self.shell = SimpleNamespace(execution_count=1)

    def display(self, line: dict[str, str], raw: bool, display_id: bool) -> Any:
        texts = [line["text/plain"]]
        self.outputs.append(texts)

        def update(line: dict[str, str], raw: bool) -> None:
            texts.append(line["text/plain"])

        return SimpleNamespace(update=update)


@pytest.fixture
def cells(monkeypatch: pytest.MonkeyPatch) -> Cells:
    made = Cells()
    modules = {
        "ipykernel": SimpleNamespace(),
        "IPython": SimpleNamespace(get_ipython=lambda: made.shell),
        "IPython.display": SimpleNamespace(display=made.display),
    }
    for name, module in modules.items():
        monkeypatch.setitem(sys.modules, name, module)
    monkeypatch.setattr(notebooks.CellLine, "_cell", None)
    return made


def step(name: str, inner: str | None = None) -> None:
    with Bar(total=3, desc=name, unit="image", leave=False, mininterval=0) as bar:
        for _ in range(3):
            if inner is not None:
                step(inner)
            bar.update()


def test_a_job_leaves_one_line_in_its_cell(
    cells: Cells, capsys: pytest.CaptureFixture[str]
) -> None:
    step("means")
    step("circuits", inner="cuts")
    (line,) = cells.outputs
    assert line[-1].startswith("circuits: 100%")
    assert "3/3" in line[-1]
    assert any(text.startswith("means") for text in line)
    assert not any(text.startswith("cuts") for text in line)
    cells.shell.execution_count += 1
    step("lesion")
    assert [output[-1].split(":")[0] for output in cells.outputs] == [
        "circuits",
        "lesion",
    ]
    assert capsys.readouterr() == ("", "")


def test_outside_of_a_notebook_nothing_changes(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert notebooks.notebook() is None
    notebooks.CellLine.write("words")
    assert capsys.readouterr() == ("", "")


def test_a_kernel_shows_the_line_and_the_table() -> None:
    """What the two tests above assume of notebooks, by a notebook that is run."""
    nbformat = pytest.importorskip("nbformat", reason="comes with the extra docs")
    nbclient = pytest.importorskip("nbclient", reason="comes with the extra docs")
    pytest.importorskip("ipykernel", reason="comes with the extra docs")
    code = (
        "from circuitry.runs import Bar\n"
        "for name in ('means', 'circuits'):\n"
        "    for _ in Bar(range(3), desc=name):\n"
        "        pass\n"
    )
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(notebook, kernel_name="python3").execute()
    (output,) = notebook.cells[0].outputs
    assert output["output_type"] == "display_data"
    assert output["data"]["text/plain"].startswith("circuits: 100%")

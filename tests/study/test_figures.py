"""Every figure is drawn."""

import json
from pathlib import Path

import plotly.graph_objects as go
import pytest

from circuitry import InputError
from tests.support.scripts import EXPERIMENTS, FIGURES, program_module

figures = program_module("figures")

COMMITTED = {
    name for name, (*_, results) in figures.FIGURES.items() if results is not None
}
OF_THE_STUDY = {
    "sharing_by_setting": "study/sharing",
    "units_apart": "study/circuits",
    "domain_similarity": "study/circuits",
    **dict.fromkeys(
        ("cka_by_group", "cka_over_depth", "cka_apart"), "study/representations"
    ),
    "separation": "study/separation",
}
"""Figures of the study whose tables are not of accuracies."""


def test_every_picture_is_drawn_from_committed_tables(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = {path.stem for path in FIGURES.glob("*.png")}
    assert {
        name for name in pictures if not name.startswith(("explorer_", "tour_"))
    } == COMMITTED  # screenshots
    headings = dict[str, str]()

    def write(drawn: go.Figure, path: Path) -> tuple[Path]:
        headings[path.name] = json.loads(drawn.to_json())["layout"]["title"]["text"]
        return (path,)

    monkeypatch.setattr(figures, "write_figure", write)
    titled = {
        name: (draw, f"Title of {name}", place)
        for name, (draw, _, place) in figures.FIGURES.items()
    }
    monkeypatch.setattr(figures, "FIGURES", titled)
    figures.main(figures.Config(out=tmp_path))
    assert headings == {name: titled[name][1] for name in COMMITTED}


@pytest.mark.parametrize("name", OF_THE_STUDY)
def test_figures_of_the_study_are_drawn(name: str) -> None:
    draw, title, _ = figures.FIGURES[name]
    drawn = draw(EXPERIMENTS / "results" / OF_THE_STUDY[name], title)
    assert len(drawn.data) > 0
    assert drawn.layout.title.text.startswith(title)
    with pytest.raises(InputError, match=f"{name}.*--tables"):
        figures.main(figures.Config(names=(name,)))

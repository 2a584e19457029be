"""The script of the explorer, on circuits without a model."""

import os
from pathlib import Path

import pytest

from circuitry import Clip, GraphFolder
from tests.explorer.made import found_in, make_graphs
from tests.support.extraction import contents
from tests.support.scripts import command_module
from tests.support.work import QUIET


@pytest.mark.parametrize(
    ("out", "linked"), [("run/explorer", True), ("elsewhere", False)]
)
def test_only_pages_of_the_run_are_linked(
    out: str,
    linked: bool,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "run").mkdir()
    make_graphs(tmp_path / "circuits")
    module = command_module("explore")
    module.main(
        module.Config(
            run=tmp_path / "run",
            circuits=tmp_path / "circuits",
            out=tmp_path / out,
            progress=False,
        )
    )
    assert (tmp_path / out / "index.html").is_file()
    assert (tmp_path / "run" / "index.html").is_file() == linked
    before = contents(tmp_path)
    monkeypatch.setattr(
        os, "access", lambda path, mode: False
    )  # a finished run that can only be read
    monkeypatch.setattr(module, "export", pytest.fail)
    module.main(
        module.Config(
            run=tmp_path / "run",
            circuits=tmp_path / "circuits",
            out=tmp_path / out,
            progress=False,
        )
    )
    assert contents(tmp_path) == before
    assert str(tmp_path / out / "index.html") in capsys.readouterr().out


def test_a_page_does_not_depend_on_how_it_is_asked_for(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    make_graphs(tmp_path / "circuits")
    module = command_module("explore")
    for port in (0, 7):
        config = module.Config(
            run=tmp_path / "run",
            circuits=tmp_path / "circuits",
            out=tmp_path / f"page{port}",
            port=port,
        )
        module.main(config)
    assert contents(tmp_path / "page0") == contents(tmp_path / "page7")


def test_the_model_runs_circuits_at_the_baseline_that_they_were_found_with(
    clip: Clip, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    images = found_in(clip, tmp_path, baseline="mean-unit").images
    module = command_module("explore")
    given = {
        "clip": lambda _, rank, components: clip,
        "images": lambda _: images,
        "work": lambda _: QUIET,
        "known_words": ("fur",),
    }
    for name, value in given.items():
        monkeypatch.setattr(module.Config, name, value, raising=False)
    config = module.Config(held_out_images=2)
    view = module.ask_model(config, GraphFolder(tmp_path / "graphs"))
    assert view.baseline == "mean-unit"
    assert view.words == ("axe", "cat", "fur")
    assert len(view.answers) == 4

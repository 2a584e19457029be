"""The folder of an extraction: what it refuses, notices and goes on with; see also tests/runs/test_jobs."""

import shutil
from pathlib import Path

import pytest
import torch

from circuitry import (
    AttributionGraph,
    Clip,
    GraphFolder,
    InputError,
    left_rule,
    load_clip,
)
from circuitry.encoder import Baseline
from circuitry.runs.manifest import write_sealed
from tests.support.extraction import contents, run
from tests.support.tiny_clip import Tiny, saved

pytestmark = pytest.mark.filterwarnings("ignore:Skipped an image")


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"n_images": 2}, "n_images: 50 -> 2; images: 4 gone, first "),
        ({"seed": 1}, "seed: 0 -> 1"),
        ({"classes": ["axe"]}, "images: 7 gone, first real/cat/"),
        (
            {"texts": ["the {}."]},
            r"templates: 'the \{\}.' is new, 'a \{\}.' is gone; texts: ",
        ),
        ({"folds": 2}, r"n_folds: 4 -> 2\)"),
        ({"items": lambda record: record.path.stem}, r"items: others "),
        ({"metric": "margin"}, r"metric: 'logit' -> 'margin'\)"),
        ({"size": 0.2}, r"size: 0.1 -> 0.2\)"),
        (
            {"rule": left_rule(3)},
            "edge_rule: 'left-2' -> 'left-3'; node_rule: 'left-2' -> 'left-3'",
        ),
        ({"sites": ("act1", "attnpool")}, "sites: "),
        (
            {"baseline": Baseline("zero", {"act1": torch.ones(1, 4, 32, 32)})},
            "baseline_digest: .* -> ",
        ),
        (
            {"baseline": "counterfactual"},
            "baseline: 'zero' -> 'counterfactual'; baseline_digest: ",
        ),
    ],
)
def test_other_settings_are_refused(
    change: dict[str, object], words: str, clip: Clip, root: Path, made: Path
) -> None:
    with pytest.raises(InputError, match=rf"\({words}"):
        run(clip, root, made, **change)


def test_another_model_is_another_configuration(
    clip: Clip, tiny: Tiny, root: Path, made: Path, tmp_path: Path
) -> None:
    other = load_clip(
        tiny.config,
        saved(tiny.state | {"logit_scale": torch.tensor(1.0)}, tmp_path / "x.pt"),
    )
    with pytest.raises(InputError, match=r"\(text_encoder: .* -> .*\)"):
        run(other, root, made)


def test_other_images_are_noticed_but_not_another_place(
    clip: Clip, root: Path, made: Path, tmp_path: Path
) -> None:
    images = tmp_path / "images"
    shutil.copytree(root, images)
    shutil.copytree(made, tmp_path / "graphs")
    assert len(run(clip, images, tmp_path / "graphs")) == 5
    shutil.copy(root / "sketch" / "axe" / "2.png", images / "sketch" / "cat" / "1.png")
    with pytest.raises(
        InputError, match=r"\(images: 1 replaced, first sketch/cat/1.png\)"
    ):
        run(clip, images, tmp_path / "graphs")
    some = {"classes": ["axe"], "domains": ["real"], "baseline": "other-domains"}
    run(clip, images, tmp_path / "other", **some)
    shutil.copy(root / "real" / "axe" / "2.png", images / "sketch" / "axe" / "0.png")
    with pytest.raises(
        InputError, match=r"\(baseline_images: 1 replaced, first sketch/axe/0.png\)"
    ):
        run(clip, images, tmp_path / "other", **some)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"classes": ["dog"]}, "'dog'"),
        ({"metric": "lead"}, "logit, margin.*'lead'"),
        ({"texts": "photo"}, "'pooled'.*'photo'"),
        ({"baseline": "one"}, "'one'"),
        (
            {"classes": ["fish"], "baseline": "other-domains"},
            "'other-domains' of fish in real",
        ),
    ],
)
def test_unknown_settings_are_refused_before_the_folder_is_claimed(
    unchecked: None,
    change: dict[str, object],
    words: str,
    clip: Clip,
    root: Path,
    tmp_path: Path,
) -> None:
    with pytest.raises(InputError, match=words):
        run(clip, root, tmp_path / "x", **change)
    assert not (tmp_path / "x").exists()


@pytest.mark.parametrize(
    ("files", "words"),
    [
        ({}, "no folder of circuits"),
        ({"manifest.json": "{"}, "manifest.json"),
        (
            {"below/manifest.json": "{}", "below/graphs/x": ""},
            "below is: give that folder",
        ),
        (None, "There is no folder"),
    ],
)
def test_a_folder_of_something_else_is_refused(
    files: dict[str, str] | None, words: str, tmp_path: Path
) -> None:
    for name, text in (files or {}).items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=words):
        GraphFolder(tmp_path / "none" if files is None else tmp_path)


def test_a_folder_of_another_format_is_refused(tmp_path: Path) -> None:
    write_sealed(
        tmp_path / "manifest.json", {"format": "circuitry extraction 0", "jobs": []}
    )
    with pytest.raises(InputError, match="'circuitry extraction 0'"):
        GraphFolder(tmp_path)


def test_a_run_that_dies_goes_on_and_ends_the_same(
    clip: Clip, root: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    written: list[Path] = []
    save = AttributionGraph.save

    def dying(graph: AttributionGraph, path: Path) -> None:
        if len(written) == 6:
            raise KeyboardInterrupt
        written.append(path)
        save(graph, path)

    monkeypatch.setattr(AttributionGraph, "save", dying)
    with pytest.raises(KeyboardInterrupt):
        run(clip, root, tmp_path / "x")
    monkeypatch.undo()
    assert list(GraphFolder(tmp_path / "x")) == [
        ("axe", "real")
    ]  # the next has folds, and no whole yet
    folds = [f"fold-{fold}" for fold in GraphFolder(made).folds("axe", "real")]
    assert [path.name for path in written[:4]] == [
        f"real.{fold}.safetensors" for fold in (*folds, "all")
    ]
    assert len(run(clip, root, tmp_path / "x")) == 5
    assert contents(tmp_path / "x") == contents(made)

"""The script on heads and MLPs, on a vision transformer with random weights and a few images."""

import json
from pathlib import Path
from typing import Any

import open_clip
import pandas as pd
import pytest
import torch

from circuitry.bases import ResidualStream
from circuitry.circuits import AttributionGraph, attribute_components, edge_names
from circuitry.models.open_clip_models import register_model
from tests.support.noise_images import write_noise
from tests.support.scripts import command_module, script
from tests.support.towers import TEXT, VIT


@pytest.fixture
def study(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(open_clip.create_model(register_model("vit-tiny")).state_dict(), tmp_path / "weights.pt")
    write_noise(tmp_path / "images", ("photo", "sketch"), ("cat", "dog", "fish"), 4)
    return tmp_path


def test_effects_texts_and_ablations_are_written(study: Path) -> None:
    module = command_module("components")
    given = {"checkpoint": study / "weights.pt", "data": study / "images", "n_images": 1}
    module.main(module.Config(**given, out=study / "out", results=study / "results"))
    tables = {path.stem: pd.read_csv(path) for path in (study / "results").glob("*.csv")}
    assert set(tables) == {"direct_effects", "mean_ablation", "texts"}
    assert len(tables["direct_effects"]) == 4 * (3 + 1)
    assert len(tables["mean_ablation"]) == 1 + 4 * (3 + 2)
    assert set(tables["texts"]["rank"]) == {1, 2, 3}
    assert tables["texts"][["chance", "most"]].notna().all(axis=None)
    page = (study / "out" / "report.html").read_text(encoding="utf-8")
    assert "It is the same without any component." in page


def test_moves_of_an_edge_add_up_to_its_score(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    module, found = command_module("components"), list[AttributionGraph]()
    config = module.Config(checkpoint=study / "weights.pt", data=study / "images", n_images=1)
    clip, images = config.clip(), config.images()

    def scored(*given: Any, **options: Any) -> AttributionGraph:
        found.append(attribute_components(*given, **options))
        return found[-1]

    monkeypatch.setattr(module, "attribute_components", scored)
    stream, weights = ResidualStream.of(clip.encoder), clip.text_weights(images.all_classes)
    edge, moves, _ = module.place_edge(config, clip, stream, images, weights)
    names = [" to ".join(name) for name in edge_names(found[0].edges)]
    scores = dict(zip(names, found[0].edges.to_pandas()["score"], strict=True))
    score = scores[edge.partition(",")[0]]
    assert abs(score) > 1e-6
    assert moves.sum() == pytest.approx(score, rel=1e-3)


def test_methods_are_judged_by_their_edges(study: Path) -> None:
    """Of a vision transformer of one block, whose edges are few."""
    module, config = script("edge_scoreboard"), study / "circuitry-test-vit.json"
    vision = VIT["vision_cfg"] | {"layers": 1}  # type: ignore[operator]
    config.write_text(json.dumps(VIT | {"vision_cfg": vision, "text_cfg": TEXT | {"context_length": 16}}))
    torch.save(open_clip.create_model(register_model(config)).state_dict(), study / "weights.pt")
    given = {"model": str(config), "checkpoint": study / "weights.pt", "data": study / "images"}
    few = {"n_images": 2, "n_classes": 1, "sizes": (0.3, 1.0), "steps": 2}
    module.main(module.Config(**given, **few, results=study / "edges"))
    tables = {path.stem: pd.read_csv(path) for path in (study / "edges").glob("*.csv")}
    assert set(tables) == {"curves", "summary", "by_class", "paired"}
    whole = tables["curves"].query("circuit == 'kept' and size == 1 and measure == 'faithfulness'")
    assert set(whole["method"]) == set(module.METHODS)
    assert whole["value"].dropna().tolist() == pytest.approx([1.0] * len(whole["value"].dropna()))
    ranks = tables["summary"].query("what == 'rank correlation'").set_index("method")["value"]
    assert ranks["exact"] == pytest.approx(1)
    assert 0 < ranks["relp"] < 1

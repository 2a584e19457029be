"""Methods that score edges are judged by a script, on a vision transformer with random weights and a few images."""

import json
from pathlib import Path

import open_clip
import pandas as pd
import pytest
import torch

from circuitry.models.open_clip_models import register_model
from tests.support.noise_images import write_noise
from tests.support.scripts import script
from tests.support.towers import TEXT, VIT


@pytest.fixture
def study(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    torch.save(
        open_clip.create_model(register_model("vit-tiny")).state_dict(),
        tmp_path / "weights.pt",
    )
    write_noise(tmp_path / "images", ("photo", "sketch"), ("cat", "dog", "fish"), 4)
    return tmp_path


def test_methods_are_judged_by_their_edges(study: Path) -> None:
    """Of a vision transformer of one block, whose edges are few."""
    module, config = script("edge_scoreboard"), study / "circuitry-test-vit.json"
    vision = VIT["vision_cfg"] | {"layers": 1}  # type: ignore[operator]
    config.write_text(
        json.dumps(
            VIT | {"vision_cfg": vision, "text_cfg": TEXT | {"context_length": 16}}
        )
    )
    torch.save(
        open_clip.create_model(register_model(config)).state_dict(),
        study / "weights.pt",
    )
    given = {
        "model": str(config),
        "checkpoint": study / "weights.pt",
        "data": study / "images",
    }
    few = {"n_images": 2, "n_classes": 1, "sizes": (0.3, 1.0), "steps": 2}
    module.main(module.Config(**given, **few, results=study / "edges"))
    tables = {path.stem: pd.read_csv(path) for path in (study / "edges").glob("*.csv")}
    assert set(tables) == {"curves", "summary", "by_class", "paired"}
    whole = tables["curves"].query(
        "circuit == 'kept' and size == 1 and measure == 'faithfulness'"
    )
    assert set(whole["method"]) == set(module.METHODS)
    assert whole["value"].dropna().tolist() == pytest.approx(
        [1.0] * len(whole["value"].dropna())
    )
    ranks = (
        tables["summary"]
        .query("what == 'rank correlation'")
        .set_index("method")["value"]
    )
    assert ranks["exact"] == pytest.approx(1)
    assert 0 < ranks["relp"] < 1

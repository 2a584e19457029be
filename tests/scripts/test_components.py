"""The script on heads and MLPs, on a vision transformer with random weights and a few images."""

from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import pytest
import torch
from PIL import Image

from circuitry.models.architectures import register_model
from tests.support.scripts import script


def test_effects_texts_ablations_and_edges_are_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("circuitry.models.clip.user_cache_path", lambda name: tmp_path / "cache")
    torch.manual_seed(0)
    torch.save(open_clip.create_model(register_model("vit-tiny")).state_dict(), tmp_path / "weights.pt")
    rng = np.random.default_rng(0)
    for domain in ("photo", "sketch"):
        for name in ("cat", "dog", "fish"):
            folder = tmp_path / "images" / domain / name
            folder.mkdir(parents=True)
            for i in range(3):
                Image.fromarray(rng.integers(0, 255, (64, 64, 3), dtype=np.uint8)).save(folder / f"{i}.png")
    module = script("components")
    module.main(
        module.Config(
            checkpoint=tmp_path / "weights.pt",
            data=tmp_path / "images",
            out=tmp_path / "out",
            results=tmp_path / "results",
            n_images=1,
            n_circuits=1,
            fractions=(0.1, 1.0),
        )
    )
    tables = {path.stem: pd.read_csv(path) for path in (tmp_path / "results").glob("*.csv")}
    assert set(tables) == {"direct_effects", "mean_ablation", "texts", "edge_faithfulness", "edge_selectivity"}
    assert len(tables["direct_effects"]) == 4 * (3 + 1)
    assert len(tables["mean_ablation"]) == 1 + 4 * (3 + 2)
    assert set(tables["texts"]["rank"]) == {1, 2, 3}
    assert tables["texts"][["chance", "most"]].notna().all(axis=None)
    whole = tables["edge_faithfulness"].query("circuit == 'kept' and fraction == 1")
    assert whole["value"].tolist() == pytest.approx([1.0])
    page = (tmp_path / "out" / "report.html").read_text(encoding="utf-8")
    assert "It is the same without any component." in page


def test_the_page_says_how_effects_and_losses_go_together() -> None:
    module = script("components")
    rows = [(0, "0", 0.1, 0.9), (0, "1", 0.3, 0.5), (0, "mlp", 0.2, 0.7)]
    table = pd.DataFrame(rows, columns=["block", "component", module.EFFECT, module.ACCURACY])
    assert module.agreement(table.drop(columns=module.ACCURACY), table.drop(columns=module.EFFECT)) == (
        "Rank correlation of direct effect and loss +1.00; accuracy falls most without block 0 1, whose direct effect "
        "is number 1 of 3."
    )

"""Pairs of pooling heads and units of the quickstart's model."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from circuitry import DomainFolder, load_clip
from circuitry.circuits import PoolingPairs
from circuitry.models import image_batches
from circuitry.representations.features import TOPS
from tests.support.scripts import CLASSES, STYLES, script


def test_pairs_are_ranked_compared_and_named(
    quickstart: Path, model_of_the_quickstart: dict[str, object], tmp_path: Path
) -> None:
    module = script("pooling_pairs")
    module.main(module.Config(**model_of_the_quickstart, n_images=4, fractions=(0.01, 1.0), results=tmp_path))
    tables = {path.stem: pd.read_csv(path) for path in tmp_path.glob("*.csv")}
    assert set(tables) == {"accuracy", "names", *(f"pair_sharing_{name}" for name in ("ratios", "levels", "summary"))}
    assert len(tables["names"]) == module.SHOWN
    assert set(tables["pair_sharing_summary"]["domain"]) == set(STYLES)
    run = quickstart / "run"
    clip = load_clip("rn-tiny", run / "clip" / "checkpoints" / "epoch_1.pt")
    images = DomainFolder(run / "toy", split="test")
    seen = [record for d in STYLES for c in CLASSES for record in images.select(c, d, 4, 0)[1::2]]
    ((there, pixels),) = image_batches(clip.encoder, clip.preprocess, seen)
    answers = (clip.encoder(pixels) @ clip.text_weights(images.all_classes).T).argmax(1).numpy()
    right = pd.Series(answers == [images.label(one.class_name) for one in there]).groupby([r.domain for r in there])
    whole = tables["accuracy"].query("fraction == 1").set_index(["circuit", "domain"])["value"]
    for circuit in ("kept", "random"):  # all pairs are the whole model
        np.testing.assert_allclose(whole[circuit][list(STYLES)], right.mean()[list(STYLES)])


def test_the_strongest_pairs_are_kept_first_and_named_by_their_images() -> None:
    """Two heads of 20 units: the pair of head 0 and unit 1 tells the classes, those of head 1 mislead a little."""
    module = script("pooling_pairs")
    cells = [(domain, name, label) for domain in ("real", "sketch") for label, name in enumerate("ab")]
    rows = [(f"{domain}/{name}/{i}.png", domain, name, label) for domain, name, label in cells for i in range(4)]
    images = pd.DataFrame(rows, columns=["relative", "domain", "class", "label"])
    sign = np.where(images["label"] == 0, 1.0, -1.0)
    read, directions = np.zeros((16, 2, 20)), np.zeros((2, 20, 3))
    read[:, 0, 1], read[:, 1] = 50 * sign, -sign[:, None]
    directions[..., 0] = 1
    pairs = PoolingPairs(read, directions, np.tile([0.0, 0.0, 1.0], (16, 1)))
    seen = module.Decomposed(images, pairs, np.array([[0.5, 0, 0], [-0.5, 0, 0]]))
    config = module.Config(fractions=(0.025, 1.0))
    curves = module.accuracy_curves(config, seen).set_index(["circuit", "domain", "fraction"])["value"]
    assert curves["kept"].tolist() == [1.0] * 4
    assert curves["random", "real", 0.025] < 1  # some draws have another pair
    alone = np.mean([1 / k for k in TOPS])  # one pair helps, the same in both domains
    assert module.sharing(config, seen).values["value"].tolist() == pytest.approx([alone, alone])

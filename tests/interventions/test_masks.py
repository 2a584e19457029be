"""Learned masks: exact sizes, seeds, restarts, a start from a ranking, fixed gates, and a planted circuit."""

from collections.abc import Mapping

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor

from circuitry import InputError
from circuitry.interventions import GatedRuns, LearnedMask, MaskSettings, learn_masks
from circuitry.study import PlantedCircuit, planted_attention, planted_convolution

PLANTED = planted_convolution()
SITES = ("conv1", "conv2", "head")


def learn(size: float | list[float], settings: MaskSettings, **given: dict[str, np.ndarray]) -> list[LearnedMask]:
    images = PLANTED.images(16, 0)
    with PLANTED.encoder.frozen():
        runs = GatedRuns(PLANTED.encoder, images, SITES, "zero")
        own = np.arange(len(images)) < 8
        return learn_masks(runs, lambda e: e[:, :1], own, np.atleast_1d(size).tolist(), settings, **given)  # type: ignore[arg-type]


def count(mask: dict[str, np.ndarray]) -> int:
    return sum(int(kept.sum()) for kept in mask.values())


@pytest.mark.parametrize("planted", [planted_convolution(), planted_attention()], ids=["convolution", "attention"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masks_find_what_was_planted(planted: PlantedCircuit, seed: int) -> None:
    images, sites = planted.images(16, seed), tuple(planted.nodes)
    n_units = {site: planted.encoder(images[:1], stop=site).shape[planted.encoder.unit_dim(site)] for site in sites}
    with planted.encoder.frozen():
        runs = GatedRuns(planted.encoder, images, sites, "zero")
        settings = MaskSettings(batch_size=16, seed=seed)
        mask = learn_masks(runs, lambda e: e[:, :1], np.arange(16) < 8, [0.2], settings)[0]
    for site, units in planted.nodes.items():
        truth = np.isin(np.arange(n_units[site]), units)
        assert roc_auc_score(truth, mask.scores[site]) > 0.95


def test_sizes_are_exact_and_restarts_differ_in_their_seed_alone() -> None:
    settings = MaskSettings(steps=30, restarts=2)
    masks = learn(0.4, settings)
    assert [count(mask.path[-1]) for mask in masks] == [8, 8]
    assert masks[0].lost <= masks[1].lost
    several = learn([0.1, 0.8, 0.5], MaskSettings(steps=9, shrinking=0.5))[0]
    assert [count(kept) for kept in several.path] == [16, 10, 2]
    assert several.steps == 9
    for mask in masks:
        for site in SITES:
            assert (mask.scores[site][mask.path[-1][site]] >= 0).all()
    alone = learn(0.4, MaskSettings(steps=30, seed=masks[1].seed))[0]
    assert all(np.array_equal(alone.scores[site], masks[1].scores[site]) for site in SITES)
    assert learn(0.4, MaskSettings(steps=100, shrinking=0.1, patience=5))[0].steps < 100


@pytest.mark.parametrize(("shrinking", "kept"), [(1.0, [19, 15, 12, 9, 7, 6, 4, 3, 3, 2]), (0.1, [19, *[2] * 9])])
def test_the_last_step_has_the_wanted_size(shrinking: float, kept: list[int]) -> None:
    """20 units fall to 2 over 9 steps, by 10 ** (-1 / 9) each, or over one; of all units the last is half open."""
    sizes = list[int]()

    class Noting(GatedRuns):
        def run(self, gates: Mapping[str, Tensor], chosen: Tensor | None = None) -> Tensor:
            if chosen is not None and len(chosen) == 6:  # a step of training
                sizes.append(sum(int((gate > 0.5).sum()) for gate in gates.values()))
            return super().run(gates, chosen)

    images = PLANTED.images(16, 0)
    with PLANTED.encoder.frozen():
        settings = MaskSettings(steps=10, batch_size=6, shrinking=shrinking, noise=0.0)
        runs = Noting(PLANTED.encoder, images, SITES, "zero")
        learn_masks(runs, lambda e: e[:, :1], np.arange(16) < 8, [0.1], settings)
    assert sizes == kept


def test_a_step_has_images_of_both_sides() -> None:
    match = "images of the class and of others, but batch_size=1 leaves none for one of them: take at least 2"
    with pytest.raises(InputError, match=match):
        learn(0.4, MaskSettings(steps=2, batch_size=1))
    assert count(learn(0.4, MaskSettings(steps=2, batch_size=2))[0].path[-1]) == 8
    images = PLANTED.images(8, 0)
    with PLANTED.encoder.frozen():
        runs = GatedRuns(PLANTED.encoder, images, SITES, "zero")
        alone = learn_masks(runs, lambda e: e[:, :1], np.ones(8, bool), [0.4], MaskSettings(steps=2, batch_size=1))
    assert count(alone[0].path[-1]) == 8


def test_the_loss_is_the_variance_of_the_answers_that_is_lost() -> None:
    mask = learn(0.4, MaskSettings(steps=10))[0]
    images = PLANTED.images(16, 0)
    with torch.no_grad(), PLANTED.encoder.frozen():
        runs = GatedRuns(PLANTED.encoder, images, SITES, "zero")
        gated = runs.run({site: torch.from_numpy(kept).float() for site, kept in mask.path[-1].items()})[:, 0]
        whole = PLANTED.encoder(images)[:, 0]
    expected = float((gated - whole).square().mean() / whole.var(unbiased=False))
    assert mask.lost == pytest.approx(expected, rel=1e-4)


def test_a_start_and_fixed_gates() -> None:
    start = {
        site: -np.isin(np.arange(n), PLANTED.nodes[site]).astype(float)
        for site, n in zip(SITES, (8, 8, 4), strict=True)
    }
    still = MaskSettings(steps=1, noise=0.0, learning_rate=1e-9, start_weight=3.0)
    mask = learn(0.25, still, start=start)[0]
    assert {site: set(np.flatnonzero(kept)) for site, kept in mask.path[-1].items()}["conv2"] == {0, 1}
    fixed = learn(0.5, MaskSettings(steps=5), fixed={"conv1": np.array([True, False])})[0]
    assert len(fixed.scores["conv1"]) == 6
    assert count(fixed.path[-1]) == 9
    with pytest.raises(InputError, match="for each of the 8 units of site 'conv1', but 3 were given"):
        learn(0.5, MaskSettings(steps=5), start={"conv1": np.zeros(3)})
    with pytest.raises(InputError, match=r"a share of the units in \(0, 1\], but \[0.0\] was given"):
        learn(0.0, MaskSettings())
    with pytest.raises(InputError, match="Autocast is to bfloat16 or float16, but 'int8' was given"):
        MaskSettings(autocast="int8")
    with pytest.raises(InputError, match="learning rate of masks is positive"):
        MaskSettings(learning_rate=0.0)

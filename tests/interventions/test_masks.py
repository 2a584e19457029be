"""Learned masks on units: exact sizes, seeds, the loss, fixed gates, and a planted circuit."""

from typing import Any

import numpy as np
import pytest
import torch
from sklearn.metrics import roc_auc_score
from torch import Tensor, nn

from circuitry import Encoder, InputError, Task, class_logit, class_margin, in_feature_basis
from circuitry.interventions import Gated, LearnedMasks, MaskSettings, circuit_of, kept_embeddings, learn_masks, masks
from circuitry.interventions.answers import default_answers
from circuitry.judging import PlantedCircuit, planted_attention, planted_convolution
from tests.support.assert_same import assert_same
from tests.support.feature_bases import make_sae
from tests.support.work import QUIET

PLANTED = planted_convolution()


def task_of(planted: PlantedCircuit = PLANTED, seed: int = 0, n_own: int = 8) -> Task:
    """Half of 16 images are of the class."""
    images, sites = planted.images(16, seed), tuple(planted.nodes)
    others = images[n_own:] if n_own < 16 else None
    return Task(planted.encoder, images[:n_own], planted.metric, others=others, sites=sites, work=QUIET)


def learn(sizes: list[float], **settings: Any) -> LearnedMasks:
    return learn_masks(task_of(), sizes, MaskSettings(**settings))


@pytest.mark.parametrize("planted", [planted_convolution(), planted_attention()], ids=["convolution", "attention"])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_masks_find_what_was_planted(planted: PlantedCircuit, seed: int) -> None:
    found = learn_masks(task_of(planted, seed), [0.2], MaskSettings(batch_size=16, seed=seed))
    for site, units in planted.nodes.items():
        assert roc_auc_score(np.isin(np.arange(len(found.scores[site])), units), found.scores[site]) > 0.95


def test_sizes_are_exact_and_come_as_they_were_given() -> None:
    several = learn([0.1, 0.8, 0.5], steps=9)
    assert [one.count for one in several.circuits] == [2, 16, 10]
    assert several.steps == 9
    assert all((several.scores[site][kept] >= 0).all() for site, kept in several.circuits[0].units.items())
    one, same, other = (learn([0.4], steps=30, seed=seed) for seed in (0, 0, 1))
    assert all(np.array_equal(one.scores[site], same.scores[site]) for site in one.scores)
    assert any(not np.array_equal(one.scores[site], other.scores[site]) for site in one.scores)


def test_a_size_is_done_when_the_loss_no_longer_falls(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in {"PATIENCE": 5, "SHRINKING": 0.1}.items():
        monkeypatch.setattr(masks, name, value)
    assert learn([0.4], steps=100).steps < 100


@pytest.mark.parametrize(("shrinking", "kept"), [(1.0, [19, 15, 12, 9, 7, 6, 4, 3, 3, 2]), (0.1, [19, *[2] * 9])])
def test_the_last_step_has_the_wanted_size(shrinking: float, kept: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    """20 units fall to 2 over 9 steps, by 10 ** (-1 / 9) each, or over one; of all units the last is half open."""
    sizes, run = list[int](), Gated.run

    def noting(self: Gated, gates: Tensor, chosen: Tensor | None = None) -> Tensor:
        if chosen is not None and len(chosen) == 6:  # a step of training
            sizes.append(int((gates > 0.5).sum()))
        return run(self, gates, chosen)

    for name, value in {"SHRINKING": shrinking, "NOISE": 0.0}.items():
        monkeypatch.setattr(masks, name, value)
    monkeypatch.setattr(Gated, "run", noting)
    learn([0.1], steps=10, batch_size=6)
    assert sizes == kept


def test_a_step_has_images_of_both_sides() -> None:
    with pytest.raises(InputError, match=r"batch_size=1 .*at least 2"):
        learn([0.4], steps=2, batch_size=1)
    assert learn([0.4], steps=2, batch_size=2).circuits[0].count == 8
    alone = learn_masks(task_of(n_own=16), [0.4], MaskSettings(steps=2, batch_size=1))
    assert alone.circuits[0].count == 8


def test_the_loss_is_the_variance_of_the_answers_that_is_lost() -> None:
    found, task = learn([0.4], steps=10), task_of(n_own=16)
    gated, whole = kept_embeddings(task, [found.circuits[0], circuit_of(task, {})])[:, :, 0]
    assert_same(found.lost, (gated - whole).square().mean() / whole.var(unbiased=False), 1e-3, rtol=1e-4)


@pytest.mark.parametrize("keep_error", [False, True])
def test_error_units_have_no_gate(resnet: nn.Module, keep_error: bool) -> None:
    plain, images = Encoder.from_tower(resnet.double()), torch.randn(3, 3, 64, 64).double()
    width = plain(images[:1], stop="layer3.0").shape[1]
    encoder = in_feature_basis(plain, {"layer3.0": make_sae(width)})
    errors = encoder.error_units["layer3.0"]
    task = Task(encoder, images, lambda e: e[:, 0], sites=["layer3.0"], work=QUIET)
    found = learn_masks(task, [0.5], MaskSettings(steps=2), keep_error=keep_error)
    assert np.isnan(found.scores["layer3.0"][errors.start :]).all()
    assert not np.isnan(found.scores["layer3.0"][: errors.start]).any()
    kept = np.isin(np.arange(errors.start), found.circuits[0].units["layer3.0"])
    assert kept.sum() == errors.start // 2
    with task.running(gradients=True), torch.no_grad():
        runs = Gated(task, keep_error=keep_error)
        gated = runs.run(torch.from_numpy(kept).double())
    assert found.circuits[0].keep_error == keep_error
    assert_same(gated, kept_embeddings(task, found.circuits)[0], 0.1)


def test_answers_of_a_class_are_its_lead_and_all_centred_logits() -> None:
    weights, embeddings = nn.functional.normalize(torch.randn(5, 8), dim=-1), torch.randn(6, 8)
    logits = nn.functional.normalize(embeddings, dim=-1) @ weights.T
    centred = logits - logits.mean(1, keepdim=True)
    logit, margin = (default_answers(make(weights, 2))(embeddings) for make in (class_logit, class_margin))
    assert_same(logit, torch.cat([centred[:, 2:3], centred / 5**0.5], 1), 0.1)
    assert_same(margin, logit * 5 / 4, 0.1)  # so that the share of the variance that is lost is the same
    assert_same(default_answers(lambda e: e[:, 1])(embeddings), embeddings[:, 1:2], 0.1)

"""Copies: disjoint own parts against a plain loop, and on a network that carries each class by two sets of units."""

import math
from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuitry import Circuit, Task, class_logit
from circuitry.circuits import own_part
from circuitry.circuits.own_part_of_class import ImagesOfClass
from circuitry.encoder import Encoder, Stage
from circuitry.interventions import circuit_of, find_copies
from circuitry.interventions import copies as copies_module
from circuitry.runs import InputError
from tests.support.planted_classes import planted_classes
from tests.support.work import QUIET

SITE = "units"
NET = planted_classes()
CLASSES = 3
OF_CLASS = torch.tensor([0.6, 0.6, 0.4, 0.4])
"""What each unit of a class adds to its answer: two units carry more of it, and two others the rest."""
LOUD = 8


def odds_by_hand(added: float) -> float:
    """Log-odds of a class among three, where the embedding is ``added`` in its direction and 1 in no class's."""
    return 10 * added / math.hypot(added, 1) - math.log(2)


def twice() -> Encoder:
    """A network in which two pairs of units carry each class, and their sum is read."""

    def units(x: Tensor) -> Tensor:
        of_classes = x[:, 0, 0, :CLASSES, None] * OF_CLASS
        return torch.cat([of_classes.flatten(1), torch.ones(len(x), LOUD)], 1)

    def code(u: Tensor) -> Tensor:
        of_classes = u[:, :-LOUD].reshape(len(u), CLASSES, len(OF_CLASS))
        return torch.cat([of_classes.sum(-1), torch.ones(len(u), 1)], 1)

    stages = (Stage(SITE, units, 1), Stage("code", code, 1))
    return Encoder(nn.Linear(1, 1), stages, (1, 4))


TWICE = twice()


def images_of(label: int, n: int, seed: int) -> Tensor:
    """Return images of a class. The network reads the first channel only, and noise tells images apart."""
    noise = torch.Generator().manual_seed(10 * seed + label)
    images = torch.randn(n, 3, 1, 4, generator=noise)
    images[:, 0, 0] = F.one_hot(torch.tensor(label), 4)
    return images


def task_of(label: int, seed: int = 0) -> Task:
    others = [images_of(o, 2, seed) for o in range(CLASSES) if o != label]
    metric = class_logit(torch.eye(CLASSES, CLASSES + 1), label, 10.0)
    return Task(
        TWICE,
        images_of(label, 3, seed),
        metric,
        others=torch.cat(others),
        sites=[SITE],
        work=QUIET,
    )


def test_each_copy_is_found_and_takes_what_it_carries(
    caplog: pytest.LogCaptureFixture,
) -> None:
    copies, table = find_copies(task_of(1), task_of(1, seed=1), share=0.1)
    found = [set(copy.units[SITE].tolist()) for copy in copies]
    assert found[:2] == [{4, 5}, {6, 7}]
    assert not found[2] & {4, 5, 6, 7}
    whole = odds_by_hand(2.0)
    falls = [whole - odds_by_hand(0.8), whole - odds_by_hand(1.2), 0]
    so_far = [whole - odds_by_hand(left) for left in (0.8, 0.0, 0.0)]
    np.testing.assert_allclose(table["fall"], falls, atol=1e-5)
    np.testing.assert_allclose(table["fall_so_far"], so_far, atol=1e-5)
    # The third copy may have units of other classes. The first two have none.
    np.testing.assert_allclose(table["others_fall"][:2], 0, atol=1e-6)
    np.testing.assert_allclose(table["others_fall_so_far"][:2], 0, atol=1e-6)
    assert table["copy"].tolist() == [1, 2, 3]
    assert table["share"].tolist() == [0.1] * 3
    assert table[SITE].tolist() == [1.0] * 3
    assert set(table["n_images"]) == {3}
    assert set(table["n_others"]) == {4}
    assert "found the circuits" not in caplog.text


def test_random_units_are_as_many_and_images_that_found_copies_are_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    task = task_of(1)
    _, table = find_copies(task, task, share=0.1, most=1, random_draws=300)
    whole = odds_by_hand(2.0)
    pairs = list(combinations(range(20), 2))
    added = torch.zeros(20)
    added[4:8] = OF_CLASS
    falls = [whole - odds_by_hand(2 - float(added[list(pair)].sum())) for pair in pairs]
    spread = np.std(falls) / math.sqrt(300)
    assert abs(table["random_fall"].item() - np.mean(falls)) < 3 * spread
    assert "found the circuits" in caplog.text


def test_the_largest_number_of_copies_ends_the_search() -> None:
    copies, table = find_copies(task_of(0), task_of(0, seed=1), share=0.1, most=1)
    assert len(copies) == len(table) == 1


def test_there_are_no_more_copies_than_the_units_are_enough_for(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def falls(images: ImagesOfClass, ablated: list[Circuit]) -> np.ndarray:
        """Each copy, and all copies so far, take more than random units."""
        is_random = np.arange(len(ablated)) >= 2
        return np.stack([~is_random, is_random]).astype(float)

    monkeypatch.setattr(copies_module, "_falls", falls)
    copies, _ = find_copies(task_of(0), task_of(0, seed=1), share=0.2, most=6)
    units = np.concatenate([copy.units[SITE] for copy in copies])
    assert len(copies) == 5
    assert sorted(units) == list(range(20))


def plain_part(task: Task, n_wanted: int, spared: set[int]) -> tuple[list[int], float]:
    """Cut units one after another as the module says, by plain gradients; spared units stay."""
    units, code = (stage.run for stage in NET.encoder.stages)
    own = units(task.images)  # type: ignore[arg-type]
    others = units(task.others)  # type: ignore[arg-type]
    mean = torch.cat([own, others]).mean(0)
    label = task.metric.label  # type: ignore[attr-defined]

    def slopes(a: Tensor, opened: Tensor, rows: Tensor) -> tuple[Tensor, Tensor]:
        gates = opened.repeat(len(a), 1).requires_grad_()
        answers = 20 * F.normalize(code(mean + gates * (a - mean)), dim=-1)
        p = answers.double().softmax(-1).gather(1, rows[:, None])[:, 0]
        odds = (p / (1 - p)).log()
        return torch.autograd.grad(odds.sum(), gates)[0], p

    def of_class(opened: Tensor) -> tuple[Tensor, Tensor]:
        by_image, p = slopes(own, opened, torch.full((len(own),), label))
        return by_image.mean(0), p.detach().mean()

    opened = torch.ones(len(mean))
    answered = code(others).argmax(-1)
    damage = slopes(others, opened, answered)[0].abs().mean(0)
    price = damage + 0.3 * damage.mean()
    costs, order = [of_class(opened)[0]], list[int]()
    share, last = 0.001, n_wanted / len(mean)
    while True:
        ratio = torch.stack(costs).mean(0) / price
        best = [i for i in ratio.argsort(descending=True).tolist() if i not in spared]
        left = [i for i in best if i not in order]
        order += left[: max(1, round(share * len(mean))) - len(order)]
        opened[order] = 0
        cost, p = of_class(opened)
        costs.append(cost)
        if share >= last:
            return order, float(p)
        share = min(1.3 * share, last)


@pytest.mark.parametrize("label", range(3))
def test_a_part_without_units_is_that_of_a_plain_loop_that_spares_them(
    label: int,
) -> None:
    task = replace(NET.task(label), work=QUIET)
    n_units = len(NET.encoder(NET.images(0, 1, 0), stop=SITE)[0])
    first = own_part(task, share=5 / n_units)
    second = own_part(task, share=5 / n_units, without=[first])
    third = own_part(task, share=5 / n_units, without=[first, second])
    spared = set[int]()
    for part in (first, second, third):
        expected, p = plain_part(task, 5, spared)
        assert part.units[SITE].tolist() == expected
        assert part.made_with["tried"][-1][1] == pytest.approx(p, rel=1e-4)
        spared |= set(expected)
    assert len(spared) == 15
    assert third.made_with["n_spared"] == 10


def test_what_leaves_no_copy_or_is_of_another_model_or_class_is_refused() -> None:
    task = task_of(0)
    all_but_one = circuit_of(task, {SITE: list(range(1, 20))})
    with pytest.raises(InputError, match=r"0\.1 of the 20 units, but .* 1 are left"):
        own_part(task, share=0.1, without=[all_but_one])
    other = own_part(replace(NET.task(0), work=QUIET), share=0.1)
    with pytest.raises(InputError, match="differ in weights"):
        own_part(task, share=0.1, without=[other])
    with pytest.raises(InputError, match="The tasks of copies are of one class"):
        find_copies(task, task_of(1))
    with pytest.raises(InputError, match="others"):
        find_copies(task, replace(task, others=None))

"""What a lesion takes of a class: evidence, the answer, or the information. Networks in which the depth is known."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from sklearn.metrics import balanced_accuracy_score
from torch import Tensor, nn

from circuitry import Task, class_logit
from circuitry.comparison import depths_of_loss, lesion_summary
from circuitry.encoder import Encoder, Stage
from circuitry.interventions import circuit_of, lesion
from circuitry.models.heads_fitted_again import best_constant, read_again
from circuitry.runs import InputError
from tests.support.work import QUIET

WIDTH = 6
NAMES = ("clock", "cup", "car")
# Numbers of an image: a constant, which holds the length of embeddings; what the rows of the three classes read; and
# two that no row reads.
ROWS = torch.eye(WIDTH)[1:4]
LONG = 30.0


def code(numbers: Tensor) -> Tensor:
    constant = torch.full((len(numbers), 1), LONG)
    return torch.cat([constant, numbers[:, 1:]], 1)


ENCODER = Encoder(
    nn.Linear(1, 1),
    (
        Stage("numbers", lambda x: x.flatten(1)[:, :WIDTH], 1),
        Stage("code", code, 1),
    ),
    (1, 2),
)


def images_of(means: list[list[float]], n: int, seed: int) -> Tensor:
    """``n`` images of each of several kinds, with a little noise on each number."""
    generator = torch.Generator().manual_seed(seed)
    kinds = torch.tensor(means).repeat_interleave(n, 0)
    noisy = kinds + 0.05 * torch.randn(kinds.shape, generator=generator)
    return noisy.reshape(len(noisy), 3, 1, 2)


def what_it_takes(
    kinds: dict[str, list[list[float]]], unit: int, baseline: str
) -> "pd.Series[Any]":
    """The row of `depths_of_loss` of the clock, whose part is one unit."""
    tasks = dict[tuple[str, str], Task]()
    refit = dict[tuple[str, str], Tensor]()
    for label, name in enumerate(NAMES):
        metric = class_logit(ROWS, label, 100.0)
        images = images_of(kinds[name], 8, seed=label)
        tasks[name, "real"] = Task(
            ENCODER, images, metric, baseline=baseline, work=QUIET
        )
        refit[name, "real"] = images_of(kinds[name], 8, seed=10 + label)
    part = circuit_of(tasks["clock", "real"], {"numbers": [unit]})
    table = lesion(tasks, {("clock", "real"): part}, refit=refit, random_draws=0)
    # Today's test of a part: the class is lost, and others are not.
    own = table["class"] == "clock"
    assert table.loc[own, "whole_right"].tolist() == [1.0]
    assert table.loc[own, "right"].tolist() == [0.0]
    assert table.loc[~own, "right"].tolist() == [1.0, 1.0]
    (row,) = depths_of_loss(table).to_dict("records")
    return pd.Series(row)


# The first number is the unit of a bias: it is the same for all images, and the row of the clock reads it.
BIASED = Encoder(
    nn.Linear(1, 1),
    (
        Stage("numbers", lambda x: x.flatten(1)[:, :WIDTH], 1),
        Stage(
            "code",
            lambda u: code(torch.cat([u[:, :1], u[:, :1] + u[:, 1:2], u[:, 2:]], 1)),
            1,
        ),
    ),
    (1, 2),
)


def test_lowering_a_bias_takes_no_more_than_a_constant(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(f"{__name__}.ENCODER", BIASED)
    row = what_it_takes(
        {
            "clock": [[6.0, -5.0, 0.0, 0.0, 0.0, 0.0]],
            "cup": [[6.0, -9.0, 1.0, 0.0, 0.0, 0.0]],
            "car": [[6.0, -9.0, 0.0, 1.0, 0.0, 0.0]],
        },
        unit=0,
        baseline="zero",
    )
    assert row["takes"] == "the answer; one constant gives it back"
    assert (row["auc"], row["constant"], row["others_constant"]) == (1.0, 1.0, 1.0)
    assert row["refit_auc"] == 1.0


READ_ELSEWHERE = {
    # Without the second number a clock is a cup to the rows, but the fifth number tells them apart.
    "clock": [[0.0, 2.0, 1.0, 0.0, 1.0, 0.0]],
    "cup": [[0.0, 0.0, 1.0, 0.0, 0.0, 0.0]],
    "car": [[0.0, 0.0, 0.0, 1.0, 0.0, 0.0]],
}


def test_what_only_the_row_of_the_class_reads_takes_the_answer_not_the_information() -> (
    None
):
    row = what_it_takes(READ_ELSEWHERE, unit=1, baseline="zero")
    assert row["takes"] == "the answer, not the information"
    assert row["auc"] < 0.9
    assert min(row["constant"], row["others_constant"]) < 0.9
    assert row["refit"] == row["refit_auc"] == 1.0


def test_where_nothing_else_tells_the_class_the_information_is_gone() -> None:
    # Half of the clocks are cups without the number, half are cars.
    kinds = {
        "clock": [[0.0, 2.0, 1.0, 0.0, 0.0, 0.0], [0.0, 2.0, 0.0, 1.0, 0.0, 0.0]],
        "cup": READ_ELSEWHERE["cup"],
        "car": READ_ELSEWHERE["car"],
    }
    row = what_it_takes(kinds, unit=1, baseline="zero")
    assert row["takes"] == "the information"
    assert row["refit_auc"] == pytest.approx(0.5, abs=0.2)


@pytest.mark.parametrize("seed", range(10))
def test_a_constant_is_the_best_of_all_by_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    answers = rng.normal(size=(30, 4))
    labels = rng.integers(0, 4, 30)
    answers[np.arange(30), labels] += 1
    answers[:, 2] -= rng.normal() * 3

    def share_right(constant: float) -> float:
        shifted = answers + constant * (np.arange(4) == 2)
        right = shifted.argmax(1) == labels
        own = labels == 2
        return float(right[own].mean() + right[~own].mean())

    best = max(map(share_right, np.linspace(-12, 12, 4801)))
    found = share_right(best_constant(answers, labels, 2))
    assert found >= best - 1e-12


def test_embeddings_are_read_as_by_scikit_learn() -> None:
    rng = torch.Generator().manual_seed(0)
    names = list(NAMES)
    metrics = {
        name: class_logit(torch.eye(3), row, 5.0) for row, name in enumerate(names)
    }

    def draw(n: int) -> dict[str, Tensor]:
        return {
            name: torch.eye(3)[row] + 0.6 * torch.randn(n, 3, generator=rng)
            for row, name in enumerate(names)
        }

    tested, fitted = draw(20), draw(12)
    table = read_again("cup", metrics, tested, fitted)
    odds = []
    for images in tested.values():
        p = (5.0 * torch.nn.functional.normalize(images.double(), dim=1)).softmax(1)
        odds.append((p[:, 1] / (1 - p[:, 1])).log())
    own = odds[1][:, None]
    others = torch.cat([odds[0], odds[2]])
    above = (own > others).double().mean().item()
    assert table.loc["cup", "auc"] == pytest.approx(above)
    assert table["auc"].isna().tolist() == [True, False, True]
    # The mean over classes of the shares that are right is what scikit-learn calls balanced accuracy.
    assert 0.5 < table["refit"].mean() <= 1.0
    of_fitted = read_again("cup", metrics, fitted, fitted)
    whole = torch.cat(list(fitted.values()))
    given = whole.argmax(1).numpy()
    labels = np.repeat(range(3), 12)
    assert of_fitted["constant"].mean() >= balanced_accuracy_score(labels, given) - 0.05


def test_too_few_images_for_a_new_head_are_refused() -> None:
    metric = class_logit(ROWS, 0, 100.0)
    images = images_of(READ_ELSEWHERE["clock"], 4, 0)
    task = Task(ENCODER, images, metric, work=QUIET)
    part = circuit_of(task, {"numbers": [1]})
    key = ("clock", "real")
    with pytest.raises(
        InputError, match=r"at least 4 images .* has 3 of clock in real"
    ):
        lesion({key: task}, {key: part}, refit={key: images[:3]})
    with pytest.raises(InputError, match="has 0 of clock in real"):
        lesion({key: task}, {key: part}, refit={})


def test_near_classes_are_those_whose_weights_are_near() -> None:
    rows = torch.nn.functional.normalize(
        torch.tensor([[1.0, 0.0, 0.0], [0.8, 0.6, 0.0], [0.0, 0.0, 1.0]]), dim=1
    )
    weights = torch.cat([torch.zeros(3, 1), rows, torch.zeros(3, 2)], 1)
    tasks = dict[tuple[str, str], Task]()
    for label, name in enumerate(NAMES):
        images = images_of(READ_ELSEWHERE[name], 3, seed=label)
        metric = class_logit(weights, label, 100.0)
        tasks[name, "real"] = Task(ENCODER, images, metric, work=QUIET)
    part = circuit_of(tasks["clock", "real"], {"numbers": [1]})
    table = lesion(tasks, {("clock", "real"): part}, random_draws=0)
    assert table["nearness"].tolist() == [0, 1, 2]
    known = table.assign(whole_right=1.0, right=[0.0, 0.5, 1.0])
    summary = lesion_summary(known).set_index("answers")["value"]
    assert summary.to_dict() == {
        "own class": 0.0,
        "other classes": 0.75,
        "the nearest classes": 0.5,
    }

"""The judge of ways to remove a class, and the program that compares them, on embeddings made by hand."""

from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
import torch
from torch import Tensor

from circuitry.encoder.metrics import ClassLogit
from experiments import rivals_of_own_parts
from experiments.edits_that_forget import lowered_bias
from experiments.rivals_of_contrast import contrast_once, measure, random_units
from experiments.rivals_of_own_parts import (
    ALPHAS,
    OneClass,
    Outputs,
    World,
    first_units,
    judge,
    own_fall_at,
    paired,
    rows_of_class,
    tables_of,
    wilcoxon_p,
)
from tests.support.planted_classes import planted_classes

NAMES = ("ant", "bee", "cat")
METRICS = {
    name: ClassLogit(torch.eye(3), label, scale=4.0) for label, name in enumerate(NAMES)
}


def around(row: int, n: int, seed: int, spread: float = 0.1) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(3)[row] + spread * torch.randn(n, 3, generator=generator)


def outputs() -> Outputs:
    tested = {name: around(row, 5, row) for row, name in enumerate(NAMES)}
    fitted = {name: around(row, 8, 10 + row) for row, name in enumerate(NAMES)}
    return Outputs(METRICS, tested, fitted)


def odds(logits: list[float], row: int) -> float:
    others = [value for place, value in enumerate(logits) if place != row]
    return logits[row] - float(np.logaddexp.reduce(others))


def test_falls_ranks_and_answers_are_those_by_hand() -> None:
    unit = torch.eye(3)
    whole = Outputs(METRICS, {"ant": unit[:1], "bee": unit[1:2]})
    # The ant is between the two other classes now, and the bee between ant and bee.
    moved = {
        "ant": torch.tensor([[0.0, 0.6, 0.8]]),
        "bee": torch.tensor([[0.6, 0.8, 0]]),
    }
    judged = judge("ant", whole, Outputs(METRICS, moved))
    assert judged["own_fall"] == pytest.approx(
        odds([4, 0, 0], 0) - odds([0, 2.4, 3.2], 0), rel=1e-5
    )
    assert judged["others_fall"] == pytest.approx(
        odds([0, 4, 0], 1) - odds([2.4, 3.2, 0], 1), rel=1e-5
    )
    assert judged["others_log_odds"] == pytest.approx(odds([2.4, 3.2, 0], 1), rel=1e-5)
    # The log-odds of the ant are higher for the bee.
    assert judged["auc"] == 0
    assert (judged["own_right"], judged["others_right"]) == (0, 1)
    assert judged["own_rank"] == 3
    assert "refit_own" not in judged


def test_a_lowered_bias_takes_answers_and_neither_order_nor_information() -> None:
    whole = outputs()
    lowered = lowered_bias(METRICS["bee"], whole.tested["bee"])
    metrics: Any = {}
    for name, metric in METRICS.items():
        fields = vars(lowered) | {"label": metric.label}
        metrics[name] = type(lowered)(**fields)
    judged = judge("bee", whole, whole._replace(metrics=metrics))
    assert judged["own_right"] == 0
    assert judged["own_fall"] == pytest.approx(lowered.by, rel=1e-4)
    for column in ("others_right", "auc", "constant_own", "refit_own", "refit_auc"):
        assert judged[column] == 1, column


def test_information_that_is_gone_is_read_as_gone() -> None:
    whole = outputs()
    # Bees get the embeddings of ants and cats in turn.
    for of_set in (whole.tested, whole.fitted):
        assert of_set is not None
        n = len(of_set["bee"])
        gone = torch.stack([torch.eye(3)[2 * (i % 2)] for i in range(n)])
        of_set["bee"] = gone + 0.1 * torch.randn(  # type: ignore[index]
            n, 3, generator=torch.Generator().manual_seed(5)
        )
    judged = judge("bee", outputs(), whole)
    assert judged["own_right"] == 0
    assert judged["refit_own"] < 0.7
    assert judged["refit_auc"] < 0.9
    assert judged["constant_own"] + judged["constant_others"] < 1.5


def test_equal_damage_is_read_where_others_first_fall_so_far() -> None:
    assert own_fall_at(1.0, [0.5, 2.0], [3.0, 6.0]) == (4.0, True)
    assert own_fall_at(0.25, [0.5, 2.0], [3.0, 6.0]) == (1.5, True)
    # Without others falling so far, the fall at the largest share is told.
    assert own_fall_at(1.0, [-0.1, 0.5], [3.0, 6.0]) == (6.0, False)
    # Falls need not grow.
    assert own_fall_at(1.0, [2.0, 0.5, 3.0], [4.0, 5.0, 6.0]) == (2.0, True)


def test_p_is_that_of_all_exchanges_of_signs() -> None:
    assert wilcoxon_p(np.arange(1.0, 8)) == 2 / 2**7
    assert wilcoxon_p(np.zeros(7)) == 1
    # Ranks 1, 2, 3: of eight exchanges of signs six give a sum at least as far from its mean as 1 + 3 against 2.
    assert wilcoxon_p(np.array([1.0, -2.0, 3.0, 0.0])) == 6 / 8


def test_leads_go_in_the_direction_that_is_better() -> None:
    table = pd.DataFrame(
        {
            "class": ["a", "b", "a", "b"],
            "way": ["contrast", "contrast", "other", "other"],
            "own_fall": [5.0, 7.0, 4.0, 8.0],
            "own_right": [0.1, 0.1, 0.3, 0.5],
        }
    )
    leads = paired(table, ["own_fall", "own_right"]).to_dict("records")
    of_contrast, fall, right = leads[1:]
    assert of_contrast["way"] == "contrast"
    assert of_contrast["p"] == 1
    assert (fall["lead"], fall["wins"], fall["losses"]) == (0, 1, 1)
    assert right["lead"] == pytest.approx(0.3)
    assert right["value"] == pytest.approx(0.4)


def test_first_units_have_the_largest_scores_and_not_the_largest_sizes() -> None:
    scores = {"a": np.array([-9.0, 1.0]), "b": np.array([0.0, 3.0, 2.0])}
    units = first_units(scores, 3 / 5)
    assert {site: sorted(of_site) for site, of_site in units.items()} == {
        "a": [1],
        "b": [1, 2],
    }
    assert list(first_units(scores, 1 / 5)) == ["b"]


class NoWeights(NamedTuple):
    """In the place of `Weights`: the planted network has none."""

    def without(self, of_class: OneClass, alpha: float) -> Outputs:
        return of_class.whole


def test_all_ways_are_compared_on_a_planted_network(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    few = {"contrast-once": contrast_once, "random": random_units}
    monkeypatch.setattr(rivals_of_own_parts, "RATIOS", few)
    monkeypatch.setattr(rivals_of_own_parts, "AT_ZERO", ("contrast",))
    net = planted_classes()
    names = [f"class {label}" for label in range(3)]
    metrics = {
        name: ClassLogit(net.weights, label, scale=20.0)
        for label, name in enumerate(names)
    }

    def images(seed: int) -> dict[str, Tensor]:
        return {name: net.images(label, 6, seed) for label, name in enumerate(names)}

    world = World(net.encoder, ("units",), metrics, images(0), images(1), images(2))
    weights: Any = NoWeights()
    measured = measure(OneClass(world, names[0], 3.0).task)
    tables = list[pd.DataFrame]()
    for name in names:
        of_class = OneClass(world, name, 3.0)
        tables.append(rows_of_class(of_class, measured, weights))
    rows = pd.concat(tables, ignore_index=True)
    assert rows["class"].value_counts().nunique() == 1
    compared = tables_of(rows)
    depths = compared["depths"].set_index("way")
    for column in ("own_right", "others_right", "auc"):
        assert depths.loc["whole", column] == 1
    assert depths.loc["whole", "own_fall"] == 0
    assert depths.loc["bias lowered", "own_right"] == 0
    assert depths.loc["bias lowered", "constant_own"] == 1
    assert depths.loc["row projected out", "others_right"] == 1
    assert {f"weights dampened, alpha {alpha:g}" for alpha in ALPHAS} <= {*depths.index}
    # One unit of 48 is ablated: one of the class's own three.
    of_contrast = depths.loc["contrast"]
    assert of_contrast["own_fall"] > 3 * of_contrast["others_fall"]
    assert of_contrast["own_fall"] > depths.loc["random", "own_fall"]
    leads = compared["leads"]
    assert set(leads.loc[leads["way"] == "contrast", "lead"]) == {0}
    assert set(compared["equal_damage"]["n_classes"]) == {3}

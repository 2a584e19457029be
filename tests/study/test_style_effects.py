"""Effects of edits of a style: strengths by rules, the bias and the counted rows, on answers that are chosen here."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor
from torch.nn.functional import one_hot

from experiments.study.style_edits import (
    AT_CHANCE,
    IN_EACH,
    PART,
    RANDOM,
    RULES,
    SHARES,
    Answers,
    Edit,
    Pictures,
)
from experiments.study.style_effects import (
    ELSEWHERE,
    answer_rows,
    bias,
    strengths_by_rule,
)
from tests.study.made_up_styles import SKETCH, MadeUp, pictures_of

FITTING = pictures_of(
    [("photo", "cup", 40), ("cartoon", "cup", 40), ("sketch", "cup", 100)]
)
QUESTION = MadeUp(given=FITTING)


def with_losses(
    in_style: Sequence[float],
    in_photos: Sequence[float] | None = None,
    called: Sequence[float] | None = None,
) -> Edit:
    """Return an edit after which shares of the pictures are answered wrong, and shares of sketches are called so.

    Args:
        in_style, in_photos: The share of wrong answers in sketches and in photographs in each strength.
        called: The share of sketches that are called sketches (default: all).
    """
    strengths = SHARES[: len(in_style)]
    in_photos = in_photos or [0.0] * len(in_style)
    called = called or [1.0] * len(in_style)
    wrong = {SKETCH: in_style, 1: in_photos}

    def answers(pictures: Pictures, asked: Sequence[float]) -> list[Answers]:
        after = list[Answers]()
        for place in map(strengths.index, asked):
            labels = pictures.labels.clone()
            z = torch.eye(8)[3:][pictures.styles]
            for style, shares in wrong.items():
                (places,) = torch.where(pictures.styles == style)
                labels[places[: round(shares[place] * len(places))]] = 2
            (sketches,) = torch.where(pictures.styles == SKETCH)
            z[sketches[round(called[place] * len(sketches)) :]] = torch.eye(8)[3]
            after.append(Answers(z, one_hot(labels, 3).float()))
        return after

    return Edit(strengths, answers)


def test_each_rule_takes_the_last_strength_before_one_that_costs_too_much() -> None:
    part = with_losses(
        [0, 0.02, 0.05, 0.06, 0.04, 0.12, 0.3], called=[1, 0.9, 0.8, 0.3, 0.5, 0.2, 0]
    )
    edits = {
        PART: part,
        RANDOM: with_losses([0.0] * 7),
        "dear": with_losses([0.3, 0.3, 0]),
        "free": with_losses([0, 0, 0]),
        "gains": with_losses([-0.0, 0.01, 0.09]),
        "dear in photographs": with_losses([0, 0, 0], [0, 0.2, 0.1]),
    }
    chosen = strengths_by_rule(QUESTION, edits)
    assert set(chosen) == {*RULES, AT_CHANCE, IN_EACH}
    places = {
        rule: {name: edits[name].strengths.index(s) for name, s in strengths.items()}
        for rule, strengths in chosen.items()
    }
    # A share of exactly what is allowed is within; what comes after a strength that costs too much is not tried.
    for rule, place in (("two points", 1), ("five points", 2), ("ten points", 4)):
        assert places[rule][PART] == place
    # Sketches are called so no more often than by chance (a third) from .3 on, which costs six points.
    assert places[AT_CHANCE][PART] == 3
    assert places[AT_CHANCE]["gains"] == 1
    for at_a_rule in places.values():
        assert at_a_rule["dear"] == 0
        assert at_a_rule["free"] == 2
        assert at_a_rule[RANDOM] == at_a_rule[PART]
    assert places["five points"]["dear in photographs"] == 2
    assert places[IN_EACH]["dear in photographs"] == 0
    assert places[IN_EACH][PART] == 2


def test_a_part_that_never_brings_the_style_to_chance_is_removed_whole() -> None:
    part = with_losses([0, 0, 0.1, 0.1, 0.1, 0.1, 0.2], called=[0.5] * 7)
    chosen = strengths_by_rule(QUESTION, {PART: part})
    assert chosen[AT_CHANCE][PART] == SHARES[-1]


def test_right_answers_are_compared_with_those_of_the_whole_model() -> None:
    # The whole model answers half of the sketches wrong, so an edit that does so, too, costs nothing.
    z = FITTING.embeddings.clone()
    (sketches,) = torch.where(FITTING.styles == SKETCH)
    z[sketches[:50]] = torch.eye(8)[0]
    question = replace(QUESTION, given=FITTING._replace(embeddings=z))
    part = with_losses([0.5, 0.52, 0.6, 0.6, 0.6, 0.6, 0.6])
    assert strengths_by_rule(question, {PART: part})["two points"][PART] == SHARES[1]


def test_the_bias_by_hand() -> None:
    pictures = pictures_of(
        [("sketch", "cup", 1), ("sketch", "fish", 1), ("photo", "cup", 1), ("photo", "car", 1)]
    )  # fmt: skip
    # Columns car (held out), cup and fish. On a cup car is compared with fish, and on a fish with cup.
    logits = torch.tensor(
        [[0.1, 0.9, 0.3], [0.2, 0.6, 0.9], [0.5, 0.9, 0.1], [0.9, 0.0, 0.0]]
    )
    question = MadeUp(given=pictures)
    in_sketches = ((0.1 - 0.3) + (0.2 - 0.6)) / 2
    expected = 10 * (in_sketches - (0.5 - 0.1))
    assert bias(question, logits) == pytest.approx(expected)


def answers_to(labels: Sequence[int], styles: Sequence[int], second: Tensor) -> Answers:
    """Return answers of the classes, with further logits that decide between the held-out classes."""
    logits = one_hot(torch.tensor(labels), 3).float() + second
    return Answers(torch.eye(8)[3:][torch.tensor(styles)], logits)


def test_rows_count_right_answers_among_all_and_among_held_out_classes() -> None:
    question = MadeUp(given=FITTING, held_out=("car", "cup"))
    pictures = pictures_of(
        [("sketch", "car", 2), ("sketch", "cup", 4), ("sketch", "fish", 5), ("photo", "car", 3)]
    )  # fmt: skip
    fish, car, cup = 2, 0, 1
    answered = [car, fish, cup, cup, fish, fish, fish, fish, fish, car, cup, car, cup, cup]  # fmt: skip
    # Where fish is answered, the second logit decides between car and cup.
    second = torch.zeros(14, 3)
    second[[1, 4], car] = 0.5
    second[5, cup] = 0.5
    styles = [SKETCH] * 7 + [0] * 4 + [1, SKETCH, 1]
    rows = answer_rows(
        question, pictures, answers_to(answered, styles, second), {"edit": "x"}
    )
    found = {(row["domain"], row["class"]): row for row in rows}
    assert {row["edit"] for row in found.values()} == {"x"}
    numbers = {
        key: tuple(row[name] for name in ("right", "alone", "called", "n_images"))
        for key, row in found.items()
    }
    none = pytest.approx(np.nan, nan_ok=True)
    third = pytest.approx(1 / 3, abs=1e-6)
    assert numbers == {
        ("sketch", "car"): (0.5, 1.0, 1.0, 2),
        ("sketch", "cup"): (0.5, 0.75, 1.0, 4),
        ("sketch", "seen"): (0.6, none, 0.2, 5),
        (ELSEWHERE, "car"): (third, third, third, 3),
        (ELSEWHERE, "cup"): (none, none, none, 0),
        (ELSEWHERE, "seen"): (none, none, none, 0),
    }  # fmt: skip
    only = pictures.where(pictures.styles == SKETCH)
    of_only = answer_rows(
        question, only, answers_to(answered[:11], styles[:11], second[:11]), {}
    )
    assert {row["domain"] for row in of_only} == {"sketch"}

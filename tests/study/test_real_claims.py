"""The claims of the study on made-up numbers: their measures, their ways to count, and the number of seeds."""

from typing import Any

import numpy as np
import pytest

from experiments.study.claims import (
    AS_WRITTEN,
    BORNE_OUT,
    COMPOSITIONAL,
    OPEN,
    REFUTED,
)
from experiments.study.real_claims import (
    CLAIMS,
    PRIMARY,
    judged,
    n_for,
    pilot_of,
    seeds_needed,
)
from tests.study.made_up_claims import made_up, one, shared_rows, spread


def test_sometimes_is_a_share_of_cases() -> None:
    better = {0: 0.3, 1: 0.05, 2: -0.5}  # by seed; only the first is clearly better

    def accuracy(about: dict[str, Any]) -> float:
        if about["setting"] == "cg-high":
            return 0.5
        return 0.5 + better[about["seed"]]

    judgements = judged(made_up(accuracy, ("leave-out", "cg-high")))
    assert one(judgements, "sometimes")["value"] == pytest.approx(1 / 3 - 0.05)


def test_alignment_may_bring_a_little() -> None:
    def by(gain: float) -> str:
        def accuracy(about: dict[str, Any]) -> float:
            return float(about["setting"] == "aligned") * (gain + spread(about) / 10)

        tables = made_up(accuracy, ("cg-high", "aligned"))
        return str(one(judged(tables), "alignment-accuracy")["verdict"])

    assert [by(0.02), by(-0.2), by(0.2)] == [BORNE_OUT, BORNE_OUT, REFUTED]


def test_the_gap_is_compared_with_other_domains() -> None:
    gaps = {"sketch": 0.5, "cartoon": 0.1, "art": 0.3}

    def accuracy(about: dict[str, Any]) -> float:
        upper = about["setting"] == "upper-high"
        return float(upper) * gaps[about["test_domain"]] + spread(about)

    judgements = judged(made_up(accuracy, ("cg-high", "upper-high"), tuple(gaps)))
    assert one(judgements, "far-gap")["value"] == pytest.approx(0.5 - 0.2)
    assert one(judgements, "gap")["value"] == pytest.approx(0.9 / 3)


def test_sharing_is_read_on_the_model_that_the_study_used() -> None:
    def value(setting: str, domain: str, seed: int) -> float:
        of_setting = 10.0 * COMPOSITIONAL.index(setting)
        if domain != "sketch":
            return of_setting
        return of_setting + {"aligned": -2, "cg-high": 3}.get(setting, 0) + 0.1 * seed

    rows = shared_rows(value, "all_units") + shared_rows(value, "distance")
    rows += shared_rows(value, "cka", "layer 1")
    rows += shared_rows(lambda *_: 99.0, "cka")  # of the last site alone: not read
    judgements = judged(made_up(lambda _: 0.0, shared=rows))
    for claim, expected, verdict in (
        ("units", -2 + 0.1, BORNE_OUT),
        ("cka", -2 + 0.1, BORNE_OUT),
        ("embeddings", 3 + 0.1, BORNE_OUT),
        ("alignment", 10.0 - 5, REFUTED),
        ("features", np.nan, OPEN),
    ):
        row = one(judgements, claim)
        assert row["value"] == pytest.approx(expected, nan_ok=True), claim
        if claim != "alignment":  # one number for all pairs has no spread
            assert row["verdict"] == verdict
    # Choices about accuracy do not change what is shared.
    ways = set(judgements.query("claim == 'units'")["way"])
    assert "first checkpoint" not in ways
    assert AS_WRITTEN in ways


def test_what_is_shared_is_counted_in_other_ways_too() -> None:
    def value(setting: str, domain: str, seed: int) -> float:
        sign = 1 if setting == "aligned" else -2
        return sign * (1 + 0.1 * seed) if domain == "sketch" else 0.0

    def opposite(setting: str, domain: str, seed: int) -> float:
        return -value(setting, domain, seed)

    rows = shared_rows(value, "all_units") + shared_rows(opposite, "study_units")
    judgements = judged(made_up(lambda _: 0.0, shared=rows))
    units = judgements.query("claim == 'units'").set_index("way")["value"]
    written = units[AS_WRITTEN]
    assert units["circuits of the held-out pair"] == pytest.approx(-written)
    assert units["what domains share in cg-high"] == pytest.approx(-2 * written)
    # Nothing else was measured, and a claim about one test domain is the same in that domain alone.
    assert set(units.index) == {
        AS_WRITTEN,
        "circuits of the held-out pair",
        "what domains share in cg-high",
        "what domains share in leave-out",
    }


@pytest.mark.parametrize(
    ("sd", "effect", "n"), [(1.0, 0.5, 34), (1.0, 1.0, 10), (1.0, 0.8, 15)]
)
def test_the_number_of_seeds_is_that_of_textbooks(
    sd: float, effect: float, n: int
) -> None:
    # Paired t test, two-sided 5 %, power 80 %: the values of G*Power.
    assert n_for(sd, effect) == n


def test_the_spread_of_the_pilot_gives_the_number_of_seeds() -> None:
    pairs = [("a", "b"), ("c", "d"), ("e", "f"), ("g", "h")]
    tables = made_up(
        lambda about: (about["setting"] == "cg-high") * (0.2 * about["seed"]),
        pairs=pairs,
        models=("lite0", "lite2"),
    )
    table = seeds_needed(pilot_of(tables)).set_index("measure")
    assert table.loc["accuracy, cg-high minus cg-low", "sd"] == pytest.approx(0.2)
    assert table.loc["accuracy, cg-high minus cg-low", "n_pairs"] == 3
    assert table.loc["all", "seeds"] == n_for(0.2)
    assert {claim.name for claim in CLAIMS} > set(PRIMARY)

"""Differences between settings, against a loop over classes and seeds, and the answers to the study's questions."""

from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry.training import AMONG_GROUP, MEASURE
from experiments.study.run_tables import (
    CONTRASTS,
    MODEL,
    difference_findings,
    paired_differences,
)
from tests.study.made_up_runs import HELD_OUT, Asked, made_up_runs

BY_SETTING = {
    "natural-only": 0.1,
    "leave-out": 0.5,
    "cg-low": 0.3,
    "cg-high": 0.4,
    "upper-high": 0.9,
}


def drawn(asked: Asked) -> float:
    """Return a random accuracy that rises with the setting, a class and seed shifting all settings alike."""
    setting = asked.run.mixture.settings.setting
    rng = np.random.default_rng(
        [len(setting), asked.run.seed, *map(ord, asked.group + asked.domain)]
    )
    shared = np.random.default_rng(
        [asked.run.seed, *map(ord, asked.group + asked.measure)]
    ).uniform(0, 0.1)
    return float(BY_SETTING.get(setting, 0.0) + shared + rng.uniform(0, 0.01))


@pytest.fixture(scope="module")
def evaluated() -> pd.DataFrame:
    return made_up_runs(drawn, ("quickdraw", "sketch"), (0, 1, 2))


def test_differences_are_those_of_a_loop(evaluated: pd.DataFrame) -> None:
    table = paired_differences(evaluated)
    rn50 = (
        (table["model"] == "rn50")
        & (table["base"] == "imagenet-captions")
        & (table["trained"] == "CLIP")
    )
    rn50 &= (table["captions"] == "standard (stream)") & (table["sketches"] == "none")
    assert table[rn50].groupby("test_domain").size().to_dict() == {
        "quickdraw": 8,
        "sketch": 8,
    }
    told = evaluated[evaluated["classifier"] == "all templates"].to_dict("records")
    values: dict[tuple[Any, ...], float] = {}
    for one in told:
        alone = str(one["run"]).startswith("rn50-imagenet-captions-natural-only-s")
        plain = (one["model"], one["base"], one["sketches"]) == (
            "rn50",
            "imagenet-captions",
            "none",
        )
        if alone or (plain and one["domain"] == one["test_domain"]):
            values[
                tuple(
                    one[key]
                    for key in ("domain", "setting", "group", "seed", "measure")
                )
            ] = one["value"]
    for row in table[rn50].to_dict("records"):
        measure = {"held_out": MEASURE, "alone": AMONG_GROUP}[row["measure"]]
        by_class = [
            np.mean([
                values[row["test_domain"], row["setting"], name, seed, measure]
                - values[row["test_domain"], row["minus"], name, seed, measure]
                for seed in (0, 1, 2)
            ])
            for name in HELD_OUT
        ]  # fmt: skip
        assert row["difference"] == pytest.approx(np.mean(by_class))
        reach = stats.t.ppf(0.975, 2) * np.std(by_class, ddof=1) / np.sqrt(3)
        assert (row["low"], row["high"]) == pytest.approx(
            (row["difference"] - reach, row["difference"] + reach)
        )
        assert (row["n_classes"], row["n_seeds"]) == (3, 3)


def test_classes_that_are_screened_out_do_not_count(evaluated: pd.DataFrame) -> None:
    out = (
        evaluated[list(MODEL)]
        .drop_duplicates()
        .assign(test_domain="sketch", kept=False, **{"class": "bed"})
    )
    counted = (
        paired_differences(evaluated, screened=out)
        .groupby("test_domain")["n_classes"]
        .unique()
    )
    assert {name: list(numbers) for name, numbers in counted.items()} == {
        "quickdraw": [3],
        "sketch": [2],
    }


def test_each_question_is_answered_for_every_model(evaluated: pd.DataFrame) -> None:
    differences = paired_differences(evaluated)
    claims = [one.claim for one in difference_findings(differences)]
    for question in CONTRASTS.values():
        assert any(claim.startswith(f"{question} Yes") for claim in claims), question
    numbers = {
        "difference": -differences["difference"],
        "low": -differences["high"],
        "high": -differences["low"],
    }
    turned = differences.assign(**numbers)
    assert all("? No" in one.claim for one in difference_findings(turned))
    assert (
        difference_findings(
            paired_differences(evaluated[evaluated["setting"] == "cg-high"])
        )
        == []
    )

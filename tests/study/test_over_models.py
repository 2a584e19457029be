"""Relations over models, against scipy, brute force and numbers worked out on paper."""

from collections.abc import Hashable
from itertools import permutations
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from experiments.study.relations import (
    centred_ranks,
    correlation,
    relate_over_models,
    residuals,
)


def points(n: int, seed: int = 0) -> pd.DataFrame:
    rng = np.random.default_rng(seed)
    z = rng.normal(size=n)
    x, y = z + rng.normal(size=n), z + rng.normal(size=n)
    return pd.DataFrame(
        {
            "run": [f"r{i}" for i in range(n)],
            "test_domain": "sketch",
            "x": x,
            "y": y,
            "z": z,
        }
    )


def related(table: pd.DataFrame, given: str | None = None) -> dict[Hashable, Any]:
    """Return the one row of x and y."""
    return relate_over_models(table, ["x"], ["y"], given).iloc[0].to_dict()


def test_one_test_domain_gives_spearman_and_its_exact_p() -> None:
    table = points(6)
    row, y = related(table), table["y"].to_numpy()
    assert row["rho"] == pytest.approx(stats.spearmanr(table["x"], y).statistic)
    rhos = [
        stats.spearmanr(table["x"], y[list(order)]).statistic
        for order in permutations(range(6))
    ]
    assert row["p"] == pytest.approx(np.mean(np.abs(rhos) >= abs(row["rho"]) - 1e-9))
    assert (row["n_models"], row["about"]) == (6, "over 6 models")


def test_random_orders_come_near_the_p_of_scipy() -> None:
    table = points(30, seed=2)
    row = related(table)
    assert row["p"] == pytest.approx(
        stats.spearmanr(table["x"], table["y"]).pvalue, abs=0.01
    )


def test_the_partial_correlation_is_the_textbook_formula_of_ranks() -> None:
    table = points(12, seed=1)
    row = related(table, "z")
    ranks = table[["x", "y", "z"]].rank()
    inverse = np.linalg.inv(np.corrcoef(ranks.T))
    assert row["partial"] == pytest.approx(
        -inverse[0, 1] / np.sqrt(inverse[0, 0] * inverse[1, 1])
    )
    assert 0 < row["partial_p"] <= 1


def test_p_of_the_partial_correlation_is_from_regressions_of_reordered_residuals() -> (
    None
):
    table = points(6, seed=4)
    row = related(table, "z")
    x, y, z = table[["x", "y", "z"]].rank().to_numpy().T
    design = np.stack([np.ones(6), z], 1)

    def fitted(values: np.ndarray) -> np.ndarray:
        return np.asarray(design @ np.linalg.lstsq(design, values, rcond=None)[0])

    left_x, left_y = x - fitted(x), y - fitted(y)
    made = [fitted(x) + left_x[list(order)] for order in permutations(range(6))]
    found = np.abs([np.corrcoef(one - fitted(one), left_y)[0, 1] for one in made])
    assert row["partial_p"] == pytest.approx(np.mean(found >= found[0] - 1e-9))


def test_three_models_have_no_partial_correlation() -> None:
    table = pd.DataFrame(
        {
            "run": list("abcd"),
            "test_domain": "sketch",
            "x": [1, 3, 2, 4],
            "y": [2, 3, 1, 4],
        }
    )
    table["z"] = [1, 2, 3, 4]
    four, three = (related(table.head(n), "z") for n in (4, 3))
    assert np.isnan([three["partial"], three["partial_p"]]).all()
    assert 0 < four["partial"] < 1


def test_leave_one_out_and_jackknife_by_brute_force() -> None:
    table = points(7, seed=3)
    row = related(table)
    each = np.array(
        [
            stats.spearmanr(*table.drop(i)[["x", "y"]].to_numpy().T).statistic
            for i in table.index
        ]
    )
    assert (row["least"], row["most"]) == pytest.approx((each.min(), each.max()))
    error = np.sqrt(6 / 7 * np.square(each - each.mean()).sum())
    reach = stats.t.ppf(0.975, 6) * error
    expected = max(row["rho"] - reach, -1), min(row["rho"] + reach, 1)
    assert (row["low"], row["high"]) == pytest.approx(expected)


def test_what_test_domains_have_in_common_is_no_evidence() -> None:
    # In either domain x and y run against each other; over both they would seem to go together.
    rows = [("a", "p", 1, 2), ("b", "p", 2, 1), ("c", "q", 11, 12), ("d", "q", 12, 11)]
    table = pd.DataFrame(rows, columns=["run", "test_domain", "x", "y"])
    row = related(table)
    assert stats.spearmanr(table["x"], table["y"]).statistic > 0
    assert row["rho"] == pytest.approx(-1)
    assert row["p"] == pytest.approx(2 / 4)  # of the 2 x 2 orders both turned, or none


def test_p_is_corrected_for_all_that_was_tried() -> None:
    table = points(8)
    both = relate_over_models(table, ["x", "z"], ["y"])
    smaller, larger = sorted(both["p"])
    assert sorted(both["p_holm"]) == pytest.approx(
        [min(1, 2 * smaller), max(min(1, 2 * smaller), larger)]
    )


def test_equal_numbers_and_a_given_that_explains_all_have_no_correlation() -> None:
    strata = np.array(["p"] * 4)
    x = centred_ranks(np.array([1.0, 2.0, 3.0, 4.0]), strata)
    assert np.isnan(correlation(centred_ranks(np.ones(4), strata), x))
    assert not residuals(x, x).any()


def test_rows_of_one_model_are_one_observation() -> None:
    rng, found = np.random.default_rng(0), []
    for _ in range(
        80
    ):  # unrelated x and y of models that have a row in each test domain, alike in all of them
        own = rng.normal(size=(5, 2))
        rows = [
            (f"r{i}", d, *(own[i] + 0.3 * rng.normal(size=2)))
            for i in range(5)
            for d in "pqrs"
        ]
        found.append(
            related(pd.DataFrame(rows, columns=["run", "test_domain", "x", "y"]))["p"]
        )
    assert min(found) >= 1 / 120
    assert np.mean(np.array(found) <= 0.05) < 0.05 + 3 * np.sqrt(0.05 * 0.95 / 80)


def test_models_change_places_with_those_of_the_same_test_domains() -> None:
    # a and b have rows in both domains, c to e in p, f and g in q: 2 x 6 x 2 orders.
    rows = [
        ("a", "p"),
        ("a", "q"),
        ("b", "p"),
        ("b", "q"),
        ("c", "p"),
        ("d", "p"),
        ("e", "p"),
        ("f", "q"),
        ("g", "q"),
    ]
    table = pd.DataFrame(rows, columns=["run", "test_domain"])
    x, y = [1, 2, 3, 4, 2, 4, 5, 1, 3], [2, 1, 1, 3, 5, 3, 4, 2, 4]
    row = related(table.assign(x=x, y=y))
    ranks = [
        centred_ranks(np.array(v, dtype=float), table["test_domain"].to_numpy())
        for v in (x, y)
    ]
    products = [
        ranks[0][[*both, *in_p, *in_q]] @ ranks[1]
        for both in ((0, 1, 2, 3), (2, 3, 0, 1))
        for in_p in permutations((4, 5, 6))
        for in_q in permutations((7, 8))
    ]
    assert row["p"] == pytest.approx(
        np.mean(np.abs(products) >= abs(products[0]) - 1e-9)
    )


def test_three_models_in_many_test_domains_can_show_nothing() -> None:
    rows = [(f"r{i}", d, i, i) for i in range(3) for d in "pqrs"]
    row = related(pd.DataFrame(rows, columns=["run", "test_domain", "x", "y"]))
    assert row["p"] == pytest.approx(2 / 6)
    assert row["note"] == "cannot be significant with 3 models"

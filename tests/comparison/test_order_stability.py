"""The order of the domains under other settings, worked out on paper."""

import pandas as pd
import pytest

from circuitry.comparison.order_stability import domain_order_stability
from circuitry.runs import InputError

DOMAINS = ["clipart", "quickdraw", "real", "sketch"]


def matrix(ab: float, ac: float, ad: float, bc: float, bd: float, cd: float) -> pd.DataFrame:
    rows = [[9, ab, ac, ad], [ab, 9, bc, bd], [ac, bc, 9, cd], [ad, bd, cd, 9]]
    return pd.DataFrame(rows, DOMAINS, DOMAINS, dtype=float)


# Sums with the others: clipart 1.2, quickdraw 0.6, real 0.9, sketch 1.5; ranks 3 1 2 4.
DEFAULT = matrix(0.2, 0.3, 0.7, 0.1, 0.3, 0.5)


def test_the_default_agrees_with_itself() -> None:
    (row,) = domain_order_stability(DEFAULT, {}).to_dict("records")
    assert row == {
        "varied": "default",
        "setting": "",
        "rho": 1.0,
        "rho_pairs": 1.0,
        "least": "quickdraw",
        "most": "sketch",
        "n_domains": 4,
    }


def test_a_setting_that_measures_nothing_has_no_order() -> None:
    unknown = matrix(*[float("nan")] * 6)
    rows = domain_order_stability(DEFAULT, {("measure", "edge_jaccard"): unknown}).iloc[1]
    assert rows[["rho", "rho_pairs", "least", "most"]].isna().all()


def test_two_domains_that_change_places_cost_a_fifth() -> None:
    # Sums: clipart 1.2, quickdraw 0.9, real 0.6, sketch 1.5; ranks 3 2 1 4: rho = 1 - 6 * 2 / (4 * 15) = 0.8.
    # Ranks of pairs: 2 3.5 6 1 3.5 5 against 3 2 6 1 5 4: d = -1, 1.5, 0, 0, -1.5, 1.
    other = matrix(0.3, 0.2, 0.7, 0.1, 0.5, 0.3)
    row = domain_order_stability(DEFAULT, {("baseline", "mean-position"): other}).iloc[1]
    assert (row["varied"], row["setting"], row["least"]) == ("baseline", "mean-position", "real")
    assert row["rho"] == pytest.approx(0.8)
    assert row["rho_pairs"] == pytest.approx(pd.Series([2, 3.5, 6, 1, 3.5, 5]).corr(pd.Series([3.5, 2, 6, 1, 5, 3.5])))


def test_an_order_turned_round_gives_minus_one_and_the_order_of_columns_does_not_matter() -> None:
    turned = (-DEFAULT).loc[DOMAINS[::-1], DOMAINS[::-1]]
    row = domain_order_stability(DEFAULT, {("rule", "left-10"): turned}).iloc[1]
    assert row["rho"] == pytest.approx(-1)
    assert row["rho_pairs"] == pytest.approx(-1)
    assert row["least"] == "sketch"


def test_equal_means_have_no_order() -> None:
    row = domain_order_stability(DEFAULT, {("x", "y"): DEFAULT * 0}).iloc[1]
    assert pd.isna(row["rho"])


def test_other_domains_are_refused() -> None:
    fewer = DEFAULT.drop(index="real", columns="real")
    with pytest.raises(InputError, match=r"clipart, quickdraw, real, sketch .* left-10 has clip"):
        domain_order_stability(DEFAULT, {("rule", "left-10"): fewer})

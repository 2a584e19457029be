"""The order of the domains under other settings: worked out on paper, and on the quickstart's model."""

from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from circuitry import GraphFolder, compare_domains
from tests.support.scripts import script

DOMAINS = ["clipart", "quickdraw", "real", "sketch"]


def matrix(ab: float, ac: float, ad: float, bc: float, bd: float, cd: float) -> pd.DataFrame:
    rows = [[9, ab, ac, ad], [ab, 9, bc, bd], [ac, bc, 9, cd], [ad, bd, cd, 9]]
    return pd.DataFrame(rows, DOMAINS, DOMAINS, dtype=float)


# Sums with the others: clipart 1.2, quickdraw 0.6, real 0.9, sketch 1.5; ranks 3 1 2 4.
DEFAULT = matrix(0.2, 0.3, 0.7, 0.1, 0.3, 0.5)


def order_under(setting: pd.DataFrame) -> "pd.Series[Any]":
    table: pd.DataFrame = script("order_stability").orders(DEFAULT, {("rule", "left-10"): setting})
    assert list(table.iloc[0]) == ["default", "", 1.0, 1.0, "quickdraw", "sketch", 4]
    return table.iloc[1]


def test_two_domains_that_change_places_cost_a_fifth() -> None:
    # Sums: clipart 1.2, quickdraw 0.9, real 0.6, sketch 1.5; ranks 3 2 1 4: rho = 1 - 6 * 2 / (4 * 15) = 0.8.
    # Ranks of pairs: 2 3.5 6 1 3.5 5 against 3 2 6 1 5 4: d = -1, 1.5, 0, 0, -1.5, 1.
    row = order_under(matrix(0.3, 0.2, 0.7, 0.1, 0.5, 0.3))
    assert row["least"] == "real"
    assert row["rho"] == pytest.approx(0.8)
    assert row["rho_pairs"] == pytest.approx(pd.Series([2, 3.5, 6, 1, 3.5, 5]).corr(pd.Series([3.5, 2, 6, 1, 5, 3.5])))


def test_an_order_turned_round_gives_minus_one_and_the_order_of_columns_does_not_matter() -> None:
    row = order_under((-DEFAULT).loc[DOMAINS[::-1], DOMAINS[::-1]])
    assert (row["rho"], row["rho_pairs"]) == (pytest.approx(-1), pytest.approx(-1))
    assert row["least"] == "sketch"


def test_orders_are_those_of_comparisons_by_hand(
    quickstart: Path, model_of_the_quickstart: dict[str, object], tmp_path: Path
) -> None:
    module, out = script("order_stability"), quickstart / "orders"
    module.main(module.Config(**model_of_the_quickstart, n_images=2, n_classes=2, out=out, results=tmp_path))
    table = pd.read_csv(tmp_path / "order_stability.csv", keep_default_na=False).set_index(["varied", "setting"])
    once = {"default", "share of kept units", "images", "measure", "classes"}
    assert set(table.index.get_level_values(0)) == once | {"baseline", "class texts", "metric", "rule"}
    default = compare_domains(GraphFolder(out / "circuits"), measures=["node_overlap", "spearman"])
    means = [one.matrix().where(~np.eye(3, dtype=bool)).mean(axis=1) for one in default.values()]
    assert float(table["rho"]["measure", "spearman"]) == pytest.approx(means[0].rank().corr(means[1].rank()))
    assert table["least"]["default", ""] == means[0].idxmin()
    assert table["n_classes"]["metric", "margin"] == 2
    assert GraphFolder(out / "circuits-margin").settings["metric"] == "margin"

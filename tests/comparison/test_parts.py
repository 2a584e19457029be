"""A table of parts, the array of it, and what is derived from both, against loops over rows."""

import math

import numpy as np
import pandas as pd
import pytest

from circuitry import Comparison
from circuitry.comparison import PartArray, ceilings_of, class_by_domain, sign_flip_p
from circuitry.comparison.class_table import CELLS, EFFECTS
from circuitry.comparison.domain_apart import apart_over_depth, group_means, means_without
from circuitry.comparison.part_array import WHOLE, known_ratio, mean_known
from tests.comparison.similarities import similarities


def test_the_array_holds_every_row_in_both_orders() -> None:
    parts = similarities(3).parts
    array = PartArray.from_table(parts)
    assert (array.classes, array.domains, array.sites, array.n_parts) == (
        ("c000", "c001", "c002"),
        ("d0", "d1", "d2"),
        ("u", "v"),
        4,
    )
    filled = 0
    for row in parts.query("class_a == class_b").to_dict("records"):
        c, s = array.classes.index(row["class_a"]), array.sites.index(row["site"])
        a, b = array.domains.index(row["domain_a"]), array.domains.index(row["domain_b"])
        assert array.values[c, a, b, s, row["part_a"], row["part_b"]] == row["value"]
        assert array.values[c, b, a, s, row["part_b"], row["part_a"]] == row["value"]
        filled += 2
    assert np.isfinite(array.values).sum() == filled == array.values.size * 3 / 4
    np.testing.assert_allclose(array.over_sites().values[:, :, :, 0], array.values.mean(3))


def test_ceilings_are_means_of_a_class_in_a_domain() -> None:
    parts = similarities(2).parts
    whole = parts.iloc[:2].assign(domain_b=parts["domain_a"].iloc[:2], part_b=WHOLE, value=[0.5, 0.7])
    both = pd.concat([parts, whole], ignore_index=True)
    own = parts.query("class_a == class_b == 'c001' and domain_a == domain_b == 'd2' and site == 'v'")
    found = ceilings_of(both).set_index(["class", "domain", "site"])["value"]
    assert len(own) == 6
    assert found["c001", "d2", "v"] == pytest.approx(own["value"].mean())
    assert len(found) == 2 * 3 * 2
    assert ceilings_of(both, upper=True)["value"].tolist() == pytest.approx([0.6])


def test_unknown_numbers_have_no_weight() -> None:
    values = np.array([[1.0, math.nan, 3.0], [math.nan] * 3])
    assert mean_known(values, 1).tolist() == pytest.approx([2, math.nan], nan_ok=True)
    np.testing.assert_array_equal(known_ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0])), [0.5, math.nan])


def test_cells_and_effects_are_means_of_rows() -> None:
    parts = similarities(6, ("u",)).parts
    table = class_by_domain(parts).set_index("what")
    assert table.index.tolist() == [*CELLS, *EFFECTS]
    same, within = parts["class_a"] == parts["class_b"], parts["domain_a"] == parts["domain_b"]
    chosen = (same & within, same & ~within, ~same & within, ~same & ~within)
    a, b, c, d = (parts[rows]["value"].mean() for rows in chosen)
    expected = [a, b, c, d, (a + b - c - d) / 2, (a - b + c - d) / 2, a - b, b - d]
    assert table["value"].tolist() == pytest.approx(expected)
    assert (table["low"] < table["value"]).all()
    assert table["p"].isna().tolist() == [True] * 4 + [False] * 4
    assert table["p"].to_dict()["class effect across domains"] == 2 / 2**6
    assert table["n_classes"].tolist() == [6] * 8


def test_p_is_that_of_signs_of_classes() -> None:
    parts = similarities(5, ("u",), seed=2).parts
    own = parts[parts["class_a"] == parts["class_b"]]
    within = own["domain_a"] == own["domain_b"]
    effects = own[within].groupby("class_a")["value"].mean() - own[~within].groupby("class_a")["value"].mean()
    found = class_by_domain(parts).set_index("what")["p"].to_dict()
    assert found["domain effect within a class"] == pytest.approx(sign_flip_p(effects.to_numpy()))


def test_without_other_classes_there_is_only_the_domain() -> None:
    parts = similarities(4).parts
    alone = class_by_domain(parts[parts["class_a"] == parts["class_b"]])
    assert alone["what"].tolist() == [CELLS[0], CELLS[1], "domain effect within a class"]
    assert class_by_domain(parts.iloc[:0]).empty


def test_families_are_units() -> None:
    parts = similarities(6, ("u",)).parts
    found = class_by_domain(parts, {f"c{i:03}": str(i // 2) for i in range(6)}).set_index("what")
    assert found["p"].to_dict()["class effect"] == 2 / 2**3
    assert np.isfinite(found["low"]).all()


def comparison() -> Comparison:
    # axe: a-b .2, a-q .4, b-q .6; cat: a-b .4 (at site x), and each .2 more at site y.
    pairs = {("axe", "a", "b"): 0.2, ("axe", "a", "q"): 0.4, ("axe", "b", "q"): 0.6, ("cat", "a", "b"): 0.4}
    rows = [(*key, site, value + more) for key, value in pairs.items() for site, more in (("x", 0.0), ("y", 0.2))]
    values = pd.DataFrame(rows, columns=["class", "domain_a", "domain_b", "site", "value"])
    return Comparison("node_overlap", values, groups={"held-out": ("cat",)})


def test_means_with_and_without_a_domain() -> None:
    found = means_without(comparison(), "q").set_index(["group", "domain"])
    # Over sites: a-b (.3 + .5) / 2 = .4, a-q .5, b-q .7.
    assert found.loc[("all", "a"), "value"] == pytest.approx(0.45)
    assert found.loc[("all", "a"), "without"] == pytest.approx(0.4)
    assert found.loc[("all", "q"), "value"] == pytest.approx(0.6)
    assert found.loc[("all", "q"), "without"] == pytest.approx(0.6)
    assert found.loc[("held-out", "a"), "without"] == pytest.approx(0.5)
    # All ordered pairs: each pair twice; without q: a-b, b-a, q-a, q-b.
    assert found.loc[("all", "all"), "value"] == pytest.approx((0.4 + 0.5 + 0.7) / 3)
    assert found.loc[("all", "all"), "without"] == pytest.approx((0.4 + 0.4 + 0.5 + 0.7) / 4)


def test_means_by_group_have_each_pair_once() -> None:
    found = group_means({"overlap": comparison()}).set_index(["measure", "group", "domain_a", "domain_b"])["value"]
    assert len(found) == 3 + 1
    assert found["overlap", "all", "a", "b"] == pytest.approx(0.4)
    assert found["overlap", "all", "b", "q"] == pytest.approx(0.7)
    assert found["overlap", "held-out", "a", "b"] == pytest.approx(0.5)


def test_a_domain_against_the_others_over_depth() -> None:
    found = apart_over_depth(comparison(), "q").set_index(["group", "domain", "site"])["value"]
    assert found["all", "q with the others", "x"] == pytest.approx(0.5)  # axe alone
    assert found["all", "without q", "x"] == pytest.approx((0.2 + 0.4) / 2)
    assert found["held-out", "without q", "y"] == pytest.approx(0.6)
    assert math.isnan(found.get(("held-out", "q with the others", "x"), math.nan))

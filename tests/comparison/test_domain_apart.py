"""One domain against the others, on numbers worked out on paper."""

import math
from itertools import combinations

import numpy as np
import pandas as pd
import pytest

from circuitry import Comparison
from circuitry.comparison.domain_apart import apart_over_depth, group_means, means_without
from tests.support.assert_same import assert_same


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


def test_the_mean_without_quickdraw_is_over_25_ordered_pairs() -> None:
    domains = ("real", "clipart", "infograph", "painting", "quickdraw", "sketch")
    rng = np.random.default_rng(0)
    pairs = {pair: rng.random(3) for pair in combinations(domains, 2)}  # of three classes
    rows = [(f"class {i}", *pair, None, value) for pair, values in pairs.items() for i, value in enumerate(values)]
    values = pd.DataFrame(rows, columns=["class", "domain_a", "domain_b", "site", "value"])
    found = means_without(Comparison("edge_jaccard", values), "quickdraw").set_index("domain").loc["all"]
    kept = [
        float(np.mean(pairs[(a, b) if (a, b) in pairs else (b, a)]))
        for a in domains for b in domains if a != b and b != "quickdraw"
    ]  # fmt: skip
    assert len(kept) == 25
    assert_same(found["without"], np.mean(kept), at_least=0.1)


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

"""Tests between domains and models against scipy, Holm by hand and enumeration; folds and classes against loops."""

import math
from dataclasses import replace
from itertools import permutations, product

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from circuitry import Comparison
from circuitry.comparison import (
    FOLDS,
    FoldArray,
    domain_tests,
    draw_resamples,
    fold_tests,
    holm,
    mantel,
    sign_flip_p,
)
from circuitry.comparison.class_table import CELLS, EFFECTS, class_by_domain
from circuitry.comparison.domain_apart import (
    apart_over_depth,
    group_means,
    means_without,
)
from circuitry.comparison.domain_testing import (
    TESTS,
    THIS_MODEL,
    ceiling_tests,
    corrected_tests,
    could_find,
    too_few,
)
from circuitry.comparison.fold_array import WHOLE, ceilings_of, known_ratio, mean_known
from circuitry.comparison.significance import fewest_units, smallest_p
from circuitry.comparison.statistics import Spread
from experiments.over_models import compare_models, model_tests
from experiments.simulation import Planted, jaccard, keep, simulate
from tests.comparison.similarities import similarities
from tests.comparison.test_statistics import table


def many_classes(
    seed: int,
) -> tuple[dict[tuple[str, str, str], float], dict[str, np.ndarray]]:
    rng = np.random.default_rng(seed)
    ab, ac, bc = rng.random(12), rng.random(12) ** 2, rng.random(12) / 2
    values: dict[tuple[str, str, str], float] = {}
    for i in range(12):
        values |= {
            (f"c{i:02}", "a", "b"): ab[i],
            (f"c{i:02}", "a", "c"): ac[i],
            (f"c{i:02}", "b", "c"): bc[i],
        }
    return values, {"a": (ab + ac) / 2, "b": (ab + bc) / 2, "c": (ac + bc) / 2}


@pytest.mark.parametrize("seed", [5, 28])
def test_tests_equal_scipy_with_holm_by_hand(seed: int) -> None:
    values, scores = many_classes(seed)
    found = domain_tests(table(values))
    assert found[["domain_a", "domain_b"]].to_numpy().tolist() == [
        ["a", "b"],
        ["a", "c"],
        ["b", "c"],
    ]
    p = [stats.ttest_rel(scores[x], scores[y]).pvalue for x, y in ("ab", "ac", "bc")]
    p = [max(value, 2 / 2**12) for value in p]
    assert found["p"].tolist() == pytest.approx(p)
    assert found["difference"].tolist() == pytest.approx(
        [(scores[x] - scores[y]).mean() for x, y in ("ab", "ac", "bc")]
    )
    assert found["n_classes"].tolist() == [12, 12, 12]
    smallest, middle, largest = sorted(p)
    holm = {smallest: min(1, 3 * smallest)}
    holm[middle] = max(holm[smallest], min(1, 2 * middle))
    holm[largest] = max(holm[middle], largest)
    assert found["p_holm"].tolist() == pytest.approx([holm[value] for value in p])
    assert set(found["about"]) == {THIS_MODEL}


def test_no_p_is_below_what_signs_of_classes_can_give() -> None:
    alike = {("a", "b"): 0.1, ("a", "c"): 0.2, ("b", "c"): 0.9}
    values = {
        (f"c{i}", *pair): value for i in range(5) for pair, value in alike.items()
    }
    found = domain_tests(table(values))
    assert found["p"].tolist() == [2 / 2**5] * 3  # differences do not vary at all
    assert set(found["detectable"]) == {math.inf}
    more = domain_tests(
        table({(f"{c}{i}", a, b): v for i in "xy" for (c, a, b), v in values.items()})
    )
    assert more["p_holm"].tolist() == [3 * 2 / 2**10] * 3
    assert set(more["detectable"]) == {0.0}


def test_folds_are_tested_on_their_means() -> None:
    made = similarities(8, ("u",))
    array, draws = made._array, made._draws(made._array)
    by_class = np.nanmean(array.values[:, :, :, 0], (-2, -1))
    score = np.array(
        [[np.delete(of[d], d).mean() for d in range(3)] for of in by_class]
    )
    found = fold_tests(array, draws)
    differences = [score[:, a] - score[:, b] for a, b in ((0, 1), (0, 2), (1, 2))]
    assert found["difference"].tolist() == pytest.approx(
        [each.mean() for each in differences]
    )
    assert found["n_classes"].tolist() == [8, 8, 8]
    # Images of different classes are different: the spread over classes is nearly all.
    width = (found["high"] - found["low"]).to_numpy()
    student = np.array(
        [np.ptp(stats.t.interval(0.95, 7, 0, stats.sem(each))) for each in differences]
    )
    assert (width / student > 0.85).all()
    assert (width / student < 2).all()


def test_domains_are_paired_by_class_and_site() -> None:
    array = similarities(8)._array
    few, one_site = array.values.copy(), array.values.copy()
    few[:3, 2], few[:3, :, 2] = (
        np.nan,
        np.nan,
    )  # three classes are not there in the third domain
    few[:3] += 0.5  # and far more alike than the others
    one_site[:, 2, :, 1], one_site[:, :, 2, 1] = (
        np.nan,
        np.nan,
    )  # nothing at the second site in the third domain
    one_site[:, :, :, 1] += 0.5
    for values, alone in (
        (few, array._replace(classes=array.classes[3:], values=array.values[3:])),
        (
            one_site,
            array._replace(sites=array.sites[:1], values=array.values[:, :, :, :1]),
        ),
    ):
        found = fold_tests(
            array._replace(values=values), draw_resamples(array.classes, 4)
        )
        expected = fold_tests(alone, draw_resamples(alone.classes, 4))
        assert found["difference"][1:].tolist() == pytest.approx(
            expected["difference"][1:].tolist()
        )
        assert found["n_classes"][1:].tolist() == expected["n_classes"][1:].tolist()


def test_two_domains_are_tested_against_their_ceilings() -> None:
    made = similarities(8, ("u",))
    array, draws = made._array, made._draws(made._array)
    found, ratios = ceiling_tests(array, draws, True), made.ratios()
    expected = (ratios["ceiling_a"] + ratios["ceiling_b"]) / 2 - ratios["similarity"]
    assert found["difference"].tolist() == pytest.approx(expected.tolist())
    assert (found["p_holm"] < 0.05).all()
    distances = replace(made, alike=False).ceiling_tests()
    assert distances["difference"].tolist() == pytest.approx((-expected).tolist())


def test_pairs_without_a_test_stay_untested_and_uncounted() -> None:
    # a shares one class with b and d and none with e; only b, d and e have enough classes in common.
    values = {("c0", "a", "b"): 0.2, ("c0", "a", "d"): 0.1, ("c0", "b", "d"): 0.7}
    values |= {(f"c{i}", "b", "d"): i / 10 for i in range(1, 4)} | {
        (f"c{i}", "b", "e"): i / 7 for i in range(1, 4)
    }
    found = domain_tests(table(values)).set_index(["domain_a", "domain_b"])
    p, corrected = found["p"].to_dict(), found["p_holm"].to_dict()
    assert found["n_classes"].to_dict()["a", "e"] == 0
    assert math.isnan(found["difference"].to_dict()["a", "e"])
    assert {pair for pair, value in p.items() if not math.isnan(value)} == {
        ("b", "d"),
        ("b", "e"),
        ("d", "e"),
    }
    assert {pair for pair, value in corrected.items() if not math.isnan(value)} == {
        ("b", "d"),
        ("b", "e"),
        ("d", "e"),
    }
    smallest = min(("b", "d"), ("b", "e"), ("d", "e"), key=lambda pair: p[pair])
    assert corrected[smallest] == pytest.approx(min(1, 3 * p[smallest]))


def test_two_domains_alone_cannot_differ() -> None:
    found = domain_tests(table({("axe", "a", "b"): 0.3, ("fish", "a", "b"): 0.5}))
    assert found["difference"].tolist() == [0]
    assert found["p"].isna().all()
    assert found["detectable"].isna().all()


def test_each_model_is_one_difference() -> None:
    models = [similarities(5, seed=seed) for seed in range(6)]
    found = compare_models(models)
    assert list(found) == [
        "n_models" if column == "n_classes" else column for column in TESTS
    ]
    means = pd.DataFrame([one.summary().set_index("domain")["value"] for one in models])
    each = (means["d0"] - means["d2"]).to_numpy()
    row = found.query("domain_a == 'd0' and domain_b == 'd2'").iloc[0]
    assert (row["difference"], row["n_models"], row["about"]) == (
        pytest.approx(each.mean()),
        6,
        "over 6 models",
    )
    assert (row["low"], row["high"]) == pytest.approx(
        stats.t.interval(0.95, 5, each.mean(), stats.sem(each))
    )
    assert row["p"] == pytest.approx(sign_flip_p(each))
    assert set(found["detectable"]) == {math.inf}  # 3 * 2 / 2^6


def test_holm_by_hand() -> None:
    p = pd.Series([0.01, math.nan, 0.04, 0.03])
    assert holm(p).tolist() == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert holm(pd.Series([0.6, 0.5])).tolist() == [1, 1]


def test_signs_are_all_gone_through() -> None:
    values = np.array([0.3, -0.1, 0.5, 0.2, 0.05])
    means = [abs(np.dot(signs, values)) for signs in product([-1, 1], repeat=5)]
    expected = np.mean([mean >= abs(values.sum()) - 1e-12 for mean in means])
    assert sign_flip_p(values) == pytest.approx(expected)
    scipys = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", n_resamples=np.inf
    )
    assert sign_flip_p(values) == pytest.approx(scipys.pvalue)
    assert sign_flip_p(np.full(6, 0.5)) == smallest_p(6) == 2 / 2**6
    assert math.isnan(sign_flip_p(np.zeros(3)))


def test_many_signs_are_drawn() -> None:
    values = np.random.default_rng(0).normal(0.3, 1, 20)
    assert sign_flip_p(values) == pytest.approx(
        stats.ttest_1samp(values, 0).pvalue, abs=0.02
    )
    assert sign_flip_p(np.ones(30)) == 1 / 10_001


def test_what_cannot_be_shown_is_said() -> None:
    spread = Spread(*(np.array([one, one, math.nan]) for one in (0.1, 0.01, 5.0)))
    pairs = [("a", "b"), ("a", "c"), ("b", "c")]
    found = corrected_tests(
        pairs, spread, np.array([6, 5, 1]), np.array([0.001, 0.9, math.nan])
    )
    assert found["p"].tolist() == pytest.approx([2 / 64, 0.9, math.nan], nan_ok=True)
    assert found["p_holm"].tolist() == pytest.approx(
        [4 / 64, 0.9, math.nan], nan_ok=True
    )
    assert found["detectable"].tolist() == pytest.approx(
        [math.inf, math.inf, math.nan], nan_ok=True
    )
    assert could_find(found) == " With so few classes none can be."
    for n_domains, n_pairs in ((2, 1), (3, 3), (6, 15)):
        needed = fewest_units(n_pairs)
        assert n_pairs * smallest_p(needed) <= 0.05 < n_pairs * smallest_p(needed - 1)
        assert f"with {needed - 1} classes" in too_few(needed - 1, n_domains).lower()
        assert not too_few(needed, n_domains)


@pytest.mark.parametrize("n_tests", [1, 3])
def test_four_of_five_studies_find_what_is_detectable(n_tests: int) -> None:
    n = 12
    of = Spread(*(np.full(n_tests, one) for one in (0.0, 0.04, n - 1.0)))
    found = corrected_tests(
        [("a", str(i)) for i in range(n_tests)], of, np.full(n_tests, n)
    )
    size = found["detectable"].iloc[0]
    samples = np.random.default_rng(0).normal(size, 0.2 * np.sqrt(n), (20_000, n))
    assert (
        stats.ttest_1samp(samples, 0, axis=1).pvalue < 0.05 / n_tests
    ).mean() == pytest.approx(0.8, abs=0.02)
    assert f"a difference of {size:.3f}." in could_find(found)


def symmetric(rng: np.random.Generator, n: int) -> np.ndarray:
    found = rng.normal(size=(n, n))
    return found + found.T


@pytest.mark.parametrize("n", [3, 4, 5])
def test_mantel_goes_through_all_orders(n: int) -> None:
    rng = np.random.default_rng(n)
    x, y = symmetric(rng, n), symmetric(rng, n)
    upper = np.triu_indices(n, 1)
    rho = stats.spearmanr(x[upper], y[upper]).statistic
    others = [
        stats.spearmanr(x[upper], y[np.ix_(order, order)][upper]).statistic
        for order in permutations(range(n))
    ]
    expected = np.mean(np.abs(others) >= abs(rho) - 1e-12)
    assert mantel(x, y) == pytest.approx((rho, expected))


def test_more_than_eight_domains_are_drawn() -> None:
    x = symmetric(np.random.default_rng(0), 9)
    assert mantel(x, x, draws=99) == pytest.approx((1, 0.01))


def test_domains_with_unknown_pairs_are_left_out() -> None:
    rng = np.random.default_rng(1)
    x, y = symmetric(rng, 5), symmetric(rng, 5)
    with_gap = y.copy()
    with_gap[4, 2] = with_gap[4, 0] = np.nan
    assert mantel(x, with_gap) == pytest.approx(mantel(x[:4, :4], y[:4, :4]))
    assert np.isnan(mantel(x, np.full((5, 5), np.nan))).all()
    assert np.isnan(mantel(x, np.ones((5, 5)))).all()


def test_the_array_holds_every_row_in_both_orders() -> None:
    folds = similarities(3).folds
    array = FoldArray.from_table(folds)
    assert (array.classes, array.domains) == (
        ("c000", "c001", "c002"),
        ("d0", "d1", "d2"),
    )
    assert (array.sites, array.n_folds) == (("u", "v"), 4)
    filled = 0
    for row in folds.query("class_a == class_b").to_dict("records"):
        c, s = array.classes.index(row["class_a"]), array.sites.index(row["site"])
        a, b = (
            array.domains.index(row["domain_a"]),
            array.domains.index(row["domain_b"]),
        )
        assert array.values[c, a, b, s, row["fold_a"], row["fold_b"]] == row["value"]
        assert array.values[c, b, a, s, row["fold_b"], row["fold_a"]] == row["value"]
        filled += 2
    assert np.isfinite(array.values).sum() == filled == array.values.size * 3 / 4


def test_ceilings_are_means_of_a_class_in_a_domain() -> None:
    folds = similarities(2).folds
    whole = folds.iloc[:2].assign(
        domain_b=folds["domain_a"].iloc[:2], fold_b=WHOLE, value=[0.5, 0.7]
    )
    both = pd.concat([folds, whole], ignore_index=True)
    own = folds.query(
        "class_a == class_b == 'c001' and domain_a == domain_b == 'd2' and site == 'v'"
    )
    found = ceilings_of(both).set_index(["class", "domain", "site"])["value"]
    assert len(own) == 6
    assert found["c001", "d2", "v"] == pytest.approx(own["value"].mean())
    assert len(found) == 2 * 3 * 2
    assert ceilings_of(both, upper=True)["value"].tolist() == pytest.approx([0.6])


def test_unknown_numbers_have_no_weight() -> None:
    values = np.array([[1.0, math.nan, 3.0], [math.nan] * 3])
    assert mean_known(values, 1).tolist() == pytest.approx([2, math.nan], nan_ok=True)
    np.testing.assert_array_equal(
        known_ratio(np.array([1.0, 1.0]), np.array([2.0, 0.0])), [0.5, math.nan]
    )


def test_cells_and_effects_are_means_of_rows() -> None:
    folds = similarities(6, ("u",)).folds
    table = class_by_domain(folds).set_index("what")
    assert table.index.tolist() == [*CELLS, *EFFECTS]
    same, within = (
        folds["class_a"] == folds["class_b"],
        folds["domain_a"] == folds["domain_b"],
    )
    chosen = (same & within, same & ~within, ~same & within, ~same & ~within)
    a, b, c, d = (folds[rows]["value"].mean() for rows in chosen)
    expected = [a, b, c, d, (a + b - c - d) / 2, (a - b + c - d) / 2, a - b, b - d]
    assert table["value"].tolist() == pytest.approx(expected)
    assert (table["low"] < table["value"]).all()
    assert table["p"].isna().tolist() == [True] * 4 + [False] * 4
    assert table["p"].to_dict()["class effect across domains"] == 2 / 2**6
    assert table["n_classes"].tolist() == [6] * 8


def test_p_is_that_of_signs_of_classes() -> None:
    folds = similarities(5, ("u",), seed=2).folds
    own = folds[folds["class_a"] == folds["class_b"]]
    within = own["domain_a"] == own["domain_b"]
    effects = (
        own[within].groupby("class_a")["value"].mean()
        - own[~within].groupby("class_a")["value"].mean()
    )
    found = class_by_domain(folds).set_index("what")["p"].to_dict()
    assert found["domain effect within a class"] == pytest.approx(
        sign_flip_p(effects.to_numpy())
    )


def test_without_other_classes_there_is_only_the_domain() -> None:
    folds = similarities(4).folds
    alone = class_by_domain(folds[folds["class_a"] == folds["class_b"]])
    assert alone["what"].tolist() == [
        CELLS[0],
        CELLS[1],
        "domain effect within a class",
    ]
    assert class_by_domain(folds.iloc[:0]).empty


def comparison() -> Comparison:
    # axe: a-b .2, a-q .4, b-q .6; cat: a-b .4 (at site x), and each .2 more at site y.
    pairs = {
        ("axe", "a", "b"): 0.2,
        ("axe", "a", "q"): 0.4,
        ("axe", "b", "q"): 0.6,
        ("cat", "a", "b"): 0.4,
    }
    rows = [
        (*key, site, value + more)
        for key, value in pairs.items()
        for site, more in (("x", 0.0), ("y", 0.2))
    ]
    values = pd.DataFrame(
        rows, columns=["class", "domain_a", "domain_b", "site", "value"]
    )
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
    assert found.loc[("all", "all"), "without"] == pytest.approx(
        (0.4 + 0.4 + 0.5 + 0.7) / 4
    )


def test_means_by_group_have_each_pair_once() -> None:
    found = group_means({"overlap": comparison()}).set_index(
        ["measure", "group", "domain_a", "domain_b"]
    )["value"]
    assert len(found) == 3 + 1
    assert found["overlap", "all", "a", "b"] == pytest.approx(0.4)
    assert found["overlap", "all", "b", "q"] == pytest.approx(0.7)
    assert found["overlap", "held-out", "a", "b"] == pytest.approx(0.5)


def test_a_domain_against_the_others_over_depth() -> None:
    found = apart_over_depth(comparison(), "q").set_index(["group", "domain", "site"])[
        "value"
    ]
    assert found["all", "q with the others", "x"] == pytest.approx(0.5)  # axe alone
    assert found["all", "without q", "x"] == pytest.approx((0.2 + 0.4) / 2)
    assert found["held-out", "without q", "y"] == pytest.approx(0.6)
    assert math.isnan(found.get(("held-out", "q with the others", "x"), math.nan))


PLANTED = Planted(n_units=40, n_kept=6)


@pytest.mark.parametrize("averaged", [False, True])
def test_tests_of_families_err_unless_families_are_averaged(averaged: bool) -> None:
    wrong = 0
    for seed in range(100):
        rng = np.random.default_rng([7, seed])
        family = np.repeat(np.arange(9), 4)
        made = simulate(rng, rng.uniform(0, 1, (9, 3))[family], 0.3, PLANTED).folds
        if averaged:
            made = made._replace(
                classes=made.classes[::4],
                values=made.values.reshape(9, 4, 3, 3, 1, 4, 4).mean(1),
            )
        draws = draw_resamples(made.classes, 4, resamples=150, seed=seed)
        wrong += bool((fold_tests(made, draws)["p_holm"] < 0.05).any())
    assert wrong <= 13 if averaged else wrong > 20  # 6 % and three standard errors


def test_over_models_a_model_is_one_observation() -> None:
    rng = np.random.default_rng(0)
    scores = [
        rng.normal(size=(8, 1)) + 0.1 * rng.normal(size=(8, 3)) for _ in range(300)
    ]
    found = [
        model_tests(pd.DataFrame(each, columns=["a", "b", "c"])) for each in scores
    ]
    errors = np.mean([(each["p_holm"] < 0.05).any() for each in found])
    assert errors < 0.06 + 3 * np.sqrt(0.06 * 0.94 / 300)
    assert set(found[0]["about"]) == {"over 8 models"}


def one_pair_of_folds_per_two_classes(rng: np.random.Generator, n: int) -> pd.DataFrame:
    """Return folds of unrelated circuits; each class meets the next two, in one pair of folds."""
    scores = rng.normal(size=(n, 2, 1, 40)) + 0.7 * rng.normal(size=(n, 2, 4, 40))
    kept = keep(scores, 6)
    values = jaccard(kept[:, :, :, None, None, None], kept)
    c, a, p, o, b, q = np.meshgrid(*map(np.arange, values.shape), indexing="ij")
    met = rng.permuted(np.tile(np.arange(4), (n, n, 1)), axis=2)
    own = (c == o) & ((a < b) | ((a == b) & (p < q)))
    other = (c < o) & (o <= c + 2) & (met[c, o, 0] == p) & (met[c, o, 1] == q)
    rows = (own | other) & (p != q)
    names = [
        np.char.add(letter, x[rows].astype(str))
        for letter, x in zip("ccdd", (c, o, a, b), strict=True)
    ]
    columns = (*names, p[rows], q[rows], None, values[rows])
    return pd.DataFrame(dict(zip(FOLDS, columns, strict=True)))


def test_intervals_are_wide_and_never_narrow() -> None:
    rng = np.random.default_rng(0)
    tables = [
        class_by_domain(one_pair_of_folds_per_two_classes(rng, 8)) for _ in range(50)
    ]
    found = [
        table.set_index("what").loc["class effect", ["value", "low", "high"]]
        for table in tables
    ]
    value, low, high = np.array(found, float).T
    assert ((low <= value.mean()) & (value.mean() <= high)).mean() >= 0.95
    needed = 2 * stats.t.ppf(0.975, 7) * value.std(ddof=1)
    assert 1.2 < (high - low).mean() / needed < 2.4

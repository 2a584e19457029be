"""CKA tables of domains: against `cka` on the rows themselves, sampling distributions, and the null's own p values."""

import math
from typing import Any

import numpy as np
import pytest
from scipy import stats

from circuitry.runs import InputError
from experiments.representations.grams import DomainRepresentation, Grams, gram_matrix
from experiments.representations.kernel_alignment import cka
from experiments.representations.similarity import (
    cka_ceilings,
    compare_representation_folds,
    compare_representations,
)

CLASSES = ("axe", "bed", "cat", "fish", "key", "lion", "pizza")


def rows(seed: int, classes: tuple[str, ...] = CLASSES) -> np.ndarray:
    """Class means of a domain: what all domains share, by class, and the domain's own."""
    shared = dict(
        zip(CLASSES, np.random.default_rng(99).normal(size=(7, 5)), strict=True)
    )
    own = np.random.default_rng(seed).normal(size=(len(classes), 5))
    return np.stack([shared[name] for name in classes]) + own


def grams(
    domain: str, x: np.ndarray, *, classes: tuple[str, ...] = CLASSES, site: str = "a"
) -> Grams:
    """Rows that are NaN are absent."""
    there = np.isfinite(x).all(1)
    full = np.full((len(x), len(x)), np.nan)
    full[np.ix_(there, there)] = gram_matrix(x[there])
    return Grams(domain, classes, {site: full})


def three() -> list[Grams]:
    return [
        grams(domain, rows(seed))
        for seed, domain in enumerate(("clipart", "real", "sketch"))
    ]


def test_every_pair_has_its_cka_at_every_site_by_every_kernel() -> None:
    a, b, c = (rows(seed) for seed in range(3))
    named = (("clipart", a), ("real", b), ("sketch", c))
    both = [
        Grams(
            name, CLASSES, {"early": gram_matrix(x), "late": gram_matrix(x[::-1] ** 2)}
        )
        for name, x in named
    ]
    pairs = compare_representations(both, permutations=9).pairs
    assert pairs["site"].tolist() == ["early"] * 6 + ["late"] * 6
    assert pairs["kernel"].tolist() == (["linear"] * 3 + ["rbf"] * 3) * 2
    value = pairs.set_index(["site", "kernel", "domain_a", "domain_b"])[
        "value"
    ].to_dict()
    for kernel in ("linear", "rbf"):
        assert value["early", kernel, "clipart", "sketch"] == pytest.approx(
            cka(a, c, kernel)
        )
        assert value["late", kernel, "real", "sketch"] == pytest.approx(
            cka(b[::-1] ** 2, c[::-1] ** 2, kernel)
        )
    assert (pairs["n_classes"] == 7).all()
    assert ((pairs["low"] < pairs["value"]) & (pairs["value"] < pairs["high"])).all()


def test_classes_that_only_one_domain_has_do_not_count() -> None:
    other = (
        "key",
        "dog",
        "fish",
        "axe",
        "cat",
        "bed",
    )  # in another order, and without lions and pizzas
    b = rows(1, tuple(name for name in other if name != "dog"))
    dog = np.insert(b, 1, 50.0, axis=0)
    pairs = compare_representations(
        [grams("real", rows(0)), grams("sketch", dog, classes=other)], permutations=9
    ).pairs
    common = ["axe", "bed", "cat", "fish", "key"]
    a, b = rows(0)[:5], np.stack([dog[other.index(name)] for name in common])
    for kernel, value in zip(pairs["kernel"], pairs["value"], strict=True):
        assert value == pytest.approx(cka(a, b, kernel))
    assert pairs["n_classes"].tolist() == [5, 5]


def test_no_p_value_is_below_what_permutations_can_give() -> None:
    for i in range(5):
        same = compare_representations(
            [grams("real", rows(i)), grams("x", rows(i))], ["linear"], permutations=49
        )
        assert same.pairs["p"][0] == 1 / 50


def test_permutations_that_change_nothing_count() -> None:
    # Of the 120 permutations of five classes one is the identity, so of 1200 about ten.
    five = CLASSES[:5]
    pair = [grams(name, rows(0, five), classes=five) for name in ("real", "sketch")]
    p = compare_representations(pair, permutations=1200).pairs["p"]
    assert ((p > 3 / 1201) & (p < 25 / 1201)).all()


def test_the_null_is_near_zero_and_depends_on_the_seed_alone() -> None:
    first, again, other = (
        compare_representations(three(), permutations=300, seed=seed)
        for seed in (0, 0, 1)
    )
    assert first.pairs.equals(again.pairs)
    assert first.domains.equals(again.domains)
    assert not first.pairs["null_mean"].equals(other.pairs["null_mean"])
    assert (first.pairs["null_mean"].abs() < 0.1).all()
    assert first.pairs["value"].equals(other.pairs["value"])
    assert first.domains["null_mean"][0] == pytest.approx(
        first.pairs["null_mean"][:2].mean()
    )


def test_intervals_end_at_one() -> None:
    a = rows(0)
    pairs = compare_representations(
        [grams("a", a), grams("b", a + 0.05 * rows(1))], permutations=9
    ).pairs
    assert (pairs["high"] == 1).all()
    five = CLASSES[:5]
    wide = [
        grams(name, rows(seed, five), classes=five) for seed, name in enumerate("ab")
    ]
    assert (compare_representations(wide, permutations=9).pairs["low"] == -1).any()


def in_folds(domain: str, *seeds: int) -> DomainRepresentation:
    folds = tuple(grams(domain, rows(seed)) for seed in seeds)
    return DomainRepresentation(folds[0], folds, {}, (), ())


def test_folds_are_compared_with_other_folds_of_every_domain() -> None:
    found = compare_representation_folds(
        [in_folds("real", 0, 1, 2), in_folds("sketch", 5, 6, 7)]
    )
    linear = found.values.query("kernel == 'linear' and fold_b != -1")
    assert set(linear["class_a"]) == set(linear["class_b"]) == {"all"}
    value = linear.set_index(["domain_a", "domain_b", "fold_a", "fold_b"])[
        "value"
    ].to_dict()
    own = {
        ("real", "real", p, q): cka(rows(p), rows(q))
        for p, q in ((0, 1), (0, 2), (1, 2))
    }
    own |= {
        ("sketch", "sketch", p, q): cka(rows(5 + p), rows(5 + q))
        for p, q in ((0, 1), (0, 2), (1, 2))
    }
    between = {
        ("real", "sketch", p, q): cka(rows(p), rows(5 + q))
        for p in range(3)
        for q in range(3)
        if p != q
    }
    assert value == pytest.approx(own | between)
    ceilings = cka_ceilings(found.values).set_index(["kernel", "domain"])["value"]
    assert ceilings["linear", "real"] == pytest.approx(
        np.mean([own["real", "real", p, q] for p, q in ((0, 1), (0, 2), (1, 2))])
    )
    whole = found.values.query(
        "kernel == 'linear' and fold_b == -1 and domain_a == 'sketch'"
    )["value"]
    assert whole.tolist() == pytest.approx(
        [cka(rows(p), rows(5)) for p in (5, 6, 7)]
    )  # all images: like the first
    rbf = [cka(rows(5 + p), rows(5 + q), "rbf") for p, q in ((0, 1), (0, 2), (1, 2))]
    assert ceilings["rbf", "sketch"] == pytest.approx(np.mean(rbf))


def test_classes_are_left_out_of_folds_in_turn() -> None:
    missing = rows(6)
    missing[2] = math.nan
    ink = DomainRepresentation(
        grams("ink", rows(5)),
        (grams("ink", rows(5)), grams("ink", missing)),
        {},
        (),
        (),
    )
    found = compare_representation_folds(
        [ink, in_folds("real", 0, 1)]
    ).without_class.query("kernel == 'linear'")
    value = found.set_index(["domain_a", "domain_b", "class"])["value"]
    few = np.arange(7) != 2
    for i, name in enumerate(CLASSES):
        others = np.arange(7) != i
        first = cka(rows(5)[others], rows(1)[others])
        second = cka(
            missing[few & others], rows(0)[few & others]
        )  # the class that is absent there changes nothing
        assert value["ink", "real", name] == pytest.approx((first + second) / 2)
        assert value["ink", "ink", name] == pytest.approx(
            cka(rows(5)[few & others], missing[few & others])
        )


def test_a_domain_s_row_is_the_mean_over_the_others() -> None:
    found = compare_representations(three(), permutations=9)
    value = found.pairs.query("kernel == 'rbf'").set_index(["domain_a", "domain_b"])[
        "value"
    ]
    row = found.domains.query("kernel == 'rbf' and domain == 'real'").iloc[0]
    assert row["value"] == pytest.approx(
        (value["clipart", "real"] + value["real", "sketch"]) / 2
    )
    assert row["n_classes"] == 7
    # Leaving out each class changes both pairs at once.
    a, b, c = (rows(seed) for seed in range(3))
    linear = found.domains.query("kernel == 'linear' and domain == 'real'").iloc[0]
    without = [
        (
            cka(np.delete(a, i, 0), np.delete(b, i, 0))
            + cka(np.delete(b, i, 0), np.delete(c, i, 0))
        )
        / 2
        for i in range(7)
    ]
    error = np.sqrt(6 / 7 * np.square(np.array(without) - np.mean(without)).sum())
    reach = stats.t.ppf(0.975, 6) * error
    assert linear["low"] == pytest.approx(max(-1, linear["value"] - reach))
    assert linear["high"] == pytest.approx(min(1, linear["value"] + reach))


def test_a_class_without_images_is_as_if_not_listed() -> None:
    a, b, c = rows(0), rows(1), rows(2)
    b[2] = math.nan
    listed = compare_representations(
        [grams("clipart", a), grams("real", b), grams("sketch", c)], permutations=9
    )
    rest = tuple(name for name in CLASSES if name != "cat")
    without = grams("real", np.delete(b, 2, 0), classes=rest)
    unlisted = compare_representations(
        [grams("clipart", a), without, grams("sketch", c)], permutations=9
    )
    assert unlisted.domains.set_index("domain")["n_classes"].to_dict() == {
        "clipart": 7,
        "real": 6,
        "sketch": 7,
    }
    assert listed.pairs.equals(unlisted.pairs)
    np.testing.assert_allclose(
        listed.domains[["low", "high"]], unlisted.domains[["low", "high"]]
    )


def test_a_domain_is_set_apart_from_the_others() -> None:
    four = [*three(), grams("quickdraw", rows(9))]
    found = compare_representations(four, ["linear"], permutations=9, apart="quickdraw")
    value = found.pairs.set_index(["domain_a", "domain_b"])["value"]
    assert found.apart["domain"].tolist() == [
        "quickdraw with the others",
        "the others among themselves",
    ]
    mine = [("clipart", "quickdraw"), ("real", "quickdraw"), ("sketch", "quickdraw")]
    theirs = [("clipart", "real"), ("clipart", "sketch"), ("real", "sketch")]
    assert found.apart["value"].tolist() == pytest.approx(
        [value[mine].mean(), value[theirs].mean()]
    )
    own = found.domains.query("domain == 'quickdraw'").iloc[0]
    assert (
        found.apart.iloc[0][["low", "high"]].tolist() == own[["low", "high"]].tolist()
    )
    assert compare_representations(three(), ["linear"], permutations=9).apart.empty


REAL = grams("real", rows(0))


def ones(*classes: str) -> Grams:
    return Grams("sketch", classes, {"a": np.ones((len(classes), len(classes)))})


@pytest.mark.parametrize(
    ("given", "options", "words"),
    [
        ([REAL], {}, "domains.* 1 "),
        (three(), {"apart": "ink"}, "'ink' .* clipart, real, sketch"),
        ([REAL, grams("sketch", rows(1), site="b")], {}, "real has a and sketch has b"),
        (
            [REAL, grams("sketch", rows(1))],
            {"kernels": ["cosine"]},
            "linear, rbf, but 'cosine'",
        ),
        ([REAL, ones(*CLASSES[:3])], {}, "4 classes .* real and sketch have 3"),
        ([REAL, grams("sketch", np.ones((7, 5)))], {}, "sketch at a are all equal"),
    ],
)
def test_bad_input_is_named(
    given: list[Grams], options: dict[str, Any], words: str
) -> None:
    with pytest.raises(InputError, match=words):
        compare_representations(given, **options)


def test_p_values_of_a_permuted_domain_are_uniform() -> None:
    rng = np.random.default_rng(1)
    p = []
    for i in range(200):
        a, b = rows(2 * i), rows(2 * i + 1)
        permuted = grams("sketch", b[rng.permutation(7)])
        p += (
            compare_representations(
                [grams("real", a), permuted], ["linear"], permutations=49, seed=i
            )
            .pairs["p"]
            .tolist()
        )
    assert stats.kstest(p, stats.uniform(1 / 100, 1).cdf).pvalue > 0.01
    assert min(p) >= 1 / 50
    same = [
        compare_representations(
            [grams("real", rows(i)), grams("x", rows(i))], ["linear"], permutations=49
        )
        for i in range(5)
    ]
    assert [found.pairs["p"][0] for found in same] == [1 / 50] * 5

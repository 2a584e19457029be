"""The dual bootstrap against enumeration, analysis of variance and loops over draws."""

from itertools import product

import numpy as np
import pytest

from circuitry.comparison import draw_resamples, dual_bootstrap
from circuitry.comparison.bootstrap import dual_variance, resampled_means


def additive(rng: np.random.Generator, n: int, parts: int, common: float) -> tuple[np.ndarray, np.ndarray]:
    """Return x = class + part + noise, and the means of pairs of parts of it [classes, 1, parts, parts]."""
    x = rng.normal(size=(n, 1)) + common * rng.normal(size=parts) + rng.normal(size=(n, parts))
    pairs = (x[:, :, None] + x[:, None, :]) / 2
    pairs[:, np.arange(parts), np.arange(parts)] = np.nan
    return x, pairs[:, None]


def test_means_of_draws_are_those_of_repeated_classes_and_parts() -> None:
    rng = np.random.default_rng(0)
    values = rng.random((5, 2, 4, 4))
    values[1, 0, 2, 3] = np.nan
    draws = draw_resamples(range(5), 4, resamples=6)
    found = resampled_means(values, draws.classes, draws.parts)
    for i, (classes, parts) in enumerate(zip(draws.classes.astype(int), draws.parts.astype(int), strict=True)):
        chosen, members = np.repeat(np.arange(5), classes), np.repeat(np.arange(4), parts)
        for cell in range(2):
            pairs = [values[c, cell, p, q] for c in chosen for p, q in product(members, members) if p != q]
            assert found[i, cell] == pytest.approx(np.nanmean(pairs))
    one_way = resampled_means(values, draws.classes, np.ones((1, 4)))
    np.testing.assert_allclose(one_way, resampled_means(values, draws.classes, np.ones((6, 4))))
    other_way = resampled_means(values, np.ones((1, 5)), draws.parts)
    np.testing.assert_allclose(other_way, resampled_means(values, np.ones((6, 5)), draws.parts))


def test_families_are_drawn_together() -> None:
    draws = draw_resamples(["a", "b", "a", "c"], 4, resamples=50)
    np.testing.assert_array_equal(draws.classes[:, 0], draws.classes[:, 2])
    assert (draws.n_units, draws.class_inflation) == (3, 1.5)
    assert (draws.classes[:, [0, 1, 3]].sum(1) == 3).all()


def test_part_inflation_is_that_of_all_draws() -> None:
    shares = []
    for parts in product(range(4), repeat=4):
        m = np.bincount(parts, minlength=4)
        pairs = np.outer(m, m) * (1 - np.eye(4))
        if pairs.any():
            shares.append(pairs.sum(0) / pairs.sum())
    exact = (1 / 4) / np.square(np.array(shares) - 1 / 4).sum(1).mean()
    assert draw_resamples(range(3), 4, resamples=20_000).part_inflation == pytest.approx(exact, rel=0.02)
    assert draw_resamples(range(3), 2).part_inflation == np.inf


def test_the_variance_is_that_of_the_paper() -> None:
    arguments = (np.array([2.0]), np.array([1.0]), 5 / 4, 3 / 2)  # v1, v2, of 5 classes and 3 parts
    for both, expected in ((3.5, 4 - 15 / 8 * 0.5), (3.2, 3.2), (3.9, 2.5)):  # inside, above v12, below 5 / 4 v1
        assert dual_variance(np.array([both]), *arguments).tolist() == pytest.approx([expected])
    large = dual_variance(np.array([3.5]), np.array([2.0]), np.array([1.0]), 1.0, 1.0)
    assert large.tolist() == pytest.approx([2 * (2 + 1) - 3.5])


@pytest.mark.parametrize("common", [0.0, 0.7])
def test_the_variance_is_right_on_average(common: float) -> None:
    n, k, rng = 12, 5, np.random.default_rng(3)
    found = []
    for seed in range(150):
        x, values = additive(rng, n, k, common)
        spread = dual_bootstrap(values, lambda m: m, draw_resamples(range(n), k, resamples=150, seed=seed))
        assert spread.value[0] == pytest.approx(x.mean())
        assert min(n, k) - 1 <= spread.degrees[0] <= n + k - 2
        found.append(spread.variance[0])
    assert np.mean(found) == pytest.approx(1 / n + common**2 / k + 1 / (n * k), rel=0.2)


def test_without_parts_to_draw_the_spread_is_over_classes() -> None:
    x, values = additive(np.random.default_rng(0), 9, 2, 0.0)
    spread = dual_bootstrap(values, lambda m: m, draw_resamples(range(9), 2, resamples=20_000))
    assert spread.variance[0] == pytest.approx(x.mean(1).var(ddof=1) / 9, rel=0.05)
    assert spread.degrees[0] == 8
    assert np.isnan(dual_bootstrap(values[:1], lambda m: m, draw_resamples([0], 2)).interval()[0]).all()


def test_one_class_has_the_spread_of_its_parts() -> None:
    x, values = additive(np.random.default_rng(1), 1, 6, 0.0)
    spread = dual_bootstrap(values, lambda m: m, draw_resamples([0], 6, resamples=20_000))
    assert spread.variance[0] == pytest.approx(x[0].var(ddof=1) / 6, rel=0.2)
    assert spread.degrees[0] == 5

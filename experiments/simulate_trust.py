"""Are the intervals and tests of a comparison calibrated, on simulated circuits of known similarity?

The script simulates kept units of classes in domains with noise, and compares them by their Jaccard index. Calibration
is refuted by a ratio to the ceiling outside 0.97 to 1.03 for identical domains, by 95 % intervals that cover less than
93 % or more than 97 %, or by tests that find a difference in more than 6 % of draws without a difference.

    python experiments/simulate_trust.py --results experiments/results/trust
"""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from itertools import combinations, product

from circuitry.runs import run_script
from circuitry.comparison import (
    domain_tests,
    draw_resamples,
    dual_bootstrap,
    fold_tests,
    mantel,
    mean_spread,
)
from circuitry.comparison.bootstrap import Draws
from circuitry.comparison.ceiling import pair_cells, ratio
from circuitry.comparison.domain_testing import domain_spread
from circuitry.comparison.fold_array import FoldArray
from circuitry.comparison.significance import LEVEL
from circuitry.comparison.statistics import Spread
from experiments.kept_tables import KeepSettings
from experiments.over_models import model_tests
from experiments.simulation import Planted, SimulatedCircuits, simulate

import numpy as np
import pandas as pd
from scipy import stats

NOISE = {"low": 0.3, "middle": 0.7, "high": 1.5}
"""Standard deviation of the noise of a fold, by level."""
N_CLASSES = (4, 8, 16, 36, 100)
RESAMPLES = 400
"""Draws of each bootstrap."""
OFFSET = 0.5
"""Standard deviation of the logarithm of a domain's noise, over families of classes or over models."""

FAMILIES = {
    "classes alone": (1, False),
    "families of 4, taken for single classes": (4, False),
    "families of 4, drawn together": (4, True),
}
"""Number of classes that share noise, and whether the tests draw them together."""


@dataclass(frozen=True)
class Config(KeepSettings):
    """Settings of the simulation."""

    draws: int = 1000
    """Simulated studies of every kind."""


def main(config: Config) -> None:
    """Simulate, write and print the tables."""
    simulations = {
        "ratio": ratios,
        "coverage": coverage,
        "skewed": skewed,
        "family_wise_error": family_wise_error,
        "mantel": mantel_error,
    }
    config.keep({name: pd.DataFrame(of(config)) for name, of in simulations.items()})


def ratios(config: Config) -> Iterator[dict[str, object]]:
    """Yield the mean ratio to the ceiling of identical and unrelated domains at three levels of noise."""
    planted = Planted()
    chance = np.array([planted.chance])
    n_classes = 16
    for domains, shared in (("identical", 1.0), ("unrelated", 0.0)):
        for level, noise in NOISE.items():
            rng = np.random.default_rng(0)
            shares = np.full((n_classes, 1), shared)
            draws = []
            for _ in range(config.draws):
                folds = simulate(rng, shares, noise, planted).folds
                draws.append(ratio(point(pair_cells(folds).values), chance))
            # A draw is a study: its mean over the pairs of domains counts once.
            each = np.array(draws).mean((1, 2, 3))
            row = {"domains": domains, "noise": level, "ratio": each.mean()}
            yield row | {"error": stats.sem(each), "draws": len(each)}


def point(values: np.ndarray) -> np.ndarray:
    """Return the means over classes and pairs of folds as one draw [1, domains, domains]."""
    return np.asarray(np.nanmean(values, (0, -2, -1)))[None]


def coverage(config: Config) -> Iterator[dict[str, object]]:
    """Yield how often intervals cover the truth: intervals of means of folds, of means of all images, and of ratios."""
    planted = Planted()
    chance = np.array([planted.chance])
    for level in ("middle", "high"):
        noise = NOISE[level]
        truth = truths(noise, planted, chance)
        for n_classes in N_CLASSES:
            rng = np.random.default_rng(1)
            hits: dict[tuple[str, str], list[bool]] = {}
            for seed in range(config.draws):
                made = simulate(rng, some_shared(rng, n_classes), noise, planted)
                for name, spread in estimates(made, chance, seed).items():
                    # The rival rule for the degrees of freedom, which is safe for any two variances.
                    fewest = min(n_classes, planted.n_folds) - 1
                    degrees = np.full_like(spread.degrees, fewest)
                    rules = {
                        "Satterthwaite": spread,
                        "min(n1, n2) - 1": spread._replace(degrees=degrees),
                    }
                    for rule, of_rule in rules.items():
                        low, high = of_rule.interval()
                        hit = bool(low <= truth[name] <= high)
                        hits.setdefault((name, rule), []).append(hit)
            for (name, rule), each in hits.items():
                yield {
                    "noise": level,
                    "of": name,
                    "n_classes": n_classes,
                    "degrees": rule,
                    "coverage": np.mean(each),
                    "draws": len(each),
                }


def resamples(folds: FoldArray, seed: int) -> Draws:
    """Return the draws of a bootstrap of classes and folds."""
    return draw_resamples(folds.classes, folds.n_folds, resamples=RESAMPLES, seed=seed)


def some_shared(rng: np.random.Generator, n_classes: int) -> np.ndarray:
    """Return shares [classes, 1] that differ from class to class, and are the same for all domains."""
    return rng.uniform(0.2, 0.9, (n_classes, 1))


def estimates(
    made: SimulatedCircuits, chance: np.ndarray, seed: int
) -> dict[str, Spread]:
    """Return estimates for the first domain: its similarity to other domains, and the ratio of the first pair."""
    draws = resamples(made.folds, seed)
    of_folds = domain_spread(made.folds, draws)
    of_pairs = dual_bootstrap(
        pair_cells(made.folds).values, lambda means: ratio(means, chance), draws
    )
    return {
        "similarity of folds": first_of(of_folds),
        "similarity of all images": mean_spread(made.whole[:, 0, 1:].mean(1)),
        "ratio to the ceiling": first_of(of_pairs),
    }


def first_of(spread: Spread) -> Spread:
    """Return the first entry of arrays of estimates."""
    return Spread(*(field[0, 0] for field in spread))


def truths(noise: float, planted: Planted, chance: np.ndarray) -> dict[str, float]:
    """Return the true values of `estimates` by name, from very many classes."""
    rng = np.random.default_rng(0)
    of_folds = []
    of_all = []
    cells = []
    # 20,000 classes, in steps that fit into memory.
    for _ in range(40):
        made = simulate(rng, some_shared(rng, 500), noise, planted)
        of_folds.append(float(np.nanmean(made.folds.values[:, 0, 1:])))
        of_all.append(float(made.whole[:, 0, 1:].mean()))
        cells.append(point(pair_cells(made.folds).values))
    # The ratio of means, not the mean of ratios, is what a study estimates.
    ratios_of_pairs = ratio(np.mean(cells, axis=0), chance)
    return {
        "similarity of folds": float(np.mean(of_folds)),
        "similarity of all images": float(np.mean(of_all)),
        "ratio to the ceiling": float(ratios_of_pairs[0, 0, 0]),
    }


def few_shared(rng: np.random.Generator, n_classes: int) -> np.ndarray:
    """Return shares [classes, 1]: one class in eight shares nearly all of its score, other classes share little."""
    size = (n_classes, 1)
    nearly_all = rng.random(size) < 1 / 8
    return np.where(nearly_all, rng.uniform(0.9, 1, size), rng.uniform(0, 0.15, size))


def uneven(
    rng: np.random.Generator, n_classes: int, level: float, planted: Planted
) -> np.ndarray:
    """Return noise [classes, domains] that differs by class and domain."""
    offsets = rng.normal(size=(n_classes, planted.n_domains))
    return np.asarray(level * np.exp(OFFSET * offsets))


def skewed(config: Config) -> Iterator[dict[str, object]]:
    """Yield how often the intervals of a ratio cover the truth if few classes share nearly all of their scores."""
    cases = {"skewed": few_shared, "even": some_shared}
    for (case, shares), n_folds in product(cases.items(), (2, 4)):
        planted = Planted(n_folds=n_folds)
        rng = np.random.default_rng(0)
        chance = np.array([planted.chance])
        cells = []
        # The truth, from 20,000 classes.
        for _ in range(40):
            of_classes = shares(rng, 500)
            noise = uneven(rng, 500, 0.7, planted)
            folds = simulate(rng, of_classes, noise, planted).folds
            cells.append(point(pair_cells(folds).values))
        truth = ratio(np.mean(cells, axis=0), chance)[0, 0, 0]
        for n_classes in (8, 16, 30, 60):
            # Other draws than those of the truth.
            rng = np.random.default_rng(1)
            ends = []
            for seed in range(config.draws):
                noise = uneven(rng, n_classes, 0.7, planted)
                folds = simulate(rng, shares(rng, n_classes), noise, planted).folds
                draws = resamples(folds, seed)
                values = pair_cells(folds).values[:, :, :1]
                spread = dual_bootstrap(values, partial(ratio, chance=chance), draws)
                ends.append(np.ravel(spread.interval()))
            low, high = np.transpose(ends)
            yield {
                "shares": case,
                "folds": n_folds,
                "n_classes": n_classes,
                "coverage": np.mean((low <= truth) & (truth <= high)),
                "too low": np.mean(high < truth),
                "too high": np.mean(low > truth),
                "half width": np.median(high - low) / 2,
                "draws": config.draws,
            }


def family_wise_error(config: Config) -> Iterator[dict[str, object]]:
    """Yield how often any test between domains finds a difference where there is no difference."""
    for n_domains, numbers in ((3, (8, 16, 36, 100)), (6, (16, 36))):
        planted = Planted(n_domains=n_domains)
        for n_classes in numbers:
            for case, (size, together) in FAMILIES.items():
                # [draws, 2]: of tests of folds, and of all images.
                alarms = [
                    any_found(planted, n_classes, size, together, seed)
                    for seed in range(config.draws)
                ]
                errors = np.mean(alarms, axis=0)
                for tested, error in zip(("folds", "all images"), errors, strict=True):
                    yield {
                        "case": case,
                        "tested": tested,
                        "domains": n_domains,
                        "n_classes": n_classes,
                        "error": error,
                        "draws": config.draws,
                    }
    yield from errors_over_models(config)


def any_found(
    planted: Planted, n_classes: int, size: int, averaged: bool, seed: int
) -> list[bool]:
    """Return whether any test of folds is significant, and whether any test of all images is.

    Args:
        planted: Sizes of the simulation.
        n_classes: Number of classes.
        size: Number of classes in a family. The classes of a family share the noise of each domain.
        averaged: Whether the tests take the means of families for classes, so that families are drawn together.
        seed: Seed of the draw.
    """
    rng = np.random.default_rng([0, seed])
    family = np.arange(n_classes) // size
    # Numbers are drawn either way, so that cases of one seed have the same circuits and differ in the noise.
    spread = OFFSET if size > 1 else 0.0
    offsets = rng.normal(size=(family.max() + 1, planted.n_domains))
    noise = 0.7 * np.exp(spread * offsets)[family]
    made = simulate(rng, some_shared(rng, n_classes), noise, planted)
    if averaged:
        values = family_means(made.folds.values, size)
        first = made.folds.classes[::size]  # a family goes by its first class
        folds = made.folds._replace(classes=first, values=values)
        made = SimulatedCircuits(folds, family_means(made.whole, size))
    draws = resamples(made.folds, seed)
    tests = fold_tests(made.folds, draws), domain_tests(as_values(made))
    return list(map(any_below, tests))


def any_below(tests: pd.DataFrame) -> bool:
    """Return whether any test is significant after correction."""
    return bool((tests["p_holm"] < LEVEL).any())


def family_means(values: np.ndarray, size: int) -> np.ndarray:
    """Return the means over families of neighbouring classes [classes, ...]."""
    return np.asarray(values.reshape(-1, size, *values.shape[1:]).mean(1))


def as_values(made: SimulatedCircuits) -> pd.DataFrame:
    """Return the similarities of all images as a table with a row for each class and pair of domains."""
    domains = made.folds.domains
    rows = list[tuple[object, ...]]()
    for i, name in enumerate(made.folds.classes):
        for a, b in combinations(range(len(domains)), 2):
            rows.append((name, domains[a], domains[b], made.whole[i][a, b]))
    table = pd.DataFrame(rows, columns=["class", "domain_a", "domain_b", "value"])
    return table.assign(site=None)


def errors_over_models(config: Config) -> Iterator[dict[str, object]]:
    """Yield the errors of tests of one model and of tests over models, if models differ and domains do not.

    Each model has its own noise of every domain, which the next model does not have.
    """
    n_classes = 36
    for n_domains, n_models in ((3, 8), (6, 12)):
        planted = Planted(n_domains=n_domains)
        within = []
        over = []
        for seed in range(config.draws):
            rng = np.random.default_rng([0, seed])
            shared = some_shared(rng, n_classes)
            # All models share the classes; each has its own noise of every domain.
            models = list[SimulatedCircuits]()
            for _ in range(n_models):
                noise = 0.7 * np.exp(OFFSET / 2 * rng.normal(size=(1, n_domains)))
                models.append(simulate(rng, shared, noise, planted))
            first = models[0].folds
            within.append(any_below(fold_tests(first, resamples(first, seed))))
            means = np.empty((n_models, n_domains))
            for i, model in enumerate(models):
                for d in range(n_domains):
                    # A domain's similarity to itself is no similarity to others.
                    means[i, d] = np.delete(model.whole[:, d], d, 1).mean()
            tests = model_tests(pd.DataFrame(means, columns=list(planted.domains)))
            over.append(any_below(tests))
        cases = {
            "models differ, one is tested": within,
            f"models differ, over {n_models}": over,
        }
        base = {"tested": "folds", "domains": n_domains, "n_classes": n_classes}
        for case, each in cases.items():
            yield {"case": case, **base, "error": np.mean(each), "draws": len(each)}


def mantel_error(config: Config) -> Iterator[dict[str, object]]:
    """Yield how often two unrelated matrices correlate at p <= 0.05 by Mantel's test, and by Spearman's over pairs."""
    for n_domains in (3, 4, 6, 8, 10):
        rng = np.random.default_rng(0)
        by_mantel = []
        naive = []
        upper = np.triu_indices(n_domains, 1)
        for seed in range(config.draws):
            x = _with_levels(rng, n_domains)
            y = _with_levels(rng, n_domains)
            by_mantel.append(mantel(x, y, draws=999, seed=seed)[1] <= LEVEL)
            naive.append(stats.spearmanr(x[upper], y[upper]).pvalue <= LEVEL)
        errors = {"mantel": np.mean(by_mantel), "pairs as independent": np.mean(naive)}
        yield {"domains": n_domains, **errors, "draws": config.draws}


def _with_levels(rng: np.random.Generator, n_domains: int) -> np.ndarray:
    """Return a random symmetric matrix of domains, whose pairs are dependent since each domain has a level."""
    level = rng.normal(size=n_domains)
    noise = rng.normal(size=(n_domains, n_domains))
    return np.asarray(level[:, None] + level + (noise + noise.T) / 2)


if __name__ == "__main__":
    run_script(Config, main, __doc__)

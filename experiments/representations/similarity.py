"""Do two domains arrange the classes in the same way? CKA at every site of the encoder, and its reference levels.

A domain is represented by one row per class: the mean over the class's images of the unit means at a site. CKA needs
only the inner products of these rows (`Grams`), for the classes that both domains have; `kernel_alignment` has the
formulas. It gives a single value for all classes, so the class in its tables is `ALL`.

The answer is no if CKA is not above its value under permuted classes (``null_mean``, ``p``). It is yes if CKA reaches
the ceiling, which is the CKA of two folds of one domain's images (`cka_ceilings`). Does not import torch.
"""

from collections.abc import Sequence
from functools import cache
from itertools import combinations
from typing import Annotated, NamedTuple

from circuitry.runs import Count, InputError, Seed
from circuitry.comparison.comparison import Comparison
from circuitry.comparison.fold_array import FOLDS, WHOLE, ceilings_of
from circuitry.comparison.statistics import jackknife_interval
from circuitry.comparison.table import with_columns
from circuitry.runs.arguments import SOME, Names
from circuitry.runs.errors import ByName
from experiments.representations.cells import ALL, Cell, compare_folds
from experiments.representations.grams import DomainRepresentation, Grams
from experiments.representations.kernel_alignment import (
    FEWEST_ROWS,
    KERNELS,
    Alignment,
    kernel_matrix,
)

import numpy as np
import pandas as pd


class RepresentationSimilarity(NamedTuple):
    """CKA between domains at every site. The p values are one-sided and not corrected for multiple tests."""

    pairs: pd.DataFrame
    """Columns site, domain_a, domain_b, kernel, value, low, high, null_mean, p, n_classes."""
    domains: pd.DataFrame
    """Mean CKA of each domain with all other domains: site, domain, kernel, value, low, high, null_mean, n_classes."""
    apart: pd.DataFrame
    """Two rows for each site and kernel, if a domain was set ``apart``: its mean CKA with the other domains, and the
    mean CKA of the other domains among themselves. Columns as in ``domains``; empty if no domain was set apart."""

    def comparisons(
        self,
        folds: Annotated[pd.DataFrame, with_columns("kernel", *FOLDS)] | None = None,
    ) -> dict[str, Comparison]:
        """Return a `Comparison` for each kernel, with the intervals of the jackknife; its only class is ``all``.

        Args:
            folds: CKA of folds, for ceilings; from `compare_representation_folds`. Default: no ceilings.
        """
        if folds is None:
            folds = pd.DataFrame(columns=["kernel", *FOLDS])
        comparisons = ByName[Comparison]()
        for kernel in self.pairs["kernel"].unique():
            domains = _of_kernel(self.domains, kernel)
            null_means = domains.groupby("site", sort=False)["null_mean"].mean()
            comparisons[kernel] = Comparison(
                f"cka_{kernel}",
                _of_kernel(self.pairs, kernel).assign(**{"class": ALL}),
                _of_kernel(folds, kernel),
                null_means.rename("value").reset_index(),
                intervals=domains,
                chance_of="permuted classes",
            )
        return comparisons


def _of_kernel(table: pd.DataFrame, kernel: str) -> pd.DataFrame:
    """Return the rows of a kernel, without the column that names it."""
    return table[table["kernel"] == kernel].drop(columns="kernel")


def compare_representations(
    grams: Sequence[Grams],
    kernels: Names = KERNELS,
    *,
    permutations: Count = 1000,
    apart: str | None = None,
    seed: Seed = 0,
) -> RepresentationSimilarity:
    """Compare all pairs of domains at every site.

    Args:
        grams: The inner products of each domain.
        permutations: Number of permutations of classes for the null distribution; p is at least
            1 / (``permutations`` + 1).
        apart: A domain to set apart (quickdraw in the study): its mean CKA with the other domains is compared with the
            mean CKA of the other domains among themselves.
        seed: Seed of the permutations.

    Example:
        >>> domains = extract_representations(clip, images, "runs/x")
        >>> similarity = compare_representations([domain.grams for domain in domains])
        >>> similarity.domains.query("site == 'layer4.2' and kernel == 'linear'")
        >>> similarity.comparisons()["linear"].at("layer4.2").matrix()
    """
    if len(grams) < 2:
        raise InputError(
            f"A comparison needs the grams of two domains or more, but {len(grams)} was given: give those of others."
        )
    names = [of_domain.domain for of_domain in grams]
    if apart is not None and (apart not in names or len(names) < 3):
        raise InputError(
            f"A domain set apart needs two others, but {apart!r} was given for {', '.join(names)}: name one of these."
        )
    pairs = []
    domains = []
    sides = []
    for site in _common_sites(grams):
        for kernel in kernels:
            compared = [
                _compare_pair(a, b, site, kernel, permutations, seed)
                for a, b in combinations(grams, 2)
            ]
            for pair in compared:
                *row, n_classes = _mean_row([pair])
                pairs.append((site, *pair.domains, kernel, *row, pair.p, n_classes))
            # Means are over the pairs, so each row needs them together: its jackknife leaves a class out of all pairs.
            for name in names:
                own = [pair for pair in compared if name in pair.domains]
                domains.append((site, name, kernel, *_mean_row(own)))
            if apart is not None:
                outer = [pair for pair in compared if apart in pair.domains]
                inner = [pair for pair in compared if apart not in pair.domains]
                for side, of_side in (
                    (f"{apart} with the others", outer),
                    ("the others among themselves", inner),
                ):
                    sides.append((site, side, kernel, *_mean_row(of_side)))
    statistics = ["kernel", "value", "low", "high", "null_mean"]
    of_pairs = ["site", "domain_a", "domain_b", *statistics, "p", "n_classes"]
    of_domains = ["site", "domain", *statistics, "n_classes"]
    return RepresentationSimilarity(
        pd.DataFrame(pairs, columns=of_pairs),
        pd.DataFrame(domains, columns=of_domains),
        pd.DataFrame(sides, columns=of_domains),
    )


class RepresentationFolds(NamedTuple):
    """CKA between folds of the images of domains. All folds have equally many images, and no item in common."""

    values: pd.DataFrame
    """The columns of `FOLDS`, where both classes are ``all``, and the column kernel."""
    without_class: pd.DataFrame
    """CKA of each pair of domains without each class in turn, averaged over pairs of folds. Columns kernel, class,
    domain_a, domain_b, site, value. A pair of folds that lacks the class counts with its CKA of all classes."""


def compare_representation_folds(
    domains: Annotated[Sequence[DomainRepresentation], SOME],
    classes: Names | None = None,
) -> RepresentationFolds:
    """Compare each fold of a domain's images with the other folds of every domain, at every site by both kernels.

    Args:
        classes: Classes to compare; default: all.
    """
    cells = list[Cell]()
    grams = list[Grams]()
    for domain in domains:
        for fold, own in {WHOLE: domain.grams, **dict(enumerate(domain.folds))}.items():
            cells.append((ALL, domain.grams.domain, fold))
            grams.append(own if classes is None else own.only(classes))
    tables = []
    without = []
    domain_pair = ["domain_a", "domain_b"]
    for site in _common_sites(grams):
        for kernel in KERNELS:
            table, without_each = _compare_folds_at(grams, cells, site, kernel)
            tables.append(table)
            # A fold with all images of its domain shares items with the domain's folds: it is no sample of its own.
            is_folds = table["fold_b"] != WHOLE
            joined = pd.concat([without_each, table[domain_pair]], axis=1)[is_folds]
            means = joined.groupby(domain_pair).mean().reset_index()
            melted = means.melt(domain_pair, var_name="class")
            without.append(melted.assign(kernel=kernel, site=site))
    columns = ["kernel", "class", "domain_a", "domain_b", "site", "value"]
    return RepresentationFolds(
        pd.concat(tables, ignore_index=True),
        pd.concat(without, ignore_index=True)[columns],
    )


def _compare_folds_at(
    grams: Sequence[Grams],
    cells: Sequence[Cell],
    site: str,
    kernel: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the CKA of pairs of folds, and a table with the same rows and a column for each class.

    The second table holds the CKA without the class of the column.

    Args:
        grams: The inner products of each cell of ``cells``.
    """
    # A dictionary is a set in order: classes that any fold has, as they first occur.
    names = dict[str, None]()
    for own in grams:
        names |= dict.fromkeys(own.classes)
    # A fold is in many pairs, mostly with the same classes: its kernel matrix is computed once.
    kernel_of = cache(lambda row, common: _kernel_of(grams[row], common, site, kernel))
    without = list[pd.Series]()

    def compare(rows_a: np.ndarray, rows_b: np.ndarray) -> np.ndarray:
        values = []
        for i, j in zip(rows_a.tolist(), rows_b.tolist(), strict=True):
            common = _common_classes(grams[i], grams[j], site)
            alignment = Alignment(kernel_of(i, common), kernel_of(j, common))
            value = alignment.value
            values.append(value)
            left_out = pd.Series(alignment.without_each(), index=list(common))
            # A class that the pair does not have cannot change its CKA.
            without.append(left_out.reindex(list(names), fill_value=value))
        return np.array(values)

    # `compare` is called once, with all pairs, so its rows are the rows of the table.
    table = compare_folds(cells, compare, site=site).assign(kernel=kernel)
    return table, pd.DataFrame(without, columns=list(names))


def cka_ceilings(folds: pd.DataFrame) -> pd.DataFrame:
    """Return the mean CKA of two folds of each domain's images: columns class (all), domain, site, value, kernel."""
    by_kernel = [
        ceilings_of(own).assign(kernel=kernel)
        for kernel, own in folds.groupby("kernel", sort=False)
    ]
    return pd.concat(by_kernel, ignore_index=True)


def check_common(a: str, b: str, n_classes: int) -> None:
    """Raise `InputError` if two domains have too few classes in common for unbiased CKA."""
    if n_classes < FEWEST_ROWS:
        raise InputError(
            f"Unbiased CKA needs at least {FEWEST_ROWS} classes with images in both domains, but {a} and {b} have "
            f"{n_classes} in common: give more classes, or leave one of the domains out."
        )


def _common_classes(a: Grams, b: Grams, site: str) -> tuple[str, ...]:
    """Return the classes that have images in both domains, in the order of ``a``; `InputError` if they are too few."""
    theirs = set(b.present(site))
    common = tuple(name for name in a.present(site) if name in theirs)
    check_common(a.domain, b.domain, len(common))
    return common


def _kernel_of(
    grams: Grams, classes: tuple[str, ...], site: str, kernel: str
) -> np.ndarray:
    """Return the U-centred kernel matrix of the given classes of a domain at a site."""
    gram = grams.among(classes, site)
    return kernel_matrix(gram, kernel, f"{grams.domain} at {site}")


class _ComparedPair(NamedTuple):
    """CKA of two domains at a site by a kernel."""

    domains: tuple[str, str]
    value: float
    null: np.ndarray
    """CKA under permuted classes [permutations]."""
    without_each: pd.Series
    """CKA without each class, by class."""

    @property
    def p(self) -> float:
        """One-sided p value: the share of permutations with a CKA as large, the given order of classes included."""
        # A permutation that happens to be the identity must count, whatever the rounding.
        return (1 + int((self.null >= self.value - 1e-12).sum())) / (1 + len(self.null))


def _compare_pair(
    a: Grams, b: Grams, site: str, kernel: str, permutations: int, seed: int
) -> _ComparedPair:
    """Compare two domains at a site by a kernel, over the classes that both have."""
    classes = _common_classes(a, b, site)
    alignment = Alignment(
        _kernel_of(a, classes, site, kernel), _kernel_of(b, classes, site, kernel)
    )
    return _ComparedPair(
        (a.domain, b.domain),
        alignment.value,
        # With one seed for all pairs, pairs with the same number of classes have the same permutations.
        alignment.null(permutations, seed),
        pd.Series(alignment.without_each(), index=list(classes)),
    )


def _mean_row(pairs: Sequence[_ComparedPair]) -> tuple[float, float, float, float, int]:
    """Return means over pairs: CKA, the bounds of its interval, CKA under permuted classes, and the number of classes.

    The number of classes is of the classes that at least one pair has.
    """
    classes = dict[str, None]()
    for pair in pairs:
        classes |= dict.fromkeys(pair.without_each.index)
    value = float(np.mean([pair.value for pair in pairs]))
    # [pairs, classes]: to leave out a class that a pair does not have changes nothing.
    without_each = [
        pair.without_each.reindex(list(classes), fill_value=pair.value).to_numpy()
        for pair in pairs
    ]
    interval = jackknife_interval(value, np.mean(without_each, axis=0))
    # CKA lies in -1..1, and an interval may reach beyond; bounds that are NaN stay NaN.
    low, high = np.clip(interval, -1, 1)
    null_mean = float(np.mean([pair.null.mean() for pair in pairs]))
    return value, float(low), float(high), null_mean, len(classes)


def _common_sites(grams: Sequence[Grams]) -> tuple[str, ...]:
    """Return the sites of all representations; `InputError` unless all have the same sites in the same order."""
    first = grams[0]
    for other in grams[1:]:
        if tuple(other.by_site) != tuple(first.by_site):
            raise InputError(
                f"Representations are compared at the same sites, but {first.domain} has {', '.join(first.by_site)} "
                f"and {other.domain} has {', '.join(other.by_site)}: extract both alike."
            )
    return tuple(first.by_site)

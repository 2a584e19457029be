"""Do two domains arrange the classes in the same way? CKA at every site of the encoder, and its reference levels.

The rows of a domain are its classes: the means of their images at a site, by default of the units averaged over
positions, as in the study. CKA needs only the inner products of each domain's rows (`Grams`), over the classes of both
domains; `kernel_alignment` has the formulas. A value is of all classes at once: the class in its tables is `ALL`.

No torch.
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
from experiments.representations.cells import ALL, compare_folds
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
    """CKA between domains at every site; p values are one-sided and not corrected for their number."""

    pairs: pd.DataFrame
    """Columns site, domain_a, domain_b, kernel, value, low, high, null_mean, p, n_classes."""
    domains: pd.DataFrame
    """Each domain's mean over the others: site, domain, kernel, value, low, high, null_mean, n_classes."""
    apart: pd.DataFrame
    """The domain ``apart`` with the others, and the others among themselves: as ``domains``; empty without it."""

    def comparisons(
        self,
        folds: Annotated[pd.DataFrame, with_columns("kernel", *FOLDS)] | None = None,
    ) -> dict[str, Comparison]:
        """Return a `Comparison` of each kernel, with the jackknife's intervals; all classes are one, ``all``."""
        folds = pd.DataFrame(columns=["kernel", *FOLDS]) if folds is None else folds
        found = ByName[Comparison]()
        for kernel in dict.fromkeys(self.pairs["kernel"]):
            pairs, domains, own = (
                table[table["kernel"] == kernel].drop(columns="kernel")
                for table in (self.pairs, self.domains, folds)
            )
            found[kernel] = Comparison(
                f"cka_{kernel}",
                pairs.assign(**{"class": ALL}),
                own,
                domains.groupby("site", sort=False)["null_mean"]
                .mean()
                .rename("value")
                .reset_index(),
                intervals=domains,
                chance_of="permuted classes",
            )
        return found


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
        permutations: Permutations of classes for the null; p is at least one over their number plus one.
        apart: A domain to set apart: its mean with the others against the others' mean (the study's quickdraw).

    Example:
        >>> found = extract_representations(clip, images, "runs/x")
        >>> similarity = compare_representations([one.grams for one in found])
        >>> similarity.domains.query("site == 'layer4.2' and kernel == 'linear'")
        >>> similarity.comparisons()["linear"].at("layer4.2").matrix()
    """
    if len(grams) < 2:
        raise InputError(
            f"A comparison needs the grams of two domains or more, but {len(grams)} was given: give those of others."
        )
    known = [one.domain for one in grams]
    if apart is not None and (apart not in known or len(known) < 3):
        raise InputError(
            f"A domain set apart needs two others, but {apart!r} was given for {', '.join(known)}: name one of these."
        )
    pairs = []
    domains = []
    sides = []
    for site in _common_sites(grams):
        for kernel in kernels:
            found = [
                _compare_pair(a, b, site, kernel, permutations, seed)
                for a, b in combinations(grams, 2)
            ]
            pairs += [
                (site, *pair.domains, kernel, *_mean_row([pair]), pair.p)
                for pair in found
            ]
            for one in grams:
                mine = [pair for pair in found if one.domain in pair.domains]
                domains.append((site, one.domain, kernel, *_mean_row(mine)))
            if apart is not None:
                for name, is_inside in (
                    (f"{apart} with the others", True),
                    ("the others among themselves", False),
                ):
                    side = [
                        pair for pair in found if (apart in pair.domains) == is_inside
                    ]
                    sides.append((site, name, kernel, *_mean_row(side)))
    statistics = ["kernel", "value", "low", "high", "null_mean"]
    order = ["site", "domain_a", "domain_b", *statistics, "p", "n_classes"]
    return RepresentationSimilarity(
        pd.DataFrame(
            pairs,
            columns=["site", "domain_a", "domain_b", *statistics, "n_classes", "p"],
        )[order],
        *(
            pd.DataFrame(rows, columns=["site", "domain", *statistics, "n_classes"])
            for rows in (domains, sides)
        ),
    )


class RepresentationFolds(NamedTuple):
    """CKA between folds of the images of domains, at equal numbers of images and on different items."""

    values: pd.DataFrame
    """The columns of `FOLDS`, both classes ``all``, and kernel."""
    without_class: pd.DataFrame
    """Each pair of domains without each class in turn, the mean over pairs of folds: kernel, class, domain_a, domain_b,
    site, value. A class that is in neither fold changes nothing."""


def compare_representation_folds(
    domains: Annotated[Sequence[DomainRepresentation], SOME],
    classes: Names | None = None,
) -> RepresentationFolds:
    """Compare each fold of a domain's images with the other folds of every domain, at every site by both kernels."""
    cells = [
        (ALL, one.grams.domain, fold)
        for one in domains
        for fold in (WHOLE, *range(len(one.folds)))
    ]
    grams = [
        fold if classes is None else fold.only(classes)
        for one in domains
        for fold in (one.grams, *one.folds)
    ]
    tables = []
    without = []
    for site in _common_sites(grams):
        for kernel in KERNELS:
            table, without_one = _compare_folds_at(grams, cells, site, kernel)
            tables.append(table)
            means = pd.concat([without_one, table], axis=1)[
                table["fold_b"] != WHOLE
            ].groupby(["domain_a", "domain_b"])
            left = (
                means[list(without_one)]
                .mean()
                .reset_index()
                .melt(["domain_a", "domain_b"], var_name="class")
            )
            without.append(left.assign(kernel=kernel, site=site))
    columns = ["kernel", "class", "domain_a", "domain_b", "site", "value"]
    return RepresentationFolds(
        pd.concat(tables, ignore_index=True),
        pd.concat(without, ignore_index=True)[columns],
    )


def _compare_folds_at(
    grams: Sequence[Grams],
    cells: Sequence[tuple[str, str, int]],
    site: str,
    kernel: str,
) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the CKA of pairs of folds, and in the same rows the CKA without each class, a column for each."""
    names = tuple(dict.fromkeys(name for one in grams for name in one.classes))
    kernel_of = cache(lambda row, common: _kernel_of(grams[row], common, site, kernel))
    without: list[dict[str, float]] = []

    def compare(rows_a: np.ndarray, rows_b: np.ndarray) -> np.ndarray:
        values = []
        for i, j in zip(rows_a.tolist(), rows_b.tolist(), strict=True):
            common = _common_classes(grams[i], grams[j], site)
            alignment = Alignment(kernel_of(i, common), kernel_of(j, common))
            values.append(alignment.value)
            left = dict(zip(common, alignment.without_each().tolist(), strict=True))
            without.append({name: left.get(name, values[-1]) for name in names})
        return np.array(values)

    table = compare_folds(cells, compare, site=site).assign(kernel=kernel)
    return table, pd.DataFrame(without, columns=list(names))


def cka_ceilings(folds: pd.DataFrame) -> pd.DataFrame:
    """Return the mean CKA of two folds of each domain's images: columns class (all), domain, site, value, kernel."""
    return pd.concat(
        [
            ceilings_of(own).assign(kernel=kernel)
            for kernel, own in folds.groupby("kernel", sort=False)
        ],
        ignore_index=True,
    )


def check_common(a: str, b: str, n_classes: int) -> None:
    """Raise `InputError` for two domains with too few classes in common."""
    if n_classes < FEWEST_ROWS:
        raise InputError(
            f"Unbiased CKA needs at least {FEWEST_ROWS} classes with images in both domains, but {a} and {b} have "
            f"{n_classes} in common: give more classes, or leave one of the domains out."
        )


def _common_classes(a: Grams, b: Grams, site: str) -> tuple[str, ...]:
    theirs = set(b.present(site))
    common = tuple(name for name in a.present(site) if name in theirs)
    check_common(a.domain, b.domain, len(common))
    return common


def _kernel_of(
    one: Grams, classes: tuple[str, ...], site: str, kernel: str
) -> np.ndarray:
    return kernel_matrix(one.among(classes, site), kernel, f"{one.domain} at {site}")


class _ComparedPair(NamedTuple):
    domains: tuple[str, str]
    value: float
    null: np.ndarray
    without_each: pd.Series
    """CKA without each class, by class."""

    @property
    def p(self) -> float:
        """One-sided p value."""
        # The identity among the permutations must count, whatever the rounding.
        return (1 + int((self.null >= self.value - 1e-12).sum())) / (1 + len(self.null))


def _compare_pair(
    a: Grams, b: Grams, site: str, kernel: str, permutations: int, seed: int
) -> _ComparedPair:
    classes = _common_classes(a, b, site)
    alignment = Alignment(*(_kernel_of(one, classes, site, kernel) for one in (a, b)))
    without_each = pd.Series(alignment.without_each(), index=list(classes))
    return _ComparedPair(
        (a.domain, b.domain),
        alignment.value,
        alignment.null(permutations, seed),
        without_each,
    )


def _mean_row(pairs: Sequence[_ComparedPair]) -> tuple[float, float, float, float, int]:
    """Return the mean over pairs: value, low, high, mean under permuted classes, number of classes."""
    classes = list(
        dict.fromkeys(name for pair in pairs for name in pair.without_each.index)
    )
    value = float(np.mean([pair.value for pair in pairs]))
    # A pair without a class is not changed by leaving it out.
    without_each = np.mean(
        [p.without_each.reindex(classes, fill_value=p.value).to_numpy() for p in pairs],
        axis=0,
    )
    interval = jackknife_interval(value, without_each)
    # The values that CKA can reach; unknown ends stay unknown.
    low, high = np.clip(interval, -1, 1)
    return (
        value,
        float(low),
        float(high),
        float(np.mean([pair.null.mean() for pair in pairs])),
        len(classes),
    )


def _common_sites(grams: Sequence[Grams]) -> tuple[str, ...]:
    first = grams[0]
    for other in grams[1:]:
        if tuple(other.by_site) != tuple(first.by_site):
            raise InputError(
                f"Representations are compared at the same sites, but {first.domain} has {', '.join(first.by_site)} "
                f"and {other.domain} has {', '.join(other.by_site)}: extract both alike."
            )
    return tuple(first.by_site)

"""Are classes arranged alike in two domains? CKA at every site of the encoder, and what to read it against.

The rows of a domain are its classes: their mean activations at a site. Domains are compared through the inner products
of their own rows alone (`Grams`), over the classes that both have; `kernel_alignment` has the formulas.

No torch.
"""

from collections.abc import Iterable, Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import pandas as pd

from circuitry.comparison.comparison import Comparison
from circuitry.comparison.parts import CEILINGS, parts_of_halves
from circuitry.comparison.statistics import jackknife_interval
from circuitry.representations.grams import Grams
from circuitry.representations.kernel_alignment import FEWEST, KERNELS, Alignment, kernel_matrix
from circuitry.runs.errors import InputError


class RepresentationSimilarity(NamedTuple):
    """CKA between domains at every site; p values are one-sided and not corrected for their number."""

    pairs: pd.DataFrame
    """Columns site, domain_a, domain_b, kernel, value, low, high, null_mean, p, n_classes."""
    domains: pd.DataFrame
    """Each domain's mean over the others: site, domain, kernel, value, low, high, null_mean, n_classes."""

    def comparisons(self, ceilings: pd.DataFrame | None = None) -> dict[str, Comparison]:
        """Return a `Comparison` of each kernel, with the jackknife's intervals; all classes are one, ``all``.

        Args:
            ceilings: From `compare_representation_halves`.
        """
        halves = pd.DataFrame(columns=["kernel", *CEILINGS]) if ceilings is None else ceilings
        found = {}
        for kernel in dict.fromkeys(self.pairs["kernel"]):
            pairs, domains, own = (
                table[table["kernel"] == kernel].drop(columns="kernel").assign(**{"class": "all"})
                for table in (self.pairs, self.domains, halves)
            )
            found[kernel] = Comparison(
                f"cka_{kernel}",
                pairs,
                parts_of_halves(own),
                domains.groupby("site", sort=False)["null_mean"].mean().rename("value").reset_index(),
                intervals=domains.drop(columns="class"),
                chance_of="permuted classes",
            )
        return found


def compare_representations(
    grams: Sequence[Grams],
    kernels: Sequence[str] = KERNELS,
    *,
    permutations: int = 1000,
    confidence: float = 0.95,
    seed: int = 0,
) -> RepresentationSimilarity:
    """Compare all pairs of domains at every site.

    Args:
        grams: One of each domain, with the same sites.
        kernels: ``linear``, ``rbf`` or both.
        permutations: Permutations of classes for the null; p is at least one over their number plus one.
        confidence: Of the jackknife intervals over classes.
        seed: Seed of the permutations.

    Raises:
        InputError: for fewer than two domains, different sites, two domains with fewer than four common classes, a
            domain whose classes do not differ at a site, an unknown kernel, or no permutations.

    Example:
        >>> found = extract_representations(clip, images, "runs/x")
        >>> similarity = compare_representations([one.grams for one in found])
        >>> similarity.domains.query("site == 'layer4.2' and kernel == 'linear'")
        >>> similarity.comparisons()["linear"].at("layer4.2").matrix()
    """
    if len(grams) < 2 or permutations < 1:
        raise InputError(
            "A comparison of representations needs at least two domains and one permutation, but "
            f"{len(grams)} domains and {permutations} permutations were given."
        )
    pairs, domains = [], []
    for site in _common_sites(grams):
        for kernel in kernels:
            found = [_compare_pair(a, b, site, kernel, permutations, seed) for a, b in combinations(grams, 2)]
            pairs += [(site, *pair.domains, kernel, *_mean_row([pair], confidence), pair.p) for pair in found]
            for one in grams:
                mine = [pair for pair in found if one.domain in pair.domains]
                domains.append((site, one.domain, kernel, *_mean_row(mine, confidence)))
    statistics = ["kernel", "value", "low", "high", "null_mean"]
    order = ["site", "domain_a", "domain_b", *statistics, "p", "n_classes"]
    return RepresentationSimilarity(
        pd.DataFrame(pairs, columns=["site", "domain_a", "domain_b", *statistics, "n_classes", "p"])[order],
        pd.DataFrame(domains, columns=["site", "domain", *statistics, "n_classes"]),
    )


def compare_representation_halves(
    halves: Iterable[tuple[Grams, Grams]], kernels: Sequence[str] = KERNELS
) -> pd.DataFrame:
    """Return the CKA of two halves of each domain's images, the ceiling: columns site, domain, kernel, value.

    Each half has half as many images, so it is a cautious ceiling. Errors are those of `compare_representations`.
    """
    rows = [
        (site, a.domain, kernel, align(a, b, site, kernel)[1].value)
        for a, b in halves
        for site in _common_sites([a, b])
        for kernel in kernels
    ]
    return pd.DataFrame(rows, columns=["site", "domain", "kernel", "value"])


def check_common(a: str, b: str, n_classes: int) -> None:
    """Raise `InputError` for two domains with too few classes in common."""
    if n_classes < FEWEST:
        raise InputError(
            f"Unbiased CKA needs at least {FEWEST} classes with images in both domains, but {a} and {b} have "
            f"{n_classes} in common: give more classes, or leave one of the domains out."
        )


def align(a: Grams, b: Grams, site: str, kernel: str) -> tuple[tuple[str, ...], Alignment]:
    """Return the classes that two domains have in common and their alignment over them at a site.

    Raises:
        InputError: for fewer than four common classes, rows that do not differ, or an unknown kernel.
    """
    theirs = set(b.present(site))
    common = tuple(name for name in a.present(site) if name in theirs)
    check_common(a.domain, b.domain, len(common))
    u, v = (kernel_matrix(one.among(common, site), kernel, f"{one.domain} at {site}") for one in (a, b))
    return common, Alignment(u, v)


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


def _compare_pair(a: Grams, b: Grams, site: str, kernel: str, permutations: int, seed: int) -> _ComparedPair:
    classes, alignment = align(a, b, site, kernel)
    without_each = pd.Series(alignment.without_each(), index=list(classes))
    return _ComparedPair((a.domain, b.domain), alignment.value, alignment.null(permutations, seed), without_each)


def _mean_row(pairs: Sequence[_ComparedPair], confidence: float) -> tuple[float, float, float, float, int]:
    """Return the mean over pairs: value, low, high, mean under permuted classes, number of classes."""
    classes = list(dict.fromkeys(name for pair in pairs for name in pair.without_each.index))
    value = float(np.mean([pair.value for pair in pairs]))
    # A pair without a class is not changed by leaving it out.
    without_each = np.mean([p.without_each.reindex(classes, fill_value=p.value).to_numpy() for p in pairs], axis=0)
    interval = jackknife_interval(value, without_each, confidence=confidence)
    low, high = np.clip(interval, -1, 1)  # the part that CKA can reach; unknown ends stay unknown
    return value, float(low), float(high), float(np.mean([pair.null.mean() for pair in pairs])), len(classes)


def _common_sites(grams: Sequence[Grams]) -> tuple[str, ...]:
    first = grams[0]
    for other in grams[1:]:
        if tuple(other.by_site) != tuple(first.by_site):
            raise InputError(
                f"Representations are compared at the same sites, but {first.domain} has {', '.join(first.by_site)} "
                f"and {other.domain} has {', '.join(other.by_site)}: extract both alike."
            )
    return tuple(first.by_site)

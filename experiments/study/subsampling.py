"""Subsample images to exactly N, in proportion to the numbers per domain and class. No torch.

The arithmetic is of integers, so no floating-point error rounds a whole number up.
"""

from collections import Counter
from collections.abc import Iterable, Mapping

from circuitry.runs import InputError
from circuitry.data import ImageRecord

DOMAINNET_ROUND = ("real", "quickdraw", "painting", "sketch", "infograph", "clipart")
"""The study's order of DomainNet's domains."""

Combination = tuple[str, str]
"""A domain and a class."""


def count_combinations(samples: Iterable[ImageRecord]) -> Counter[Combination]:
    """Count the images of every (domain, class), in the order of first appearance."""
    return Counter((sample.domain, sample.class_name) for sample in samples)


def quotas(counts: Mapping[Combination, int], n: int, classes: Iterable[str] = ()) -> dict[Combination, int]:
    """Return the number of images of every (domain, class) that stay, ``n`` in all.

    With s = n / total, ceil(s * count) images of every combination stay: less than one too many for each. Then, domain
    by domain and class by class, a combination loses one image until n remain; one round always suffices. A combination
    with a single image can lose it. Domains follow `DOMAINNET_ROUND` if all are DomainNet's, else the
    alphabet; classes follow ``classes``, then their first appearance in ``counts``.

    Raises:
        InputError: For fewer than ``n`` images.
    """
    total = sum(counts.values())
    if total < n:
        raise InputError(f"Subsampling to {n} images needs as many, but there are {total}: give a smaller size.")
    quota = {group: -(-n * count // total) for group, count in counts.items()}
    surplus = sum(quota.values()) - n
    for group in _round(counts, classes)[:surplus]:
        quota[group] -= 1
    return quota


def first_of_each(samples: Iterable[ImageRecord], quota: Mapping[Combination, int]) -> list[ImageRecord]:
    """Return the first images of every (domain, class), as many as its quota (default 0), in their order."""
    left = Counter(quota)
    kept = []
    for sample in samples:
        group = (sample.domain, sample.class_name)
        if left[group] > 0:
            left[group] -= 1
            kept.append(sample)
    return kept


def _round(groups: Mapping[Combination, int], classes: Iterable[str]) -> list[Combination]:
    domains = {domain for domain, _ in groups}
    order = DOMAINNET_ROUND if domains <= set(DOMAINNET_ROUND) else sorted(domains)
    names = dict.fromkeys([*classes, *(class_name for _, class_name in groups)])
    return [(domain, name) for domain in order for name in names if (domain, name) in groups]

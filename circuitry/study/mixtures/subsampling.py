"""Shrinking a set of images to exactly N while the numbers per domain and class stay in proportion. No torch.

Products and quotients are of integers, so that no share is rounded up from a whole number by floating-point error.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

from circuitry.data.domains import ImageRecord
from circuitry.runs.errors import InputError

DOMAINNET_ROUND = ("real", "quickdraw", "painting", "sketch", "infograph", "clipart")
"""The order in which the study goes round DomainNet's domains."""

Combination = tuple[str, str]
"""A domain and a class."""


def subsample(samples: Sequence[ImageRecord], n: int, classes: Iterable[str] = ()) -> list[ImageRecord]:
    """Shrink to exactly ``n`` images and keep the shape: `quotas`, then `first_of_each`.

    Raises:
        InputError: For fewer than ``n`` images.
    """
    return first_of_each(samples, quotas(count_combinations(samples), n, classes))


def count_combinations(samples: Iterable[ImageRecord]) -> Counter[Combination]:
    """Return the number of images of every (domain, class) that has any, in the order of first appearance."""
    return Counter((sample.domain, sample.class_name) for sample in samples)


def quotas(counts: Mapping[Combination, int], n: int, classes: Iterable[str] = ()) -> dict[Combination, int]:
    """Return how many images of every (domain, class) stay, ``n`` in all.

    With s = n / total, the first ceil(s * count) images of every (domain, class) stay; rounding up leaves
    fewer than one image too many per combination. Then, domain by domain and within a domain class by class,
    each class loses its last image until exactly n remain, which one round always suffices for. A combination
    that kept a single image can lose it. The order of domains is `DOMAINNET_ROUND` where all are
    DomainNet's, else sorted; that of classes is ``classes``, and for those not in it the one in which they first
    appear in ``counts``.

    Raises:
        InputError: For fewer than ``n`` images.
    """
    total = sum(counts.values())
    if total < n:
        raise InputError(f"Cannot subsample to {n} images, there are only {total}; give a smaller size.")
    quota = {group: -(-n * count // total) for group, count in counts.items()}
    surplus = sum(quota.values()) - n
    for group in _round(counts, classes)[:surplus]:
        quota[group] -= 1
    return quota


def first_of_each(samples: Iterable[ImageRecord], quota: Mapping[Combination, int]) -> list[ImageRecord]:
    """Return the first images of every (domain, class), as many as its quota says, none without one, in their order."""
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

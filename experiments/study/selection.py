"""The study's training distributions: (domain, class) combinations and numbers of images.

The setting and its test domain T choose (domain, class) combinations. Their images are then subsampled in proportion to
N, the number of images of CG low-diversity.

========================  ===================================================  ===================
setting                   images (C2: the held-out classes)                    number
========================  ===================================================  ===================
``natural-only``          natural domain                                       all
``cg-low``                natural domain, T without C2                         all (this is N)
``cg-high``               all domains, T without C2                            subsampled to N
``leave-out``             all domains except T                                 subsampled to N
``upper-low``             natural domain, T with C2                            subsampled to N
``upper-high``            all domains, T with C2                               subsampled to N
``class-interpolation``   cg-high and a fraction of C2 in T                    subsampled to N
``domain-interpolation``  natural domain, T without C2, chosen other domains   subsampled to N
``aligned``               as cg-high; captions without style words             subsampled to N
========================  ===================================================  ===================

All choices of ImageNet-Sketch are the study's draws (`random.Random`, seed 42). No torch.
"""

import math
import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

from circuitry.runs import Count, InputError, ShareOrZero, one_of
from circuitry.data import (
    DomainFolder,
    ImageRecord,
    chosen_names,
    class_key,
    imagenet_index,
    imagenet_partners,
)
from circuitry.models import default_templates

DOMAINNET_ROUND = ("real", "quickdraw", "painting", "sketch", "infograph", "clipart")
"""The study's order of DomainNet's domains."""

Combination = tuple[str, str]  # a domain and a class


def count_combinations(samples: Iterable[ImageRecord]) -> Counter[Combination]:
    """Count the images of every (domain, class), in the order of first appearance."""
    return Counter((sample.domain, sample.class_name) for sample in samples)


def quotas(
    counts: Mapping[Combination, int], n: int, classes: Iterable[str] = ()
) -> dict[Combination, int]:
    """Return the number of images of every (domain, class) that stay, ``n`` in all.

    With s = n / total, ceil(s * count) images of every combination stay: less than one too many for each. Then, domain
    by domain and class by class, a combination loses one image until n remain. Domains follow `DOMAINNET_ROUND` if all
    are DomainNet's, else the alphabet; classes follow ``classes``, then their first appearance in ``counts``.
    """
    total = sum(counts.values())
    if not 0 <= n <= total:
        raise InputError(
            f"Subsampling to {n} images is possible from 0 to {total}, all that there are: give another size, or a "
            "smaller share of the held-out classes."
        )
    quota = {group: -(-n * count // total) for group, count in counts.items()}
    domains = {domain for domain, _ in counts}
    order = DOMAINNET_ROUND if domains <= set(DOMAINNET_ROUND) else sorted(domains)
    names = dict.fromkeys([*classes, *(class_name for _, class_name in counts)])
    turns = [
        (domain, name) for domain in order for name in names if (domain, name) in counts
    ]
    for group in turns[: sum(quota.values()) - n]:
        quota[group] -= 1
    return quota


def first_of_each(
    samples: Iterable[ImageRecord], quota: Mapping[Combination, int]
) -> list[ImageRecord]:
    """Return the first images of every (domain, class), as many as its quota, in their order."""
    left = Counter(quota)
    kept = []
    for sample in samples:
        group = (sample.domain, sample.class_name)
        if left[group] > 0:
            left[group] -= 1
            kept.append(sample)
    return kept


WHOLE_SETTINGS = ("natural-only", "cg-low")  # settings without subsampling
HOLDING_OUT = (
    "cg-low",
    "cg-high",
    "class-interpolation",
    "domain-interpolation",
    "aligned",
)
"""Settings that hold classes out of the test domain."""
SETTINGS = ("natural-only", "leave-out", "upper-low", "upper-high", *HOLDING_OUT)
Setting = Annotated[str, one_of(*SETTINGS)]


@dataclass(frozen=True)
class MixtureSettings:
    """One training distribution."""

    setting: Setting
    test_domain: str  # t, the domain on which generalization is tested
    held_out_classes: tuple[str, ...] = ()
    """C2, classes that are left out of T alone; case does not matter, and "_", "-" and " " are the same."""
    size: Count | None = None
    """N of the subsampled settings, in images (default: that of ``cg-low`` with the same T and held-out classes)."""
    natural_domain: str = "real"
    # Class interpolation: share of C2's images in T before subsampling, 0 to 1.
    fraction: ShareOrZero | None = None
    other_domains: tuple[str, ...] | None = None
    """Interpolations: domains in addition to the natural one and T; None (class interpolation): all."""

    def __post_init__(self) -> None:
        if self.test_domain == self.natural_domain:
            raise InputError(
                f"The test domain must differ from the natural domain, but both are {self.test_domain!r}: name the "
                "domain of photographs by natural_domain=."
            )
        needed = {
            "class-interpolation": self.fraction,
            "domain-interpolation": self.other_domains,
        }
        if needed.get(self.setting, ()) is None:
            raise InputError(
                f"The setting {self.setting!r} needs a fraction or other domains: the program mixtures gives them."
            )

    @property
    def name(self) -> str:
        """Return a name for files and tables, unique among the mixtures of one data set."""
        if self.setting == "natural-only":
            return self.setting
        parts: list[str] = [self.setting]
        if self.fraction is not None:
            parts.append(f"{self.fraction:g}")
        if self.other_domains is not None:
            none = "low" if self.setting == "class-interpolation" else "none"
            parts.append("+".join(self.other_domains) or none)
        return "-".join([*parts, self.test_domain])

    @property
    def aligned(self) -> bool:
        """Return whether captions have no style words."""
        return self.setting == "aligned"

    def has_domain(self, domain: str) -> bool:
        """Return whether images of a domain take part, with or without the held-out classes."""
        if domain == self.natural_domain:
            return True
        if domain == self.test_domain:
            return self.setting not in ("natural-only", "leave-out")
        low = self.setting in ("natural-only", "cg-low", "upper-low")
        return not low and (self.other_domains is None or domain in self.other_domains)

    def holds_out(self, domain: str, class_name: str) -> bool:
        """Return whether a class is a held-out one in the test domain."""
        return domain == self.test_domain and class_key(class_name) in map(
            class_key, self.held_out_classes
        )

    def admits(self, domain: str, class_name: str) -> bool:
        """Return whether images of a class in a domain take part."""
        seen = self.setting not in HOLDING_OUT or bool(self.fraction)
        return self.has_domain(domain) and (
            seen or not self.holds_out(domain, class_name)
        )

    def described(self) -> dict[str, Any]:
        """Return the entries of a mixture's JSON; natural-only has no test domain."""
        return {
            "setting": self.setting,
            "test_domain": None if self.setting == "natural-only" else self.test_domain,
            "held_out": list(self.held_out_classes),
            "captions": "aligned" if self.aligned else "standard",
        }


def mixture(
    train: Sequence[ImageRecord], settings: MixtureSettings, classes: Iterable[str] = ()
) -> list[ImageRecord]:
    """Choose the training images of a setting, in their order in ``train``, without randomness.

    `quotas` subsamples all settings except `WHOLE_SETTINGS` to N. In class interpolation with fraction p and
    s = N / (number of images with all of C2 in T), T keeps the first ceil(p * s * count) images of each class of C2,
    and all other images are subsampled to the rest of N. So p = 0 is ``cg-high``.
    """
    part = admitted(train, settings)
    if settings.setting in WHOLE_SETTINGS:
        return part
    low = replace(settings, setting="cg-low", fraction=None, other_domains=None)
    size = settings.size or len(admitted(train, low))
    # Not of the admitted images: classes held out of the first domain would come last.
    names = dict.fromkeys([*classes, *(sample.class_name for sample in train)])
    counts = count_combinations(part)
    # Through str: 0.1 means a tenth, not the binary number next to it.
    share = Fraction(str(settings.fraction or 0)) * size / max(len(part), 1)
    held_out = {
        pair: count
        for pair, count in counts.items()
        if settings.fraction and settings.holds_out(*pair)
    }
    fixed = {pair: math.ceil(share * count) for pair, count in held_out.items()}
    rest = {pair: count for pair, count in counts.items() if pair not in fixed}
    return first_of_each(part, quotas(rest, size - sum(fixed.values()), names) | fixed)


def admitted(
    samples: Sequence[ImageRecord], settings: MixtureSettings
) -> list[ImageRecord]:
    """Keep the images whose (domain, class) takes part in a setting, without subsampling, as validation lists need."""
    groups = count_combinations(samples)
    named = (
        settings.test_domain,
        settings.natural_domain,
        *(settings.other_domains or ()),
    )
    chosen_names("domain", named, sorted({domain for domain, _ in groups}))
    kept = {pair for pair in groups if settings.admits(*pair)}
    return [sample for sample in samples if (sample.domain, sample.class_name) in kept]


SKETCH_SHARES = {
    "imagenet-sketch": (None, ""),
    "imagenet-sketch-0.5": (Fraction(1, 2), "-fiftyp"),
    "imagenet-sketch-0.25": (Fraction(1, 4), "-twentyfivep"),
    "imagenet-sketch-0.3": (Fraction(3, 10), "-thirtyp"),
    "imagenet-sketch-0.1": (Fraction(1, 10), "-tenp"),
    "imagenet-sketch-0.05": (Fraction(1, 20), "-fivep"),
    "imagenet-sketch-0.01": (Fraction(1, 100), "-onep"),
    "imagenet-sketch-one": (Fraction(0), "-one"),
}
"""Variant of ImageNet-Sketch -> share of the sketch classes that stay, rounded down to at least one, and the study's
name of it. Without a share, ImageNet-Sketch replaces random images of all domains. In the order of the draws."""
CLASS_SHARES = {
    variant: share for variant, (share, _) in SKETCH_SHARES.items() if share is not None
}

LEFT_OUT = {
    109,
    150,
    298,
    300,
    302,
    303,
    304,
    305,
    306,
    315,
    338,
    351,
    352,
    413,
    428,
    440,
    441,
    458,
    520,
    535,
    624,
    678,
    694,
    710,
    719,
    723,
    738,
    739,
    755,
    758,
    762,
    822,
    927,
    981,
    994,
    996,
}
"""ImageNet classes without a DomainNet partner that the study also leaves out, because their names contain the name of
a class with a partner (sea lion: lion; library: bra)."""

_DOMAIN = "sketch"
_SEED = 42


class SketchSet(NamedTuple):
    """Images of ImageNet-Sketch and the names of their classes."""

    # All by class: the WordNet id; path below the root ``<wnid>/<file>``.
    images: list[ImageRecord]
    names: Mapping[str, str]  # WordNet id -> name of the class in words
    kept: frozenset[str]  # WordNet ids of the classes that DomainNet lacks

    @property
    def records(self) -> list[ImageRecord]:
        """Return the images for mixtures."""
        return [record for record in self.images if record.class_name in self.kept]


ImagenetNames = Literal["open_clip", "study"]  # whose names of ImageNet's classes
STUDY_IMAGENET_NAMES = {27: "eft", 638: "maillot", 744: "projectile", 836: "sunglass"}
"""The study's names by index, where open_clip has others."""


def style_word_templates() -> tuple[str, ...]:
    """Return the ten default templates that name a style of DomainNet's; none names photographs."""
    return tuple(
        t
        for t in default_templates()
        if any(style in t for style in DOMAINNET_ROUND[1:])
    )


def imagenet_names(whose: ImagenetNames = "open_clip") -> tuple[str, ...]:
    """Return the names of ImageNet's thousand classes in the order of their indices."""
    from open_clip import IMAGENET_CLASSNAMES  # here, since it brings torch

    names = dict(enumerate(IMAGENET_CLASSNAMES)) | (
        STUDY_IMAGENET_NAMES if whose == "study" else {}
    )
    return tuple(names.values())


def imagenet_sketch(root: str | os.PathLike[str]) -> SketchSet:
    """Read ``root/<wnid>/<file>``; mixtures take the 514 classes without a partner that are not `LEFT_OUT`."""
    index = imagenet_index(
        path.name
        for path in Path(root).iterdir()
        if path.is_dir() and path.name[0] != "."
    )
    folder = DomainFolder({_DOMAIN: Path(root).resolve()}, split=None)
    out = LEFT_OUT | {i for indices in imagenet_partners().values() for i in indices}
    images = [
        ImageRecord(
            one.path, f"{one.class_name}/{one.path.name}", _DOMAIN, one.class_name
        )
        for one in folder.records
    ]
    called = imagenet_names("study")
    names = {wnid: called[i] for wnid, i in index.items()}
    return SketchSet(
        images, names, frozenset(wnid for wnid, i in index.items() if i not in out)
    )


def sketch_mixtures(
    records: Sequence[ImageRecord], others: Sequence[ImageRecord]
) -> dict[str, list[ImageRecord]]:
    """Return the mixtures of `SKETCH_SHARES`, where ``others`` come last in place of as many images.

    They replace random images, or else the sketches of the dropped classes, and random images of other domains. One
    random stream draws the classes of all shares, then the dropped images, so the mixtures are made together. The study
    draws the additional classes of 0.3 from an unordered set, which cannot be repeated; here they follow the order of
    ``records``, and later mixtures drop the study's images only if this one has as many as the study's.
    """
    made = {
        "imagenet-sketch": [
            *_without(records, len(others), random.Random(_SEED)),
            *others,
        ]
    }
    by_class: dict[str, list[ImageRecord]] = {}
    for record in records:
        if record.domain == _DOMAIN:
            by_class.setdefault(record.class_name, []).append(record)
    if not by_class:
        return made
    rest = [record for record in records if record.domain != _DOMAIN]
    rng = random.Random(_SEED)
    for variant, classes in _nested_classes(list(by_class), rng).items():
        kept = [record for name in classes for record in by_class[name]]
        made[variant] = [
            *_without(rest, len(others) + len(kept) + len(rest) - len(records), rng),
            *kept,
            *others,
        ]
    return made


def _nested_classes(classes: Sequence[str], rng: random.Random) -> dict[str, list[str]]:
    """Return the classes that stay in each variant, in the order of the draws."""
    drawn: dict[str, list[str]] = {}
    smallest: Sequence[str] = classes
    for variant, share in CLASS_SHARES.items():
        n = max(1, int(share * len(classes)))
        if (
            variant == "imagenet-sketch-0.3"
        ):  # a superset of 0.25 and subset of 0.5; later variants ignore it
            more = set(drawn["imagenet-sketch-0.5"]).difference(smallest)
            drawn[variant] = [
                *smallest,
                *rng.sample(
                    [name for name in classes if name in more], n - len(smallest)
                ),
            ]
        else:
            smallest = drawn[variant] = rng.sample(smallest, n)
    return drawn


def _without(
    records: Sequence[ImageRecord], n: int, rng: random.Random
) -> list[ImageRecord]:
    if not 0 <= n <= len(records):
        raise InputError(
            f"ImageNet-Sketch replaces {n} images of the mixture, but there are {len(records)}: give fewer or more "
            "images of ImageNet-Sketch."
        )
    dropped = set(rng.sample(range(len(records)), n))
    return [record for i, record in enumerate(records) if i not in dropped]

"""Which images does a model of the study train on? Its training distributions, without torch.

A setting and its test domain T choose combinations of a domain and a class. The images of these combinations are then
subsampled in proportion to N, the number of images of CG low-diversity.

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

Images and classes of ImageNet-Sketch are drawn as the study drew them (`random.Random`, seed 42).
"""

import math
import os
import random
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from functools import cache
from itertools import chain, product
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

Combination = tuple[str, str]  # a domain, and the name of a class


def count_combinations(samples: Iterable[ImageRecord]) -> Counter[Combination]:
    """Count the images of every combination, in the order of first appearance."""
    return Counter(map(combination_of, samples))


def combination_of(sample: ImageRecord) -> Combination:
    """Return the domain and the class of an image."""
    return sample.domain, sample.class_name


def quotas(
    counts: Mapping[Combination, int], n: int, classes: Iterable[str] = ()
) -> dict[Combination, int]:
    """Return the number of images of every combination that stay, ``n`` images in all.

    With s = n / total, ceil(s * count) images of a combination stay, which is less than one image too many. Then
    combinations lose one image each, domain by domain and class by class, until n images remain. Domains are in the
    order of `DOMAINNET_ROUND` if all of them are DomainNet's, and otherwise in alphabetical order. Classes are in the
    order of ``classes``, and after these in the order of ``counts``.
    """
    total = sum(counts.values())
    if not 0 <= n <= total:
        raise InputError(
            f"Subsampling to {n} images is possible from 0 to {total}, all that there are: give another size, or a "
            "smaller share of the held-out classes."
        )
    # -(-a // b) is a / b rounded up, in whole numbers: a float would round some quotas the other way.
    quota = {pair: -(-n * count // total) for pair, count in counts.items()}
    domains = {domain for domain, _ in counts}
    order: Sequence[str] = sorted(domains)
    if domains <= set(DOMAINNET_ROUND):
        order = DOMAINNET_ROUND
    names = dict.fromkeys([*classes, *(name for _, name in counts)])
    # The study takes one image of each combination in this order, not at random.
    turns = [pair for pair in product(order, names) if pair in counts]
    excess = sum(quota.values()) - n
    for pair in turns[:excess]:
        quota[pair] -= 1
    return quota


def first_of_each(
    samples: Iterable[ImageRecord], quota: Mapping[Combination, int]
) -> list[ImageRecord]:
    """Return the first images of every combination, as many as its quota, in their order."""
    left = Counter(quota)
    first = []
    for sample in samples:
        pair = combination_of(sample)
        # A counter gives 0 for a combination without a quota.
        if left[pair] > 0:
            left[pair] -= 1
            first.append(sample)
    return first


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
    """Settings of one training distribution."""

    setting: Setting
    test_domain: str  # t, the domain on which generalization is tested
    held_out_classes: tuple[str, ...] = ()
    """C2, the classes that are left out of T alone; case does not matter, and "_", "-" and " " are the same."""
    size: Count | None = None
    """N, the number of images of a subsampled setting (default: the number of images of ``cg-low`` with the same T and
    held-out classes)."""
    natural_domain: str = "real"
    """The domain of photographs."""
    fraction: ShareOrZero | None = None
    """Class interpolation: the share of the images of C2 in T that take part, before subsampling."""
    other_domains: tuple[str, ...] | None = None
    """Interpolations: the domains in addition to the natural domain and T; None (class interpolation) takes all."""

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
        # Only None is missing: a fraction of 0 and no other domains are the ends of the interpolations.
        if needed.get(self.setting, ()) is None:
            raise InputError(
                f"The setting {self.setting!r} needs a fraction or other domains: the program mixtures gives them."
            )

    @property
    def name(self) -> str:
        """Return a name for files and tables, unique among the mixtures of one data set."""
        # Photographs alone are the same for every test domain.
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
        """Return whether captions are written without words for styles."""
        return self.setting == "aligned"

    def has_domain(self, domain: str) -> bool:
        """Return whether images of a domain take part; the held-out classes may still be left out."""
        if domain == self.natural_domain:
            return True
        if domain == self.test_domain:
            return self.setting not in ("natural-only", "leave-out")
        low = self.setting in ("natural-only", "cg-low", "upper-low")
        return not low and (self.other_domains is None or domain in self.other_domains)

    def holds_out(self, domain: str, class_name: str) -> bool:
        """Return whether the domain is the test domain and the class is a held-out class."""
        held_out = map(class_key, self.held_out_classes)
        return domain == self.test_domain and class_key(class_name) in held_out

    def admits(self, domain: str, class_name: str) -> bool:
        """Return whether images of a class in a domain take part."""
        # With a fraction all images take part, until `mixture` subsamples them.
        if self.setting in HOLDING_OUT and not self.fraction:
            return self.has_domain(domain) and not self.holds_out(domain, class_name)
        return self.has_domain(domain)

    def described(self) -> dict[str, Any]:
        """Return the entries of the JSON beside a mixture; the test domain of ``natural-only`` is None."""
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

    `quotas` subsamples all settings except `WHOLE_SETTINGS` to N images. In class interpolation with fraction p and
    s = N / (number of images with all of C2 in T), the first ceil(p * s * count) images of each class of C2 in T stay.
    All other images are subsampled to the remainder of N. So p = 0 is ``cg-high``.
    """
    samples = admitted(train, settings)
    if settings.setting in WHOLE_SETTINGS:
        return samples
    low = replace(settings, setting="cg-low", fraction=None, other_domains=None)
    size = settings.size or len(admitted(train, low))
    # Not of the admitted images: classes held out of the first domain would come last.
    names = [*classes, *(sample.class_name for sample in train)]
    # Through str: 0.1 means a tenth, not the binary number next to it.
    share = Fraction(str(settings.fraction or 0)) * size / max(len(samples), 1)
    subsampled = count_combinations(samples)
    fixed: dict[Combination, int] = {}
    for pair, count in list(subsampled.items()):
        if settings.fraction and settings.holds_out(*pair):
            fixed[pair] = math.ceil(share * count)
            del subsampled[pair]
    quota = quotas(subsampled, size - sum(fixed.values()), names)
    return first_of_each(samples, quota | fixed)


def admitted(
    samples: Sequence[ImageRecord], settings: MixtureSettings
) -> list[ImageRecord]:
    """Return the images whose combination takes part in a setting, without subsampling.

    Validation lists are made in this way.

    Raises:
        InputError: No image is of a domain that the settings name.
    """
    named = (
        settings.test_domain,
        settings.natural_domain,
        *(settings.other_domains or ()),
    )
    chosen_names("domain", named, sorted({sample.domain for sample in samples}))
    # Combinations are few and images many, so each combination is asked once.
    admits = cache(settings.admits)
    return [sample for sample in samples if admits(*combination_of(sample))]


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
"""Takes a variant of ImageNet-Sketch, in the order of the draws. Returns the share of the sketch classes that stay, and
the end of the study's name of the variant. The number of classes is rounded down to at least one. Without a share,
ImageNet-Sketch replaces random images of all domains."""
CLASS_SHARES = {
    variant: share for variant, (share, _) in SKETCH_SHARES.items() if share is not None
}
"""The shares of the variants that drop sketch classes."""

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
"""Indices of ImageNet classes that have no partner in DomainNet but are left out, too. The study leaves them out
because their names contain the name of a class with a partner (sea lion: lion; library: bra)."""

_DOMAIN = "sketch"  # the domain that the images of ImageNet-Sketch join
_SEED = 42  # the study's


class SketchSet(NamedTuple):
    """Images of ImageNet-Sketch and the names of their classes."""

    # All images; the class is a WordNet id, the path below the root is ``<wnid>/<file>``.
    images: list[ImageRecord]
    names: Mapping[str, str]  # name of each class in words, by WordNet id
    kept: frozenset[str]  # WordNet ids of the classes that DomainNet lacks

    @property
    def records(self) -> list[ImageRecord]:
        """Return the images of the classes that DomainNet lacks, which mixtures take."""
        return [record for record in self.images if record.class_name in self.kept]


ImagenetNames = Literal["open_clip", "study"]  # whose names of ImageNet's classes
STUDY_IMAGENET_NAMES = {27: "eft", 638: "maillot", 744: "projectile", 836: "sunglass"}
"""The study's names of classes, by index, if they differ from open_clip's names."""


def style_word_templates() -> tuple[str, ...]:
    """Return the ten default templates that name a style of DomainNet other than photographs."""
    # The first domain is of photographs: "real" is no word for a style.
    styles = re.compile("|".join(DOMAINNET_ROUND[1:]))
    return tuple(filter(styles.search, default_templates()))


def imagenet_names(whose: ImagenetNames = "open_clip") -> tuple[str, ...]:
    """Return the names of ImageNet's thousand classes in the order of their indices."""
    # Imported here, because open_clip imports torch.
    from open_clip import IMAGENET_CLASSNAMES

    names = dict(enumerate(IMAGENET_CLASSNAMES))
    if whose == "study":
        names |= STUDY_IMAGENET_NAMES
    return tuple(names.values())


def imagenet_sketch(root: str | os.PathLike[str]) -> SketchSet:
    """Read the images ``root/<wnid>/<file>``.

    Mixtures take the 514 classes that have no partner in DomainNet and are not in `LEFT_OUT`.
    """
    index = imagenet_index(
        path.name
        for path in Path(root).iterdir()
        if path.is_dir() and path.name[0] != "."
    )
    folder = DomainFolder({_DOMAIN: Path(root).resolve()}, split=None)
    # The paths below the root name no domain, as they would in a folder of several domains.
    images = [
        replace(record, relative=f"{record.class_name}/{record.path.name}")
        for record in folder.records
    ]
    left_out = LEFT_OUT.union(*imagenet_partners().values())
    called = imagenet_names("study")
    names = {wnid: called[i] for wnid, i in index.items()}
    kept = frozenset(wnid for wnid, i in index.items() if i not in left_out)
    return SketchSet(images, names, kept)


def sketch_mixtures(
    records: Sequence[ImageRecord], others: Sequence[ImageRecord]
) -> dict[str, list[ImageRecord]]:
    """Return the mixtures of `SKETCH_SHARES`: images of ImageNet-Sketch replace as many images of a mixture.

    In ``imagenet-sketch`` they replace random images. In the variants they replace the sketches of the dropped classes
    and random images of other domains. One random stream draws the classes of all variants and then the dropped images,
    so the mixtures are made together. The study draws the additional classes of the share 0.3 from an unordered set,
    which cannot be repeated. Here these classes are drawn in the order of ``records``. Later mixtures drop the images
    that the study drops only if the mixture of 0.3 has as many images as the study's.

    Args:
        records: Images of the mixture.
        others: Images of ImageNet-Sketch, which come last.
    """
    replaced = _without(records, len(others), random.Random(_SEED))
    made = {"imagenet-sketch": [*replaced, *others]}
    by_class: dict[str, list[ImageRecord]] = {}
    further: list[ImageRecord] = []
    for record in records:
        if record.domain == _DOMAIN:
            by_class.setdefault(record.class_name, []).append(record)
        else:
            further.append(record)
    if not by_class:
        return made
    rng = random.Random(_SEED)
    for variant, classes in _nested_classes(list(by_class), rng).items():
        sketches = list(chain.from_iterable(by_class[name] for name in classes))
        # Every mixture has as many images as before, so the drop depends on the sketches that stay.
        n_dropped = len(others) + len(sketches) + len(further) - len(records)
        made[variant] = [*_without(further, n_dropped, rng), *sketches, *others]
    return made


def _nested_classes(classes: Sequence[str], rng: random.Random) -> dict[str, list[str]]:
    """Return the classes that stay in each variant, in the order of the draws.

    A smaller share is drawn from the classes of the next larger share.
    """
    drawn: dict[str, list[str]] = {}
    smallest: Sequence[str] = classes
    for variant, share in CLASS_SHARES.items():
        n = max(1, int(share * len(classes)))
        # 0.3 is a superset of 0.25 and a subset of 0.5; later variants ignore it.
        if variant == "imagenet-sketch-0.3":
            more = set(drawn["imagenet-sketch-0.5"]).difference(smallest)
            additional = [name for name in classes if name in more]
            n_more = n - len(smallest)
            drawn[variant] = [*smallest, *rng.sample(additional, n_more)]
        else:
            smallest = drawn[variant] = rng.sample(smallest, n)
    return drawn


def _without(
    records: Sequence[ImageRecord], n: int, rng: random.Random
) -> list[ImageRecord]:
    """Return the images without ``n`` random images, in their order."""
    if not 0 <= n <= len(records):
        raise InputError(
            f"ImageNet-Sketch replaces {n} images of the mixture, but there are {len(records)}: give fewer or more "
            "images of ImageNet-Sketch."
        )
    dropped = set(rng.sample(range(len(records)), n))
    return [record for i, record in enumerate(records) if i not in dropped]

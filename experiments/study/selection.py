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

No torch.

ImageNet-Sketch: all choices are the study's draws (`random.Random`, seed 42).
"""

import os
import random
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Any, Literal, NamedTuple

from circuitry.runs import Count, InputError, Part
from circuitry.data import DomainFolder, ImageRecord, chosen_names, class_key, imagenet_index, imagenet_partners
from circuitry.models import default_templates

DOMAINNET_ROUND = ("real", "quickdraw", "painting", "sketch", "infograph", "clipart")
"""The study's order of DomainNet's domains."""

Combination = tuple[str, str]  # a domain and a class


def count_combinations(samples: Iterable[ImageRecord]) -> Counter[Combination]:
    """Count the images of every (domain, class), in the order of first appearance."""
    return Counter((sample.domain, sample.class_name) for sample in samples)


def quotas(counts: Mapping[Combination, int], n: int, classes: Iterable[str] = ()) -> dict[Combination, int]:
    """Return the number of images of every (domain, class) that stay, ``n`` in all.

    With s = n / total, ceil(s * count) images of every combination stay: less than one too many for each. Then, domain
    by domain and class by class, a combination loses one image until n remain; one round always suffices. A combination
    with a single image can lose it. Domains follow `DOMAINNET_ROUND` if all are DomainNet's, else the
    alphabet; classes follow ``classes``, then their first appearance in ``counts``.
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


Setting = Literal[
    "natural-only",
    "cg-low",
    "cg-high",
    "leave-out",
    "upper-low",
    "upper-high",
    "class-interpolation",
    "domain-interpolation",
    "aligned",
]

WHOLE_SETTINGS: tuple[Setting, ...] = ("natural-only", "cg-low")  # settings without subsampling
HOLDING_OUT: tuple[Setting, ...] = ("cg-low", "cg-high", "class-interpolation", "domain-interpolation", "aligned")
"""Settings that hold classes out of the test domain."""
INTERPOLATING: tuple[Setting, ...] = ("class-interpolation", "domain-interpolation")
"""Settings that may name other domains."""


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
    fraction: Part | None = None  # class interpolation: share of C2's images in T before subsampling, 0 to 1
    other_domains: tuple[str, ...] | None = None
    """Interpolations: domains in addition to the natural one and T; None (class interpolation): all."""

    def __post_init__(self) -> None:
        if self.test_domain == self.natural_domain:
            raise InputError(
                f"The test domain must differ from the natural domain, but both are {self.test_domain!r}: name the "
                "domain of photographs by natural_domain=."
            )
        if self.setting in HOLDING_OUT and not self.held_out_classes:
            raise InputError(
                f"Setting {self.setting!r} holds classes out of the test domain, but held_out_classes is empty: give "
                "some."
            )
        self._check_interpolation()

    def _check_interpolation(self) -> None:
        if (self.fraction is None) == (self.setting == "class-interpolation"):
            raise InputError(
                f"Only class-interpolation takes and needs a fraction, from 0 to 1, but {self.fraction} was given for "
                f"{self.setting!r}."
            )
        given = self.other_domains is not None
        if (self.setting == "domain-interpolation" and not given) or (given and self.setting not in INTERPOLATING):
            raise InputError(
                f"domain-interpolation needs other_domains=, which may be (), class-interpolation may have them, no "
                f"other setting has them, but {self.other_domains} was given for {self.setting!r}."
            )
        for name in self.other_domains or ():
            if name in (self.test_domain, self.natural_domain):
                raise InputError(
                    f"The other_domains exclude the natural and the test domain, but {name!r} was given: remove it."
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

    def described(self) -> dict[str, Any]:
        """Return the entries of a mixture's JSON; natural-only has no test domain."""
        return {
            "setting": self.setting,
            "test_domain": None if self.setting == "natural-only" else self.test_domain,
            "fraction": self.fraction,
            "other_domains": None if self.other_domains is None else list(self.other_domains),
            "held_out": list(self.held_out_classes),
            "captions": "aligned" if self.aligned else "standard",
        }


def mixture(
    train: Sequence[ImageRecord], settings: MixtureSettings, classes: Sequence[str] | None = None
) -> list[ImageRecord]:
    """Choose the training images of a setting, in their order in ``train``, without randomness.

    `quotas` subsamples all settings except `WHOLE_SETTINGS` to N. In class interpolation with fraction p and
    s = N / (number of images with all of C2 in T), T keeps the first ceil(p * s * count) images of each class of C2,
    and all other images are subsampled to the rest of N. So p = 0 is ``cg-high``.
    """
    part = admitted(train, settings)
    if settings.setting in WHOLE_SETTINGS:
        return part
    if classes is None:  # not of the admitted images: classes held out of the first domain would come last
        classes = tuple(dict.fromkeys(sample.class_name for sample in train))
    return shrink(part, settings, settings.size or reference_size(train, settings), classes)


def admitted(samples: Sequence[ImageRecord], settings: MixtureSettings) -> list[ImageRecord]:
    """Keep the images whose (domain, class) takes part in a setting, without subsampling, as validation lists need."""
    counts = count_combinations(samples)
    return first_of_each(samples, _taking_part(counts, _fitted(settings, counts)))


def shrink(
    part: Sequence[ImageRecord], settings: MixtureSettings, size: int, classes: Sequence[str]
) -> list[ImageRecord]:
    """Subsample the admitted images of a setting to ``size``, see `mixture`."""
    counts = count_combinations(part)
    fixed: dict[Combination, int] = {}
    if settings.fraction:
        # Through str: 0.1 means a tenth, not the binary number next to it.
        share = Fraction(str(settings.fraction)) * size / len(part)
        held_out = {class_key(name) for name in settings.held_out_classes}
        fixed = {
            pair: -(-share.numerator * count // share.denominator)
            for pair, count in counts.items()
            if pair[0] == settings.test_domain and class_key(pair[1]) in held_out
        }
    left = size - sum(fixed.values())
    if left < 0:
        raise InputError(
            f"The kept images of the held-out classes, {size - left}, exceed the {size} images of the mixture: give a "
            "larger size, or a smaller fraction."
        )
    rest = {pair: count for pair, count in counts.items() if pair not in fixed}
    return first_of_each(part, quotas(rest, left, classes) | fixed)


def reference_size(train: Sequence[ImageRecord], settings: MixtureSettings) -> int:
    """Return N, the number of images of ``cg-low`` with the same test domain and held-out classes."""
    if not settings.held_out_classes:
        raise InputError(
            f"Setting {settings.setting!r} takes the size of 'cg-low', which needs held_out_classes: give those, or a "
            "size."
        )
    low = MixtureSettings(
        "cg-low", settings.test_domain, settings.held_out_classes, natural_domain=settings.natural_domain
    )
    counts = count_combinations(train)
    return _taking_part(counts, _fitted(low, counts)).total()


def check_spelling(class_names: Iterable[str]) -> None:
    """Refuse data with two spellings of one class, with an InputError that names both."""
    spellings: dict[str, str] = {}
    for name in sorted(set(class_names)):
        other = spellings.setdefault(class_key(name), name)
        if other != name:
            raise InputError(f"The classes {other!r} and {name!r} differ only in spelling; rename one to the other.")


def _fitted(settings: MixtureSettings, counts: Counter[Combination]) -> MixtureSettings:
    """Return the settings in the spelling of the data; InputError for names that it lacks or spells in two ways."""
    domains, classes = (sorted({pair[i] for pair in counts}) for i in (0, 1))
    check_spelling(classes)
    chosen_names("domain", (settings.test_domain, settings.natural_domain, *(settings.other_domains or ())), domains)
    asked = settings.held_out_classes
    held_out = chosen_names("held-out class", asked, classes, class_key) if asked else ()
    return replace(settings, held_out_classes=held_out)


def _taking_part(counts: Counter[Combination], settings: MixtureSettings) -> Counter[Combination]:
    return Counter({pair: count for pair, count in counts.items() if _takes_part(*pair, settings)})


def _takes_part(domain: str, class_name: str, settings: MixtureSettings) -> bool:
    if not settings.has_domain(domain):
        return False
    if domain != settings.test_domain or class_name not in settings.held_out_classes:
        return True
    return settings.setting in ("upper-low", "upper-high") or bool(settings.fraction)


SketchVariant = Literal[
    "imagenet-sketch",
    "imagenet-sketch-0.5",
    "imagenet-sketch-0.25",
    "imagenet-sketch-0.3",
    "imagenet-sketch-0.1",
    "imagenet-sketch-0.05",
    "imagenet-sketch-0.01",
    "imagenet-sketch-one",
]  # ImageNet-Sketch replaces random images of the mixture, or the sketches of all but a share of the sketch classes

CLASS_SHARES: Mapping[SketchVariant, Fraction] = MappingProxyType(
    {
        "imagenet-sketch-0.5": Fraction(1, 2),
        "imagenet-sketch-0.25": Fraction(1, 4),
        "imagenet-sketch-0.3": Fraction(3, 10),
        "imagenet-sketch-0.1": Fraction(1, 10),
        "imagenet-sketch-0.05": Fraction(1, 20),
        "imagenet-sketch-0.01": Fraction(1, 100),
        "imagenet-sketch-one": Fraction(0),
    }
)  # variant -> share of the sketch classes that stay, rounded down to at least one; in the order of the draws

LEFT_OUT = frozenset(
    {
        *(109, 150, 298, 300, 302, 303, 304, 305, 306, 315, 338, 351, 352, 413, 428, 440, 441, 458, 520, 535, 624, 678),
        *(694, 710, 719, 723, 738, 739, 755, 758, 762, 822, 927, 981, 994, 996),
    }
)
"""ImageNet classes without a DomainNet partner that the study also leaves out, because their names contain the name of
a class with a partner (sea lion: lion; library: bra)."""

_DOMAIN, _SEED = "sketch", 42


class SketchSet(NamedTuple):
    """Images of ImageNet-Sketch and the names of their classes."""

    images: list[ImageRecord]
    """All images by class: domain "sketch", class the WordNet id, path below the root ``<wnid>/<file>``."""
    names: Mapping[str, str]  # WordNet id -> name of the class in words
    kept: frozenset[str]  # WordNet ids of the classes that DomainNet lacks

    @property
    def records(self) -> list[ImageRecord]:
        """Return the images for mixtures."""
        return [record for record in self.images if record.class_name in self.kept]


ImagenetNames = Literal["open_clip", "study"]  # whose names of ImageNet's classes
STUDY_IMAGENET_NAMES = {27: "eft", 638: "maillot", 744: "projectile", 836: "sunglass"}
"""The study's names by index, where open_clip has others."""
STYLE_WORDS_OF_TEMPLATES = ("clipart", "infograph", "painting", "quickdraw", "sketch")
"""The words by which the study picks templates that name a style."""


def style_word_templates() -> tuple[str, ...]:
    """Return the ten default templates that name one of `STYLE_WORDS_OF_TEMPLATES`; none names photographs."""
    return tuple(t for t in default_templates() if any(word in t for word in STYLE_WORDS_OF_TEMPLATES))


def imagenet_names(whose: ImagenetNames = "open_clip") -> tuple[str, ...]:
    """Return the names of ImageNet's thousand classes in the order of their indices."""
    from open_clip import IMAGENET_CLASSNAMES

    names = dict(enumerate(IMAGENET_CLASSNAMES)) | (STUDY_IMAGENET_NAMES if whose == "study" else {})
    return tuple(names.values())


def imagenet_sketch(root: str | os.PathLike[str]) -> SketchSet:
    """Read ``root/<wnid>/<file>``; mixtures take the 514 classes without a partner that are not `LEFT_OUT`."""
    index = imagenet_index(path.name for path in Path(root).iterdir() if path.is_dir() and path.name[0] != ".")
    folder = DomainFolder({_DOMAIN: Path(root).resolve()}, split=None)
    out = LEFT_OUT | {i for indices in imagenet_partners().values() for i in indices}
    images = [
        ImageRecord(one.path, f"{one.class_name}/{one.path.name}", _DOMAIN, one.class_name) for one in folder.records
    ]
    called = imagenet_names("study")
    names = {wnid: called[i] for wnid, i in index.items()}
    return SketchSet(images, names, frozenset(wnid for wnid, i in index.items() if i not in out))


def replace_at_random(records: Sequence[ImageRecord], others: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Replace random images of a mixture by as many ``others``, which come last."""
    return [*_without(records, len(others), random.Random(_SEED)), *others]


def sketch_class_mixtures(
    records: Sequence[ImageRecord], others: Sequence[ImageRecord]
) -> dict[SketchVariant, list[ImageRecord]]:
    """Return the mixtures of `CLASS_SHARES`: fewer sketch classes of ``records``, then all ``others``.

    The others replace the sketches of the dropped classes, and random images of other domains, so that the size stays.
    One random stream draws the classes of all variants, each among those of the larger variant (0.3 adds to 0.25), and
    then the dropped images, so the variants are made together. The study draws the additional classes of 0.3 from an
    unordered set, which cannot be repeated; here they follow the order of ``records``. Later variants drop the study's
    images only if this variant has as many images as the study's; otherwise the random stream is shifted.
    """
    by_class: dict[str, list[ImageRecord]] = {}
    for record in records:
        if record.domain == _DOMAIN:
            by_class.setdefault(record.class_name, []).append(record)
    if not by_class:
        raise InputError(f"The mixture has no images of domain {_DOMAIN!r}: choose a setting that has them.")
    rest = [record for record in records if record.domain != _DOMAIN]
    rng = random.Random(_SEED)
    made: dict[SketchVariant, list[ImageRecord]] = {}
    for variant, classes in _nested_classes(list(by_class), rng).items():
        kept = [record for name in classes for record in by_class[name]]
        dropped = len(others) + len(kept) + len(rest) - len(records)
        if dropped < 0:
            raise InputError(f"{variant} drops more sketches than ImageNet-Sketch has, {len(others)}: give more.")
        made[variant] = [*_without(rest, dropped, rng), *kept, *others]
    return made


def _nested_classes(classes: Sequence[str], rng: random.Random) -> dict[SketchVariant, list[str]]:
    """Return the classes that stay in each variant, in the order of the draws."""
    drawn: dict[SketchVariant, list[str]] = {}
    smallest: Sequence[str] = classes
    for variant, share in CLASS_SHARES.items():
        n = max(1, int(share * len(classes)))
        if variant == "imagenet-sketch-0.3":  # a superset of 0.25 and subset of 0.5; later variants ignore it
            more = set(drawn["imagenet-sketch-0.5"]).difference(smallest)
            drawn[variant] = [*smallest, *rng.sample([name for name in classes if name in more], n - len(smallest))]
        else:
            smallest = drawn[variant] = rng.sample(smallest, n)
    return drawn


def _without(records: Sequence[ImageRecord], n: int, rng: random.Random) -> list[ImageRecord]:
    if n > len(records):
        raise InputError(
            f"ImageNet-Sketch replaces {n} images of the mixture, but there are {len(records)}: give fewer images of "
            "ImageNet-Sketch."
        )
    dropped = set(rng.sample(range(len(records)), n))
    return [record for i, record in enumerate(records) if i not in dropped]

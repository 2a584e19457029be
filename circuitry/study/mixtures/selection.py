"""Training distributions: which images of which domains and classes a CLIP model is trained on, as in the study.

The setting and its test domain T say which (domain, class) combinations take part; the number of images then shrinks to
N, the reference size, that of CG low-diversity, and the shape is kept.

========================  ===================================================  ===================
setting                   images (C2: the held-out classes)                    number
========================  ===================================================  ===================
``natural-only``          natural domain                                       all
``cg-low``                natural domain, T without C2                         all (this is N)
``cg-high``               all domains, T without C2                            subsampled to N
``leave-out``             all domains but T                                    subsampled to N
``upper-low``             natural domain, T with C2                            subsampled to N
``upper-high``            all domains, T with C2                               subsampled to N
``class-interpolation``   cg-high and a fraction of C2 in T                    subsampled to N
``domain-interpolation``  natural domain, T without C2, chosen other domains   subsampled to N
``aligned``               as cg-high; captions without style words             subsampled to N
========================  ===================================================  ===================

No torch.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from circuitry.data.domains import ImageRecord, check_records
from circuitry.data.file_check import check_word
from circuitry.data.imagenet_classes import check_spelling, class_key
from circuitry.data.names import checked_names, chosen_names
from circuitry.runs.errors import InputError
from circuitry.study.mixtures.subsampling import Combination, count_combinations, first_of_each, quotas

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

WHOLE_SETTINGS: tuple[Setting, ...] = ("natural-only", "cg-low")
"""Settings that take all of their images."""
HOLDING_OUT: tuple[Setting, ...] = ("cg-low", "cg-high", "class-interpolation", "domain-interpolation", "aligned")
"""Settings that hold classes out of the test domain."""
INTERPOLATING: tuple[Setting, ...] = ("class-interpolation", "domain-interpolation")
"""Settings that can be told which other domains take part."""


@dataclass(frozen=True)
class MixtureSettings:
    """One training distribution.

    Example:
        >>> MixtureSettings("class-interpolation", "sketch", ("axe", "lion"), fraction=0.5).name
        'class-interpolation-0.5-sketch'
    """

    setting: Setting
    test_domain: str
    """T, the domain that generalization is tested on."""
    held_out_classes: tuple[str, ...] = ()
    """C2, classes that are never seen in T (but in the other domains); case, "_", "-" and " " are not told apart."""
    size: int | None = None
    """N of the subsampled settings, in images (default: that of ``cg-low`` with the same T and held-out classes)."""
    natural_domain: str = "real"
    fraction: float | None = None
    """Class interpolation: the share of C2's images that T keeps, 0 to 1, before subsampling."""
    other_domains: tuple[str, ...] | None = None
    """Domain or class interpolation: the domains beside the natural one and T; None (class interpolation): all."""

    def __post_init__(self) -> None:
        check_word("setting", self.setting, Setting)
        checked_names("held-out class", self.held_out_classes)
        checked_names("domain", self.other_domains or ())
        if self.test_domain == self.natural_domain:
            raise InputError(
                f"The test domain must differ from the natural domain, but both are {self.test_domain!r} "
                f"(natural_domain= names the domain of photographs)."
            )
        if self.setting in HOLDING_OUT and not self.held_out_classes:
            raise InputError(
                f"Setting {self.setting!r} holds classes out of the test domain, but held_out_classes is empty."
            )
        if self.size is not None and self.size < 1:
            raise InputError(
                f"size must be at least 1 image, or None for the reference size, but {self.size} was given."
            )
        self._check_interpolation()

    def _check_interpolation(self) -> None:
        if (self.fraction is None) == (self.setting == "class-interpolation"):
            raise InputError(
                f"class-interpolation needs fraction=, a share of 0 to 1, and no other setting takes one, but "
                f"{self.fraction} was given for {self.setting!r}."
            )
        if self.fraction is not None and not 0 <= self.fraction <= 1:
            raise InputError(f"fraction must be a share of 0 to 1, but {self.fraction} was given.")
        given = self.other_domains is not None
        if (self.setting == "domain-interpolation" and not given) or (given and self.setting not in INTERPOLATING):
            raise InputError(
                f"domain-interpolation needs other_domains=, which may be (), and only class-interpolation may have "
                f"them, too, but {self.other_domains} was given for {self.setting!r}."
            )
        for name in self.other_domains or ():
            if name in (self.test_domain, self.natural_domain):
                raise InputError(
                    f"other_domains are those beside the natural and the test domain, but {name!r} was given."
                )

    @property
    def name(self) -> str:
        """Return what tells this mixture from others of the same data, for file names and tables."""
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
        """Return whether captions go without style words."""
        return self.setting == "aligned"

    def has_domain(self, domain: str) -> bool:
        """Return whether images of a domain take part, be it without the held-out classes."""
        if domain == self.natural_domain:
            return True
        if domain == self.test_domain:
            return self.setting not in ("natural-only", "leave-out")
        low = self.setting in ("natural-only", "cg-low", "upper-low")
        return not low and (self.other_domains is None or domain in self.other_domains)

    def described(self) -> dict[str, Any]:
        """Return what tells mixtures apart, in the words of their JSON; natural-only has no test domain."""
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
    """Choose the training images of a setting, in their order in ``train``; nothing about it is random.

    All settings but `WHOLE_SETTINGS` are subsampled to N by `quotas`. In class interpolation with the fraction p and
    s = N / (number of images with all of C2 in T), T keeps the first ceil(p * s * count) images of each class of C2;
    all the others are subsampled to what is left of N. So p = 0 is ``cg-high``.

    Args:
        train: Images of all domains, held-out classes included.
        settings: The training distribution.
        classes: The order in which `quotas` goes round the classes, such as `DomainFolder.all_classes` (default: that
            of their first images in ``train``, which for DomainNet's lists is the same).

    Raises:
        InputError: For a domain or class that ``train`` lacks, or spells in two ways, and for fewer images than the
            size to subsample to.

    Example:
        >>> train = DomainFolder("DomainNet", split="train").records
        >>> chosen = mixture(train, MixtureSettings("cg-high", "quickdraw", ("axe", "lion")))
    """
    part = admitted(train, settings)
    if settings.setting in WHOLE_SETTINGS:
        return part
    if classes is None:  # of all images: the admitted ones alone would put classes held out of the first domain last
        classes = tuple(dict.fromkeys(sample.class_name for sample in train))
    return shrink(part, settings, settings.size or reference_size(train, settings), classes)


def admitted(samples: Sequence[ImageRecord], settings: MixtureSettings) -> list[ImageRecord]:
    """Keep the images whose (domain, class) takes part in a setting: what validation lists need, and all of step 1.

    Raises:
        InputError: For anything else than image records, and a domain or class that they lack, or spell in two ways.
    """
    check_records(samples)
    counts = count_combinations(samples)
    return first_of_each(samples, _taking_part(counts, _fitted(settings, counts)))


def shrink(
    part: Sequence[ImageRecord], settings: MixtureSettings, size: int, classes: Sequence[str]
) -> list[ImageRecord]:
    """Subsample the admitted images of a setting to ``size``, going round the classes in their order, as `mixture`.

    Raises:
        InputError: For fewer images than that, and in class interpolation more images of C2 in T that are to be kept.
    """
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
            f"The kept images of the held-out classes, {size - left}, are more than all {size} images of the mixture; "
            f"give a larger size or a smaller fraction."
        )
    rest = {pair: count for pair, count in counts.items() if pair not in fixed}
    return first_of_each(part, quotas(rest, left, classes) | fixed)


def reference_size(train: Sequence[ImageRecord], settings: MixtureSettings) -> int:
    """Return N, the number of images of ``cg-low`` with the same test domain and held-out classes."""
    if not settings.held_out_classes:
        raise InputError(
            f"The size of setting {settings.setting!r} is that of 'cg-low', which needs held_out_classes; "
            f"give those or a size."
        )
    low = MixtureSettings(
        "cg-low", settings.test_domain, settings.held_out_classes, natural_domain=settings.natural_domain
    )
    counts = count_combinations(train)
    return _taking_part(counts, _fitted(low, counts)).total()


def _fitted(settings: MixtureSettings, counts: Counter[Combination]) -> MixtureSettings:
    """Return the settings in the spelling of the data; InputError for what it lacks, or spells in two ways."""
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

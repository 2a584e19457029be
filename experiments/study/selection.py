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
"""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Any, Literal

from circuitry.runs import Count, InputError, Part
from circuitry.data import ImageRecord, chosen_names, class_key
from experiments.study.subsampling import Combination, count_combinations, first_of_each, quotas

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
"""Settings without subsampling."""
HOLDING_OUT: tuple[Setting, ...] = ("cg-low", "cg-high", "class-interpolation", "domain-interpolation", "aligned")
"""Settings that hold classes out of the test domain."""
INTERPOLATING: tuple[Setting, ...] = ("class-interpolation", "domain-interpolation")
"""Settings that may name other domains."""


@dataclass(frozen=True)
class MixtureSettings:
    """One training distribution.

    Example:
        >>> MixtureSettings("class-interpolation", "sketch", ("axe", "lion"), fraction=0.5).name
        'class-interpolation-0.5-sketch'
    """

    setting: Setting
    test_domain: str
    """T, the domain on which generalization is tested."""
    held_out_classes: tuple[str, ...] = ()
    """C2, classes that are left out of T alone; case does not matter, and "_", "-" and " " are the same."""
    size: Count | None = None
    """N of the subsampled settings, in images (default: that of ``cg-low`` with the same T and held-out classes)."""
    natural_domain: str = "real"
    fraction: Part | None = None
    """Class interpolation: share of C2's images in T before subsampling, 0 to 1."""
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

    Args:
        train: Images of all domains, including held-out classes.
        settings: The training distribution.
        classes: Order of the classes in `quotas`, such as `DomainFolder.all_classes` (default: of their first images in
            ``train``; the same for DomainNet's lists).

    Raises:
        InputError: For a domain or class that ``train`` lacks or spells in two ways, and for fewer images than N.

    Example:
        >>> train = DomainFolder("DomainNet", split="train").records
        >>> chosen = mixture(train, MixtureSettings("cg-high", "quickdraw", ("axe", "lion")))
    """
    part = admitted(train, settings)
    if settings.setting in WHOLE_SETTINGS:
        return part
    if classes is None:  # not of the admitted images: classes held out of the first domain would come last
        classes = tuple(dict.fromkeys(sample.class_name for sample in train))
    return shrink(part, settings, settings.size or reference_size(train, settings), classes)


def admitted(samples: Sequence[ImageRecord], settings: MixtureSettings) -> list[ImageRecord]:
    """Keep the images whose (domain, class) takes part in a setting, without subsampling, as validation lists need.

    Raises:
        InputError: For other objects than image records, and a domain or class that they lack or spell in two ways.
    """
    counts = count_combinations(samples)
    return first_of_each(samples, _taking_part(counts, _fitted(settings, counts)))


def shrink(
    part: Sequence[ImageRecord], settings: MixtureSettings, size: int, classes: Sequence[str]
) -> list[ImageRecord]:
    """Subsample the admitted images of a setting to ``size``, see `mixture`.

    Raises:
        InputError: For fewer images than ``size``, and for a class interpolation that keeps more images of C2 in T.
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

"""The list of the study's mixtures, with names and the study's own file names, and its trainings. No torch.

1. On the main base set (ImageNet-Captions) every architecture trains on photographs alone, and on CG low, CG high and
   leave-out of every test domain. The first architecture also trains on the upper bounds, the interpolations, aligned
   captions (test domain quickdraw) and ImageNet-Sketch, and has a supervised model on photographs alone, in the 15
   settings and on the upper bounds.
2. On CC3M and CC12M the first architecture trains with one seed on photographs alone, and on CG low, CG high and
   leave-out of the test domains sketch and clipart.

The study's scripts leave the architecture of upper bounds open, and architecture and seeds of interpolations and
ImageNet-Sketch; here they are its first architecture and its three seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any

from circuitry.data import STUDY_HELD_OUT, chosen_names
from experiments.study.selection import DOMAINNET_ROUND, SKETCH_SHARES, MixtureSettings

BASIC = (
    "cg-low",
    "cg-high",
    "leave-out",
    "upper-low",
    "upper-high",
    "aligned",
)
"""Settings of every test domain."""
CLASS_FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the held-out classes in the study's class interpolations of CG low and CG high."""
DOMAIN_INTERPOLATIONS = {
    "sketch": ("q", "p", "i", "c", "cq", "cp", "ci", "cpq", "cip"),
    "clipart": ("s", "q", "p", "i", "qs", "is", "ps", "pqs", "ips"),
}
"""Test domain -> first letters of the additional domains of each domain interpolation."""

_LETTERS = {domain[0]: domain for domain in sorted(DOMAINNET_ROUND)}


@dataclass(frozen=True)
class MixtureSpec:
    """One mixture: images of DomainNet, of ImageNet-Sketch, and a base set."""

    settings: MixtureSettings
    sketches: str | None = None  # variant of ImageNet-Sketch; None for none
    base: str | None = None  # name of the base set of captioned photos

    @property
    def name(self) -> str:
        """Return the name of its table, without ``.tsv``, unique in a study."""
        return "-".join(
            part for part in (self.base, self.settings.name, self.sketches) if part
        )

    @property
    def study_name(self) -> str:
        """Return the study's name of the table, without ``.tsv``; "" if domains are not DomainNet's."""
        settings = self.settings
        if not {settings.natural_domain, settings.test_domain} <= set(DOMAINNET_ROUND):
            return ""
        base = {None: "dn-captions", "imagenet-captions": "combined-captions"}.get(
            self.base, self.base
        )
        end = (
            f"-with-in-sketches{SKETCH_SHARES[self.sketches][1]}"
            if self.sketches
            else ""
        )
        if settings.setting == "natural-only":
            return f"{base}-train-lso-real-only{end}"
        allowed = "" if settings.fraction is None else f"-allow{settings.fraction:g}"
        pseudo = "-pseudo" if settings.setting.startswith("upper") else ""
        aligned = "-aligned" if settings.aligned else ""
        domains = "".join(
            letter for letter, domain in _LETTERS.items() if settings.has_domain(domain)
        )
        return f"{base}-train-lso-{domains}-no{settings.test_domain}classes{pseudo}{allowed}{aligned}{end}"

    def described(self) -> dict[str, Any]:
        """Return the entries of the JSON beside the table."""
        tested = {"test_domain": self.settings.test_domain} if self.sketches else {}
        return {
            **self.settings.described(),
            **tested,
            "sketches": self.sketches,
            "base": self.base,
        }


def study_mixtures(
    bases: Sequence[str | None] = (None,),
    *,
    held_out: Sequence[str] = STUDY_HELD_OUT,
    domains: Sequence[str] = tuple(sorted(DOMAINNET_ROUND)),
    natural_domain: str = "real",
    test_domains: Sequence[str] | None = None,
    sketches: bool = True,
    size: int | None = None,
) -> list[MixtureSpec]:
    """List all mixtures of the study, 119 for each base set."""
    tested = chosen_names(
        "test domain",
        test_domains,
        [name for name in domains if name != natural_domain],
    )
    of = partial(
        MixtureSettings,
        held_out_classes=tuple(held_out),
        size=size,
        natural_domain=natural_domain,
    )
    found: list[tuple[MixtureSettings, str | None]] = [
        (of("natural-only", tested[0]), None)
    ]
    for test_domain in tested:
        found += [(of(setting, test_domain), None) for setting in BASIC]
        for others, fraction in product(
            ((), None), CLASS_FRACTIONS
        ):  # of CG low, of CG high
            found.append(
                (
                    of(
                        "class-interpolation",
                        test_domain,
                        fraction=fraction,
                        other_domains=others,
                    ),
                    None,
                )
            )
        for letters in DOMAIN_INTERPOLATIONS.get(test_domain, ()):
            chosen = tuple(_LETTERS[letter] for letter in letters)
            if set(chosen) <= set(domains):
                found.append(
                    (
                        of("domain-interpolation", test_domain, other_domains=chosen),
                        None,
                    )
                )
        if sketches and test_domain == "sketch":
            found += [
                (of(setting, test_domain), "imagenet-sketch")
                for setting in ("natural-only", "leave-out")
            ]
            found += [
                (of("cg-high", test_domain), variant) for variant in SKETCH_SHARES
            ]
    return [
        MixtureSpec(settings, variant, base)
        for base in bases
        for settings, variant in found
    ]


DIVERSITY = (
    "cg-low",
    "cg-high",
    "leave-out",
)
"""The study's 15 settings: these three for each test domain."""
SUPERVISED_SETTINGS = (
    "natural-only",
    *DIVERSITY,
    "upper-low",
    "upper-high",
)
"""Settings of supervised models."""
FURTHER_DOMAINS = ("sketch", "clipart")  # test domains on further base sets
ALIGNED_DOMAIN = "quickdraw"  # test domain with aligned captions


@dataclass(frozen=True)
class StudyTraining:
    """One model of the study."""

    mixture: MixtureSpec  # its training images
    model: str  # architecture by its name in presets: ``rn50``
    seed: int = 0
    supervised: bool = False  # a supervised model instead of a CLIP model

    @property
    def name(self) -> str:
        """Return the name of its folder."""
        kind = "supervised-" if self.supervised else ""
        return f"{kind}{self.model}-{self.mixture.name}-s{self.seed}"


def study_trainings(
    mixtures: Sequence[MixtureSpec],
    main: str | None,
    models: Sequence[str],
    seeds: Sequence[int],
) -> list[StudyTraining]:
    """Return the trainings on those of `study_mixtures` that the study trains on."""
    found = []
    for mixture in mixtures:
        setting = mixture.settings.setting
        test_domain = mixture.settings.test_domain
        plain = mixture.sketches is None
        photographs = setting == "natural-only"
        if mixture.base != main:
            if plain and (
                photographs or (setting in DIVERSITY and test_domain in FURTHER_DOMAINS)
            ):
                found.append(StudyTraining(mixture, models[0], seeds[0]))
        elif setting != "aligned" or test_domain == ALIGNED_DOMAIN:
            everywhere = plain and (photographs or setting in DIVERSITY)
            asked = product(models if everywhere else models[:1], seeds)
            found += [StudyTraining(mixture, model, seed) for model, seed in asked]
            if plain and setting in SUPERVISED_SETTINGS:
                found += [
                    StudyTraining(mixture, models[0], seed, supervised=True)
                    for seed in seeds
                ]
    return found

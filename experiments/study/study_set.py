"""Which models does the study train, and on which mixtures? All mixtures and all trainings, without torch.

1. On the main base set (ImageNet-Captions) every architecture trains on photographs alone, and on CG low, CG high and
   leave-out of every test domain. The first architecture also trains on the upper bounds, the interpolations, aligned
   captions (test domain quickdraw) and ImageNet-Sketch. Supervised models of the first architecture train on
   photographs alone, in the 15 settings and on the upper bounds.
2. On CC3M and CC12M the first architecture trains with one seed on photographs alone, and on CG low, CG high and
   leave-out of the test domains sketch and clipart.

The study's scripts do not say which architecture trains on the upper bounds, nor which architecture and seeds train on
the interpolations and ImageNet-Sketch. Here they are the study's first architecture and its three seeds.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
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
"""Settings that each have a mixture for every test domain."""
CLASS_FRACTIONS = (0.05, 0.1, 0.2, 0.4, 0.6, 0.8)
"""Shares of the held-out classes that are seen in the class interpolations of CG low and CG high."""
DOMAIN_INTERPOLATIONS = {
    "sketch": ("q", "p", "i", "c", "cq", "cp", "ci", "cpq", "cip"),
    "clipart": ("s", "q", "p", "i", "qs", "is", "ps", "pqs", "ips"),
}
"""Takes a test domain. Returns for each domain interpolation the first letters of its additional domains."""

# In the order of the letters, as in the study's file names.
_LETTERS = {domain[0]: domain for domain in sorted(DOMAINNET_ROUND)}


@dataclass(frozen=True)
class MixtureSpec:
    """One mixture of images of DomainNet, of ImageNet-Sketch, and of a base set."""

    settings: MixtureSettings
    sketches: str | None = None  # variant of ImageNet-Sketch; None without it
    base: str | None = (
        None  # name of the base set of captioned photographs; None without it
    )

    @property
    def name(self) -> str:
        """Return the name of the table of the mixture, without ``.tsv``, unique in a study."""
        return "-".join(filter(None, (self.base, self.settings.name, self.sketches)))

    @property
    def study_name(self) -> str:
        """Return the study's name of the table, without ``.tsv``; "" if domains are not DomainNet's."""
        settings = self.settings
        if not {settings.natural_domain, settings.test_domain} <= set(DOMAINNET_ROUND):
            return ""
        bases = {None: "dn-captions", "imagenet-captions": "combined-captions"}
        name = f"{bases.get(self.base, self.base)}-train-lso-"
        if settings.setting == "natural-only":
            name += "real-only"
        else:
            for letter, domain in _LETTERS.items():
                if settings.has_domain(domain):
                    name += letter
            name += f"-no{settings.test_domain}classes"
            # The upper bounds see the classes that the name says are left out.
            if settings.setting.startswith("upper"):
                name += "-pseudo"
            if settings.fraction is not None:
                name += f"-allow{settings.fraction:g}"
            if settings.aligned:
                name += "-aligned"
        if self.sketches:
            name += f"-with-in-sketches{SKETCH_SHARES[self.sketches][1]}"
        return name

    def described(self) -> dict[str, Any]:
        """Return the entries of the JSON beside the table."""
        entries = self.settings.described()
        # ImageNet-Sketch has a test domain even beside photographs alone.
        if self.sketches:
            entries["test_domain"] = self.settings.test_domain
        return {**entries, "sketches": self.sketches, "base": self.base}


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
    """List all mixtures of the study, 119 for each base set.

    Args:
        bases: Names of base sets; None is no base set.
        held_out: The held-out classes.
        domains: All domains of the images.
        natural_domain: The domain of photographs.
        test_domains: Test domains (default: all domains except the natural domain).
        sketches: True also lists the mixtures with ImageNet-Sketch.
        size: Number of images of subsampled settings (default: the number of images of ``cg-low``).
    """
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
    specs = list[MixtureSpec]()
    # Photographs alone are the same for every test domain.
    specs.append(MixtureSpec(of("natural-only", tested[0])))
    for test_domain in tested:
        for setting in BASIC:
            specs.append(MixtureSpec(of(setting, test_domain)))
        interpolated = partial(of, "class-interpolation", test_domain)
        # No other domains: an interpolation of CG low; all of them: of CG high.
        for others, fraction in product(((), None), CLASS_FRACTIONS):
            settings = interpolated(fraction=fraction, other_domains=others)
            specs.append(MixtureSpec(settings))
        for letters in DOMAIN_INTERPOLATIONS.get(test_domain, ()):
            chosen = tuple(_LETTERS[letter] for letter in letters)
            if set(chosen) <= set(domains):
                settings = of("domain-interpolation", test_domain, other_domains=chosen)
                specs.append(MixtureSpec(settings))
        if sketches and test_domain == "sketch":
            for setting in ("natural-only", "leave-out"):
                specs.append(MixtureSpec(of(setting, test_domain), "imagenet-sketch"))
            for variant in SKETCH_SHARES:
                specs.append(MixtureSpec(of("cg-high", test_domain), variant))
    return [replace(spec, base=base) for base in bases for spec in specs]


DIVERSITY = (
    "cg-low",
    "cg-high",
    "leave-out",
)
"""Settings that differ in the diversity of domains; with five test domains they are the study's 15 settings."""
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
    """One model of the study that is to be trained."""

    mixture: MixtureSpec  # the training images
    model: str  # name of the architecture's preset, such as ``rn50``
    seed: int = 0
    supervised: bool = False  # a supervised model instead of a CLIP model

    @property
    def name(self) -> str:
        """Return the name of the folder of the model."""
        kind = "supervised-" if self.supervised else ""
        return f"{kind}{self.model}-{self.mixture.name}-s{self.seed}"


def study_trainings(
    mixtures: Sequence[MixtureSpec],
    main: str | None,
    models: Sequence[str],
    seeds: Sequence[int],
) -> list[StudyTraining]:
    """Return the trainings of the study on the mixtures of `study_mixtures`; some mixtures have no training.

    Args:
        main: Name of the main base set.
        models: Architectures; the first architecture trains on most mixtures.
        seeds: Seeds; the first seed trains on further base sets.
    """
    trainings = list[StudyTraining]()
    for mixture in mixtures:
        setting = mixture.settings.setting
        test_domain = mixture.settings.test_domain
        plain = mixture.sketches is None
        photographs = setting == "natural-only"
        if mixture.base != main:
            further = setting in DIVERSITY and test_domain in FURTHER_DOMAINS
            if plain and (photographs or further):
                trainings.append(StudyTraining(mixture, models[0], seeds[0]))
        elif setting != "aligned" or test_domain == ALIGNED_DOMAIN:
            everywhere = plain and (photographs or setting in DIVERSITY)
            architectures = models if everywhere else models[:1]
            for model, seed in product(architectures, seeds):
                trainings.append(StudyTraining(mixture, model, seed))
            if plain and setting in SUPERVISED_SETTINGS:
                for seed in seeds:
                    trainings.append(StudyTraining(mixture, models[0], seed, True))
    return trainings

"""All trainings of the study: model, mixture and seed. No torch.

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

from experiments.study.study_set import MixtureSpec

DIVERSITY = ("cg-low", "cg-high", "leave-out")
"""The study's 15 settings: these three for each test domain."""
SUPERVISED_SETTINGS = ("natural-only", *DIVERSITY, "upper-low", "upper-high")
"""Settings of supervised models."""
FURTHER_DOMAINS = ("sketch", "clipart")
"""Test domains on further base sets."""
ALIGNED_DOMAIN = "quickdraw"
"""Test domain with aligned captions."""


@dataclass(frozen=True)
class StudyTraining:
    """One model of the study."""

    mixture: MixtureSpec
    """Its training images."""
    model: str
    """Architecture by its name in presets: ``rn50``."""
    seed: int = 0
    supervised: bool = False
    """A supervised model instead of a CLIP model."""

    @property
    def name(self) -> str:
        """Return the name of its folder.

        Example:
            >>> StudyTraining(MixtureSpec(MixtureSettings("natural-only", "sketch"), base="cc3m"), "rn50", 2).name
            'rn50-cc3m-natural-only-s2'
        """
        kind = "supervised-" if self.supervised else ""
        return f"{kind}{self.model}-{self.mixture.name}-s{self.seed}"


def in_study(mixture: MixtureSpec, main: str | None) -> bool:
    """Return whether the study trains on a mixture of `study_mixtures`."""
    settings = mixture.settings
    if mixture.base == main:
        return settings.setting != "aligned" or settings.test_domain == ALIGNED_DOMAIN
    tested = settings.setting in DIVERSITY and settings.test_domain in FURTHER_DOMAINS
    return mixture.sketches is None and (settings.setting == "natural-only" or tested)


def study_trainings(
    mixtures: Sequence[MixtureSpec], main: str | None, models: Sequence[str], seeds: Sequence[int]
) -> list[StudyTraining]:
    """Return the trainings on the mixtures that are `in_study`.

    Args:
        mixtures: From `study_mixtures`, of all base sets.
        main: The main base set.
        models: Architectures; see above for the role of the first.
        seeds: Seeds on the main base set; the others have the first.

    Example:
        >>> mixtures = study_mixtures(["imagenet-captions", "cc12m"])
        >>> len(study_trainings(mixtures, "imagenet-captions", ("rn50", "vit-s-32", "swin-t"), (0, 1, 2)))
        526
    """
    found = []
    for mixture in (one for one in mixtures if in_study(one, main)):
        setting, plain = mixture.settings.setting, mixture.sketches is None
        everywhere = mixture.base == main and plain and setting in ("natural-only", *DIVERSITY)
        for model in models if everywhere else models[:1]:
            found += [StudyTraining(mixture, model, seed) for seed in (seeds if mixture.base == main else seeds[:1])]
        if mixture.base == main and plain and setting in SUPERVISED_SETTINGS:
            found += [StudyTraining(mixture, models[0], seed, supervised=True) for seed in seeds]
    return found

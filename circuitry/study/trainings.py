"""All trainings of the study: which model on which mixture, with which seeds. No torch.

1. on the main base set (ImageNet-Captions) every architecture in photographs alone, CG low, CG high and leave-out of
   every test domain; the first architecture also in the upper bounds, the interpolations, with aligned captions (test
   domain quickdraw) and with ImageNet-Sketch; and a supervised model of it where CLIP has 15 settings;
2. on CC3M and CC12M the first architecture, one seed: photographs alone, and CG low, CG high and leave-out of the test
   domains sketch and clipart.

The study's scripts fix the architecture and the seeds of the trainings in 1 and 2 but for those of interpolations,
ImageNet-Sketch and upper bounds, where its first architecture and its three seeds are taken here.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from circuitry.study.mixtures.study_set import MixtureSpec

DIVERSITY = ("cg-low", "cg-high", "leave-out")
"""What the study calls its 15 settings, one for each test domain."""
FURTHER_DOMAINS = ("sketch", "clipart")
"""Test domains on further base sets."""
ALIGNED_DOMAIN = "quickdraw"
"""Test domain with aligned captions."""


@dataclass(frozen=True)
class StudyTraining:
    """One model of the study."""

    mixture: MixtureSpec
    """What it is trained on."""
    model: str
    """Architecture, as presets name it: ``rn50``."""
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
    """Return whether the study trains on a mixture, of all that its rules give."""
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
        models: Architectures, the study's first one first.
        seeds: Seeds on the main base set; on the others the first.

    Example:
        >>> mixtures = study_mixtures(["imagenet-captions", "cc12m"])
        >>> len(study_trainings(mixtures, "imagenet-captions", ("rn50", "vit-s-32", "swin-t"), (0, 1, 2)))
        493
    """
    found = []
    for mixture in (one for one in mixtures if in_study(one, main)):
        setting, plain = mixture.settings.setting, mixture.sketches is None
        everywhere = mixture.base == main and plain and setting in ("natural-only", *DIVERSITY)
        for model in models if everywhere else models[:1]:
            found += [StudyTraining(mixture, model, seed) for seed in (seeds if mixture.base == main else seeds[:1])]
        if everywhere and setting != "natural-only":
            found += [StudyTraining(mixture, models[0], seed, supervised=True) for seed in seeds]
    return found

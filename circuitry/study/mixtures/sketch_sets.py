"""ImageNet-Sketch in a finished mixture, in place of as many images, and DomainNet sketches of fewer classes. No torch.

All choices are the study's draws (`random.Random`, seed 42).
"""

import os
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from circuitry.data.domains import ImageRecord, image_names, warn_of_names
from circuitry.data.imagenet_classes import imagenet_index, imagenet_partners
from circuitry.runs.errors import InputError

SketchVariant = Literal[
    "imagenet-sketch",
    "imagenet-sketch-0.5",
    "imagenet-sketch-0.25",
    "imagenet-sketch-0.3",
    "imagenet-sketch-0.1",
    "imagenet-sketch-0.05",
    "imagenet-sketch-0.01",
    "imagenet-sketch-one",
]
"""How ImageNet-Sketch comes in: for images drawn of the whole mixture, or beside a share of its sketch classes."""

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
)
"""Variant -> share of the sketch classes that stay, rounded down, but at least one; in the order of the draws."""

LEFT_OUT = frozenset(
    {
        *(109, 150, 298, 300, 302, 303, 304, 305, 306, 315, 338, 351, 352, 413, 428, 440, 441, 458, 520, 535, 624, 678),
        *(694, 710, 719, 723, 738, 739, 755, 758, 762, 822, 927, 981, 994, 996),
    }
)
"""ImageNet classes without a DomainNet partner that the study leaves out, too, since their names contain that of one
with a partner (sea lion: lion; library: bra)."""

STUDY_NAMES: Mapping[int, str] = MappingProxyType({27: "eft", 638: "maillot", 744: "projectile", 836: "sunglass"})
"""ImageNet classes whose names in the study differ from those of today's open_clip."""


class SketchSet(NamedTuple):
    """Images of ImageNet-Sketch and what their classes are called."""

    images: list[ImageRecord]
    """All of them, class by class; domain "sketch", the class is the WordNet id, the path below the root
    ``<wnid>/<file>``."""
    names: Mapping[str, str]
    """WordNet id -> name of the class in words."""
    kept: frozenset[str]
    """WordNet ids of the classes that no DomainNet class shows, too."""

    @property
    def records(self) -> list[ImageRecord]:
        """Return the images that come into mixtures."""
        return [record for record in self.images if record.class_name in self.kept]


def imagenet_sketch(root: str | os.PathLike[str], domain: str = "sketch") -> SketchSet:
    """Read ``root/<wnid>/<file>``; its mixtures hold the 514 classes that are neither partnered nor `LEFT_OUT`.

    Raises:
        InputError: For no such folder, and for fewer than all 1000 classes.

    Example:
        >>> sketches = imagenet_sketch("ImageNet-Sketch/sketch")
        >>> train = replace_at_random(train, sketches.records)
    """
    from open_clip import IMAGENET_CLASSNAMES

    folder = Path(root).resolve()
    if not folder.is_dir():
        raise InputError(f"Expected ImageNet-Sketch, <wnid>/<file>, but there is no folder {folder}.")
    index = imagenet_index(path.name for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))
    out = LEFT_OUT | {i for indices in imagenet_partners().values() for i in indices}
    strange: list[str] = []
    images = [
        ImageRecord(folder / wnid / file, f"{wnid}/{file}", domain, wnid)
        for wnid in index
        for file in image_names(folder / wnid, strange)
    ]
    warn_of_names(strange, folder)
    names = {wnid: STUDY_NAMES.get(i, IMAGENET_CLASSNAMES[i]) for wnid, i in index.items()}
    return SketchSet(images, names, frozenset(wnid for wnid, i in index.items() if i not in out))


def replace_at_random(
    records: Sequence[ImageRecord], others: Sequence[ImageRecord], seed: int = 42
) -> list[ImageRecord]:
    """Drop as many images of a mixture, drawn at random, as there are ``others``, and append those.

    Raises:
        InputError: For more others than images.
    """
    return [*_without(records, len(others), random.Random(seed)), *others]


def sketch_class_mixtures(
    records: Sequence[ImageRecord], others: Sequence[ImageRecord], domain: str = "sketch", seed: int = 42
) -> dict[SketchVariant, list[ImageRecord]]:
    """Return the mixtures of `CLASS_SHARES`: fewer sketch classes of ``records``, and all ``others`` appended.

    The images of the classes that go, and as many of other domains as keep the size, make room for the others. One
    stream draws the classes of all variants, each among those of the larger one (that of 0.3 adds to 0.25), and then
    the images that are dropped, so the variants are made together. The study draws the additional classes of 0.3 from
    an unordered set, which cannot be repeated; here they are in the order of ``records``. Since the number of their
    images moves the stream, the images that the variants after it drop are the study's where that number is.

    Raises:
        InputError: For no sketches, and others that are too few or too many to keep the size.
    """
    by_class: dict[str, list[ImageRecord]] = {}
    for record in records:
        if record.domain == domain:
            by_class.setdefault(record.class_name, []).append(record)
    if not by_class:
        raise InputError(f"There are no images of domain {domain!r} whose classes could be reduced.")
    rest = [record for record in records if record.domain != domain]
    rng = random.Random(seed)
    made: dict[SketchVariant, list[ImageRecord]] = {}
    for variant, classes in _nested_classes(list(by_class), rng).items():
        kept = [record for name in classes for record in by_class[name]]
        dropped = len(others) + len(kept) + len(rest) - len(records)
        if dropped < 0:
            raise InputError(
                f"{len(others)} images are to stand for {len(records) - len(rest) - len(kept)} sketches that go in "
                f"{variant}, and the mixture would shrink; give more images of ImageNet-Sketch."
            )
        made[variant] = [*_without(rest, dropped, rng), *kept, *others]
    return made


def _nested_classes(classes: Sequence[str], rng: random.Random) -> dict[SketchVariant, list[str]]:
    """Return the classes that stay in each variant, in the order in which they are drawn."""
    drawn: dict[SketchVariant, list[str]] = {}
    smallest: Sequence[str] = classes
    for variant, share in CLASS_SHARES.items():
        n = max(1, int(share * len(classes)))
        if variant == "imagenet-sketch-0.3":  # between the two before it, and no part of those after it
            more = set(drawn["imagenet-sketch-0.5"]).difference(smallest)
            drawn[variant] = [*smallest, *rng.sample([name for name in classes if name in more], n - len(smallest))]
        else:
            smallest = drawn[variant] = rng.sample(smallest, n)
    return drawn


def _without(records: Sequence[ImageRecord], n: int, rng: random.Random) -> list[ImageRecord]:
    if n > len(records):
        raise InputError(
            f"{n} images are to make room for those of ImageNet-Sketch, but there are only {len(records)}; "
            f"give fewer of ImageNet-Sketch."
        )
    dropped = set(rng.sample(range(len(records)), n))
    return [record for i, record in enumerate(records) if i not in dropped]

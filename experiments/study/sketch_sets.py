"""Mixtures in which ImageNet-Sketch replaces as many images, with all or fewer DomainNet sketch classes. No torch.

All choices are the study's draws (`random.Random`, seed 42).
"""

import os
import random
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from types import MappingProxyType
from typing import Literal, NamedTuple

from circuitry.runs import InputError
from circuitry.data import DomainFolder, ImageRecord, imagenet_index, imagenet_partners

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
"""ImageNet-Sketch replaces random images of the mixture, or the sketches of all but a share of the sketch classes."""

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
"""Variant -> share of the sketch classes that stay, rounded down to at least one; in the order of the draws."""

LEFT_OUT = frozenset(
    {
        *(109, 150, 298, 300, 302, 303, 304, 305, 306, 315, 338, 351, 352, 413, 428, 440, 441, 458, 520, 535, 624, 678),
        *(694, 710, 719, 723, 738, 739, 755, 758, 762, 822, 927, 981, 994, 996),
    }
)
"""ImageNet classes without a DomainNet partner that the study also leaves out, because their names contain the name of
a class with a partner (sea lion: lion; library: bra)."""

STUDY_NAMES: Mapping[int, str] = MappingProxyType({27: "eft", 638: "maillot", 744: "projectile", 836: "sunglass"})
"""ImageNet classes whose names in the study differ from those of current open_clip."""


_DOMAIN, _SEED = "sketch", 42


class SketchSet(NamedTuple):
    """Images of ImageNet-Sketch and the names of their classes."""

    images: list[ImageRecord]
    """All images by class: domain "sketch", class the WordNet id, path below the root ``<wnid>/<file>``."""
    names: Mapping[str, str]
    """WordNet id -> name of the class in words."""
    kept: frozenset[str]
    """WordNet ids of the classes that DomainNet lacks."""

    @property
    def records(self) -> list[ImageRecord]:
        """Return the images for mixtures."""
        return [record for record in self.images if record.class_name in self.kept]


def imagenet_sketch(root: str | os.PathLike[str]) -> SketchSet:
    """Read ``root/<wnid>/<file>``; mixtures take the 514 classes without a partner that are not `LEFT_OUT`.

    Raises:
        InputError: For a missing folder, and for fewer than 1000 classes.

    Example:
        >>> sketches = imagenet_sketch("ImageNet-Sketch/sketch")
        >>> train = replace_at_random(train, sketches.records)
    """
    from open_clip import IMAGENET_CLASSNAMES

    if not Path(root).is_dir():
        raise InputError(f"Expected ImageNet-Sketch, <wnid>/<file>, but there is no folder {root}: name its folder.")
    index = imagenet_index(path.name for path in Path(root).iterdir() if path.is_dir() and path.name[0] != ".")
    folder = DomainFolder({_DOMAIN: Path(root).resolve()}, split=None)
    out = LEFT_OUT | {i for indices in imagenet_partners().values() for i in indices}
    images = [
        ImageRecord(one.path, f"{one.class_name}/{one.path.name}", _DOMAIN, one.class_name) for one in folder.records
    ]
    names = {wnid: STUDY_NAMES.get(i, IMAGENET_CLASSNAMES[i]) for wnid, i in index.items()}
    return SketchSet(images, names, frozenset(wnid for wnid, i in index.items() if i not in out))


def replace_at_random(records: Sequence[ImageRecord], others: Sequence[ImageRecord]) -> list[ImageRecord]:
    """Replace random images of a mixture by as many ``others``, which come last.

    Raises:
        InputError: For more others than images.
    """
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

    Raises:
        InputError: For no sketches, and for too few or too many others to keep the size.
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
            raise InputError(
                f"{variant} replaces {len(records) - len(rest) - len(kept)} sketches, but there are {len(others)} "
                "images of ImageNet-Sketch: give more."
            )
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

"""ImageNet-Sketch in place of, or beside, the sketches of DomainNet, and DomainNet sketches of fewer classes. No torch.

All choices are drawn by seed and name alone.
"""

import math
import os
from collections.abc import Mapping, Sequence
from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

from circuitry.data.domains import ImageRecord, image_names, warn_of_names
from circuitry.data.mixtures.class_table import class_key, imagenet_index, imagenet_partners
from circuitry.data.names import chosen_names, drawn_by_name
from circuitry.runs.errors import InputError

CLASS_FRACTIONS = (0.5, 0.3, 0.25, 0.1, 0.05, 0.01)
"""Shares of the DomainNet sketch classes that the study keeps."""


class SketchSet(NamedTuple):
    """Images of ImageNet-Sketch and what their classes are called."""

    records: list[ImageRecord]
    """Domain "sketch"; the class is the WordNet id, the path below the root ``<wnid>/<file>``."""
    names: Mapping[str, str]
    """WordNet id -> name of the class in words."""


def imagenet_sketch(root: str | os.PathLike[str], domain: str = "sketch") -> SketchSet:
    """Read ``root/<wnid>/<file>``, only the ImageNet classes that no DomainNet class shows, too.

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
    partnered = {i for indices in imagenet_partners().values() for i in indices}
    names = {wnid: IMAGENET_CLASSNAMES[i] for wnid, i in index.items() if i not in partnered}
    strange: list[str] = []
    records = [
        ImageRecord(folder / wnid / file, f"{wnid}/{file}", domain, wnid)
        for wnid in names
        for file in image_names(folder / wnid, strange)
    ]
    warn_of_names(strange, folder)
    return SketchSet(records, names)


def replace_at_random(
    records: Sequence[ImageRecord], others: Sequence[ImageRecord], domain: str = "sketch", seed: int = 42
) -> list[ImageRecord]:
    """Drop as many images of a domain, drawn at random, as there are ``others``, and append those.

    Raises:
        InputError: For more others than images of the domain.
    """
    ours = [record.relative for record in records if record.domain == domain]
    if len(others) > len(ours):
        raise InputError(
            f"{len(others)} images are to replace as many of domain {domain!r}, but it has only {len(ours)}; "
            f"extend it instead, or give fewer."
        )
    dropped = set(sorted(ours, key=lambda relative: drawn_by_name(seed, relative))[: len(others)])
    return [*(record for record in records if record.domain != domain or record.relative not in dropped), *others]


def keep_classes(
    records: Sequence[ImageRecord], kept: float | str, domain: str = "sketch", seed: int = 42
) -> list[ImageRecord]:
    """Keep a domain's images of only some classes; other domains are left as they are.

    Args:
        records: Images of all domains.
        kept: A share of the domain's classes, ceil(share * number) of them, drawn at random so that a smaller share's
            classes are among a larger one's; or the name of the only class.
        domain: The domain that loses classes.
        seed: Seed of the draw.

    Raises:
        InputError: For a share outside of 0..1, a domain without images, and a class that the domain lacks.
    """
    classes = sorted({record.class_name for record in records if record.domain == domain})
    if not classes:
        raise InputError(f"There are no images of domain {domain!r} whose classes could be reduced.")
    if isinstance(kept, str):
        chosen = set(chosen_names("class", [kept], classes, class_key))
    elif 0 < kept <= 1:
        ranked = sorted(classes, key=lambda name: drawn_by_name(seed, name))
        chosen = set(ranked[: math.ceil(Fraction(str(kept)) * len(classes))])  # through str: 0.1 means a tenth
    else:
        raise InputError(f"The share of classes to keep must lie above 0 and up to 1, but {kept} was given.")
    return [record for record in records if record.domain != domain or record.class_name in chosen]

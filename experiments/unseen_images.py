"""Images of a class and of other classes: one half to find a circuit, the other half to measure it."""

from collections.abc import Sequence
from typing import NamedTuple

from circuitry.runs import InputError
from circuitry.data import DomainFolder, ImageRecord, drawn_by_name
from circuitry.models.clip import Clip
from circuitry.models.image_pass import read_images

import torch
from torch import Tensor


class ClassRecords(NamedTuple):
    """Records of images of a class and of other classes."""

    own: Sequence[ImageRecord]
    others: Sequence[ImageRecord]


class ClassImages(NamedTuple):
    """Images [B, 3, H, W] of a class and of other classes."""

    own: Tensor
    others: Tensor

    @property
    def together(self) -> Tensor:
        """All images, those of the class first."""
        return torch.cat(self)


def split_records(
    images: DomainFolder,
    class_name: str,
    domain: str,
    n_images: int,
    n_others: int,
    seed: int,
) -> tuple[ClassRecords, ClassRecords]:
    """Return disjoint images to find a circuit, and to measure it.

    The seed ranks the images. The circuit is found on the first half of the class's images, rounded up, and on every
    second image of other classes; either side has at most ``n_images`` and ``n_others`` of them.

    Raises:
        InputError: For a class with fewer than two images in the domain.
    """
    own = images.select(class_name, domain, None, seed)
    if len(own) < 2:
        raise InputError(
            f"A class needs two images, but {class_name} has {len(own)} in {domain}: name another class."
        )
    n = min(n_images, -(-len(own) // 2))
    rest = [
        record
        for name in images.classes
        if name != class_name
        for record in images.select(name, domain)
    ]
    rest.sort(key=lambda record: drawn_by_name(seed, record.relative))
    found_on, measured_on = (rest[i::2][:n_others] for i in (0, 1))
    return ClassRecords(own[:n], found_on), ClassRecords(
        own[n : n + n_images], measured_on
    )


def read_class(clip: Clip, records: ClassRecords) -> ClassImages:
    """Read the images."""
    return ClassImages(*(read_images(clip, part)[1] for part in records))

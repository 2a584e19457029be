"""Split images of a class and of other classes: a circuit is found on one half, and measured on the other half."""

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
    """Records of the class."""
    others: Sequence[ImageRecord]
    """Records of other classes."""


class ClassImages(NamedTuple):
    """Images [B, 3, H, W] of a class and of other classes."""

    own: Tensor
    """Images of the class."""
    others: Tensor
    """Images of other classes."""

    @property
    def together(self) -> Tensor:
        """All images: first the images of the class, then the images of other classes."""
        return torch.cat(self)


def split_records(
    images: DomainFolder,
    class_name: str,
    domain: str,
    n_images: int,
    n_others: int,
    seed: int,
) -> tuple[ClassRecords, ClassRecords]:
    """Return images to find a circuit on, and other images to measure it on.

    The seed ranks the images. The circuit is found on the first half of the images of the class, rounded up, and on
    every second image of other classes.

    Args:
        images: The folder of images.
        class_name: The class.
        domain: The domain of all images.
        n_images: Largest number of images of the class on either side.
        n_others: Largest number of images of other classes on either side.
        seed: Seed of the ranks.

    Raises:
        InputError: For a class with fewer than two images in the domain.
    """
    own = images.select(class_name, domain, None, seed)
    if len(own) < 2:
        raise InputError(
            f"A class needs two images, but {class_name} has {len(own)} in {domain}: name another class."
        )
    # Half of the images, rounded up.
    n = min(n_images, -(-len(own) // 2))
    others = list[ImageRecord]()
    for name in images.classes:
        if name != class_name:
            others += images.select(name, domain)
    # By one rank over all classes, so that classes are mixed on both sides.
    others.sort(key=lambda record: drawn_by_name(seed, record.relative))
    to_find = ClassRecords(own[:n], others[::2][:n_others])
    return to_find, ClassRecords(own[n : n + n_images], others[1::2][:n_others])


def read_class(clip: Clip, records: ClassRecords) -> ClassImages:
    """Read the images of both kinds."""
    own = read_images(clip, records.own)[1]
    return ClassImages(own, read_images(clip, records.others)[1])

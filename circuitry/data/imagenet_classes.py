"""Classes of DomainNet, ImageNet classes of the same meaning, and spellings of class names. Does not import torch."""

import json
from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from pathlib import Path
from types import MappingProxyType

from circuitry.data.captions import readable
from circuitry.data.names import chosen_names
from circuitry.runs.errors import InputError

STUDY_HELD_OUT = (
    "aircraft carrier",
    "axe",
    "banana",
    "barn",
    "bed",
    "candle",
    "lion",
    "mountain",
    "necklace",
    "penguin",
    "pizza",
    "saxophone",
    "television",
    "tractor",
    "traffic light",
)
"""The 15 DomainNet classes that the study holds out of the test domain."""

N_IMAGENET = 1000


@cache
def imagenet_partners() -> Mapping[str, tuple[int, ...]]:
    """Return, for each class of DomainNet, the indices of the ImageNet classes that show the same thing.

    The classes are in the order of DomainNet's labels. A class without such ImageNet classes has an empty tuple.

    Example:
        >>> partners = circuitry.data.imagenet_partners()
        >>> partners["bear"], partners["angel"]
        ((294, 295, 296), ())
        >>> list(partners).index("axe")  # DomainNet's label
        11
    """
    path = Path(__file__).with_name("domainnet_to_imagenet.json")
    partners = json.loads(path.read_text(encoding="utf-8"))
    for name, indices in partners.items():
        partners[name] = tuple(indices or ())
    return MappingProxyType(partners)


def imagenet_index(wnids: Iterable[str]) -> dict[str, int]:
    """Return the index of each ImageNet class, by its WordNet id.

    The index of a class is its place in the sorted list of all 1000 ids.

    Args:
        wnids: The WordNet ids of all classes, which are the names of their folders.

    Raises:
        InputError: if there are not exactly 1000 different ids.

    Example:
        >>> circuitry.data.imagenet_index(f"n{number:08d}" for number in range(1000))["n00000007"]
        7
    """
    names = sorted(set(wnids))
    if len(names) != N_IMAGENET:
        raise InputError(
            f"Expected the {N_IMAGENET} class folders of ImageNet, named by WordNet id, but found {len(names)}; "
            f"complete the download."
        )
    return {wnid: index for index, wnid in enumerate(names)}


def class_key(name: str) -> str:
    """Return a key that is the same for all spellings of a class name.

    Spellings may differ in case, and in spaces, underscores and hyphens between words.

    Example:
        >>> circuitry.data.class_key("The_Eiffel-Tower")
        'the eiffel tower'
    """
    return readable(name).casefold()


def study_held_out(available: Sequence[str]) -> tuple[str, ...]:
    """Return the names of the classes of `STUDY_HELD_OUT` that are in the data, spelled as in the data.

    Args:
        available: Names of all classes of the data.

    Raises:
        InputError: if the data has none of these classes.

    Example:
        >>> circuitry.data.study_held_out(["axe", "cat", "traffic-light"])
        ('axe', 'traffic-light')
    """
    keys = {class_key(name) for name in available}
    held_out = [name for name in STUDY_HELD_OUT if name in keys]
    if not held_out:
        raise InputError(
            "The data has none of the 15 classes that the study holds out (aircraft carrier, axe, ...); "
            "name the classes to hold out (--held-out)."
        )
    return chosen_names("class", held_out, available, class_key)

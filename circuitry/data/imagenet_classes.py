"""DomainNet's classes, ImageNet classes that show the same, and how spellings of a class are compared. No torch."""

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
    """Return DomainNet class -> indices of the ImageNet classes that show the same, in the order of labels.

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
    """Return WordNet id -> index of the ImageNet class, its place among the sorted names of all 1000 folders.

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
    """Return a key that all spellings of a class share: it ignores case, spaces, underscores and hyphens.

    Example:
        >>> circuitry.data.class_key("The_Eiffel-Tower")
        'the eiffel tower'
    """
    return readable(name).casefold()


def study_held_out(available: Sequence[str]) -> tuple[str, ...]:
    """Return the classes of `STUDY_HELD_OUT` in the data, in its spelling; InputError for none.

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

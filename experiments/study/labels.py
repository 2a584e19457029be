"""Outputs of a classifier, and the output of every class of the data. No torch.

The study trains on ImageNet and DomainNet at once. Its head has 1345 outputs: the 1000 classes of ImageNet, then the
345 of DomainNet. An ImageNet class with a partner in DomainNet gets the partner's output; its own stays unused.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated

from circuitry.runs import InputError
from circuitry.data import imagenet_partners, readable
from circuitry.runs.given import DISTINCT, checked


@checked
@dataclass(frozen=True)
class LabelTable:
    """Outputs of a classifier, and the output of every class of the data."""

    classes: Annotated[tuple[str, ...], DISTINCT]
    """Name of every output, in order."""
    labels: Mapping[str, int]
    """Class of the data -> index of its output."""

    def __post_init__(self) -> None:
        _check_once("output", self.classes)
        wrong = [name for name, label in self.labels.items() if not 0 <= label < len(self.classes)]
        if wrong:
            raise InputError(
                f"A label is the index of an output, 0 to {len(self.classes) - 1}, but the class {wrong[0]!r} has "
                f"{self.labels[wrong[0]]}: correct it."
            )


def found_labels(classes: Iterable[str]) -> LabelTable:
    """Return a table with one output for each class, sorted by name."""
    names = tuple(sorted(set(classes)))
    return LabelTable(names, {name: label for label, name in enumerate(names)})


@checked
def merged_labels(
    imagenet: Sequence[str], domainnet: Sequence[str], partners: Mapping[str, Sequence[int] | None]
) -> LabelTable:
    """Return the table of both data sets: ImageNet's outputs, then DomainNet's.

    Args:
        imagenet: Names of ImageNet's folders by index ("n01440764", ...).
        domainnet: DomainNet's classes by label.
        partners: DomainNet class -> indices of its ImageNet classes; None or absent for none. Underscores and hyphens
            in its names count as spaces.

    Raises:
        InputError: For a repeated name, partners of an unknown class, an index out of range, or an ImageNet class with
            two partners.

    Example:
        >>> merged_labels(["n1", "n2", "n3"], ["axe", "lion"], {"lion": [0, 2]}).labels
        {'n1': 4, 'n2': 1, 'n3': 4, 'axe': 3, 'lion': 4}
    """
    _check_once("class", [*imagenet, *domainnet])
    labels = {name: label for label, name in enumerate([*imagenet, *domainnet])}
    by_words = {readable(name): name for name in domainnet}
    taken: dict[int, str] = {}
    for name, indices in partners.items():
        if readable(name) not in by_words:
            raise InputError(f"Partners are those of DomainNet's classes, but {name!r} is none: correct its name.")
        for index in indices or ():
            if not 0 <= index < len(imagenet):
                raise InputError(
                    f"ImageNet's indices are 0 to {len(imagenet) - 1}, but {name!r} has the partner {index}: correct "
                    "it."
                )
            if index in taken:
                raise InputError(f"ImageNet class {index} has two partners, {taken[index]!r} and {name!r}: remove one.")
            taken[index] = name
            labels[imagenet[index]] = labels[by_words[readable(name)]]
    return LabelTable((*imagenet, *domainnet), labels)


def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1000 classes by index, as timm lists them."""
    from timm.data import ImageNetInfo  # here, since it brings torch

    return tuple(ImageNetInfo().label_names())


def study_labels(domainnet: Sequence[str], classes: Iterable[str]) -> LabelTable:
    """Return the study's 1345 outputs if a class is one of ImageNet's, else one output for each class.

    Args:
        domainnet: DomainNet's 345 classes by label.
        classes: Classes of the data; WordNet ids are ImageNet's.

    Example:
        >>> domainnet = DomainFolder("DomainNet", split="train").all_classes
        >>> train_supervised(table, out, settings, partial(study_labels, domainnet))
    """
    imagenet, found = imagenet_wnids(), set(classes)
    return (
        found_labels(found) if found.isdisjoint(imagenet) else merged_labels(imagenet, domainnet, imagenet_partners())
    )


def _check_once(kind: str, names: Sequence[str]) -> None:
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise InputError(f"Names must be unique, but the {kind} {twice[0]!r} occurs more than once: rename one.")

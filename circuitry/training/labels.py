"""Which output of a classifier an image belongs to: names of the outputs, and the label of every class. No torch.

The study trains on ImageNet and DomainNet at once: a head of 1345 outputs, the 1000 classes of ImageNet and then the
345 of DomainNet, where an ImageNet class with a partner in DomainNet counts as that class. So the outputs of those
ImageNet classes are never the right answer, and classes that both data sets have are one class.
"""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from circuitry.data.captions import readable
from circuitry.data.imagenet_classes import imagenet_partners
from circuitry.runs.errors import InputError


@dataclass(frozen=True)
class LabelTable:
    """Outputs of a classifier, and which of them every class of the data counts as."""

    classes: tuple[str, ...]
    """Name of every output, in order."""
    labels: Mapping[str, int]
    """Class, as the data name it -> its output."""

    def __post_init__(self) -> None:
        _check_once("output", self.classes)
        wrong = [name for name, label in self.labels.items() if not 0 <= label < len(self.classes)]
        if wrong:
            raise InputError(
                f"A label is the place of an output, 0 to {len(self.classes) - 1}, but the class {wrong[0]!r} was "
                f"given {self.labels[wrong[0]]}."
            )


def found_labels(classes: Iterable[str]) -> LabelTable:
    """Return a table of the classes that there are, sorted by name, each an output of its own."""
    names = tuple(sorted(set(classes)))
    return LabelTable(names, {name: label for label, name in enumerate(names)})


def merged_labels(
    imagenet: Sequence[str], domainnet: Sequence[str], partners: Mapping[str, Sequence[int] | None]
) -> LabelTable:
    """Return the table of both data sets together: ImageNet's outputs, then DomainNet's.

    Args:
        imagenet: ImageNet's classes by index, as folders name them ("n01440764", ...).
        domainnet: DomainNet's classes by label.
        partners: DomainNet class -> indices of the ImageNet classes that show the same; None or absent for none.
            Underscores and hyphens in its names count as spaces.

    Raises:
        InputError: For a name that occurs twice, a partner of a class that is not there, an index that ImageNet does
            not have, or one that is the partner of two classes.

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
            raise InputError(f"The class {name!r} has partners in ImageNet but is not among DomainNet's classes.")
        for index in indices or ():
            if not 0 <= index < len(imagenet):
                raise InputError(
                    f"The class {name!r} has the partner {index}, but ImageNet's indices are 0 to {len(imagenet) - 1}."
                )
            if index in taken:
                raise InputError(f"The ImageNet class {index} is the partner of both {taken[index]!r} and {name!r}.")
            taken[index] = name
            labels[imagenet[index]] = labels[by_words[readable(name)]]
    return LabelTable((*imagenet, *domainnet), labels)


def imagenet_wnids() -> tuple[str, ...]:
    """Return the WordNet ids of ImageNet's 1000 classes by index, as timm lists them."""
    from timm.data import ImageNetInfo  # here, since it brings torch

    return tuple(ImageNetInfo().label_names())


def study_labels(domainnet: Sequence[str], classes: Iterable[str]) -> LabelTable:
    """Return the study's 1345 outputs where there are images in ImageNet's folders, else an output for every class.

    Args:
        domainnet: DomainNet's 345 classes by label.
        classes: The classes that there are images of; ImageNet's are named by WordNet id.

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
        raise InputError(f"Every {kind} needs a name of its own, but {twice[0]!r} occurs more than once.")

"""Read a plain folder of image files as images of one class (`DomainFolder`). Does not import torch."""

from collections.abc import Sequence, Set
from pathlib import Path

from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.image_lists import ListedImage
from circuitry.data.image_sources import IMAGE_SUFFIXES, ImageList


def pictures_of_a_class(
    folder: Path,
    key: Key,
    classes: Sequence[str],
    leave_out: Set[Path] = frozenset(),
) -> DomainFolder:
    """Return the image files that lie directly in a folder, as images of one class in one domain.

    Args:
        folder: The folder of the files; files in folders below it are ignored.
        key: The class and the domain.
        classes: The classes that the model chooses among. All classes except the class of ``key`` have no images.
        leave_out: Absolute paths of images that are left out.

    Example:
        >>> from circuitry.questions import pictures_of_a_class
        >>> pictures = Path("DomainNet/real/clock")
        >>> pictures_of_a_class(pictures, ("clock", "mine"), ["clock", "cup"]).classes
        ('clock', 'cup')
    """
    class_name, domain = key
    listed = list[ListedImage]()
    files: dict[str, str] = {}
    # Images are ranked by the names of their files alone, so that a moved folder gives the same circuit.
    for path in pictures_in(folder):
        relative = f"{domain}/{class_name}/{path.name}"
        listed.append(ListedImage(relative, class_name))
        files[relative] = path.name
    # Labels are indices among all candidates, which a table of images cannot name.
    return DomainFolder(
        ImageList(folder.resolve(), {domain: listed}, tuple(classes), files=files),
        leave_out=leave_out,
    )


def pictures_in(folder: Path) -> list[Path]:
    """Return the image files that lie directly in a folder, sorted; an empty list if the folder does not exist.

    Example:
        >>> from circuitry.questions import pictures_in
        >>> len(pictures_in(Path("DomainNet/real/clock")))
        4
    """
    if not folder.is_dir():
        return []
    # Sorted, because the order of the file system varies. Folders below may hold images of other classes.
    return sorted(
        path
        for path in folder.resolve().iterdir()
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
    )

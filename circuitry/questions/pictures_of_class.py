"""Image files of one class in a plain folder, as images of a question. No torch."""

from collections.abc import Sequence
from pathlib import Path

from circuitry.data.domains import DomainFolder
from circuitry.data.folds import Key
from circuitry.data.image_lists import ListedImage
from circuitry.data.image_sources import IMAGE_SUFFIXES, ImageList


def pictures_of_a_class(folder: Path, key: Key, classes: Sequence[str]) -> DomainFolder:
    """Return the image files that lie in a folder, as images of a class in a domain.

    Args:
        classes: The classes that the model chooses among; the others have no images.

    Example:
        >>> from circuitry.questions import pictures_of_a_class
        >>> pictures = Path("DomainNet/real/clock")
        >>> pictures_of_a_class(pictures, ("clock", "mine"), ["clock", "cup"]).classes
        ('clock', 'cup')
    """
    class_name, domain = key
    listed = list[ListedImage]()
    files: dict[str, str] = {}
    # The names of the files alone rank images, so that the same circuit is found when the folder has moved.
    for path in pictures_in(folder):
        relative = f"{domain}/{class_name}/{path.name}"
        listed.append(ListedImage(relative, class_name))
        files[relative] = path.name
    # Labels are places among all candidates, which a table of images cannot name.
    return DomainFolder(
        ImageList(folder.resolve(), {domain: listed}, tuple(classes), files=files)
    )


def pictures_in(folder: Path) -> list[Path]:
    """Return the image files that lie in a folder itself; none where there is no folder.

    Example:
        >>> from circuitry.questions import pictures_in
        >>> len(pictures_in(Path("DomainNet/real/clock")))
        4
    """
    if not folder.is_dir():
        return []
    # Sorted, since the file system has an order of its own; folders below may hold images of other classes.
    return sorted(
        path
        for path in folder.resolve().iterdir()
        if path.is_file() and path.suffix.lower() in IMAGE_SUFFIXES
    )

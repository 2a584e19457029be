"""Images sorted by domain and class; `image_sources` reads them from folders, lists and tables. Does not import torch.

The label of a class is its index among all classes of the data set, even if only some classes are selected.
"""

from collections.abc import Mapping, Sequence, Set
from copy import copy
from dataclasses import dataclass, replace
from pathlib import Path
from typing import ClassVar

import pandas as pd

from circuitry.data.file_check import FileCheck, MissingFiles
from circuitry.data.image_sources import Source, read_source
from circuitry.data.names import chosen_names, drawn_by_name
from circuitry.runs.arguments import Count, Names, Seed, checked
from circuitry.runs.errors import InputError, number_of
from circuitry.runs.notebooks import Shown


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data set. Its arguments are not checked, because a data set may have millions of images.

    Example:
        >>> record = folder.records[0]
        >>> record.domain, record.class_name, record.relative.split("/")[:2]
        ('quickdraw', 'car', ['quickdraw', 'car'])
    """

    HOW_TO_GET: ClassVar = "take them from DomainFolder(path).records"

    path: Path
    """Absolute path of the file."""
    relative: str
    """Path below the root: ``domain/class/file``, with forward slashes on every platform."""
    domain: str  #: Style or source of the image.
    class_name: str  #: The class that the image shows.
    item: str | None = None
    """The item: the thing that the image shows, by a name that is the same in every domain. Tables may state it. If it
    is None, `item_of` derives the item from the name of the file."""


class DomainFolder(Shown):
    """Images sorted by domain and class.

    Args:
        root: Where the images are. One of:

            - a folder with files ``<domain>/<class>/<file>``;
            - a folder with files ``<class>/<file>``, which is a single domain with the name of the folder;
            - a mapping from each domain to a folder with files ``<class>/<file>``;
            - a table, or the file of a table (.csv, .tsv), with the columns path, class and domain. A column item is
              optional; see `ImageRecord`;
            - torchvision's ``ImageFolder``.
        split: Name of the split whose lists are read. "test" reads the lists ``<domain>_test.txt`` in the folder, as in
            DomainNet. If the folder has no lists, or if the split is None, all image files of the folder are used.
        domains: Domains to keep, in this order (default: all domains).
        classes: Classes to keep (default: all classes).
        missing_files: What to do if listed files do not exist. "refuse" raises an error. "skip" leaves these files out,
            and counts them in `missing`. "unchecked" does not check whether files exist, for lists of images that are
            on another machine.
        leave_out: Absolute paths of images that are left out.

    Files and folders whose names are not UTF-8 are skipped, and a message is logged.

    Raises:
        InputError: For a source that cannot be read or is empty; for lists that are missing or malformed, or that name
            files that do not exist or lie outside of their domain's folder; and for unknown names of domains or
            classes.

    Example:
        >>> images = circuitry.DomainFolder("DomainNet", domains=("real", "quickdraw"))
        >>> images.select("clock", "quickdraw", n=2, seed=0)[0].relative
        'quickdraw/clock/quickdraw_0...png'
        >>> several = circuitry.DomainFolder({"photo": "DomainNet/real", "mine": "DomainNet/sketch"})
        >>> several.domains
        ('photo', 'mine')
    """

    HOW_TO_GET: ClassVar = "make one with DomainFolder(path)"

    source: Source
    """The source of the images, as it was given."""
    root: Path
    """Folder that holds the images."""
    split: str | None
    """The split that was given."""
    domains: tuple[str, ...]
    """Selected domains."""
    classes: tuple[str, ...]
    """Selected classes, ordered by label."""
    all_classes: tuple[str, ...]
    """Every class of the data set. The label of a class is its index here."""
    records: tuple[ImageRecord, ...]
    """Selected images, domain by domain. Within a domain they have the order of the domain's list. If there are no
    lists, they are sorted by class and file name."""
    missing: int
    """Number of listed images whose files do not exist. They were skipped."""

    @checked
    def __init__(
        self,
        root: Source,
        split: str | None = "test",
        *,
        domains: Names | None = None,
        classes: Names | None = None,
        missing_files: MissingFiles = "refuse",
        leave_out: Set[Path] = frozenset(),
    ) -> None:
        source = read_source(root, split)
        self.source = root
        self.root = source.root
        self.split = split
        self.all_classes = source.classes
        self.domains = chosen_names("domain", domains, tuple(source.by_domain))
        wanted = set(chosen_names("class", classes, self.all_classes))
        self.classes = tuple(name for name in self.all_classes if name in wanted)
        # Files found in folders exist. A list may name files that do not exist.
        check = FileCheck(missing_files if source.listed else "unchecked", self.root)
        records = []
        for domain in self.domains:
            for relative, class_name, item in source.by_domain[domain]:
                file = source.files.get(relative, relative)
                path = self.root / file
                if class_name in wanted and path not in leave_out and check.keeps(file):
                    records.append(
                        ImageRecord(path, relative, domain, class_name, item)
                    )
        self.records = tuple(records)
        check.refuse(f"The lists of images in {self.root} name")
        self.missing = check.missing.count
        self._groups = _by_domain_and_class(self.records)

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        images = number_of(len(self.records), "image")
        domains = number_of(len(self.domains), "domain")
        classes = number_of(len(self.classes), "class")
        place = f"{str(self.root)!r}, split={self.split!r}"
        return f"DomainFolder({place}: {images}, {domains}, {classes})"

    def label(self, class_name: str) -> int:
        """Return the index of a class among all classes of the data set, even if only some classes are selected."""
        (name,) = chosen_names("class", (class_name,), self.all_classes)
        return self.all_classes.index(name)

    @checked
    def select(
        self, class_name: str, domain: str, n: Count | None = None, seed: Seed = 0
    ) -> tuple[ImageRecord, ...]:
        """Draw at most ``n`` images of a class in a domain at random, without replacement.

        Images are ranked by a hash of (seed, path below the root), and the first ``n`` images are returned in this
        order. So the choice does not depend on other classes, the platform or versions of libraries. The 10 images for
        ``n=10`` are the first 10 of the 50 images for ``n=50``. With ``n=None`` all images are returned. If the class
        has no images in the domain, the result is ``()``.
        """
        chosen_names("class", (class_name,), self.classes)
        chosen_names("domain", (domain,), self.domains)
        return tuple(self.ranked(class_name, domain, seed)[:n])

    def ranked(self, class_name: str, domain: str, seed: int) -> Sequence[ImageRecord]:
        """Return all images of a class in a domain in the order of `select`. The names are not checked."""
        group = self._groups.get((domain, class_name), [])
        return sorted(group, key=lambda record: drawn_by_name(seed, record.relative))

    def following(self, class_name: str) -> tuple[str, ...]:
        """Return the selected classes without the given class: first the classes after it, then the classes before it.

        Args:
            class_name: The given class.
        """
        place = self.classes.index(class_name)
        return (*self.classes[place + 1 :], *self.classes[:place])

    def shown_table(self) -> pd.DataFrame:
        """Return the `counts`."""
        return self.counts()

    @checked
    def labelled(self, labels: Mapping[str, str]) -> "DomainFolder":
        """Return the images that have a label, each in the domain that is named by its label.

        Args:
            labels: The label of each image by its path below the root, such as a column of a listing (`item_column`).
                Images without a label, or with an empty one, are left out.

        Raises:
            InputError: if none of the images has a label.

        Example:
            >>> sizes = {record.relative: "small" for record in folder.select("clock", "real")}
            >>> folder.labelled(sizes).domains
            ('small',)
        """
        records = list[ImageRecord]()
        for record in self.records:
            if label := labels.get(record.relative):
                records.append(replace(record, domain=label))
        if not records:
            raise InputError(
                f"None of the {len(self)} images of {self.root} has a label; the first is {self.records[0].relative}: "
                "name images by their paths below this folder."
            )
        labelled = copy(self)
        labelled.records = tuple(records)
        labelled.domains = tuple(dict.fromkeys(record.domain for record in records))
        labelled._groups = _by_domain_and_class(records)
        return labelled

    def counts(self) -> pd.DataFrame:
        """Return the number of images per domain (rows) and class (columns)."""
        numbers = {
            name: [len(self._groups.get((domain, name), ())) for domain in self.domains]
            for name in self.classes
        }
        table = pd.DataFrame(
            numbers, index=pd.Index(self.domains, name="domain"), dtype="int64"
        )
        return table.rename_axis(columns="class")


def _by_domain_and_class(
    records: Sequence[ImageRecord],
) -> dict[tuple[str, str], list[ImageRecord]]:
    groups = dict[tuple[str, str], list[ImageRecord]]()
    for record in records:
        groups.setdefault((record.domain, record.class_name), []).append(record)
    return groups

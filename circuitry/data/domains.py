"""Images sorted by domain and class, wherever they come from (`image_sources`). No torch.

The label of a class is its index among all classes of the data set, never among the selected ones.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

import pandas as pd

from circuitry.data.file_check import FileCheck, MissingFiles
from circuitry.data.image_sources import Source, read_source
from circuitry.data.names import chosen_names, drawn_by_name
from circuitry.runs.arguments import Count, Names, Seed, checked
from circuitry.runs.errors import number_of


@dataclass(frozen=True, slots=True)
class ImageRecord:
    """One image of a data set. Its arguments are not checked, as there are millions of them.

    Example:
        >>> record = folder.records[0]
        >>> record.domain, record.class_name, record.relative.split("/")[:2]
        ('quickdraw', 'car', ['quickdraw', 'car'])
    """

    HOW_TO_GET: ClassVar = "take them from DomainFolder(path).records"

    path: Path
    """Absolute path of the file."""
    relative: str
    """``domain/class/file`` below the root, with forward slashes on every platform."""
    domain: str  #: Style, or source.
    class_name: str  #: What it shows.
    item: str | None = None
    """The thing that the image shows, with one name in every domain, from a table; None to take its file name."""


class DomainFolder:
    """Images sorted by domain and class.

    Args:
        root: Where the images are. A folder has files ``<domain>/<class>/<file>``, or ``<class>/<file>``: then it is
            one domain of its own name. A mapping gives such a folder for each domain. A table, or its file (.csv,
            .tsv), has the columns path, class, domain and perhaps item. Torchvision's ``ImageFolder`` is taken, too.
        split: Which lists to read, such as "test"; without any lists, or with None, all image files of the
            folders.
        domains: Domains to keep, in this order (default: all).
        missing_files: Treatment of listed files that do not exist: "refuse", "skip" (`missing` counts
            them) or "unchecked", for lists of images that lie elsewhere.

    Warns:
        UserWarning: For files and folders whose names are not UTF-8, which are skipped.

    Raises:
        InputError: For nothing there to read, lists that are missing, malformed, name absent files or files outside
            of their domain's folder, and unknown names.

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
    """Folder that holds them."""
    split: str | None
    domains: tuple[str, ...]
    """Selected domains."""
    classes: tuple[str, ...]
    """Selected classes, ordered by label."""
    all_classes: tuple[str, ...]
    """Every class of the data set; a class's position here is its label."""
    records: tuple[ImageRecord, ...]
    """Selected images: domain by domain, in the order of the domain's list (or class by class, by file name)."""
    missing: int
    """Number of listed images without a file, which are skipped."""

    @checked
    def __init__(
        self,
        root: Source,
        split: str | None = "test",
        *,
        domains: Names | None = None,
        classes: Names | None = None,
        missing_files: MissingFiles = "refuse",
    ) -> None:
        source = read_source(root, split)
        self.source = root
        self.root = source.root
        self.split = split
        self.all_classes = source.classes
        self.domains = chosen_names("domain", domains, tuple(source.by_domain))
        wanted = set(chosen_names("class", classes, self.all_classes))
        self.classes = tuple(name for name in self.all_classes if name in wanted)
        # A folder lists files that exist; a list may name others.
        check = FileCheck(missing_files if source.listed else "unchecked", self.root)
        records = []
        for domain in self.domains:
            for relative, class_name, item in source.by_domain[domain]:
                file = source.files.get(relative, relative)
                if class_name in wanted and check.keeps(file):
                    path = self.root / file
                    records.append(
                        ImageRecord(path, relative, domain, class_name, item)
                    )
        self.records = tuple(records)
        check.refuse(f"The lists of images in {self.root} name")
        self.missing = check.missing.count
        self._groups: dict[tuple[str, str], list[ImageRecord]] = {}
        for record in self.records:
            self._groups.setdefault((record.domain, record.class_name), []).append(
                record
            )

    def __len__(self) -> int:
        return len(self.records)

    def __repr__(self) -> str:
        images = number_of(len(self.records), "image")
        domains = number_of(len(self.domains), "domain")
        classes = number_of(len(self.classes), "class")
        place = f"{str(self.root)!r}, split={self.split!r}"
        return f"DomainFolder({place}: {images}, {domains}, {classes})"

    def label(self, class_name: str) -> int:
        """Return the index of a class among all classes of the data set, whatever was selected."""
        (name,) = chosen_names("class", (class_name,), self.all_classes)
        return self.all_classes.index(name)

    @checked
    def select(
        self, class_name: str, domain: str, n: Count | None = None, seed: Seed = 0
    ) -> tuple[ImageRecord, ...]:
        """Draw at most ``n`` images of a class in a domain at random, without replacement.

        Images are ranked by a hash of (seed, path below the root), and the first ``n`` are taken. So a choice
        depends on nothing else (no other class, platform or library version), and ``n=10`` is part of ``n=50``.
        With ``n=None`` all images, in that order. A class without images in the domain gives ``()``.
        """
        chosen_names("class", (class_name,), self.classes)
        chosen_names("domain", (domain,), self.domains)
        return tuple(self.ranked(class_name, domain, seed)[:n])

    def ranked(self, class_name: str, domain: str, seed: int) -> Sequence[ImageRecord]:
        """Return all images of a class in a domain in the order in which `select` takes them; names are not checked."""
        group = self._groups.get((domain, class_name), [])
        return sorted(group, key=lambda record: drawn_by_name(seed, record.relative))

    def following(self, class_name: str) -> tuple[str, ...]:
        """Return the other selected classes: first those that come after it, then those before."""
        place = self.classes.index(class_name)
        return (*self.classes[place + 1 :], *self.classes[:place])

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

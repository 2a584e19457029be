"""The folder of cards that `unit_cards` writes: its files, and `CardFolder`, which reads them. Does not import torch.

images/<domain>.json         the images of a domain
images/<domain>.npy          activation [images, units] of every unit that has a card
images/<domain>.safetensors  top images of the units, and embeddings of the images of the domain
exact/<class>/<domain>.safetensors    exact effects: the metric's change if a unit of the circuit is replaced
sites/<site>.safetensors     arrays of the cards of a site
sites/<site>.json            names of the units of the site
words.json                   the `WordCheck`: how well the model classifies the images by the names of classes
thumbnails/<id>.webp         thumbnail of an image
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from circuitry.cards.unit_card import (
    RANKINGS_OF_IMAGES,
    CardImage,
    TopImages,
    UnitCard,
    UnitName,
    WordCheck,
)
from circuitry.runs.arrays import read_arrays
from circuitry.runs.errors import InputError, UnknownNameError
from circuitry.runs.files import at_home
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.manifest import NAME, read_manifest

CARDS_FORMAT = "circuitry unit cards 2"
"""Name and version of the folder and of the files in it."""
COMMAND = "circuitry cards"
"""The command that makes the folder."""
IMAGES = "images"
EXACT = "exact"
WORDS = "words"
SITE = "site"
"""The four kinds of jobs, in the order in which they are done. The first word of a job's name is its kind."""


def card_file(folder: Path, job: Job, suffix: str = ".safetensors") -> Path:
    """Return the path of a file that a job of `unit_cards` writes.

    A job may write several files, which differ in their suffix. The file with the default suffix is written last. If
    this file exists, the job is done.

    Args:
        folder: The folder of the cards.
        job: The kind of the job, followed by the names of what the job is for, such as a class and a domain.
        suffix: The suffix of the file.
    """
    kind, *names = job
    if kind == WORDS:
        return folder / "words.json"
    subfolder = "sites" if kind == SITE else kind
    return folder.joinpath(subfolder, *names[:-1], f"{names[-1]}{suffix}")


def thumbnail_file(folder: Path, image_id: str) -> Path:
    """Return the path of the thumbnail of an image."""
    return folder / "thumbnails" / f"{image_id}.webp"


def read_beside(path: Path) -> Any:
    """Read a JSON file of the folder of cards, and return its content.

    Raises:
        InputError: if the file is missing or damaged.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({error}): run {COMMAND} again, which repairs it."
        ) from error


def read_images_beside(path: Path) -> list[CardImage]:
    """Read the JSON file of a domain, and return the images of the domain.

    In the other files of the domain, the rows for these images have the same order.
    """
    return [CardImage(*row) for row in read_beside(path)]


ActivationTable = tuple[tuple[str, ...], Float[np.ndarray, "images units"]]
"""Ids of images, and the activation of every unit in each image. Activations are read from disk when they are used."""


_OfSite = tuple[dict[str, Any], dict[str, np.ndarray], list[Any]]
"""Header and arrays of the cards of a site, and the names of its units."""


class SeenImages(NamedTuple):
    """The images of a domain, and the top images of every unit in this domain."""

    images: Sequence[CardImage]
    """The images of the domain."""
    arrays: dict[str, np.ndarray]
    """Arrays by name. ``embeddings`` holds the embedding of each image. For every ranking of `RANKINGS_OF_IMAGES` and
    every site, ``ranking/places/site`` holds the indices of the top images of the site's units. ``ranking/values/site``
    holds the activations or effects of the units in these images, and ``ranking/heat/site`` the maps of the units."""
    activations: Float[np.ndarray, "images units"]
    """Activations of all units. They are read from disk when they are used."""

    @classmethod
    def read(cls, folder: Path, domain: str) -> "SeenImages":
        """Read the files of a domain."""
        job = (IMAGES, domain)
        _, arrays = read_arrays(
            card_file(folder, job),
            CARDS_FORMAT,
            "file of top images",
        )
        images = read_images_beside(card_file(folder, job, ".json"))
        table = np.load(card_file(folder, job, ".npy"), mmap_mode="r")
        return cls(images, arrays, table)


class CardFolder:
    """A folder with a card for every unit that a circuit keeps. `unit_cards` writes such a folder.

    Example:
        >>> from circuitry.cards import CardFolder, unit_cards
        >>> made = unit_cards(clip, folder, graphs, "runs/x/cards", n_images=4, exact_units=0)
        >>> cards = CardFolder("runs/x/cards")
        >>> card = cards.card(*cards.units()[0])
        >>> card.top["activation"]["sketch"].ids
        ('...',...)
    """

    HOW_TO_GET: ClassVar = (
        "make one with unit_cards(...), and open it with CardFolder(path)"
    )

    def __init__(self, path: str | Path) -> None:
        self.path = Path(at_home(path)).absolute()
        if not (self.path / NAME).is_file():
            raise InputError(
                f"There are no unit cards at {self.path}: make them with {COMMAND}."
            )
        self.manifest = read_manifest(self.path, CARDS_FORMAT)
        self._folder = JobFolder.made(self.path, self.manifest)
        jobs = self._folder.jobs
        # A job writes this file last. If it exists, all files of the job exist.
        missing = [job for job in jobs if not card_file(self.path, job).is_file()]
        if missing:
            raise InputError(
                f"The unit cards at {self.path} are not finished, {len(missing)} of {len(jobs)} jobs are left, first "
                f"{' '.join(missing[0])}: run {COMMAND} again, which goes on where it stopped."
            )
        # Exact effects have a job for each circuit: its name is the kind, the class and the domain.
        circuits = [job for job in jobs if job[0] == EXACT]
        self.classes = tuple(dict.fromkeys(job[1] for job in circuits))
        """Names of the classes along the axis "classes" of all arrays."""
        self.domains = tuple(dict.fromkeys(job[2] for job in circuits))
        """Names of the domains along the axis "domains" of all arrays."""
        self._units: dict[str, list[int]] = {}
        for kind, *names in jobs:
            if kind == SITE:
                site = names[0]
                self._units[site] = self.manifest["config"]["units"][site]
        self.sites = tuple(self._units)
        """Sites with cards, in the encoder's order."""
        self._of_sites: dict[str, _OfSite] = {}

    def units(self) -> list[tuple[str, int]]:
        """Return (site, unit) of every card, site by site."""
        units: list[tuple[str, int]] = []
        for site in self.sites:
            units += [(site, unit) for unit in self._units[site]]
        return units

    @cached_property
    def images(self) -> dict[str, CardImage]:
        """The images that cards show, by id."""
        images: dict[str, CardImage] = {}
        for domain in self.domains:
            for image in self._images_of(domain):
                images[image.id] = image
        return images

    def _file(self, job: Job, suffix: str = ".safetensors") -> Path:
        """Return the path of a file of a job, after checking that the file has not changed since the job wrote it."""
        return self._folder.whole(job, card_file(self.path, job, suffix), COMMAND)

    def _images_of(self, domain: str) -> list[CardImage]:
        return read_images_beside(self._file((IMAGES, domain), ".json"))

    @cached_property
    def words(self) -> WordCheck:
        """How well the model classifies the images by the names of classes (zero-shot).

        If the model does this no better than chance, its words cannot name units.
        """
        return WordCheck(**read_beside(self._file((WORDS,))))

    def thumbnail(self, image_id: str) -> bytes:
        """Return the thumbnail of an image, as the content of a WebP file of 160 x 160 pixels.

        The thumbnail shows the image after the model's preprocessing, such as cropping.

        Raises:
            UnknownNameError: if no image has this id.
        """
        if image_id not in self.images:
            raise UnknownNameError(
                f"There is no image {image_id!r} in {self.path}: see images."
            )
        return thumbnail_file(self.path, image_id).read_bytes()

    def activations(self, domain: str) -> ActivationTable:
        """Return the ids of a domain's images, and the activations [images, units] in these images.

        The columns are all units that have a card, in the order of `CardFolder.units`.
        """
        ids = tuple(image.id for image in self._images_of(domain))
        return ids, np.load(self._file((IMAGES, domain), ".npy"), mmap_mode="r")

    def card(self, site: str, unit: int) -> UnitCard:
        """Return the card of a unit.

        Raises:
            UnknownNameError: if no circuit keeps the unit.
            InputError: if a file is damaged.
        """
        if unit not in self._units.get(site, ()):
            raise UnknownNameError(
                f"There is no card of {site}/{unit} in {self.path}: take one of units()."
            )
        # The cards of a site are read together, because users mostly look at several units of one site.
        if site not in self._of_sites:
            self._of_sites[site] = self._read_site(site)
        header, arrays, names = self._of_sites[site]
        row = self._units[site].index(unit)
        of_unit = {name: array[row] for name, array in arrays.items()}
        # By ranking, then by domain. ``number`` is the index of the domain along the axis "domains".
        top: dict[str, dict[str, TopImages]] = {}
        for ranking in RANKINGS_OF_IMAGES:
            top[ranking] = {}
            for number, domain in enumerate(self.domains):
                top[ranking][domain] = self._top_images(of_unit, ranking, number)
        exact: dict[str, np.ndarray] = {}
        for name, effects in of_unit.items():
            if name.startswith("exact/"):
                exact[name.removeprefix("exact/")] = effects
        return UnitCard(
            site=str(header["site"]),
            unit=unit,
            kind=str(header["kind"]),
            classes=self.classes,
            domains=self.domains,
            top=top,
            heat_scale=float(of_unit["heat_scale"]),
            bin_edges=of_unit["bin_edges"],
            counts=of_unit["counts"].astype(np.int64),
            effects=of_unit["effects"],
            kept=of_unit["kept"].astype(bool),
            exact=exact,
            attributed_like=str(header["baseline"]),
            name=_unit_name(names[row]),
            thumbnail=self.thumbnail,
        )

    def _read_site(self, site: str) -> _OfSite:
        job = (SITE, site)
        header, arrays = read_arrays(
            self._file(job),
            CARDS_FORMAT,
            "file of unit cards",
        )
        return header, arrays, read_beside(self._file(job, ".json"))

    @cached_property
    def _ids(self) -> list[str]:
        """Ids of the images. The arrays of a site refer to an image by its index in this list."""
        return list(self.images)

    def _top_images(
        self,
        of_unit: Mapping[str, np.ndarray],
        ranking: str,
        domain: int,
    ) -> TopImages:
        places = of_unit[f"{ranking}/places"][domain]
        # The strongest images come first. -1 fills the end of the list if there are not enough images.
        n = int((places >= 0).sum())
        heat = of_unit.get(f"{ranking}/heat")
        # Units without a position in the image have no heat.
        of_domain = None if heat is None else heat[domain, :n]
        return TopImages(
            ids=tuple(self._ids[place] for place in places[:n]),
            values=of_unit[f"{ranking}/values"][domain, :n],
            heat=of_domain,
        )

    def __repr__(self) -> str:
        return (
            f"CardFolder({str(self.path)!r}: {len(self.units())} units at {len(self.sites)} sites, "
            f"{len(self.domains)} domains)"
        )


def _unit_name(saved: Mapping[str, Any] | None) -> UnitName | None:
    """Make the name of a unit from its fields in a JSON file, or return None if the unit has no name.

    JSON has no tuples, so the file stores lists in their place.
    """
    if saved is None:
        return None
    fields = dict(saved)
    for field in ("words", "weights"):
        fields[field] = tuple(fields[field])
    for field in ("by_domain", "references"):
        pairs = fields[field].items()
        fields[field] = {key: tuple(pair) for key, pair in pairs}
    return UnitName(**fields)

"""The folder of cards that `unit_cards` writes: its files, and a reader of them. No torch.

images/<domain>.json         the images of a domain
images/<domain>.npy          activation [images, units] of every unit
images/<domain>.safetensors  top images and embeddings of the domain
exact/<class>/<domain>.safetensors    exact effects
sites/<site>.safetensors     arrays of the cards of a site
sites/<site>.json            names of its units
words.json                   whether the model's words work
thumbnails/<id>.webp
"""

import json
from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
from jaxtyping import Float

from circuitry.cards.unit_card import (
    ACTIVATION,
    EFFECT,
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
IMAGES, EXACT, WORDS, SITE = "images", "exact", "words", "site"
"""Kinds of jobs, the first part of their names; they are done in this order."""


def card_file(folder: Path, job: Job) -> Path:
    """Return the file that a job of `unit_cards` leaves last."""
    kind, *names = job
    if kind == WORDS:
        return folder / "words.json"
    if kind == SITE:
        return folder / "sites" / f"{names[0]}.safetensors"
    return folder / kind / Path(*names[:-1]) / f"{names[-1]}.safetensors"


def thumbnail_file(folder: Path, image_id: str) -> Path:
    """Return the file of an image's thumbnail."""
    return folder / "thumbnails" / f"{image_id}.webp"


def read_beside(path: Path) -> Any:
    """Return the content of a JSON file of the folder; `InputError` if it is damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(
            f"{path} is damaged ({error}): run {COMMAND} again, which repairs it."
        ) from error


ActivationTable = tuple[tuple[str, ...], Float[np.ndarray, "images units"]]
"""Ids of images, and the activation of every unit in them; values are read from disk when they are used."""


class SeenImages(NamedTuple):
    """The images of a domain, with the top images of all units among them."""

    images: Sequence[CardImage]
    arrays: dict[str, np.ndarray]
    """Top images: ``places``, ``values`` and ``heat`` by activation and by effect, and site; ``embeddings``."""
    activations: Float[np.ndarray, "images units"]
    """Activations of all units, read from disk when they are used."""

    @classmethod
    def read(cls, path: Path) -> "SeenImages":
        """Read the files of a domain, given the one of the top images."""
        _, arrays = read_arrays(path, CARDS_FORMAT, "file of top images")
        images = [CardImage(*row) for row in read_beside(path.with_suffix(".json"))]
        return cls(images, arrays, np.load(path.with_suffix(".npy"), mmap_mode="r"))


class CardFolder:
    """The cards of all units of the circuits of a folder.

    Example:
        >>> cards = CardFolder("runs/quickstart/cards")
        >>> card = cards.card("layer4.0", 12)
        >>> cards.thumbnail(card.top["activation"]["sketch"].ids[0])
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
        missing = [job for job in jobs if not card_file(self.path, job).is_file()]
        if missing:
            raise InputError(
                f"The unit cards at {self.path} are not finished, {len(missing)} of {len(jobs)} jobs are left, first "
                f"{' '.join(missing[0])}: run {COMMAND} again, which goes on where it stopped."
            )
        keys = [job[1:] for job in jobs if job[0] == EXACT]
        self.sites = tuple(job[1] for job in jobs if job[0] == SITE)
        """Sites with cards, in the encoder's order."""
        self.classes = tuple(dict.fromkeys(class_name for class_name, _ in keys))
        """The axis "classes" of all arrays."""
        self.domains = tuple(dict.fromkeys(domain for _, domain in keys))
        """The axis "domains" of all arrays."""
        self._read: dict[
            str, tuple[dict[str, Any], dict[str, np.ndarray], list[Any]]
        ] = {}

    def units(self) -> list[tuple[str, int]]:
        """Return (site, unit) of every card, site by site."""
        return [(site, unit) for site in self.sites for unit in self._units[site]]

    @cached_property
    def _units(self) -> dict[str, list[int]]:
        return {
            site: list(map(int, units))
            for site, units in self.manifest["config"]["units"].items()
        }

    @cached_property
    def images(self) -> dict[str, CardImage]:
        """The images that cards show, by id."""
        listed = (
            CardImage(*row) for domain in self.domains for row in self._listed(domain)
        )
        return {image.id: image for image in listed}

    def _whole(self, job: Job, suffix: str = "") -> Path:
        """Return the path of the file that a job leaves last, or of one beside it, after checking it."""
        path = card_file(self.path, job)
        return self._folder.whole(
            job, path.with_suffix(suffix) if suffix else path, COMMAND
        )

    def _listed(self, domain: str) -> Any:
        return read_beside(self._whole((IMAGES, domain), ".json"))

    @cached_property
    def words(self) -> WordCheck:
        """Whether the model's words work on these images."""
        return WordCheck(**read_beside(self._whole((WORDS,))))

    def thumbnail(self, image_id: str) -> bytes:
        """Return an image as the model sees it, 160 x 160 pixels as WebP; KeyError for an unknown one."""
        if image_id not in self.images:
            raise UnknownNameError(
                f"There is no image {image_id!r} in {self.path}: see images."
            )
        return thumbnail_file(self.path, image_id).read_bytes()

    def activations(self, domain: str) -> ActivationTable:
        """Return the ids of a domain's images, and activations [images, units]; units as in `CardFolder.units`."""
        ids = tuple(row[0] for row in self._listed(domain))
        return ids, np.load(self._whole((IMAGES, domain), ".npy"), mmap_mode="r")

    def card(self, site: str, unit: int) -> UnitCard:
        """Return the card of a unit; KeyError for a unit that is in no circuit, `InputError` for a damaged file."""
        if unit not in self._units.get(site, ()):
            raise UnknownNameError(
                f"There is no card of {site}/{unit} in {self.path}: take one of units()."
            )
        if site not in self._read:
            header, arrays = read_arrays(
                self._whole((SITE, site)), CARDS_FORMAT, "file of unit cards"
            )
            self._read[site] = (
                header,
                arrays,
                read_beside(self._whole((SITE, site), ".json")),
            )
        header, arrays, names = self._read[site]
        row = self._units[site].index(unit)
        of, found = {name: array[row] for name, array in arrays.items()}, names[row]
        tops = {
            by: {
                domain: self._top_of(of, by, i) for i, domain in enumerate(self.domains)
            }
            for by in (ACTIVATION, EFFECT)
        }
        return UnitCard(
            site=str(header["site"]),
            unit=unit,
            kind=str(header["kind"]),
            classes=self.classes,
            domains=self.domains,
            top=tops,
            heat_scale=float(of["heat_scale"]),
            bin_edges=of["bin_edges"],
            counts=of["counts"].astype(np.int64),
            effects=of["effects"],
            kept=of["kept"].astype(bool),
            exact={
                name.removeprefix("exact/"): of[name]
                for name in of
                if name.startswith("exact/")
            },
            attributed_like=str(header["baseline"]),
            name=None if found is None else _name(found),
            thumbnail=self.thumbnail,
        )

    @cached_property
    def _ids(self) -> list[str]:
        return list(self.images)

    def _top_of(self, of: Mapping[str, np.ndarray], by: str, domain: int) -> TopImages:
        places = of[f"{by}/places"][domain]
        n, heat = int((places >= 0).sum()), of.get(f"{by}/heat")
        ids = tuple(self._ids[place] for place in places[:n])
        return TopImages(
            ids,
            of[f"{by}/values"][domain, :n],
            None if heat is None else heat[domain, :n],
        )

    def __repr__(self) -> str:
        units = sum(map(len, self._units.values()))
        return f"CardFolder({str(self.path)!r}: {units} units at {len(self.sites)} sites, {len(self.domains)} domains)"


def _name(found: Mapping[str, Any]) -> UnitName:
    pairs = {
        key: {name: tuple(pair) for name, pair in found[key].items()}
        for key in ("by_domain", "references")
    }
    return UnitName(
        **{
            **found,
            **pairs,
            "words": tuple(found["words"]),
            "weights": tuple(found["weights"]),
        }
    )

"""The representation of every domain of a data set at every site, each domain in a file as soon as it is done.

1. The images of a class in a domain run through the encoder, as many at once as memory allows; each image's activation
   averaged over positions is kept for probes.
2. Rows for CKA are class means (the study's setting) or single images, of all features, positions kept apart. They go
   to temporary files, since all classes' activations at all sites fit no memory, and come back as inner products:
   - ``class-means``: one batch. A row is the mean of half of a class's images, every other one; the inner products
     of the means of all images follow from those of the halves, whose own CKA is the ceiling;
   - ``images``: batch i holds image i of every class; every other batch is a half.

A second run with the same settings reads what is there and goes on; other settings on the same folder are refused.
"""

import logging
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Never

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.data.batches import load_batches
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.models.batches import rows_that_fit
from circuitry.models.clip import Clip
from circuitry.models.encoder import Encoder
from circuitry.representations.class_means import DomainRepresentation, Grams
from circuitry.representations.grams import RowFiles
from circuitry.runs.errors import InputError
from circuitry.runs.manifest import claim
from circuitry.runs.provenance import digest

ROWS = ("class-means", "images")
LARGEST_BATCH = 64
"""Most images in one run."""

log = logging.getLogger(__name__)


def study_representations(
    clip: Clip,
    images: DomainFolder,
    out: str | Path,
    *,
    rows: str = "class-means",
    n_images: int = 50,
    sites: Sequence[str] | None = None,
    seed: int = 0,
    memory_gib: float = 1.0,
    progress: bool = True,
) -> list[DomainRepresentation]:
    """Represent every domain at every site, for `compare_representations` and `probe_sites`.

    Args:
        clip: The model; see `load_clip`.
        images: The images, sorted by domain and class.
        out: Folder of the files, one per domain; while a domain is worked on, it also holds temporary files of 4 bytes
            per row and feature: 8 bytes per class and feature for class means (RN50, all sites: 60 MB per class), 4
            for images.
        rows: One of `ROWS`.
        n_images: Images per class and domain, chosen by ``seed``; all where there are fewer.
        sites: Sites to represent; all unless told.
        seed: Seed of the choice.
        memory_gib: Budget, in GiB, for the activations of a run and for blocks of features, one after the other;
            means of one class at all sites in double precision come on top (RN50: 0.2 GB).
        progress: Show a bar over images.

    Raises:
        InputError: for other rows, fewer than two images, unknown sites, a folder made with other settings, or
            activations that are not finite.

    Example:
        >>> domains = study_representations(clip, DomainFolder("DomainNet"), "runs/x", n_images=50)
        >>> compare_representations([one.grams for one in domains])
    """
    if rows not in ROWS:
        raise InputError(f"Expected rows that are one of {', '.join(ROWS)}, but {rows!r} was given.")
    if n_images < 2:
        raise InputError(f"Halves of images need at least two of them, but n_images={n_images} was given.")
    chosen = _in_order(clip.encoder, sites)
    selections = {
        domain: {name: images.select(name, domain, n_images, seed) for name in images.classes}
        for domain in images.domains
    }
    listing = [[d, c, [r.relative for r in records]] for d, s in selections.items() for c, records in s.items()]
    config = {"model": clip.name, "model_digest": clip.digest, "rows": rows, "sites": list(chosen)}
    folder = Path(out)
    claim(folder, "circuitry representations 1", config | {"images": digest(listing), "n": n_images, "seed": seed})
    found = []
    for domain, selection in selections.items():
        path = folder / f"{domain}.safetensors"
        stored = _stored(path)
        if stored is None:
            with tqdm(total=sum(map(len, selection.values())), desc=domain, unit="image", disable=not progress) as bar:
                stored = _represent(_Activations(clip, chosen, memory_gib, bar), domain, selection, rows, folder)
            stored.save(path)
        found.append(stored)
    return found


def _in_order(encoder: Encoder, sites: Sequence[str] | None) -> tuple[str, ...]:
    return encoder.sites if sites is None else tuple(sorted(set(sites), key=encoder.position))


def _stored(path: Path) -> DomainRepresentation | None:
    if not path.is_file():
        return None
    try:
        return DomainRepresentation.load(path)
    except InputError as error:
        log.warning("%s is made again: %s", path.stem, error)
        return None


def _represent(
    activations: "_Activations", domain: str, selection: Mapping[str, Sequence[ImageRecord]], rows: str, folder: Path
) -> DomainRepresentation:
    make = _class_means if rows == "class-means" else _single_images
    whole, *halves = (
        Grams(domain, tuple(selection), by_site) for by_site in make(activations, list(selection.values()), folder)
    )
    if not activations.records:
        raise InputError(f"None of the images of {domain} can be read: give others, or leave the domain out.")
    means = {site: np.concatenate(found) for site, found in activations.unit_means.items()}
    classes = tuple(record.class_name for record in activations.records)
    return DomainRepresentation(whole, (halves[0], halves[1]), means, classes)


class _Activations:
    """Activations of images at all sites, a batch at a time; keeps the unit means of all that have gone through."""

    def __init__(self, clip: Clip, sites: Sequence[str], memory_gib: float, bar: "tqdm[Never]") -> None:
        self.sites, self.memory_gib = sites, memory_gib
        self.records: list[ImageRecord] = []
        self.unit_means: dict[str, list[np.ndarray]] = {site: [] for site in sites}
        self._clip, self._bar = clip, bar
        self._batch_size = min(LARGEST_BATCH, rows_that_fit(clip.encoder, memory_gib))

    def of(self, records: Sequence[ImageRecord]) -> Iterator[tuple[list[ImageRecord], dict[str, Tensor]]]:
        """Yield readable images, in order, with their activations [B, ...] by site."""
        skipped: dict[Path, str] = {}
        remaining = iter(records)
        batches = load_batches(
            [record.path for record in records],
            self._clip.preprocess,
            self._batch_size,
            on_skip=skipped.__setitem__,
        )
        for batch in batches:
            # Those skipped before or in this batch are known by now.
            read = list(islice((record for record in remaining if record.path not in skipped), len(batch)))
            yield read, self._run(batch, read)
        self._bar.update(len(records))
        for reason in skipped.values():
            log.warning("left out an image: %s", reason)

    def _run(self, batch: Tensor, read: Sequence[ImageRecord]) -> dict[str, Tensor]:
        encoder = self._clip.encoder
        with torch.no_grad(), encoder.frozen():
            _, cache = encoder.run_with_cache(
                batch.to(encoder.device, encoder.dtype), stop=self.sites[-1], names_filter=list(self.sites)
            )
        found = {site: cache[site] for site in self.sites}
        for site, activation in found.items():
            means = _unit_means(activation, encoder.unit_dim(site)).float().cpu().numpy()
            if not np.isfinite(means).all():
                raise InputError(
                    f"Representations need finite activations, but {site} has NaN or infinite ones on "
                    f"{read[0].path} or the images after it: check the weights and the image."
                )
            self.unit_means[site].append(means)
        self.records += read
        return found


def _unit_means(activation: Tensor, unit_dim: int) -> Float[Tensor, "_ _"]:
    """Average over positions: [B, ...] -> [B, units]."""
    units_first = activation.movedim(unit_dim, 1)
    return units_first.flatten(2).mean(2) if units_first.dim() > 2 else units_first


_Parts = tuple[dict[str, np.ndarray], dict[str, np.ndarray], dict[str, np.ndarray]]
"""Gram matrices [batches, classes, classes] by site: of all images, and of two halves."""


def _class_means(activations: _Activations, selection: Sequence[Sequence[ImageRecord]], folder: Path) -> _Parts:
    owners: list[tuple[int, int, int]] = []
    """Of every row: class, half, number of images."""
    with RowFiles(folder) as rows:
        for owner, records in enumerate(selection):
            for half in range(2):
                count, sums = 0, dict[str, Tensor]()
                for read, batch in activations.of(records[half::2]):
                    count += len(read)
                    for site, activation in batch.items():
                        total = activation.sum(0, dtype=torch.float64).flatten()
                        sums[site] = sums[site] + total if site in sums else total
                if count:
                    rows.add({site: (total / count).cpu().numpy() for site, total in sums.items()})
                    owners.append((owner, half, count))
        grams = {site: rows.gram(site, activations.memory_gib) for site in rows.sites}
    weights = np.zeros((3, len(selection), len(owners)))
    for row, (owner, half, count) in enumerate(owners):
        weights[0, owner, row] = count
        weights[1 + half, owner, row] = 1
    with np.errstate(invalid="ignore"):  # a class without images becomes NaN
        weights /= weights.sum(2, keepdims=True)
        whole, first, second = ({site: (w @ gram @ w.T)[None] for site, gram in grams.items()} for w in weights)
    return whole, first, second


def _single_images(activations: _Activations, selection: Sequence[Sequence[ImageRecord]], folder: Path) -> _Parts:
    place = {records[0].class_name: i for i, records in enumerate(selection) if records}
    grams: dict[str, list[np.ndarray]] = {site: [] for site in activations.sites}
    for i in range(max(map(len, selection), default=0)):
        present = []
        with RowFiles(folder) as rows:
            for read, batch in activations.of([records[i] for records in selection if i < len(records)]):
                flat = {site: activation.flatten(1).cpu().numpy() for site, activation in batch.items()}
                for row, record in enumerate(read):
                    rows.add({site: features[row] for site, features in flat.items()})
                    present.append(place[record.class_name])
            for site in rows.sites:
                full = np.full((len(selection), len(selection)), np.nan)
                full[np.ix_(present, present)] = rows.gram(site, activations.memory_gib)
                grams[site].append(full)
    batches = {site: np.stack(found) for site, found in grams.items() if found}
    first, second = ({site: found[half::2] for site, found in batches.items()} for half in range(2))
    return batches, first, second

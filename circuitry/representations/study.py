"""The representation of every domain of a data set at every site, each domain in a file as soon as it is done.

1. Each image's activation averaged over positions is kept for probes.
2. The rows for CKA are means of all features, positions kept apart, over half of a class's images, every other one.
   They go to temporary files (`RowFiles`), and come back as inner products. Those of the means of all images follow
   from those of the halves, whose own CKA is the ceiling.

A domain is a job of a `JobFolder`: several processes share the domains, a second run goes on where the first stopped,
and what is damaged is made again.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.data.images import image_listing
from circuitry.models.batches import rows_that_fit
from circuitry.models.clip import Clip
from circuitry.models.encoder import checked_sites
from circuitry.models.image_pass import BATCH_SIZE, activations
from circuitry.representations.grams import (
    FORMAT,
    DomainRepresentation,
    Grams,
    RowFiles,
    read_representations,
    representation_file,
)
from circuitry.representations.kernel_alignment import FEWEST
from circuitry.representations.similarity import check_common
from circuitry.runs.errors import InputError
from circuitry.runs.jobs import Job, JobFolder
from circuitry.runs.workers import Work


@dataclass(frozen=True)
class RepresentationSettings:
    """What shapes the representations of a model's images."""

    n_images: int = 50
    """Images per class and domain, chosen by ``seed``; all where there are fewer."""
    sites: tuple[str, ...] | None = None
    """Sites to represent; default: all."""
    seed: int = 0
    """Seed of the choice of images."""

    def __post_init__(self) -> None:
        if self.n_images < 2:
            raise InputError(f"Halves of images need at least two of them, but n_images={self.n_images} was given.")


def extract_representations(
    clip: Clip,
    images: DomainFolder,
    out: str | Path,
    settings: RepresentationSettings | None = None,
    work: Work | None = None,
) -> list[DomainRepresentation]:
    """Represent every domain at every site, for `compare_representations` and `probe_sites`.

    Args:
        clip: The model.
        images: The images.
        out: Folder of the files, one per domain; while a domain is worked on, it also holds temporary files of 8 bytes
            per class and feature (RN50, all sites: 60 MB per class).
        settings: Which images and sites; default: `RepresentationSettings`.
        work: How the work is carried out; default: by this process alone. The memory budget is for the activations of
            a run and for blocks of features, one after the other; means of one class at all sites in double precision
            come on top (RN50: 0.2 GB).

    Raises:
        InputError: for unknown sites, a folder made with another configuration or other images, a domain of which no
            image can be read, activations that are not finite, or with ``strict`` an unreadable image.

    Example:
        >>> domains = extract_representations(clip, DomainFolder("DomainNet"), "runs/x")
        >>> compare_representations([one.grams for one in domains])
    """
    settings, work = settings or RepresentationSettings(), work or Work()
    in_order = None if settings.sites is None else sorted(set(settings.sites), key=clip.encoder.position)
    sites = checked_sites(clip.encoder, in_order)
    chosen = {
        domain: {name: images.select(name, domain, settings.n_images, settings.seed) for name in images.classes}
        for domain in images.domains
    }
    config = {
        "model": clip.name,
        "model_digest": clip.digest,
        "sites": list(sites),
        "classes": list(images.classes),
        "n_images": settings.n_images,
        "seed": settings.seed,
    }
    listing = image_listing(record for classes in chosen.values() for records in classes.values() for record in records)
    folder = JobFolder(Path(out), FORMAT, config, [(domain,) for domain in images.domains], {"images": listing})

    def represent(job: Job, _: object) -> list[Path]:
        path = representation_file(folder.path, job[0])
        _represented(clip, job[0], chosen[job[0]], sites, folder.path, work).save(path)
        return [path]

    folder.run(represent, rank=work.rank)
    return read_representations(folder.path)


def check_comparable(images: DomainFolder) -> None:
    """Raise `InputError` before images are run where CKA lacks classes, in two domains or in two halves of one."""
    table = images.counts()
    counts = {domain: table.loc[domain].to_numpy() for domain in images.domains}
    for a, b in combinations(images.domains, 2):
        check_common(a, b, int(np.count_nonzero((counts[a] > 0) & (counts[b] > 0))))
    for domain in images.domains:
        halved = np.count_nonzero(counts[domain] > 1)
        if halved < FEWEST:
            raise InputError(
                f"The CKA of two halves needs at least {FEWEST} classes with two images, but {domain} has {halved}: "
                "give more images, or leave the domain out."
            )


def _represented(
    clip: Clip,
    domain: str,
    selection: Mapping[str, Sequence[ImageRecord]],
    sites: Sequence[str],
    folder: Path,
    work: Work,
) -> DomainRepresentation:
    bar = work.bar(domain)
    with RowFiles(folder) as rows:
        seen = _Images(clip, sites, rows, work)
        for name in tqdm(selection, desc=bar, unit="class", disable=bar is None):
            for half in range(2):
                seen.add(selection[name][half::2], name, half)
        if not seen.classes:
            raise InputError(f"None of the images of {domain} can be read: give others, or leave the domain out.")
        grams = {site: rows.gram(site, work.memory_gib) for site in sites}
    names = tuple(selection)
    whole, first, second = (
        Grams(domain, names, {site: weights @ gram @ weights.T for site, gram in grams.items()})
        for weights in seen.weights(names)
    )
    means = {site: np.concatenate(found) for site, found in seen.unit_means.items()}
    return DomainRepresentation(whole, (first, second), means, tuple(seen.classes))


class _Images:
    """A domain's images as they go through the encoder: keeps their unit means, and a row for each half of a class."""

    def __init__(self, clip: Clip, sites: Sequence[str], rows: RowFiles, work: Work) -> None:
        self._clip, self._sites, self._rows, self._work = clip, sites, rows, work
        self._batch_size = min(BATCH_SIZE, rows_that_fit(clip.encoder, work.memory_gib))
        self._owners: list[tuple[str, int, int]] = []
        """Class, half and number of images of every row."""
        self.unit_means: dict[str, list[np.ndarray]] = {site: [] for site in sites}
        self.classes: list[str] = []
        """Class of every image."""

    def add(self, records: Sequence[ImageRecord], class_name: str, half: int) -> None:
        """Run the images of half of a class; add the row of their mean, if any can be read."""
        encoder, count, sums = self._clip.encoder, 0, dict[str, Tensor]()
        passed = activations(
            encoder, self._clip.preprocess, records, self._sites, batch_size=self._batch_size, strict=self._work.strict
        )
        for there, found in passed:
            count += len(there)
            for site, activation in found.items():
                total = activation.sum(0, dtype=torch.float64).flatten()
                sums[site] = sums[site] + total if site in sums else total
                self.unit_means[site].append(_unit_means(activation, encoder.unit_dim(site)).cpu().numpy())
        if count:
            self._rows.add({site: (total / count).cpu().numpy() for site, total in sums.items()})
            self._owners.append((class_name, half, count))
            self.classes += [class_name] * count

    def weights(self, names: Sequence[str]) -> Float[np.ndarray, "3 classes rows"]:
        """Return what makes class means of rows: of all images, and of each half; NaN for a class without images."""
        weights = np.zeros((3, len(names), len(self._owners)))
        for row, (name, half, count) in enumerate(self._owners):
            weights[0, names.index(name), row] = count
            weights[1 + half, names.index(name), row] = 1
        with np.errstate(invalid="ignore"):
            return np.asarray(weights / weights.sum(2, keepdims=True))


def _unit_means(activation: Float[Tensor, "images ..."], unit_dim: int) -> Float[Tensor, "images units"]:
    """Return the average over positions, in single precision: of [images, ...] one number per image and unit."""
    units_first = activation.movedim(unit_dim, 1)
    exact = torch.promote_types(activation.dtype, torch.float32)
    means = units_first.flatten(2).mean(2, dtype=exact) if units_first.dim() > 2 else units_first
    return means.float()

"""The representation of every domain of a data set at every site, in a folder with one file per domain.

Probes take each image's activation averaged over positions, as in the study. The rows for CKA are its means over the
images of a class, and of each fold of them, and are kept as inner products. The CKA of folds is the ceiling.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path
from typing import Annotated

from circuitry.runs import Bar, Count, InputError, Job, JobFolder, Seed, Work
from circuitry.data import (
    DEFAULT_FOLDS,
    DomainFolder,
    ImageRecord,
    fold_numbers,
    image_listing,
)
from circuitry.data.folds import stem_without_domain
from circuitry.encoder.doubles import in_double
from circuitry.encoder.site_activations import checked_sites
from circuitry.encoder.tensor_batches import rows_that_fit
from circuitry.models.clip import Clip
from circuitry.models.image_pass import BATCH_SIZE, activations
from circuitry.runs.arguments import DISTINCT, SOME, checked
from experiments.representations.grams import (
    REPRESENTATIONS_FORMAT,
    DomainRepresentation,
    Grams,
    gram_matrix,
    read_representations,
    representation_file,
)
from experiments.representations.kernel_alignment import FEWEST_ROWS
from experiments.representations.similarity import check_common

import numpy as np
from jaxtyping import Float
from torch import Tensor


@checked
@dataclass(frozen=True)
class RepresentationSettings:
    """Settings of the representations of a model's images."""

    n_images: Count | None = 50
    """Most images per class and domain, chosen by ``seed``; None for all."""
    sites: Annotated[tuple[str, ...] | None, DISTINCT, SOME] = None
    """Sites to represent; default: all."""
    seed: Seed = 0
    """Seed of the choice of images."""
    n_folds: Count = DEFAULT_FOLDS
    """Folds of the images of each class and domain, cut by item, whose CKA with each other is the ceiling."""

    def __post_init__(self) -> None:
        if self.n_images is not None and self.n_images < self.n_folds:
            raise InputError(
                f"The {self.n_folds} folds of a class's images need at least one image each, but "
                f"n_images={self.n_images} was given: give more images or fewer folds."
            )


@checked
def extract_representations(
    clip: Clip,
    images: DomainFolder,
    out: str | Path,
    settings: RepresentationSettings | None = None,
    work: Work | None = None,
) -> list[DomainRepresentation]:
    """Represent every domain at every site, for `compare_representations` and `probe_sites`.

    Raises:
        InputError: for unknown sites, a folder made with another configuration or other images, a domain without
            readable images, activations that are not finite, or with ``strict`` an unreadable image.

    Example:
        >>> domains = extract_representations(clip, DomainFolder("DomainNet"), "runs/x")
        >>> compare_representations([one.grams for one in domains])
    """
    settings = settings or RepresentationSettings()
    work = work or Work()
    in_order = (
        None
        if settings.sites is None
        else sorted(set(settings.sites), key=clip.encoder.position)
    )
    sites = checked_sites(clip.encoder, in_order)
    chosen = {
        domain: {
            name: images.select(name, domain, settings.n_images, settings.seed)
            for name in images.classes
        }
        for domain in images.domains
    }
    config = {
        "model": clip.name,
        **clip.identity,
        "sites": list(sites),
        "classes": list(images.classes),
        "n_images": settings.n_images,
        "seed": settings.seed,
        "n_folds": settings.n_folds,
    }
    cells = {
        (name, domain): group
        for domain, classes in chosen.items()
        for name, group in classes.items()
    }
    folds = fold_numbers(cells, settings.n_folds)
    listing = image_listing(record for records in cells.values() for record in records)
    folder = JobFolder(
        Path(out),
        REPRESENTATIONS_FORMAT,
        config,
        [(domain,) for domain in images.domains],
        {"images": listing},
    )

    def represent(job: Job, _: object) -> list[Path]:
        path = representation_file(folder.path, job[0])
        of_domain = {
            name: _split(chosen[job[0]][name], folds[name, job[0]], settings.n_folds)
            for name in images.classes
        }
        _represented(_Images(clip, sites, work), job[0], of_domain).save(path)
        return [path]

    folder.run(represent, rank=work.rank)
    return read_representations(folder.path)


def check_enough_images(images: DomainFolder, n_folds: int = DEFAULT_FOLDS) -> None:
    """Raise `InputError` before images are run if CKA lacks classes, in two domains or in two folds of one."""
    table = images.counts()
    counts = {domain: table.loc[domain].to_numpy() for domain in images.domains}
    for a, b in combinations(images.domains, 2):
        check_common(a, b, int(np.count_nonzero((counts[a] > 0) & (counts[b] > 0))))
    for domain in images.domains:
        cut = np.count_nonzero(counts[domain] >= n_folds)
        if cut < FEWEST_ROWS:
            raise InputError(
                f"The CKA of two of {n_folds} folds needs at least {FEWEST_ROWS} classes with {n_folds} images, but "
                f"{domain} has {cut}: give more images or fewer folds, or leave the domain out."
            )


def _split(
    records: Sequence[ImageRecord], numbers: np.ndarray, n_folds: int
) -> list[list[ImageRecord]]:
    """Return the images of each fold."""
    return [
        [record for record, of in zip(records, numbers, strict=True) if of == fold]
        for fold in range(n_folds)
    ]


def _represented(
    seen: "_Images",
    domain: str,
    selection: Mapping[str, Sequence[Sequence[ImageRecord]]],
) -> DomainRepresentation:
    """Run the images of a domain, by class and fold."""
    bar = seen.work.bar(domain)
    names = tuple(selection)
    for name in Bar(names, desc=bar, unit="class", disable=bar is None):
        for fold, records in enumerate(selection[name]):
            seen.add(records, name, fold)
    if not seen.classes:
        raise InputError(
            f"None of the images of {domain} can be read: give others, or leave the domain out."
        )
    grams = {site: gram_matrix(np.stack(rows)) for site, rows in seen.rows.items()}
    n_folds = max(map(len, selection.values()))
    whole, *folds = (
        Grams(
            domain,
            names,
            {site: weights @ gram @ weights.T for site, gram in grams.items()},
        )
        for weights in seen.weights(names, n_folds)
    )
    means = {site: np.concatenate(found) for site, found in seen.unit_means.items()}
    return DomainRepresentation(
        whole, tuple(folds), means, tuple(seen.classes), tuple(seen.items)
    )


class _Images:
    """A domain's images as they go through the encoder: their unit means, and a row for each fold of a class."""

    def __init__(self, clip: Clip, sites: Sequence[str], work: Work) -> None:
        self.clip = clip
        self.sites = sites
        self.work = work
        self._batch_size = min(BATCH_SIZE, rows_that_fit(clip.encoder, work.memory_gib))
        self._owners: list[tuple[str, int, int]] = []
        """Class, fold and number of images of every row."""
        self.rows: dict[str, list[np.ndarray]] = {site: [] for site in sites}
        self.unit_means: dict[str, list[np.ndarray]] = {site: [] for site in sites}
        self.classes: list[str] = []
        """Class of every image."""
        self.items: list[str] = []
        """Item of every image, whose name holds the class."""

    def add(self, records: Sequence[ImageRecord], class_name: str, fold: int) -> None:
        """Run the images of a fold of a class; add the row of their mean, if any can be read."""
        encoder = self.clip.encoder
        count = 0
        sums = dict[str, Tensor]()
        passed = activations(
            encoder,
            self.clip.preprocess,
            records,
            self.sites,
            batch_size=self._batch_size,
            strict=self.work.strict,
        )
        for there, found in passed:
            count += len(there)
            self.items += [
                f"{class_name}/{stem_without_domain(record)}" for record in there
            ]
            for site, activation in found.items():
                means = unit_means(activation, encoder.unit_dim(site))
                total = means.sum(0)
                sums[site] = sums[site] + total if site in sums else total
                self.unit_means[site].append(means.float().cpu().numpy())
        if count:
            for site, total in sums.items():
                self.rows[site].append((total / count).cpu().numpy())
            self._owners.append((class_name, fold, count))
            self.classes += [class_name] * count

    def weights(
        self, names: Sequence[str], n_folds: int
    ) -> Float[np.ndarray, "_ classes rows"]:
        """Return the weights of rows in class means, of all images and of each fold; NaN for a class without images."""
        weights = np.zeros((1 + n_folds, len(names), len(self._owners)))
        for row, (name, fold, count) in enumerate(self._owners):
            weights[0, names.index(name), row] = count
            weights[1 + fold, names.index(name), row] = 1
        with np.errstate(invalid="ignore"):
            return np.asarray(weights / weights.sum(2, keepdims=True))


def unit_means(
    activation: Float[Tensor, "images ..."], unit_dim: int
) -> Float[Tensor, "images units"]:
    """Return the average over positions in double precision, one number per image and unit."""
    units_first = activation.movedim(unit_dim, 1)
    return (
        in_double(units_first).flatten(2).mean(2)
        if units_first.dim() > 2
        else in_double(units_first)
    )

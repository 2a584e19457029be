"""Extract the representation of every domain of a data set at every site, into a folder with one file per domain.

Each image is represented by the activation of every unit, averaged over positions, as in the study. Linear probes take
these unit means. CKA takes their means over the images of a class, which are kept as inner products. The same means
over each fold of the images give the ceiling: no two domains can be expected to be more similar than two folds of one
domain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain, combinations, product
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
    """Number of folds into which the images of each class and domain are cut, item by item. The CKA of two folds is the
    ceiling."""

    def __post_init__(self) -> None:
        # Otherwise every class would lack images in some fold.
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
    work: Work = Work(),
) -> list[DomainRepresentation]:
    """Represent every domain at every site, for `compare_representations` and `probe_sites`.

    Raises:
        InputError: for unknown sites, a folder made with another configuration or other images, a domain without
            readable images, or activations that are not finite. If ``work.strict``, also for an unreadable image.

    Example:
        >>> domains = extract_representations(clip, DomainFolder("DomainNet"), "runs/x")
        >>> compare_representations([domain.grams for domain in domains])
    """
    settings = settings or RepresentationSettings()
    in_order = None
    # In the encoder's order, so that two calls with the same sites share a folder.
    if settings.sites is not None:
        in_order = sorted(set(settings.sites), key=clip.encoder.position)
    sites = checked_sites(clip.encoder, in_order)
    cells = dict[tuple[str, str], Sequence[ImageRecord]]()
    for domain, name in product(images.domains, images.classes):
        cells[name, domain] = images.select(
            name, domain, settings.n_images, settings.seed
        )
    config = {
        "model": clip.name,
        **clip.identity,
        "sites": list(sites),
        "classes": list(images.classes),
        "n_images": settings.n_images,
        "seed": settings.seed,
        "n_folds": settings.n_folds,
    }
    # All domains at once: an item must be in the same fold in every domain.
    folds = fold_numbers(cells, settings.n_folds)
    listing = image_listing(chain.from_iterable(cells.values()))
    folder = JobFolder(
        Path(out),
        REPRESENTATIONS_FORMAT,
        config,
        # A job is a tuple: (domain,).
        list(product(images.domains)),
        {"images": listing},
    )

    def represent(job: Job, _: object) -> list[Path]:
        domain = job[0]
        of_domain = dict[str, list[list[ImageRecord]]]()
        for name in images.classes:
            cell = (name, domain)
            of_domain[name] = _split(cells[cell], folds[cell], settings.n_folds)
        path = representation_file(folder.path, domain)
        _represented(_Images(clip, sites, work), domain, of_domain).save(path)
        return [path]

    folder.run(represent, rank=work.rank)
    return read_representations(folder.path)


def check_enough_images(images: DomainFolder, n_folds: int = DEFAULT_FOLDS) -> None:
    """Raise `InputError` if CKA lacks common classes, in any two domains or in the folds of any domain.

    It counts files, so that hours of work do not end in an error.
    """
    # [classes, domains]
    counts = images.counts().T
    for a, b in combinations(images.domains, 2):
        check_common(a, b, int(np.count_nonzero((counts[a] > 0) & (counts[b] > 0))))
    for domain in images.domains:
        # With as many images as folds, each fold has an image of the class, unless images share an item.
        cut = int(np.count_nonzero(counts[domain] >= n_folds))
        if cut < FEWEST_ROWS:
            raise InputError(
                f"The CKA of two of {n_folds} folds needs at least {FEWEST_ROWS} classes with {n_folds} images, but "
                f"{domain} has {cut}: give more images or fewer folds, or leave the domain out."
            )


def _split(
    records: Sequence[ImageRecord], numbers: np.ndarray, n_folds: int
) -> list[list[ImageRecord]]:
    """Return the images of each fold, from the fold number of each image; a fold may be empty."""
    folds: list[list[ImageRecord]] = [[] for _ in range(n_folds)]
    for record, fold in zip(records, numbers, strict=True):
        folds[fold].append(record)
    return folds


def _represented(
    seen: "_Images",
    domain: str,
    selection: Mapping[str, Sequence[Sequence[ImageRecord]]],
) -> DomainRepresentation:
    """Run the images of a domain and return their representation.

    Args:
        seen: Collects the results; no image has been added to it yet.
        selection: The images of each fold, by class.
    """
    bar = seen.work.bar(domain)
    names = tuple(selection)
    for name in Bar(names, desc=bar, unit="class", disable=bar is None):
        for fold, records in enumerate(selection[name]):
            seen.add(records, name, fold)
    if not seen.classes:
        raise InputError(
            f"None of the images of {domain} can be read: give others, or leave the domain out."
        )
    # [rows, rows], a row for each fold of a class. Class means are weighted sums of rows, so their inner products are
    # weighted sums of the entries, and no feature is needed again.
    grams = {site: gram_matrix(np.stack(rows)) for site, rows in seen.rows.items()}
    n_folds = max(map(len, selection.values()))
    of_classes = []
    for weights in seen.weights(names, n_folds):
        by_site = {site: weights @ gram @ weights.T for site, gram in grams.items()}
        of_classes.append(Grams(domain, names, by_site))
    return DomainRepresentation(
        of_classes[0],
        tuple(of_classes[1:]),
        {site: np.concatenate(means) for site, means in seen.unit_means.items()},
        tuple(seen.classes),
        tuple(seen.items),
    )


class _Images:
    """Collects the unit means of a domain's images, and a row for each fold of a class: the mean of its unit means."""

    def __init__(self, clip: Clip, sites: Sequence[str], work: Work) -> None:
        self.clip = clip
        self.sites = sites
        self.work = work
        self._batch_size = min(BATCH_SIZE, rows_that_fit(clip.encoder, work.memory_gib))
        self._owners: list[tuple[str, int, int]] = []
        """Class, fold and number of images of every row in ``rows``."""
        self.rows: dict[str, list[np.ndarray]] = {site: [] for site in sites}
        self.unit_means: dict[str, list[np.ndarray]] = {site: [] for site in sites}
        self.classes: list[str] = []
        """Class of every image."""
        self.items: list[str] = []
        """Item of every image as ``class/item``, since files of two classes may have equal names."""

    def add(self, records: Sequence[ImageRecord], class_name: str, fold: int) -> None:
        """Run the images of a fold of a class and add their mean as a row, if an image can be read."""
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
        for batch, acts in passed:
            count += len(batch)
            for record in batch:
                self.items.append(f"{class_name}/{stem_without_domain(record)}")
            for site, activation in acts.items():
                means = unit_means(activation, encoder.unit_dim(site))
                # In double precision, so that the sizes of batches do not show.
                total = means.sum(0)
                sums[site] = sums[site] + total if site in sums else total
                # Probes need no more than single precision, and the file is half as large.
                self.unit_means[site].append(means.float().cpu().numpy())
        # A fold without readable images has no row; `weights` makes its class NaN.
        if count:
            for site, total in sums.items():
                self.rows[site].append((total / count).cpu().numpy())
            self._owners.append((class_name, fold, count))
            self.classes += [class_name] * count

    def weights(
        self, names: Sequence[str], n_folds: int
    ) -> Float[np.ndarray, "_ classes rows"]:
        """Return the weight of every row in the class means, first of all images and then of each fold.

        Returns:
            Array [1 + folds, classes, rows]. It is NaN for a class without images.
        """
        weights = np.zeros((1 + n_folds, len(names), len(self._owners)))
        for row, (name, fold, count) in enumerate(self._owners):
            # The mean over all images weights each fold's mean by its number of images; a fold has a single row.
            class_index = names.index(name)
            weights[0, class_index, row] = count
            weights[1 + fold, class_index, row] = 1
        # 0 / 0 for a class without images.
        with np.errstate(invalid="ignore"):
            return np.asarray(weights / weights.sum(2, keepdims=True))


def unit_means(
    activation: Float[Tensor, "images ..."], unit_dim: int
) -> Float[Tensor, "images units"]:
    """Return the activation of each unit averaged over positions, in double precision."""
    units_first = in_double(activation.movedim(unit_dim, 1))
    # A site without positions, such as the embedding, has nothing to average.
    if units_first.dim() == 2:
        return units_first
    return units_first.flatten(2).mean(2)

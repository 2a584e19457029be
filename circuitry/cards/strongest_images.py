"""Measure, in a single pass over images, how strongly and where each unit is active, and find the unit's top images.

A unit has an activation at many positions. The activation of a unit in an image is the largest activation over all
positions. The map of a unit is its activation at each position that lies in the image. A head has a vector at every
position. The activation of a head at a position is the length of this vector.

Images are ranked in two ways. By activation, the first images are the images that activate the unit most. By effect,
the first images are the images in which the unit contributes most to the metric, such as the logit of the image's own
class. (This is relevance maximisation, Achtibat et al. 2023, arXiv 2206.03208. In place of relevance it uses the
gradient times the difference between activation and baseline.) The two rankings differ, because a unit may be most
active in images where it has no effect. The memory of the pass does not grow with the number of images.
"""

import hashlib
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from circuitry.cards.card_folder import CARDS_FORMAT, thumbnail_file
from circuitry.cards.unit_card import (
    ACTIVATION,
    EFFECT,
    RANKINGS_OF_IMAGES,
    CardImage,
)
from circuitry.circuits.nodes import ImageEffects, image_effects
from circuitry.circuits.quadrature import left_rule
from circuitry.data.domains import ImageRecord
from circuitry.data.folds import ItemKey, item_of
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.task import Task
from circuitry.encoder.unit_maps import map_grid, unit_maps
from circuitry.models.clip import Clip
from circuitry.runs.arrays import write_arrays
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.manifest import write_json

UnitsBySite = Mapping[str, np.ndarray]
"""Indices of units, by site."""
Shown = Iterable[tuple[Sequence[Any], Task]]
"""Pairs (names, task): a task, and the names or the records of its images in the order of the images."""


class Watched(NamedTuple):
    """A batch of images, with the activations, effects and maps of some units in them."""

    names: Sequence[Any]
    """Names or records of the images, as in `Shown`."""
    images: Tensor
    """Images [batch, 3, H, W]."""
    embeddings: Tensor
    """Embeddings [batch, D]."""
    activation: dict[str, Tensor]
    """Activation [batch, units] by site: the largest activation over all positions."""
    effects: dict[str, Tensor]
    """Effect on the task's metric [batch, units] by site."""
    maps: dict[str, Tensor]
    """Maps [batch, units, height, width] by site. Sites whose positions do not lie in the image are left out; see
    `map_grid`."""


def watch_units(shown: Shown, units: UnitsBySite) -> Iterator[Watched]:
    """Yield the activations, maps and effects of some units in images, batch by batch.

    Args:
        shown: Pairs (names, task); see `Shown`.
        units: Indices of the units, by site.

    Raises:
        InputError: if ``shown`` does not hold pairs, or if the number of names differs from the number of a task's
            images.
    """
    for pair in shown:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(
                f"Expected names of images, each set with its task, as shown, but a {type(pair).__name__} was given: "
                "give pairs (names, task)."
            )
        names, task = pair
        encoder = task.encoder
        # The activation of the last site is the embedding.
        sites = sorted({*units, encoder.sites[-1]}, key=encoder.position)
        task = replace(task, sites=tuple(sites))
        end = 0
        with task.running(gradients=True):
            # A rule with a single point, the image itself: gradient times (activation - baseline).
            for effects in image_effects(task, left_rule(1)):
                start = effects.batch.start
                end = start + len(effects.batch.images)
                # There are more images than names, so the error below is raised.
                if end > len(names):
                    break
                yield _watched(names[start:end], encoder, effects, units)
        if end != len(names):
            raise InputError(
                f"Each image has a name, but {len(names)} names of {end} images were given."
            )


def _watched(
    names: Sequence[Any],
    encoder: Encoder,
    seen: ImageEffects,
    units: UnitsBySite,
) -> Watched:
    activation: dict[str, Tensor] = {}
    effects: dict[str, Tensor] = {}
    maps: dict[str, Tensor] = {}
    for site, numbers in units.items():
        # Each batch of results leaves the device, because the results of all images might not fit there.
        chosen = torch.as_tensor(numbers, device=encoder.device)
        at_positions = unit_maps(encoder, site, seen.clean[site], chosen)
        activation[site] = at_positions.amax(-1).float().cpu()
        of_units = seen.effects[site].index_select(1, chosen)
        effects[site] = of_units.float().cpu()
        grid = map_grid(encoder, site, at_positions)
        if grid is not None:
            maps[site] = grid.float().cpu()
    embeddings = seen.clean[encoder.sites[-1]].float().cpu()
    return Watched(names, seen.batch.images, embeddings, activation, effects, maps)


class TopList:
    """The ``k`` strongest images of each unit of a site, updated batch by batch.

    The strongest image comes first. Images with equal values stay in their order.
    """

    def __init__(self, n_units: int, k: int) -> None:
        self.places = torch.full((n_units, k), -1)
        """Indices of the images [units, k]. If fewer than k images have a value above zero, a row ends with -1."""
        self.values = torch.zeros(n_units, k)
        """Activation or effect of the unit in each of these images [units, k]."""
        self.maps: Tensor | None = None
        """Map of the unit in each of these images [units, k, height, width]. None if the units have no maps."""

    def add(self, places: Tensor, values: Tensor, maps: Tensor | None) -> None:
        """Update the lists with a batch of images.

        Args:
            places: Indices of the images [batch].
            values: Activations or effects [batch, units].
            maps: Maps [batch, units, height, width], or None if the units have no maps.
        """
        n_units, k = self.places.shape
        # The old list comes before the new images and the sort is stable. So images with equal values stay in order.
        joined = torch.cat([self.values, values.T.clamp_min(0)], 1)
        ranked = joined.sort(dim=1, descending=True, stable=True)
        best = ranked.indices[:, :k]
        self.values = joined.gather(1, best)
        joined = torch.cat([self.places, places.expand(n_units, -1)], 1)
        # An image in which the value of the unit is zero or less is not listed.
        best_places = joined.gather(1, best)
        self.places = best_places.masked_fill(self.values <= 0, -1)
        if maps is not None:
            if self.maps is None:
                self.maps = maps.new_zeros(n_units, k, *maps.shape[2:])
            # Maps are given as [batch, units, ...], but the list is [units, k, ...].
            joined = torch.cat([self.maps, maps.transpose(0, 1)], 1)
            self.maps = joined[torch.arange(n_units)[:, None], best]


class TopLists:
    """The top images of units by activation and by effect, updated batch by batch."""

    def __init__(self, units: UnitsBySite, k: int) -> None:
        self.n_images = 0
        self.lists: dict[tuple[str, str], TopList] = {}
        """The list of each (ranking, site)."""
        for ranking in RANKINGS_OF_IMAGES:
            for site, numbers in units.items():
                self.lists[ranking, site] = TopList(len(numbers), k)

    def add(self, watched: Watched) -> None:
        """Update all lists with a batch of images."""
        start = self.n_images
        self.n_images += len(watched.names)
        places = torch.arange(start, self.n_images)
        values = {ACTIVATION: watched.activation, EFFECT: watched.effects}
        for (ranking, site), top in self.lists.items():
            top.add(places, values[ranking][site], watched.maps.get(site))


SIDE = 160
"""Side of a thumbnail in pixels."""
QUALITY = 70
"""Quality of a thumbnail as WebP."""


def write_domain(
    clip: Clip,
    shown: Iterator[tuple[list[ImageRecord], Task]],
    units: UnitsBySite,
    path: Path,
    found_on: Collection[ImageRecord],
    top: int,
    items: ItemKey | None,
) -> list[Path]:
    """Pass the images of a domain through the model, write the domain's files, and return the paths of the files.

    Args:
        clip: The model.
        shown: The readable images of each class, and a task on these images.
        units: Indices of the units with a card, by site.
        path: Path of the file with the top images and embeddings. The table of activations and the list of images get
            the same name with the suffixes ``.npy`` and ``.json``.
        found_on: Images used to find a circuit of the domain.
        top: Number of top images for each unit.
        items: Function or mapping that gives the name of the item that an image shows.
    """
    lists = TopLists(units, top)
    listed: list[CardImage] = []
    embeddings: list[Tensor] = []
    thumbnails: list[Path] = []

    table = path.with_suffix(".npy")
    table.parent.mkdir(parents=True, exist_ok=True)
    n_units = sum(map(len, units.values()))
    with whole_file(table) as temporary, open(temporary, "wb") as file:
        # The header is written again when the number of images is known.
        _write_npy_header(file, 0, n_units)
        for watched in watch_units(shown, units):
            images = [_card_image(r, r in found_on, items) for r in watched.names]
            listed += images
            lists.add(watched)
            embeddings.append(watched.embeddings)
            pixels = clip.shown(watched.images)
            for image, shown_pixels in zip(images, pixels, strict=True):
                thumbnail = thumbnail_file(path.parent.parent, image.id)
                _write_thumbnail(thumbnail, shown_pixels)
                thumbnails.append(thumbnail)
            rows = torch.cat([watched.activation[site] for site in units], 1)
            file.write(rows.numpy().astype("<f4").tobytes())
        # The number of readable images is known only now. numpy pads the header, so that a larger number fits.
        file.seek(0)
        _write_npy_header(file, len(listed), n_units)
    listing = path.with_suffix(".json")
    write_json(listing, listed)
    # A domain may have no readable image.
    if not embeddings:
        embeddings = [torch.zeros(0, 1)]
    arrays = {"embeddings": torch.cat(embeddings).numpy()}
    for (ranking, site), of_site in lists.lists.items():
        arrays[f"{ranking}/places/{site}"] = of_site.places.numpy()
        arrays[f"{ranking}/values/{site}"] = of_site.values.numpy()
        if of_site.maps is not None:
            arrays[f"{ranking}/heat/{site}"] = of_site.maps.numpy()
    write_arrays(path, CARDS_FORMAT, {}, arrays)
    return [table, listing, *thumbnails, path]


def _card_image(
    record: ImageRecord,
    found_on: bool,
    items: ItemKey | None,
) -> CardImage:
    digest = hashlib.sha256(record.relative.encode()).hexdigest()
    return CardImage(
        id=digest[:16],
        relative=record.relative,
        domain=record.domain,
        class_name=record.class_name,
        found_on=found_on,
        item=item_of(record, items),
    )


def _write_npy_header(file: IO[bytes], n_images: int, n_units: int) -> None:
    shape = (n_images, n_units)
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(file, header)


def _write_thumbnail(path: Path, pixels: np.ndarray) -> None:
    size = (SIDE, SIDE)
    small = Image.fromarray(pixels).resize(size, Image.Resampling.LANCZOS)
    with whole_file(path) as temporary:
        small.save(temporary, "WEBP", quality=QUALITY)

"""How strongly, and where in the image, a unit is active, and the images in which it is strongest, in one pass.

An activation holds a unit at many positions. Its activation in an image is the largest over all positions; its map is
its activation over the positions that lie in the image. At a head, which has a vector at every position, it is the
length of the vector.

By activation: the images that activate the unit most. By effect: the images in which it contributes most to the metric,
such as the logit of the image's own class (relevance maximisation, Achtibat et al. 2023, arXiv 2206.03208, with
gradient times activation in place of relevance). A unit may be most active in images where it does nothing. Memory does
not grow with the images.
"""

import hashlib
import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from circuitry.cards.card_arrays import as_heat
from circuitry.cards.card_folder import CARDS_FORMAT, thumbnail_file
from circuitry.cards.card_settings import TOP_IMAGES
from circuitry.cards.unit_card import (
    ACTIVATION,
    EFFECT,
    RANKINGS_OF_IMAGES,
    CardImage,
    TopImages,
)
from circuitry.circuits.nodes import ImageEffects, image_effects
from circuitry.circuits.quadrature import left_rule
from circuitry.data.domains import ImageRecord
from circuitry.data.folds import ItemKey, item_of
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.task import Task
from circuitry.models.clip import Clip
from circuitry.runs.arguments import Count, checked
from circuitry.runs.arrays import write_arrays
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.manifest import write_json

MAP_SIDE = 8
"""Most cells of a map in a row or a column; larger maps keep the largest activation of each cell."""


def unit_maps(
    encoder: Encoder,
    site: str,
    activation: Float[Tensor, "batch ..."],
    units: Tensor,
) -> Float[Tensor, "batch units positions"]:
    """Return the activation of the units with these numbers at every position, with all positions in one axis."""
    chosen = activation.movedim(encoder.unit_dim(site), 1).index_select(1, units)
    # Of a head, which has a vector at each position, the length counts.
    if encoder.kinds[site].is_vector:
        chosen = chosen.norm(dim=-1)
    return chosen.reshape(*chosen.shape[:2], -1)


def map_grid(
    encoder: Encoder,
    site: str,
    maps: Float[Tensor, "batch units positions"],
) -> Tensor | None:
    """Return maps over the image [batch, units, height, width], at most `MAP_SIDE` cells a side.

    None where the units have no place in the image. Tokens before the patches do not count.
    """
    positions = maps.shape[-1]
    # Pooled, or a class token alone: a unit of the whole image.
    if positions == 1:
        return None
    grid = encoder.chain.grid
    if grid is not None and positions == len(grid):
        maps = maps[..., len(grid.first) :]
        rows = grid.height
    else:
        # Positions of a convolution, as many rows for the height as the image's sides say.
        height, width = encoder.image_size
        rows = round((positions * height / width) ** 0.5)
        # Not a full grid: the positions are no places in the image.
        if rows * (positions // rows) != positions:
            return None
    cells = rearrange(maps, "b u (h w) -> b u h w", h=rows)
    factor = math.ceil(max(cells.shape[2:]) / MAP_SIDE)
    if factor == 1:
        return cells
    # ceil_mode keeps a last row or column that does not fill a cell.
    return F.max_pool2d(cells, factor, ceil_mode=True)


UnitsBySite = Mapping[str, np.ndarray]
"""Numbers of units by site."""
Shown = Iterable[tuple[Sequence[Any], Task]]
"""Names of images, or their records, and the task with these images."""


class Watched(NamedTuple):
    """A batch of images, with the activations, effects and maps of some units in them."""

    names: Sequence[Any]
    """Names or records of the images, as they were given."""
    images: Tensor
    """Images [batch, 3, H, W]."""
    embeddings: Tensor
    """Embeddings [batch, D]."""
    activation: dict[str, Tensor]
    """Activation [batch, units] by site: the largest over positions."""
    effects: dict[str, Tensor]
    """Effect on the task's metric [batch, units] by site."""
    maps: dict[str, Tensor]
    """Maps [batch, units, height, width], by site whose units have a place in the image; see `map_grid`."""


def watch_units(shown: Shown, units: UnitsBySite) -> Iterator[Watched]:
    """Yield activations, maps and effects of some units in many images, batch by batch."""
    for pair in shown:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(
                f"Expected names of images, each set with its task, as shown, but a {type(pair).__name__} was given: "
                "give pairs (names, task)."
            )
        names, task = pair
        encoder = task.encoder
        # Embeddings are the activation of the last site.
        sites = sorted({*units, encoder.sites[-1]}, key=encoder.position)
        task = replace(task, sites=tuple(sites))
        end = 0
        with task.running(gradients=True):
            # One point, at the image itself: gradient times (activation - baseline).
            for effects in image_effects(task, left_rule(1)):
                start = effects.batch.start
                end = start + len(effects.batch.images)
                # More images than names: the error below says so.
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
        # Results leave the device batch by batch, where all images together might not fit.
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
    """The strongest images of each unit of a site, updated batch by batch.

    Strongest first; ties are in the order of the images.
    """

    def __init__(self, n_units: int, k: int) -> None:
        self.places = torch.full((n_units, k), -1)
        """Numbers of the images [units, k]; -1 where no further value is above zero."""
        self.values = torch.zeros(n_units, k)
        """Their activations or effects [units, k]."""
        self.maps: Tensor | None = None
        """Their maps [units, k, height, width]; None where units have no place in the image."""

    def add(self, places: Tensor, values: Tensor, maps: Tensor | None) -> None:
        """Update the lists by a batch: numbers of its images [batch], values and maps [batch, units, ...]."""
        n_units, k = self.places.shape
        # A stable sort of the old list before the new images keeps ties in the order of the images.
        joined = torch.cat([self.values, values.T.clamp_min(0)], 1)
        ranked = joined.sort(dim=1, descending=True, stable=True)
        best = ranked.indices[:, :k]
        self.values = joined.gather(1, best)
        joined = torch.cat([self.places, places.expand(n_units, -1)], 1)
        # An image in which the unit is at zero or below fills no place.
        best_places = joined.gather(1, best)
        self.places = best_places.masked_fill(self.values <= 0, -1)
        if maps is not None:
            if self.maps is None:
                self.maps = maps.new_zeros(n_units, k, *maps.shape[2:])
            # Maps come as [batch, units, ...] and are listed by unit.
            joined = torch.cat([self.maps, maps.transpose(0, 1)], 1)
            self.maps = joined[torch.arange(n_units)[:, None], best]


class TopLists:
    """The top images of units by activation and by effect, updated batch by batch."""

    def __init__(self, units: UnitsBySite, k: int) -> None:
        self.n_images = 0
        self.lists: dict[tuple[str, str], TopList] = {}
        """By ranking and site."""
        for ranking in RANKINGS_OF_IMAGES:
            for site, numbers in units.items():
                self.lists[ranking, site] = TopList(len(numbers), k)

    def add(self, watched: Watched) -> None:
        """Update all lists by a batch."""
        start = self.n_images
        self.n_images += len(watched.names)
        places = torch.arange(start, self.n_images)
        values = {ACTIVATION: watched.activation, EFFECT: watched.effects}
        for (ranking, site), top in self.lists.items():
            top.add(places, values[ranking][site], watched.maps.get(site))


@checked
def top_images(
    shown: Shown,
    units: UnitsBySite,
    k: Count = TOP_IMAGES,
) -> dict[str, dict[tuple[str, int], TopImages]]:
    """Return the images in which units are most active, and those in which they contribute most to the metric.

    Args:
        shown: Names of images with a task each, such as one task for each class.
        units: Numbers of units by site.
        k: Images of a unit.

    Returns:
        By ``activation`` and ``effect``, then by (site, unit).

    Example:
        >>> from circuitry.cards import top_images
        >>> names = ["first", "second", "third", "fourth"]
        >>> tops = top_images([(names, task)], {"layer4.0": np.arange(8)}, k=2)
        >>> tops["effect"]["layer4.0", 3].ids
        (...)
    """
    lists = TopLists(units, k)
    names: list[str] = []
    for watched in watch_units(shown, units):
        lists.add(watched)
        names += watched.names
    tops: dict[str, dict[tuple[str, int], TopImages]] = {}
    for ranking in RANKINGS_OF_IMAGES:
        tops[ranking] = {}
    for (ranking, site), top in lists.lists.items():
        heat = None
        if top.maps is not None:
            # Both rankings have the scale of the strongest image: its largest activation.
            largest = lists.lists[ACTIVATION, site].values[:, 0]
            heat = as_heat(top.maps.numpy(), largest.numpy())
        for row, unit in enumerate(units[site]):
            # -1 fills the places that no image takes, after the others.
            places = top.places[row][top.places[row] >= 0].tolist()
            n = len(places)
            of_unit = None if heat is None else heat[row, :n]
            tops[ranking][site, int(unit)] = TopImages(
                ids=tuple(names[place] for place in places),
                values=top.values[row, :n].numpy(),
                heat=of_unit,
            )
    return tops


SIDE = 160
"""Side of a thumbnail in pixels."""
QUALITY = 70
"""Its quality as WebP."""


def write_domain(
    clip: Clip,
    shown: Iterator[tuple[list[ImageRecord], Task]],
    units: UnitsBySite,
    path: Path,
    found_on: Collection[ImageRecord],
    top: int,
    items: ItemKey | None,
) -> list[Path]:
    """Pass the images of a domain through the model, write the domain's files, and return their paths.

    Args:
        shown: The readable images of each class, with their task.
        path: The main file; the other files lie beside it.
        found_on: Images on which a circuit of the domain was found.
        top: Number of top images of a unit.
        items: Names the item that an image shows.
    """
    lists = TopLists(units, top)
    listed: list[CardImage] = []
    embeddings: list[Tensor] = []
    thumbnails: list[Path] = []

    table = path.with_suffix(".npy")
    table.parent.mkdir(parents=True, exist_ok=True)
    n_units = sum(map(len, units.values()))
    with whole_file(table) as temporary, open(temporary, "wb") as file:
        # A place for the header, which is written again when the number of images is known.
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
        # How many images can be read is known only now. numpy pads the header so that a larger count fits.
        file.seek(0)
        _write_npy_header(file, len(listed), n_units)
    listing = path.with_suffix(".json")
    write_json(listing, listed)
    # A domain may have no image that can be read.
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

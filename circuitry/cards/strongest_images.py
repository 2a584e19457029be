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
import shutil
import tempfile
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

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
from circuitry.cards.unit_card import ACTIVATION, EFFECT, CardImage, TopImages
from circuitry.circuits.nodes import image_effects
from circuitry.circuits.quadrature import left_rule
from circuitry.data.domains import ImageRecord
from circuitry.data.parts import ItemKey, item_of
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.task import Task
from circuitry.models.clip import Clip
from circuitry.runs.arrays import write_arrays
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.given import Count, checked
from circuitry.runs.manifest import write_json

MAP_SIDE = 8
"""Most cells of a map in a row or a column; larger maps keep the largest activation of each cell."""


def unit_maps(
    encoder: Encoder, site: str, activation: Float[Tensor, "batch ..."], units: Tensor
) -> Float[Tensor, "batch units positions"]:
    """Return the activation of some units (their numbers) at every position, all positions in one axis."""
    chosen = activation.movedim(encoder.unit_dim(site), 1).index_select(1, units)
    if encoder.kinds[site].is_vector:
        chosen = chosen.norm(dim=-1)
    return chosen.reshape(*chosen.shape[:2], -1)


def map_grid(
    encoder: Encoder, site: str, maps: Float[Tensor, "batch units positions"]
) -> Tensor | None:
    """Return maps over the image [batch, units, height, width], at most `MAP_SIDE` cells a side.

    None where the units have no place in the image. Tokens before the patches do not count.
    """
    positions = maps.shape[-1]
    if positions == 1:
        return None
    grid = encoder.chain.grid
    if grid is not None and positions == len(grid):
        maps = maps[..., len(grid.first) :]
        return _shrunk(rearrange(maps, "b u (h w) -> b u h w", h=grid.height))
    height, width = encoder.image_size
    rows = round((positions * height / width) ** 0.5)
    if rows * (positions // rows) != positions:
        return None
    return _shrunk(rearrange(maps, "b u (h w) -> b u h w", h=rows))


def _shrunk(maps: Tensor) -> Tensor:
    factor = -(-max(maps.shape[2:]) // MAP_SIDE)
    return F.max_pool2d(maps, factor, ceil_mode=True) if factor > 1 else maps


UnitsBySite = Mapping[str, np.ndarray]
"""Numbers of units by site."""
Shown = Iterable[tuple[Sequence[str], Task]]
"""Names of images, and the task with these images."""


class Watched(NamedTuple):
    """Activations, maps and effects of some units in a batch of images."""

    ids: Sequence[str]
    images: Tensor
    """Images [batch, 3, H, W]."""
    embeddings: Tensor
    """Embeddings [batch, D]."""
    activation: dict[str, Tensor]
    """Activation [batch, units] by site: the largest over positions."""
    maps: dict[str, Tensor | None]
    """Maps [batch, units, height, width] by site; see `map_grid`."""
    effects: dict[str, Tensor]
    """Effect on the task's metric [batch, units] by site."""


def watch_units(shown: Shown, units: UnitsBySite) -> Iterator[Watched]:
    """Yield activations, maps and effects of some units in many images, batch by batch."""
    for pair in shown:
        if not isinstance(pair, tuple | list) or len(pair) != 2:
            raise InputError(
                f"Expected names of images, each set with its task, as shown, but a {type(pair).__name__} was given: "
                "give pairs (names, task)."
            )
        ids, given = pair
        encoder = given.encoder
        sites = tuple(sorted({*units, encoder.sites[-1]}, key=encoder.position))
        task = replace(given, sites=sites)
        chosen = {
            site: torch.as_tensor(numbers, device=encoder.device)
            for site, numbers in units.items()
        }
        with task.running(gradients=True):
            for found in image_effects(task, left_rule(1)):
                maps = {
                    site: unit_maps(encoder, site, found.clean[site], some)
                    for site, some in chosen.items()
                }
                grids = {
                    site: map_grid(encoder, site, one) for site, one in maps.items()
                }
                end = found.batch.start + len(found.batch.images)
                if end > len(ids):
                    break
                yield Watched(
                    ids[found.batch.start : end],
                    found.batch.images,
                    found.clean[encoder.sites[-1]].float().cpu(),
                    {site: one.amax(-1).float().cpu() for site, one in maps.items()},
                    {
                        site: None if one is None else one.float().cpu()
                        for site, one in grids.items()
                    },
                    {
                        site: found.effects[site].index_select(1, some).float().cpu()
                        for site, some in chosen.items()
                    },
                )
            if end != len(ids):
                raise InputError(
                    f"Each image has a name, but {len(ids)} names of {end} images were given."
                )


Top = tuple[Tensor, Tensor, Tensor | None]
"""The strongest images of a site's units, strongest first; ties in the order of the images.

Numbers of the images [units, k], -1 where no further value is above zero; their activations or effects [units, k];
their maps [units, k, height, width].
"""


def _joined(top: Top, places: Tensor, values: Tensor, maps: Tensor | None) -> Top:
    """Return the strongest of these and of a further batch: numbers [batch], values and maps [batch, units]."""
    before, strongest, heat = top
    n = strongest.shape[1]
    both = torch.cat([strongest, values.T.clamp_min(0)], 1)
    best = both.sort(dim=1, descending=True, stable=True).indices[:, :n]
    largest = both.gather(1, best)
    where = torch.cat([before, places.expand(len(both), -1)], 1).gather(1, best)
    if maps is not None:
        old = maps.new_zeros(len(both), n, *maps.shape[2:]) if heat is None else heat
        heat = torch.cat([old, maps.transpose(0, 1)], 1)[
            torch.arange(len(both))[:, None], best
        ]
    return where.masked_fill(largest <= 0, -1), largest, heat


class TopLists:
    """The top images of units by activation and by effect, updated batch by batch."""

    def __init__(self, units: UnitsBySite, k: int = TOP_IMAGES) -> None:
        self.ids: list[str] = []
        none: dict[str, Top] = {
            site: (torch.full((len(some), k), -1), torch.zeros(len(some), k), None)
            for site, some in units.items()
        }
        self.tops = {by: dict(none) for by in (ACTIVATION, EFFECT)}

    def add(self, watched: Watched) -> None:
        """Take a batch into account."""
        places = torch.arange(len(self.ids), len(self.ids) + len(watched.ids))
        self.ids += watched.ids
        for by, values in ((ACTIVATION, watched.activation), (EFFECT, watched.effects)):
            for site, top in self.tops[by].items():
                self.tops[by][site] = _joined(
                    top, places, values[site], watched.maps[site]
                )


@checked
def top_images(
    shown: Shown, units: UnitsBySite, k: Count = TOP_IMAGES
) -> dict[str, dict[tuple[str, int], TopImages]]:
    """Return the images in which units are most active, and those in which they contribute most to the metric.

    Args:
        shown: Names of images with a task each, such as one task for each class.

    Returns:
        By ``activation`` and ``effect``, then by (site, unit).

    Example:
        >>> tops = top_images([(paths, Task(clip.encoder, photos, metric))], {"layer4.0": np.arange(8)}, k=9)
        >>> tops["effect"]["layer4.0", 3].ids
    """
    lists = TopLists(units, k)
    for watched in watch_units(shown, units):
        lists.add(watched)
    found: dict[str, dict[tuple[str, int], TopImages]] = {}
    for by, tops in lists.tops.items():
        found[by] = {}
        for site, (places, values, maps) in tops.items():
            scale = lists.tops[ACTIVATION][site][1][:, 0].numpy()
            heat = None if maps is None else as_heat(maps.numpy(), scale)
            for row, unit in enumerate(units[site]):
                some = [int(place) for place in places[row] if place >= 0]
                ids, n = tuple(lists.ids[place] for place in some), len(some)
                here = None if heat is None else heat[row, :n]
                found[by][site, int(unit)] = TopImages(
                    ids, values[row, :n].numpy(), here
                )
    return found


THUMBNAIL, QUALITY = 160, 70
"""Side of a thumbnail in pixels, and its quality as WebP."""


def write_domain(
    clip: Clip,
    shown: Iterator[tuple[list[ImageRecord], Task]],
    units: UnitsBySite,
    path: Path,
    found_on: Collection[ImageRecord],
    top: int,
    items: ItemKey | None = None,
) -> list[Path]:
    """Pass the images of a domain through the model, and write its files beside ``path``; return all of them.

    ``shown`` has the images of a class with their task, class by class; ``items`` tells the item of an image.
    """
    lists, embeddings, thumbnails = TopLists(units, top), list[Tensor](), list[Path]()
    listed: list[CardImage] = []
    table = path.with_suffix(".npy")

    def named() -> Iterator[tuple[list[str], Task]]:
        for records, task in shown:
            start = len(listed)
            for r in records:
                digest = hashlib.sha256(r.relative.encode()).hexdigest()[:16]
                listed.append(
                    CardImage(
                        digest,
                        r.relative,
                        r.domain,
                        r.class_name,
                        r in found_on,
                        item_of(r, items),
                    )
                )
            yield [image.id for image in listed[start:]], task

    table.parent.mkdir(parents=True, exist_ok=True)
    with (
        whole_file(table) as temporary,
        tempfile.TemporaryFile(dir=table.parent) as rows,
    ):
        for watched in watch_units(named(), units):
            lists.add(watched)
            embeddings.append(watched.embeddings)
            thumbnails += _write_thumbnails(clip, watched, path.parent.parent)
            rows.write(
                torch.cat([watched.activation[site] for site in units], 1)
                .numpy()
                .astype("<f4")
                .tobytes()
            )
        rows.seek(0)
        with open(temporary, "wb") as file:
            shape = (len(listed), sum(map(len, units.values())))
            np.lib.format.write_array_header_1_0(
                file, {"descr": "<f4", "fortran_order": False, "shape": shape}
            )
            shutil.copyfileobj(rows, file)
    write_json(path.with_suffix(".json"), listed)
    arrays = {"embeddings": torch.cat(embeddings or [torch.zeros(0, 1)]).numpy()}
    for by, tops in lists.tops.items():
        for site, (places, values, heat) in tops.items():
            arrays |= {
                f"{by}/places/{site}": places.numpy(),
                f"{by}/values/{site}": values.numpy(),
            }
            arrays |= {} if heat is None else {f"{by}/heat/{site}": heat.numpy()}
    write_arrays(path, CARDS_FORMAT, {}, arrays)
    return [table, path.with_suffix(".json"), *thumbnails, path]


def _write_thumbnails(clip: Clip, watched: Watched, folder: Path) -> list[Path]:
    paths = [thumbnail_file(folder, name) for name in watched.ids]
    for path, pixels in zip(paths, clip.shown(watched.images), strict=True):
        small = Image.fromarray(pixels).resize(
            (THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS
        )
        with whole_file(path) as temporary:
            small.save(temporary, "WEBP", quality=QUALITY)
    return paths

"""The images of a domain: activations of all units, top images, embeddings and thumbnails, in one pass.

Activations are written row by row: per image, memory grows by an embedding alone.
"""

import hashlib
import shutil
import tempfile
from collections.abc import Collection, Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from circuitry.cards.card_folder import CARDS_FORMAT, thumbnail_file
from circuitry.cards.top_images import TopLists, UnitsBySite, Watched, watch_units
from circuitry.cards.unit_card import CardImage
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.data.domains import ImageRecord
from circuitry.data.parts import ItemKey, item_of
from circuitry.encoder.task import Task
from circuitry.models.clip import Clip
from circuitry.runs.arrays import write_arrays
from circuitry.runs.files import whole_file
from circuitry.runs.manifest import write_json

THUMBNAIL, QUALITY = 96, 70
"""Side of a thumbnail in pixels, and its quality as WebP."""


def write_domain(
    clip: Clip,
    shown: Iterator[tuple[list[ImageRecord], Task]],
    units: UnitsBySite,
    path: Path,
    found_on: Collection[ImageRecord],
    top: int,
    rule: QuadratureRule,
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
                listed.append(CardImage(digest, r.relative, r.domain, r.class_name, r in found_on, item_of(r, items)))
            yield [image.id for image in listed[start:]], task

    table.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(table) as temporary, tempfile.TemporaryFile(dir=table.parent) as rows:
        for watched in watch_units(named(), units, rule):
            lists.add(watched)
            embeddings.append(watched.embeddings)
            thumbnails += _write_thumbnails(clip, watched, path.parent.parent)
            rows.write(torch.cat([watched.activation[site] for site in units], 1).numpy().astype("<f4").tobytes())
        rows.seek(0)
        with open(temporary, "wb") as file:
            shape = (len(listed), sum(map(len, units.values())))
            np.lib.format.write_array_header_1_0(file, {"descr": "<f4", "fortran_order": False, "shape": shape})
            shutil.copyfileobj(rows, file)
    write_json(path.with_suffix(".json"), listed)
    arrays = {"embeddings": torch.cat(embeddings or [torch.zeros(0, 1)]).numpy()}
    for by, tops in lists.tops.items():
        for site, (places, values, heat) in tops.items():
            arrays |= {f"{by}/places/{site}": places.numpy(), f"{by}/values/{site}": values.numpy()}
            arrays |= {} if heat is None else {f"{by}/heat/{site}": heat.numpy()}
    write_arrays(path, CARDS_FORMAT, {}, arrays)
    return [table, path.with_suffix(".json"), *thumbnails, path]


def _write_thumbnails(clip: Clip, watched: Watched, folder: Path) -> list[Path]:
    paths = [thumbnail_file(folder, name) for name in watched.ids]
    for path, pixels in zip(paths, clip.shown(watched.images), strict=True):
        small = Image.fromarray(pixels).resize((THUMBNAIL, THUMBNAIL), Image.Resampling.LANCZOS)
        with whole_file(path) as temporary:
            small.save(temporary, "WEBP", quality=QUALITY)
    return paths

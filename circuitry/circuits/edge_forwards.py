"""Count what the scores of edges run, before there are any."""

from collections.abc import Callable, Iterable, Sequence
from functools import partial

import numpy as np
import torch
from torch import Tensor

from circuitry.bases.gated_reading import DirectPaths, joined_sites
from circuitry.bases.residual import in_stream
from circuitry.circuits.chain_edges import closed_one_by_one
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.edge_methods import (
    SomeUnits,
    edge_method,
    rule_of_edges,
    score_edges,
)
from circuitry.circuits.methods import CUTS, EXACT_READERS
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.operations import OperationCounter, forward_operations
from circuitry.encoder.task import Task
from circuitry.gates.edge_gates import gated_edges_of
from circuitry.gates.edges import Pair
from circuitry.runs.plan import Forwards
from circuitry.runs.workers import Work


def edge_forwards(
    encoder: Encoder,
    sites: Sequence[str],
    share: float,
    n_images: int,
    settings: AttributionSettings | None = None,
) -> Forwards:
    """Return what `score_edges` runs, if every site keeps the same share of its units.

    Methods that take a run for each edge or each unit are counted by their runs. Most of the other methods lies outside
    the tower, in products of edges. They depend on the tower and on the number of edges, so operations are counted
    while the edges of one image and of two images are scored. Each further image takes the difference.

    Args:
        encoder: The encoder.
        sites: The sites whose units are scored.
        share: The share of the units that are kept.
        n_images: The number of images.
        settings: Method and rule of the edges (default: those of `AttributionSettings`).
    """
    settings = settings or AttributionSettings()
    units = dict[str, np.ndarray]()
    for site, n_units in encoder.count_units(sites).items():
        units[site] = np.arange(max(1, round(share * n_units)))
    method = edge_method(encoder, settings.edges)
    pairs = joined_sites(encoder, sites)  # found once for an encoder
    forward = forward_operations(encoder)
    by_package = method.function is None and method.components is None
    if by_package and method.name == CUTS:
        n_edges = sum(len(units[up]) * len(units[down]) for up, down in pairs)
        of_cuts = round(n_edges * _of_cut(encoder, pairs) / forward)
        # Each image is run once for its activations, and once without a cut.
        return Forwards(alone=2 + of_cuts) * n_images
    if by_package and method.name == EXACT_READERS and not in_stream(encoder):
        of_units = round(_of_readers(encoder, units) / forward)
        return Forwards(alone=of_units, back=1) * n_images
    rule = rule_of_edges(encoder, settings)
    counts = list[int]()
    for count in (1, 2):
        task = Task(
            encoder,
            encoder.blank(count),
            lambda embeddings: embeddings[:, 0],
            work=Work(progress=False),
        )
        with task.running(gradients=True), OperationCounter() as counter:
            score_edges(task, units, method=method.name, rule=rule)
        counts.append(counter.total)
    of_image = counts[1] - counts[0]
    operations = counts[0] + (n_images - 1) * of_image
    return Forwards(alone=round(operations / forward))


def _of_cut(encoder: Encoder, pairs: Sequence[Pair]) -> int:
    """Return the operations of a run of an image with one edge cut, of the pair of sites in the middle of all pairs."""
    image = encoder.blank()
    gated = gated_edges_of(Task(encoder, image, lambda embeddings: embeddings), pairs)
    up, down = pairs[len(pairs) // 2]
    gates = image.new_ones(gated.size(down), gated.size(up), dtype=torch.bool)
    gates[0, 0] = False
    clean = encoder.read_unhooked(image, gated.sites)
    cut = partial(gated.run, clean[gated.start], clean, {(up, down): gates})
    with encoder.running(gradients=True):
        return _of_second(cut)


def _of_second(run: Callable[[], Iterable[object]]) -> int:
    """Return the operations of a second pass over an iterable. The first pass computes what later passes share."""
    list(run())
    with OperationCounter() as counter:
        list(run())
    total: int = counter.total
    return total


def _of_readers(encoder: Encoder, units: SomeUnits) -> int:
    """Return the operations of `reader_edges` for an image, without the run that gives its activations.

    At each site, the operations of one unit are counted and multiplied with the number of units.
    """
    sites = encoder.sites[1:]
    sizes = encoder.count_units(sites)
    clean = encoder.read_unhooked(encoder.blank(), sites)
    chosen = dict[str, Tensor]()
    for site, of_site in units.items():
        chosen[site] = torch.tensor(of_site, device=encoder.device)
    paths = DirectPaths(encoder, clean, clean, chosen)
    operations = 0
    with encoder.running(gradients=True):
        for up, last_reader in dict(joined_sites(encoder, list(units))).items():
            first = chosen[up][:1]
            close = partial(closed_one_by_one, paths, up, first, sizes[up], last_reader)
            operations += len(units[up]) * _of_second(close)
    return operations

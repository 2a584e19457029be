"""Count what the scores of edges run, before there are any."""

from collections.abc import Sequence

import numpy as np

from circuitry.bases.gated_reading import joined_sites
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.edge_methods import rule_of_edges, score_edges
from circuitry.circuits.unit_scores import count_units
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.operations import OperationCounter, forward_operations
from circuitry.encoder.task import Task
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

    Most of it lies outside the tower, in products of edges. They depend on the tower and on the number of edges, so
    operations are counted while the edges of one image and of two images are scored. Each further image takes the
    difference.

    Args:
        encoder: The encoder.
        sites: The sites whose units are scored.
        share: The share of the units that are kept.
        n_images: The number of images.
        settings: Method and rule of the edges (default: those of `AttributionSettings`).
    """
    settings = settings or AttributionSettings()
    units = dict[str, np.ndarray]()
    for site, n_units in count_units(encoder, sites).items():
        units[site] = np.arange(max(1, round(share * n_units)))
    rule = rule_of_edges(encoder, settings)
    joined_sites(encoder, sites)  # found once for an encoder
    counts = list[int]()
    for count in (1, 2):
        task = Task(
            encoder,
            encoder.blank(count),
            lambda embeddings: embeddings[:, 0],
            work=Work(progress=False),
        )
        with task.running(gradients=True), OperationCounter() as counter:
            score_edges(task, units, method=settings.edges, rule=rule)
        counts.append(counter.total)
    of_image = counts[1] - counts[0]
    operations = counts[0] + (n_images - 1) * of_image
    return Forwards(alone=round(operations / forward_operations(encoder)))

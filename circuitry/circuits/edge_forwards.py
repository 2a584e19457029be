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
    settings: AttributionSettings | None = None,
) -> Forwards:
    """Return what `score_edges` runs for an image, if every site keeps the same share of its units.

    Most of it lies outside the tower, in products of edges. They depend on the tower and on the number of edges, so
    operations are counted while the edges of one image are scored.

    Args:
        encoder: The encoder.
        sites: The sites whose units are scored.
        share: The share of the units that are kept.
        settings: Method and rule of the edges (default: those of `AttributionSettings`).
    """
    settings = settings or AttributionSettings()
    units = dict[str, np.ndarray]()
    for site, n_units in count_units(encoder, sites).items():
        units[site] = np.arange(max(1, round(share * n_units)))
    task = Task(
        encoder,
        encoder.blank(),
        lambda embeddings: embeddings[:, 0],
        work=Work(progress=False),
    )
    one = forward_operations(encoder)
    joined_sites(encoder, sites)  # found once for an encoder
    with task.running(gradients=True), OperationCounter() as counter:
        score_edges(
            task, units, method=settings.edges, rule=rule_of_edges(encoder, settings)
        )
    return Forwards(alone=round(counter.total / one))

"""Count the floating-point operations of an attribution.

`count_operations` runs an attribution while PyTorch counts the operations of convolutions and matrix products, forward
and backward. A multiply-add counts as two operations, and operations on padding count, too. Everything else is small
beside them. The time on a machine that is not at hand is operations / (rate of the machine x the fraction of the rate
that is reached).
"""

from typing import NamedTuple

from circuitry.runs import Work
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.edge_methods import rule_of_edges, score_edges
from circuitry.circuits.scored_units import kept_units
from circuitry.circuits.tower_defaults import with_size
from circuitry.circuits.unit_scores import score_folds
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.metrics import Metric
from circuitry.encoder.operations import OperationCounter
from circuitry.encoder.task import Task

import torch


class Operations(NamedTuple):
    """Floating-point operations of a run on one image."""

    nodes: int
    """Operations of the scores of units."""
    edges: int
    """Operations of the scores of edges."""


def count_operations(
    encoder: Encoder, metric: Metric, settings: AttributionSettings
) -> Operations:
    """Return the operations that the node scores and the edge scores of one image take.

    The counts depend on the architecture, the rules, the sites and the share of units. They do not depend on the image.
    The count of node scores includes the metric at the baseline of every site; this takes one run for any number of
    images.

    Example:
        >>> nodes, edges = count_operations(clip.encoder, class_logit(weights, 0), AttributionSettings())
    """
    settings = with_size(settings, encoder)
    image = torch.randn(
        1, 3, *encoder.image_size, device=encoder.device, dtype=encoder.dtype
    )
    task = Task(encoder, image, metric, work=Work(progress=False))
    with task.running(gradients=True):
        with OperationCounter() as nodes_counter:
            nodes, _ = score_folds(task, settings)
        kept = kept_units(encoder, nodes, settings)
        with OperationCounter() as edges_counter:
            score_edges(
                task, kept, method=settings.edges, rule=rule_of_edges(encoder, settings)
            )
    return Operations(nodes_counter.total, edges_counter.total)

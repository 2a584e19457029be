"""Edges of the residual stream kept and cut, many at once: faithfulness over size, and learned masks on edges.

With all edges the run is the tower's (faithfulness 1), without any every reader reads the baseline (0); see
`ResidualStream.run`. Edges are ranked over the whole graph by their scores; `EdgeRuns` are what `learn_masks` takes, so
that a mask may also be learned on edges: its one "site" is `EDGES`, its units are the edges in the order of
`ResidualStream.edges`.
"""

from collections.abc import Mapping, Sequence
from functools import partial

import numpy as np
import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor

from circuitry.circuits.residual_edges import EdgeScores
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import AblationSettings, curve_settings, measure_groups
from circuitry.models.baselines import AnyBaseline, Baseline, Counterfactual, as_baseline, check_count
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.metrics import Metric
from circuitry.models.residual import ResidualStream
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work

EDGES = "edges"
"""The one site of `EdgeRuns`."""


def kept_edge_embeddings(
    stream: ResidualStream,
    images: Images,
    masks: Sequence[Bool[np.ndarray, "readers writers"]],
    *,
    baseline: AnyBaseline = "zero",
    work: Work = Work(),
) -> Float[Tensor, "masks images d"]:
    """Return the embeddings of the images with only the edges of each mask kept; see `ResidualStream.run`.

    Raises:
        InputError: for no images or masks, and what `ResidualStream.run` raises.
    """
    ends, found, done = as_baseline(baseline), list[Tensor](), 0
    with stream.components.frozen(), torch.no_grad():
        for batch in ImageBatches(images, stream.components, _rows(stream, work.memory_gib)):
            part = _part(ends, slice(done, done + len(batch)))
            found.append(torch.stack([stream.run(batch, torch.from_numpy(mask), part) for mask in masks]))
            done += len(batch)
    if not done:
        raise InputError("Keeping edges needs at least one image and one mask, but there were none.")
    check_count(ends, done)
    return torch.cat(found, 1)


def edge_curve(
    stream: ResidualStream,
    images: Images,
    metric: Metric,
    found: EdgeScores,
    settings: AblationSettings = AblationSettings(),
    *,
    others: Images | None = None,
    work: Work = Work(),
) -> FaithfulnessCurve:
    """Measure the metric with the strongest edges kept, with all edges but those, and with random edges.

    Args:
        stream: The tower under study.
        images: Images to measure on; not those of the scores, if they are to be tested on unseen ones.
        metric: Embeddings [B, D] -> one number per image.
        found: Scores that rank the edges.
        settings: Of these, fractions of all edges, ranking, baseline, random draws and seed.
        others: Images of other classes, for selectivity.
        work: Memory.

    Returns:
        A curve whose units are edges. Random edges are drawn among all, as many.

    Raises:
        InputError: for scores of another tower, and what `kept_edge_embeddings` raises.

    Example:
        >>> curve = edge_curve(stream, unseen, metric, score_edges(stream, photos, metric))
        >>> curve.table()
    """
    there = stream.edges.numpy()
    if found.scores.shape != there.shape:
        raise InputError(
            f"Edges are ranked by scores {list(there.shape)} (readers, writers), but scores of shape "
            f"{list(found.scores.shape)} were given: score the edges of this tower."
        )
    scores = found.scores[there]
    order = np.argsort(-np.abs(scores) if settings.ranking == "absolute" else scores, kind="stable")
    sizes = [max(1, round(fraction * len(order))) for fraction in settings.fractions]
    rng = np.random.default_rng(settings.seed)
    kept = [_mask(there, order[:size]) for size in sizes]
    shuffled = [rng.permutation(len(order)) for _ in range(settings.random_draws)]
    groups = {
        "full": [there],
        "empty": [np.zeros_like(there)],
        "kept": kept,
        "complement": [there & ~mask for mask in kept],
        "random": [_mask(there, order[:size]) for order in shuffled for size in sizes],
    }
    run = partial(kept_edge_embeddings, stream, work=work)
    return FaithfulnessCurve(
        fractions=tuple(size / len(order) for size in sizes),
        ranking=settings.ranking,
        n_units=tuple(sizes),
        **measure_groups(run, groups, metric, images, others, settings),
        settings=curve_settings(settings, [EDGES]),
    )


class EdgeRuns:
    """Some images, ready for runs with edges of the residual stream kept in part; what `learn_masks` takes.

    Args:
        stream: The tower, frozen by the caller for as long as this is used.
        images: Tensor [B, 3, H, W].
        baseline: What is written where an edge is cut.
        memory_gib: Budget for the streams of all readers in a run.

    Example:
        >>> answers = class_answers(weights, label)
        >>> mask = learn_masks(EdgeRuns(stream, images), answers, own, size=0.05)[0]
        >>> mask.scores[EDGES] >= 0     # the edges kept, in the order of stream.edges.nonzero()
    """

    sites = (EDGES,)

    def __init__(
        self,
        stream: ResidualStream,
        images: Float[Tensor, "batch 3 h w"],
        baseline: AnyBaseline = "zero",
        memory_gib: float = 1.0,
    ) -> None:
        self.stream, self.rows = stream, _rows(stream, memory_gib)
        self._images, self._baseline = images, as_baseline(baseline)
        self._readers, self._writers = stream.edges.nonzero(as_tuple=True)
        self.n_units = {EDGES: len(self._readers)}
        if not len(images):
            raise InputError("Gated runs need at least one image, but there were none.")
        check_count(self._baseline, len(images))
        with torch.no_grad():
            self.embeddings: Float[Tensor, "images d"] = torch.cat(
                [stream.encoder(part) for part in torch.split(images, self.rows)]
            )
            """Those of the whole model."""

    def __len__(self) -> int:
        return len(self._images)

    def run(
        self, gates: Mapping[str, Float[Tensor, " edges"]], chosen: Int[Tensor, " some"] | None = None
    ) -> Float[Tensor, "some d"]:
        """Return the embeddings of the images, or of those chosen, under gates on edges."""
        rows = torch.arange(len(self)) if chosen is None else chosen
        keep = torch.zeros(self.stream.edges.shape).index_put(
            (self._readers, self._writers), gates[EDGES].cpu().float()
        )
        return self.stream.run(self._images[rows], keep, _part(self._baseline, rows))


def _mask(there: Bool[np.ndarray, "readers writers"], edges: Int[np.ndarray, " some"]) -> np.ndarray:
    """Return a mask of some of the edges, by their place among those that there are."""
    chosen = np.zeros(int(there.sum()), dtype=bool)
    chosen[edges] = True
    mask = np.zeros_like(there)
    mask[there] = chosen
    return mask


def _part(baseline: Baseline | Counterfactual, images: slice | Tensor) -> Baseline | Counterfactual:
    return baseline if baseline.n_images is None else baseline.select(images)


def _rows(stream: ResidualStream, memory_gib: float) -> int:
    """Return how many images a run may take, whose readers have a stream each."""
    return max(1, rows_that_fit(stream.components, memory_gib) // len(stream.blocks))

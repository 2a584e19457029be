"""Attribution: from an encoder, images and a metric to an `AttributionGraph`.

1. `nodes`: integrated gradients of the metric at every site score every unit;
2. the units with the largest absolute score are kept; in a feature basis these are latents, never error units;
3. `edges`: integrated gradients of each kept unit's movement score the edges between consecutive sites; in heads and
   neurons (`in_components`) `component_edges` scores those between any two sites, through the residual stream.

The setting of the study ("When and How Does CLIP Enable Domain and Compositional Generalization?", ICML 2025) is
`AttributionSettings.study`; the default differs in the quadrature rule alone.
"""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import dataclass, replace

import numpy as np
import torch
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.circuits.component_edges import edges_between, in_stream
from circuitry.circuits.graph import IN_STREAM, AttributionGraph
from circuitry.circuits.nodes import NodeEffects, keep_units, node_effects, nodes_of
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.circuits.settings import AttributionSettings
from circuitry.models.baselines import AnyBaseline, check_count
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder, checked_sites
from circuitry.models.metrics import Metric, metric_name
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_lists


def attribute(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    node_fraction: float = 0.1,
    rule: QuadratureRule | None = None,
    baseline: AnyBaseline = "zero",
    sites: Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    *,
    edge_rule: QuadratureRule | None = None,
    memory_gib: float = 1.0,
) -> AttributionGraph:
    """Score the units of an encoder, keep the strongest, and score the edges between them.

    The modes of the caller (``no_grad``, ``inference_mode``, ``autocast``) change nothing. Parameters that are not
    among the following are explained at `AttributionSettings`, which has the same defaults.

    Args:
        encoder: The encoder under study; its device and dtype are used.
        images: Tensor [B, 3, H, W] or an iterable of such batches, of one class in one domain. How it is cut
            changes nothing but rounding.
        metric: Embeddings [B, D] -> one number per image, e.g. `class_logit`.
        baseline: Where the paths end: ``"zero"``, a `Baseline` such as `mean_baseline` makes, or counterfactual images
            [1, 3, H, W] or [B, 3, H, W], one for all images or one for every image.
        progress: Show progress bars.

    Raises:
        InputError: for settings out of range, unknown or unordered sites, images of another size or none, a metric of
            the wrong shape, activations, a metric, a gradient or scores that are not finite, or a baseline that does
            not fit.

    Example:
        >>> graph = attribute(encoder, images, class_logit(weights, label=3), rule=midpoint_rule(6))
        >>> attribute(encoder, images, metric, baseline=images_without_the_object)    # one for every image
        >>> graph.node_scores["layer4.0"]        # signed effect of each channel
        >>> graph.completeness["layer4.0"].gap   # how far the effects miss the metric's change
    """
    _check_types(encoder, metric)
    check_lists(sites=sites)
    settings = AttributionSettings(
        node_fraction,
        rule,
        edge_rule,
        baseline=baseline,
        sites=None if sites is None else tuple(sites),
        batch_size=batch_size,
        memory_gib=memory_gib,
    )
    job = _Job(encoder, metric, settings, progress)
    with job.modes():
        batches = job.batches(images)
        nodes = job.nodes(batches)
        kept = job.kept(nodes)
        return job.graph(nodes, kept, job.edges(kept, batches))


@dataclass(frozen=True, eq=False)
class AttributionParts:
    """What `attribute_parts` finds on all images and on each part of them."""

    whole: AttributionGraph
    parts: dict[int, AttributionGraph]
    """The graph of each part's images, by the number of the part."""
    edges: dict[tuple[str, str], np.ndarray]
    """Scores [parts, kept downstream, kept upstream] of the edges between the units that the *whole* keeps, by pair of
    sites, as each part finds them: what resamples of the parts need."""


def attribute_parts(
    encoder: Encoder,
    images: Float[Tensor, "batch 3 h w"],
    metric: Metric,
    settings: AttributionSettings,
    parts: Int[np.ndarray, " images"],
    progress: bool = True,
) -> AttributionParts:
    """Attribute all images and each part of them, in one pass over the images.

    1. Node scores of all images are the mean of the parts', weighted by their images.
    2. Edges of a part are scored between the units that the part or the whole keeps.
    3. Sums over images add up. The score of an edge is such a sum over the square of the number of images (method.md,
       section 3: the mean inside the gap), so that of all images is the sum of the parts' scores times the square of
       their shares of the images; through the residual stream it is a mean, and they are weighted by their shares.

    Args:
        parts: Number of each image's part, see `part_numbers`; the other arguments are those of `attribute`.

    Raises:
        InputError: as `attribute`, and for another number of parts than of images.

    Example:
        >>> found = attribute_parts(encoder, images, metric, settings, parts=np.arange(len(images)) % 4)
        >>> node_overlap(found.parts[0], found.parts[1])
    """
    _check_types(encoder, metric)
    if len(parts) != len(images):
        raise InputError(f"Every image is in one part, but {len(images)} images and {len(parts)} parts were given.")
    job = _Job(encoder, metric, settings, progress)
    check_count(settings.resolved_baseline, len(images))
    members = {int(part): np.flatnonzero(parts == part) for part in np.unique(parts)} or {0: np.arange(0)}
    with job.modes():
        jobs = {part: job.of_some(torch.from_numpy(chosen)) for part, chosen in members.items()}
        batches = {part: jobs[part].batches(images[torch.from_numpy(chosen)]) for part, chosen in members.items()}
        nodes = {part: jobs[part].nodes(batches[part]) for part in members}
        merged = NodeEffects.merge(list(nodes.values()))
        whole = job.kept(merged)
        kept = {part: job.kept(of_part) for part, of_part in nodes.items()}
        scored = {part: _union(whole, kept[part]) for part in members}
        edges = {part: jobs[part].edges(scored[part], batches[part]) for part in members}
    at_whole = {part: _cut(edges[part], scored[part], whole) for part in members}
    by_pair = {pair: np.stack([at_whole[part][pair] for part in members]) for pair in edges[next(iter(members))]}
    shares = np.array([len(chosen) / len(images) for chosen in members.values()])
    weights = shares if in_stream(encoder) else shares**2
    of_all = {pair: np.tensordot(weights, scores, 1) for pair, scores in by_pair.items()}
    graphs = {part: job.graph(nodes[part], kept[part], _cut(edges[part], scored[part], kept[part])) for part in members}
    return AttributionParts(job.graph(merged, whole, of_all), graphs, by_pair)


Kept = Mapping[str, np.ndarray]
"""Units [k] by site."""


def _union(first: Kept, second: Kept) -> dict[str, np.ndarray]:
    """Return the units of both, those of the first in front."""
    return {site: np.concatenate([units, np.setdiff1d(second[site], units)]) for site, units in first.items()}


def _cut(edges: Mapping[tuple[str, str], np.ndarray], scored: Kept, kept: Kept) -> dict[tuple[str, str], np.ndarray]:
    """Return the scores between some of the units that they are given between, in the order of ``kept``."""
    place = {site: {unit: i for i, unit in enumerate(units.tolist())} for site, units in scored.items()}
    chosen = {site: [place[site][unit] for unit in units.tolist()] for site, units in kept.items()}
    return {(up, down): scores[np.ix_(chosen[down], chosen[up])] for (up, down), scores in edges.items()}


def _check_types(encoder: object, metric: object) -> None:
    if not isinstance(encoder, Encoder) or not callable(metric):
        raise InputError(
            "Attribution takes an Encoder, such as clip.encoder, and a metric, such as class_logit(weights, label), "
            f"but {type(encoder).__name__} and {type(metric).__name__} were given."
        )


class _Job:
    """The steps of an attribution with its settings checked once and what made its graphs written down."""

    def __init__(self, encoder: Encoder, metric: Metric, settings: AttributionSettings, progress: bool) -> None:
        self.encoder, self.metric, self.settings, self.progress = encoder, metric, settings, progress
        self.sites = checked_sites(encoder, settings.sites)
        self.rows = rows_that_fit(encoder, settings.memory_gib)  # measured in the encoder's own modes
        self.made_with = settings.as_dict() | {
            "baseline_digest": settings.resolved_baseline.digest,
            "metric": metric_name(metric),
            "model_digest": encoder.digest,
            "basis": encoder.basis,
            "hooked_sites": list(encoder.hooked_sites),
            "edges": IN_STREAM if in_stream(encoder) else "neighbouring sites",
        }

    @contextmanager
    def modes(self) -> Iterator[None]:
        """Within the block the encoder is the thread's own, frozen and fast, and gradients are taken."""
        with self.encoder.frozen(), self.encoder.fast(), self.encoder.differentiable():
            yield

    def of_some(self, images: Tensor) -> "_Job":
        """Return the same job for some of the images, which take their own part of the baseline."""
        job = copy(self)
        job.settings = replace(self.settings, baseline=self.settings.resolved_baseline.select(images))
        return job

    def batches(self, images: Images) -> ImageBatches:
        return ImageBatches(images, self.encoder, min(self.settings.batch_size or self.rows, self.rows))

    def nodes(self, batches: ImageBatches) -> NodeEffects:
        return node_effects(self.encoder, batches, self.metric, self.settings, self.progress)

    def kept(self, nodes: NodeEffects) -> dict[str, np.ndarray]:
        return {site: keep_units(score, self.settings.node_fraction) for site, score in self._scores(nodes).items()}

    def edges(self, kept: Kept, batches: ImageBatches) -> dict[tuple[str, str], np.ndarray]:
        return edges_between(self.encoder, batches, self.metric, kept, self.settings, self.progress)

    def graph(self, nodes: NodeEffects, kept: Kept, edges: dict[tuple[str, str], np.ndarray]) -> AttributionGraph:
        error = {site: units for site, units in self.encoder.error_units.items() if site in nodes.scores}
        return AttributionGraph(
            self.sites,
            self._scores(nodes),
            dict(kept),
            edges,
            nodes.completeness,
            nodes.n_images,
            settings=dict(self.made_with),
            error_scores={site: nodes.scores[site][units.start :] for site, units in error.items()},
        )

    def _scores(self, nodes: NodeEffects) -> dict[str, np.ndarray]:
        """Return the scores of units that may be nodes: of a feature basis the latents."""
        return nodes_of(self.encoder, nodes.scores)

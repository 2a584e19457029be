"""Attribution: from an encoder, images and a metric to an `AttributionGraph`.

1. `nodes`: integrated gradients of the metric at every site score every unit;
2. the units with the largest absolute score are kept; in a feature basis these are latents, never error units;
3. `edges`: integrated gradients of each kept unit's movement score the edges between consecutive sites.

The setting of the study ("When and How Does CLIP Enable Domain and Compositional Generalization?", ICML 2025) is
`AttributionSettings.study`; the default differs in the quadrature rule alone.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from copy import copy
from dataclasses import replace

from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.edges import edge_effects
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.nodes import NodeEffects, keep_units, node_effects, nodes_of
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.circuits.settings import AttributionSettings
from circuitry.models.baselines import AnyBaseline, check_count
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder, checked_sites
from circuitry.models.metrics import Metric, metric_name
from circuitry.runs.errors import InputError


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
        return job.graph(job.nodes(batches), batches)


def attribute_halves(
    encoder: Encoder,
    images: Float[Tensor, "batch 3 h w"],
    metric: Metric,
    settings: AttributionSettings,
    progress: bool = True,
) -> tuple[AttributionGraph, tuple[AttributionGraph, AttributionGraph] | None]:
    """Attribute all images and each of two disjoint halves of them, whose circuits give the noise ceiling.

    The node scores of all images are the weighted mean of the halves', so only edges cost more than
    `attribute` on all of them.

    Returns:
        The graph of all images, and those of every other image from the first and from the second on; no
        halves for a single image.
    """
    _check_types(encoder, metric)
    job = _Job(encoder, metric, settings, progress)
    check_count(settings.resolved_baseline, len(images))
    every_other = (slice(0, None, 2), slice(1, None, 2))[: max(1, len(images))]
    halves = [job.of_some(chosen) for chosen in every_other]
    with job.modes():
        parts = [half.batches(images[chosen]) for half, chosen in zip(halves, every_other, strict=True)]
        nodes = [half.nodes(part) for half, part in zip(halves, parts, strict=True)]
        whole = job.graph(NodeEffects.merge(nodes), job.batches(images))
        if len(parts) < 2:
            return whole, None
        graphs = [half.graph(of_half, part) for half, of_half, part in zip(halves, nodes, parts, strict=True)]
        return whole, (graphs[0], graphs[1])


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
        }

    @contextmanager
    def modes(self) -> Iterator[None]:
        """Within the block the encoder is the thread's own, frozen and fast, and gradients are taken."""
        with self.encoder.frozen(), self.encoder.fast(), self.encoder.differentiable():
            yield

    def of_some(self, images: slice) -> "_Job":
        """Return the same job for some of the images, which take their own part of the baseline."""
        job = copy(self)
        job.settings = replace(self.settings, baseline=self.settings.resolved_baseline.select(images))
        return job

    def batches(self, images: Images) -> ImageBatches:
        return ImageBatches(images, self.encoder, min(self.settings.batch_size or self.rows, self.rows))

    def nodes(self, batches: ImageBatches) -> NodeEffects:
        return node_effects(self.encoder, batches, self.metric, self.settings, self.progress)

    def graph(self, nodes: NodeEffects, batches: ImageBatches) -> AttributionGraph:
        error = {site: units for site, units in self.encoder.error_units.items() if site in nodes.scores}
        scores = nodes_of(self.encoder, nodes.scores)
        kept = {site: keep_units(score, self.settings.node_fraction) for site, score in scores.items()}
        edges = edge_effects(self.encoder, batches, kept, self.settings, self.progress)
        return AttributionGraph(
            self.sites,
            scores,
            kept,
            edges,
            nodes.completeness,
            nodes.n_images,
            settings=dict(self.made_with),
            error_scores={site: nodes.scores[site][units.start :] for site, units in error.items()},
        )

"""Attribution: from an encoder, images and a metric to an `AttributionGraph`.

1. `nodes`: integrated gradients of the metric at every site score every unit;
2. the units with the largest absolute score are kept; in a feature basis these are latents, never error units;
3. `edges`: integrated gradients of each kept unit's movement score the edges between consecutive sites.

`AttributionSettings`, which long runs take, has the rule of this package: Gauss-Radau with five points, whose measured
error is smaller than that of the study's left rule with ten, at half of its cost (README). `attribute` alone keeps the
setting of the study ("When and How Does CLIP Enable Domain and Compositional Generalization?", ICML 2025). Both have
its baseline zero and its tenth of the units.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from copy import copy
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.circuits.edges import edge_effects
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.nodes import NodeEffects, keep_units, node_effects
from circuitry.circuits.quadrature import QuadratureRule, gauss_radau_rule, left_rule
from circuitry.models.baselines import NAMES_OF_DATA, AnyBaseline, Baseline, Counterfactual, as_baseline, check_count
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder, checked_sites
from circuitry.models.metrics import Metric, metric_name
from circuitry.runs.errors import InputError

STUDY_RULE = left_rule(10)
"""The study's quadrature rule."""
DEFAULT_RULE = gauss_radau_rule(5)
"""The rule of long runs: no worse than the study's for nodes and edges on each measured model, at half of its cost."""


@dataclass(frozen=True, eq=False)
class AttributionSettings:
    """How to attribute; the defaults are the study's but for the rule, see `DEFAULT_RULE` and `STUDY_RULE`.

    Raises:
        InputError: for a value outside its range, which is named.

    Example:
        >>> settings = AttributionSettings(rule=left_rule(10), baseline=mean_baseline(encoder, reference))
        >>> whole, halves = attribute_halves(encoder, images, metric, settings)
    """

    node_fraction: float = 0.1
    """Share of the units of a site that is kept, in (0, 1] (default: a tenth)."""
    rule: QuadratureRule = DEFAULT_RULE
    """Quadrature rule of the path integrals (default: `DEFAULT_RULE`)."""
    edge_rule: QuadratureRule | None = None
    """Quadrature rule of the edges (default: that of the nodes)."""
    baseline: AnyBaseline = "zero"
    """Where the paths end: ``"zero"``, a `Baseline`, or counterfactual images, see `circuitry.models.baselines`; for
    `extract` also a name of `circuitry.models.named_baselines` (default: zero)."""
    sites: tuple[str, ...] | None = None
    """Sites to score, in the encoder's order; edges run between consecutive ones (default: all)."""
    batch_size: int | None = None
    """Images at a time (default: as many as fit the memory budget, which also bounds a given number)."""
    memory_gib: float = 1.0
    """Budget for activations and gradients, in GiB; weights and scores come on top (default: 1)."""
    autocast: str | None = None
    """Lower precision of node scores where PyTorch deems it safe: ``bfloat16`` or ``float16`` (default: that of the
    weights). Edges keep theirs: squared distances of nearly equal activations would lose their digits."""

    def __post_init__(self) -> None:
        if not 0 < self.node_fraction <= 1:
            raise InputError(f"The fraction of units to keep lies in (0, 1], but {self.node_fraction} was given.")
        if self.autocast not in (None, "bfloat16", "float16"):
            raise InputError(f"Autocast is to bfloat16 or float16, but {self.autocast!r} was given.")
        if self.memory_gib <= 0:
            raise InputError(f"The memory budget is a positive number of GiB, but {self.memory_gib} was given.")
        if self.batch_size is not None and self.batch_size < 1:
            raise InputError(f"A batch has at least one image, but a batch size of {self.batch_size} was given.")
        if not (isinstance(self.baseline, str) and self.baseline in NAMES_OF_DATA):
            object.__setattr__(self, "baseline", as_baseline(self.baseline))

    @property
    def resolved_baseline(self) -> Baseline | Counterfactual:
        """The baseline as an object."""
        return as_baseline(self.baseline)

    def as_dict(self) -> dict[str, Any]:
        """Return what changes the scores, as plain values; what only changes the speed is left out.

        The ``settings`` of a graph add what `attribute` was given: metric, digests of the baseline and of the model,
        feature bases, and sites where hooks of the caller acted.
        """
        return {
            "node_fraction": self.node_fraction,
            "node_rule": self.rule.name,
            "edge_rule": (self.edge_rule or self.rule).name,
            "baseline": self.baseline if isinstance(self.baseline, str) else self.resolved_baseline.name,
            "autocast": self.autocast,
        }


def attribute(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    node_fraction: float = 0.1,
    rule: QuadratureRule = STUDY_RULE,
    baseline: AnyBaseline = "zero",
    sites: Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    *,
    edge_rule: QuadratureRule | None = None,
    memory_gib: float = 1.0,
) -> AttributionGraph:
    """Score the units of an encoder, keep the strongest, and score the edges between them.

    The modes of the caller (``no_grad``, ``inference_mode``, ``autocast``) change nothing. Parameters that
    `AttributionSettings` has, too, mean the same and are explained there; only the default of ``rule`` differs.

    Args:
        encoder: The encoder under study; its device and dtype are used.
        images: Tensor [B, 3, H, W] or an iterable of such batches, of one class in one domain. How it is cut
            changes nothing but rounding.
        metric: Embeddings [B, D] -> one number per image, e.g. `class_logit`.
        node_fraction: Share of the units of a site that is kept, in (0, 1].
        rule: Quadrature rule of the path integrals (default: the study's).
        baseline: Where the paths end: ``"zero"``, a `Baseline` such as `mean_baseline` makes, or counterfactual images
            [1, 3, H, W] or [B, 3, H, W], one for all images or one for every image.
        sites: Sites to score, in the encoder's order (default: all).
        batch_size: Images at a time (default: as many as fit the memory budget).
        progress: Show progress bars.
        edge_rule: Quadrature rule of the edges (default: that of the nodes).
        memory_gib: Budget for activations and gradients, in GiB.

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
        baseline,
        None if sites is None else tuple(sites),
        batch_size,
        memory_gib,
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
    check_count(job.baseline, len(images))
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
        self.memory = int(settings.memory_gib * 2**30)
        self.rows = rows_that_fit(encoder, settings.memory_gib)
        self.baseline = settings.resolved_baseline
        self.made_with = settings.as_dict() | {
            "baseline_digest": self.baseline.digest,
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
        job.baseline = self.baseline.select(images)
        return job

    def batches(self, images: Images) -> ImageBatches:
        return ImageBatches(images, self.encoder, min(self.settings.batch_size or self.rows, self.rows))

    def nodes(self, batches: ImageBatches) -> NodeEffects:
        wanted = self.settings.autocast
        dtype = None if wanted is None else getattr(torch, wanted)
        with nullcontext() if wanted is None else torch.autocast(self.encoder.device.type, dtype=dtype):
            return node_effects(
                self.encoder,
                batches,
                self.metric,
                rule=self.settings.rule,
                baseline=self.baseline,
                sites=self.sites,
                rows=self.rows,
                progress=self.progress,
            )

    def graph(self, nodes: NodeEffects, batches: ImageBatches) -> AttributionGraph:
        error = {site: units for site, units in self.encoder.error_units.items() if site in nodes.scores}
        scores = nodes.scores | {site: nodes.scores[site][: units.start] for site, units in error.items()}
        kept = {site: keep_units(score, self.settings.node_fraction) for site, score in scores.items()}
        edges = edge_effects(
            self.encoder,
            batches,
            kept,
            rule=self.settings.edge_rule or self.settings.rule,
            baseline=self.baseline,
            sites=self.sites,
            memory=self.memory,
            progress=self.progress,
        )
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

"""Attribution: from an encoder, images and a metric to an `AttributionGraph`.

1. `nodes`: integrated gradients of the metric at every site score every unit;
2. the units with the largest absolute score are kept;
3. `edges`: integrated gradients of each kept unit's movement score the edges between consecutive sites.

The study's setting (method of "When and How Does CLIP Enable Domain and Compositional Generalization?",
ICML 2025) is the default: left rule with ten points, baseline zero, a tenth of the units.
"""

from collections.abc import Sequence
from typing import Literal

from circuitry.baselines import ZERO, Baseline
from circuitry.batches import ImageBatches, Images, bytes_per_image
from circuitry.circuit import AttributionGraph, keep_units
from circuitry.edges import edge_effects
from circuitry.encoder import Encoder
from circuitry.errors import InputError
from circuitry.metrics import Metric
from circuitry.nodes import node_effects
from circuitry.quadrature import QuadratureRule, left_rule

STUDY_RULE = left_rule(10)


def attribute(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    node_fraction: float = 0.1,
    rule: QuadratureRule = STUDY_RULE,
    baseline: Literal["zero"] | Baseline = "zero",
    sites: Sequence[str] | None = None,
    batch_size: int | None = None,
    progress: bool = True,
    *,
    edge_rule: QuadratureRule | None = None,
    memory_gib: float = 2.0,
) -> AttributionGraph:
    """Score the units of an encoder, keep the strongest, and score the edges between them.

    Args:
        encoder: The encoder under study; its device and dtype are used.
        images: Tensor [B, 3, H, W] or an iterable of such batches, of one class in one domain. How it is cut
            changes nothing but rounding.
        metric: Embeddings [B, D] -> one number per image, e.g. `class_logit`.
        node_fraction: Share of the units of a site that is kept, in (0, 1].
        rule: Quadrature rule of the path integrals.
        baseline: ``"zero"`` or a `Baseline`, e.g. from `mean_baseline`.
        sites: Sites to score, in the encoder's order; all unless told. Edges run between consecutive ones.
        batch_size: Images at a time; as many as fit the memory budget unless told.
        progress: Show progress bars.
        edge_rule: Rule of the edges where it differs from that of the nodes.
        memory_gib: Budget for activations and gradients, in GiB; weights and scores come on top.

    Raises:
        InputError: for a fraction outside (0, 1], unknown or unordered sites, images of another size or none,
            a metric of the wrong shape, or activations that are not finite.

    Example:
        >>> graph = attribute(encoder, images, class_logit(weights, label=3), rule=midpoint_rule(6))
        >>> graph.node_scores["layer4.0"]        # signed effect of each channel
        >>> graph.completeness["layer4.0"].gap   # how far the effects miss the metric's change
    """
    sites = checked_sites(encoder, sites)
    if not 0 < node_fraction <= 1:
        raise InputError(f"The fraction of units to keep lies in (0, 1], but {node_fraction} was given.")
    baseline = checked_baseline(baseline)
    rows = rows_in(memory_gib, encoder)
    batches = ImageBatches(images, encoder, min(batch_size or rows, rows))
    edge_rule = edge_rule or rule
    with encoder.frozen():
        nodes = node_effects(
            encoder, batches, metric, rule=rule, baseline=baseline, sites=sites, rows=rows, progress=progress
        )
        kept = {site: keep_units(scores, node_fraction) for site, scores in nodes.scores.items()}
        edges = edge_effects(
            encoder,
            batches,
            kept,
            rule=edge_rule,
            baseline=baseline,
            sites=sites,
            memory=int(memory_gib * 2**30),
            progress=progress,
        )
    return AttributionGraph(
        sites,
        nodes.scores,
        kept,
        edges,
        nodes.completeness,
        nodes.n_images,
        settings={
            "node_fraction": node_fraction,
            "node_rule": rule.name,
            "edge_rule": edge_rule.name,
            "baseline": baseline.name,
        },
    )


def checked_sites(encoder: Encoder, sites: Sequence[str] | None) -> tuple[str, ...]:
    """Return the sites to score, all unless told, after checking that they exist and come in order."""
    if sites is None:
        return encoder.sites
    order = [encoder.position(site) for site in sites]
    if not order or order != sorted(set(order)):
        raise InputError(
            f"Sites are given once each, in the encoder's order, but {', '.join(sites) or 'none'} was given; "
            f"the order is {', '.join(encoder.sites)}."
        )
    return tuple(sites)


def checked_baseline(baseline: str | Baseline) -> Baseline:
    """Return the baseline meant."""
    if isinstance(baseline, Baseline):
        return baseline
    if baseline != "zero":
        raise InputError(
            f"A baseline is 'zero' or a Baseline such as mean_baseline(encoder, images), but {baseline!r} was given."
        )
    return ZERO


def rows_in(memory_gib: float, encoder: Encoder) -> int:
    """Return how many images fit one run within the memory budget."""
    if memory_gib <= 0:
        raise InputError(f"The memory budget is a positive number of GiB, but {memory_gib} was given.")
    return max(1, int(memory_gib * 2**30) // bytes_per_image(encoder))

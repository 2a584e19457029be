"""Attribution: compute an `AttributionGraph` from an encoder, images and a metric.

1. A method (`methods`) ranks the units. By default the units are ranked by how much they change the model's answers on
   images of the class and of other classes. Some methods, such as this one, only rank units. Then the scores in the
   graph are the effects of the units on the metric, which are measured by conductance (`conductance`).
2. The strongest units are kept; a budget (`budgets`) says how many at each site. In a feature basis the kept units are
   latents, never error units.
3. A method of edges (`edge_methods`) scores the edges between kept units. In a chain of whole stages the edges join
   consecutive sites. The score of an edge is an integrated gradient: it says how far the later unit moves when the
   earlier unit goes to its baseline. If the units are components of blocks (`in_components`), the edges join any two
   sites that the residual stream joins. Then the score of an edge is an effect on the metric.

The study ("When and How Does CLIP Enable Domain and Compositional Generalization?", ICML 2025) used the method
``site-path``, the budget ``same-share`` and the quadrature rule left-10. Here a positive score means that a unit or
edge helps, and all scores are means over images. The study's node scores have the opposite sign. Its edge scores are
the scores here, divided by the number of images.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd
import torch
from jaxtyping import Int
from torch import Tensor

from circuitry.circuits.budgets import GLOBAL
from circuitry.circuits.circuit_settings import AttributionSettings
from circuitry.circuits.edge_methods import (
    edges_made_with,
    fold_edges,
    rule_of_edges,
    score_edges,
)
from circuitry.circuits.found_on import pixels_of
from circuitry.circuits.graph import AttributionGraph
from circuitry.circuits.methods import ITERATIVE, MethodName, without_others
from circuitry.circuits.narrowed_tasks import own_images
from circuitry.circuits.nodes import NodeEffects
from circuitry.circuits.quadrature import AnyRule, as_rule
from circuitry.circuits.scored_units import kept_units, scores_of
from circuitry.circuits.tower_defaults import with_size
from circuitry.circuits.unit_scores import score_folds
from circuitry.encoder.baselines import ZERO, AnyBaseline, check_count
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.metrics import Metric
from circuitry.encoder.norms import has_rescaling_norms
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import ImageBatches, Images
from circuitry.runs.arguments import Count, Names, Positive, Share, checked
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work

log = logging.getLogger(__name__)


@checked
def attribute(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    size: Share | None = None,
    rule: AnyRule | None = None,
    baseline: AnyBaseline | None = None,
    sites: Names | None = None,
    batch_size: Count | None = None,
    progress: bool = True,
    *,
    edge_rule: AnyRule | None = None,
    edges: str | None = None,
    others: Images | None = None,
    budget: str = GLOBAL,
    method: MethodName = ITERATIVE,
    memory_gib: Positive | None = None,
    class_name: str | None = None,
    domain: str | None = None,
) -> AttributionGraph:
    """Score the units of an encoder, keep the strongest, and score the edges between them.

    The modes of the caller (``no_grad``, ``inference_mode``, ``autocast``, the default dtype) have no influence.
    ``size``, ``budget``, ``rule``, ``edge_rule``, ``edges`` and ``method`` are explained at `AttributionSettings`,
    which has the same defaults.

    Args:
        encoder: The encoder under study. Its device and dtype are used.
        images: Tensor [B, 3, H, W] or an iterable of such batches, of one class in one domain. How the images are cut
            into batches changes nothing but rounding.
        metric: Function that takes embeddings [B, D] and returns one number per image, such as `class_logit`.
        rule: Quadrature rule such as ``midpoint_rule(10)``, or its name ``"midpoint-10"``. ``edge_rule`` is given in
            the same way.
        baseline: Where the integration paths end: ``"zero"``, ``"mean-position"``, a `Baseline` such as `mean_baseline`
            makes, or counterfactual images: [1, 3, H, W] for all images, or [B, 3, H, W] with one for each image.
            Default: ``"mean-position"`` if ``others`` are given, otherwise ``"zero"``. If the tower has layer norms,
            give a baseline, because no quadrature rule is accurate on paths to zero there. If zero is used by default
            in such a tower, a warning is logged.
        sites: Sites to score, in the encoder's order (default: all). If the circuit will be run, leave out the sites
            whose units do not count in its size (readouts, and sites that repeat an earlier site), as `extract` does:
            ``sites=counted_sites(encoder)``.
        batch_size: Number of images in a run (default: as many as fit into the memory; a larger number is reduced to
            this one).
        progress: Whether to show progress bars.
        others: Images of other classes. The methods ``iterative-fisher``, ``fisher``, ``contrast`` and ``learned`` use
            them. If there are none, ``gradient`` is used instead of the two Fisher methods, and a warning is logged. If
            the baseline has one activation for each image, the activations for ``images`` come first, followed by the
            activations for ``others``.
        edges: Method that scores edges, such as ``exact-readers`` in heads and neurons; see `AttributionSettings`.
        memory_gib: Memory for activations and gradients, in GiB; weights and scores need memory in addition. Default:
            half of the memory of a GPU, and 1 GiB on any other device.
        class_name, domain: What the images show, and their style. The graph carries these names; comparisons of graphs
            need them.

    Raises:
        InputError: if a setting is out of range, a site is unknown or out of order, there are no images or they have a
            wrong size, the metric returns a wrong shape, the baseline does not fit, or activations, the metric, a
            gradient or scores are not finite.

    Example:
        >>> graph = attribute(encoder, images, metric, others=others)  # ranked by the answers on both
        >>> by_effect = attribute(encoder, images, metric, baseline=others[:1], method="site-path")
        >>> scores = by_effect.node_scores["layer4.0"]  # of each channel, positive where it helps
        >>> gap = by_effect.completeness["layer4.0"].gap  # how far the effects miss the metric's change
    """
    if others is None:
        method = without_others(method, ["these images"])
    settings = AttributionSettings(
        size, budget, as_rule(rule), as_rule(edge_rule), edges, method=method
    )
    if batch_size is not None:
        images = ImageBatches(images, encoder, batch_size)
    work = Work(memory_gib=memory_gib, progress=progress)
    if baseline is None and others is None and has_rescaling_norms(encoder.tower):
        log.warning(
            "This tower has layer norms, so integrals to the baseline zero are not resolved: give a baseline such as "
            "mean_baseline(encoder, reference_images) or counterfactual images, or 'zero' to keep the study's."
        )
    if baseline is None:
        baseline = ZERO if others is None else "mean-position"
    task = Task(
        encoder,
        images,
        metric,
        baseline=baseline,
        others=others,
        sites=sites,
        work=work,
    )
    settings = with_size(settings, encoder)
    with task.running(gradients=True):
        # 1. and 2. Units are scored and ranked, and the strongest units are kept.
        nodes, _ = score_folds(task, settings)
        kept = kept_units(encoder, nodes, settings)
        # 3. Edges are scored only on the images of the class.
        scored = score_edges(
            own_images(task),
            kept,
            method=settings.edges,
            rule=rule_of_edges(encoder, settings),
        )
        graph = _graph(task, settings, nodes, kept, scored.scores)
    return replace(graph, class_name=class_name, domain=domain)


@dataclass(frozen=True, eq=False)
class AttributionFolds:
    """The graph of all images, and the graph of each fold of the images; `attribute_folds` returns them.

    Example:
        >>> settings = circuitry.circuits.AttributionSettings()
        >>> found = circuitry.circuits.attribute_folds(task, settings, np.array([0, 0, 1, 1]))
        >>> found.whole.n_images, found.folds[1].n_images
        (4, 2)
    """

    whole: AttributionGraph  #: The graph of all images.
    folds: dict[int, AttributionGraph]
    """The graph of each fold's images, by the index of the fold."""
    edges: dict[tuple[str, str], np.ndarray]
    """Scores of the edges between the units of the graph of all images, measured on each fold: arrays [folds, kept
    downstream, kept upstream] by pair of sites. `find_consensus` resamples them."""


@checked
def attribute_folds(
    task: Task, settings: AttributionSettings, folds: Int[np.ndarray, " images"]
) -> AttributionFolds:
    """Compute the graph of all images and the graph of each fold of the images, in one pass over the images.

    1. The effect of a unit on all images is the mean of its effects on the folds, weighted by the numbers of images in
       the folds.
    2. In each fold, edges are scored between the units that the graph of this fold or the graph of all images keeps.
    3. The score of an edge on all images is the mean of its scores on the folds, weighted in the same way.

    Args:
        task: A task whose images are a tensor. If it has images of other classes, all of them are used in every fold.
        settings: Share of units, method and rules.
        folds: Index of the fold of each image, see `fold_numbers`.

    Example:
        >>> settings = circuitry.circuits.AttributionSettings()
        >>> by_fold = attribute_folds(task, settings, folds=np.arange(len(images)) % 2)
        >>> list(by_fold.folds)
        [0, 1]
    """
    images = task.images
    encoder = task.encoder
    own = own_images(task)
    settings = with_size(settings, encoder)
    if task.others is None:
        settings = replace(settings, method=without_others(settings.method))
    if not isinstance(images, Tensor) or len(folds) != len(images) or (folds < 0).any():
        given = len(images) if isinstance(images, Tensor) else type(images).__name__
        raise InputError(
            f"Every image is in one fold, but {given} images and {len(folds)} folds were given, the first number "
            f"{min(folds, default=0)}: number the fold of each image from 0."
        )
    check_count(own.baseline, len(images))
    with task.running(gradients=True):
        merged, nodes = score_folds(task, settings, folds)
        whole = kept_units(encoder, merged, settings)
        # 2. In each fold, edges are scored between the kept units of the graph of all images, in their order, followed
        # by the other units that the graph of the fold keeps.
        kept = dict[int, dict[str, np.ndarray]]()
        scored = dict[int, dict[str, np.ndarray]]()
        for fold, effects in nodes.items():
            kept[fold] = kept_units(encoder, effects, settings)
            scored[fold] = {}
            for site, units in whole.items():
                only_of_fold = np.setdiff1d(kept[fold][site], units)
                scored[fold][site] = np.concatenate([units, only_of_fold])
        edges = fold_edges(own, scored, settings, folds)
        # 3. Scores of the edges of the graph of all images: on each fold, and their mean over all images.
        at_whole = [_cut(edges[fold], scored[fold], whole) for fold in nodes]
        counts = [effects.n_images / len(images) for effects in nodes.values()]
        shares = np.array(counts)
        by_pair = dict[tuple[str, str], np.ndarray]()
        of_all = dict[tuple[str, str], np.ndarray]()
        for pair in at_whole[0]:
            by_pair[pair] = np.stack([of_fold[pair] for of_fold in at_whole])
            of_all[pair] = np.tensordot(shares, by_pair[pair], 1)
        graphs = dict[int, AttributionGraph]()
        for fold, effects in nodes.items():
            edges_of_fold = _cut(edges[fold], scored[fold], kept[fold])
            graph = _graph(task, settings, effects, kept[fold], edges_of_fold)
            # A graph stores the digests of the images of its fold, not of all images of the task.
            looked_at = pixels_of(images[torch.from_numpy(folds == fold)], task.others)
            graphs[fold] = replace(graph, provenance=looked_at)
        of_whole = _graph(task, settings, merged, whole, of_all)
        return AttributionFolds(of_whole, graphs, by_pair)


_Kept = Mapping[str, np.ndarray]
"""Units [kept] by site."""


def _cut(
    edges: Mapping[tuple[str, str], np.ndarray], scored: _Kept, kept: _Kept
) -> dict[tuple[str, str], np.ndarray]:
    """Return the scores of the edges between the units in ``kept``, by pair of sites, in the order of these units.

    Args:
        edges: Scores [downstream, upstream] of the edges between the units in ``scored``, by pair of sites.
        scored: Units by site, in the order of the rows and columns of ``edges``.
        kept: Units to choose; all of them are in ``scored``.
    """
    # All kept units are scored, so no place is -1.
    places = dict[str, np.ndarray]()
    for site, units in kept.items():
        places[site] = pd.Index(scored[site]).get_indexer(pd.Index(units))
    blocks = dict[tuple[str, str], np.ndarray]()
    for (up, down), scores in edges.items():
        blocks[up, down] = scores[np.ix_(places[down], places[up])]
    return blocks


def _graph(
    task: Task,
    settings: AttributionSettings,
    nodes: NodeEffects,
    kept: _Kept,
    edges: Mapping[tuple[str, str], np.ndarray],
) -> AttributionGraph:
    made_with = (
        settings.as_dict() | task.identity | edges_made_with(task.encoder, settings)
    )
    return scores_of(task, nodes, made_with).keeping(kept, edges)

"""Attribution: from an encoder, images and a metric to an `AttributionGraph`.

1. a method (`methods`) ranks the units: by default how much they change the answers on images of the class and of
   others; their effects on the metric are scored by conductance (`conductance`);
2. the strongest units are kept, by a budget (`budgets`); in a feature basis these are latents, never error units;
3. `edge_methods`: integrated gradients of each kept unit's movement score the edges between consecutive sites; for
   components (`in_components`) effects on the metric score those between any two sites that the stream joins.

The study ("When and How Does CLIP Enable Domain and Compositional Generalization?", ICML 2025) took the method
``site-path``, the budget ``same-share`` and the rule left-10. Here positive scores help and all scores are means over
images: the study's node scores are minus these, its edge scores these over the number of images.
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
    memory_gib: Positive = 1.0,
    class_name: str | None = None,
    domain: str | None = None,
) -> AttributionGraph:
    """Score the units of an encoder, keep the strongest, and score the edges between them.

    The modes of the caller (``no_grad``, ``inference_mode``, ``autocast``, the default type) change nothing. The share
    of units, its budget, the rules and the methods of units and edges are explained at `AttributionSettings`, which has
    the same defaults.

    Args:
        encoder: The encoder under study; its device and dtype are used.
        images: Tensor [B, 3, H, W] or an iterable of such batches, of one class in one domain. How it is cut
            changes nothing but rounding.
        metric: Embeddings [B, D] -> one number per image, e.g. `class_logit`.
        rule: Such as ``midpoint_rule(10)``, or its name, ``"midpoint-10"``; so is ``edge_rule``.
        baseline: Where the paths end: ``"zero"``, ``"mean-position"``, a `Baseline` such as `mean_baseline` makes, or
            counterfactual images [1, 3, H, W] or [B, 3, H, W], one for all images or one for every image (default: with
            others mean-position, else zero; give another one to a tower with layer norms, whose integrals to zero no
            rule resolves: a line of the log says so).
        sites: Sites to score, in the encoder's order (default: all; a circuit that is to work leaves out those that
            only read out: ``sites=counted_sites(encoder)``, as `extract` does).
        batch_size: Images at a time (default: as many as fit the memory, which also bounds a given number).
        progress: Show progress bars.
        others: Images of other classes, by which ``iterative-fisher``, ``fisher`` and ``learned`` rank, too; without
            them ``gradient`` takes the place of Fisher's methods, with a line of the log. A baseline with an activation
            for every image has theirs, too.
        edges: Method that scores edges, such as ``exact-readers`` in heads and neurons; see `AttributionSettings`.
        memory_gib: Budget for activations and gradients, in GiB; weights and scores come on top.
        class_name, domain: What the images show, and their style: names of the graph, by which graphs are compared.

    Raises:
        InputError: for settings out of range, unknown or unordered sites, images of another size or none, a metric of
            the wrong shape, activations, a metric, a gradient or scores that are not finite, or a baseline that does
            not fit.

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
        # 1. and 2. Units are scored and ranked, and the strongest kept.
        nodes, _ = score_folds(task, settings)
        kept = kept_units(encoder, nodes, settings)
        # 3. Edges are scored on the class's own images alone.
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
    """The graphs that `attribute_folds` returns: of all images, and of each fold of them.

    Example:
        >>> settings = circuitry.circuits.AttributionSettings()
        >>> found = circuitry.circuits.attribute_folds(task, settings, np.array([0, 0, 1, 1]))
        >>> found.whole.n_images, found.folds[1].n_images
        (4, 2)
    """

    whole: AttributionGraph  #: The graph of all images.
    folds: dict[int, AttributionGraph]
    """The graph of each fold's images, by the number of the fold."""
    edges: dict[tuple[str, str], np.ndarray]
    """Scores [folds, kept downstream, kept upstream] by pair of sites, on each fold, of the edges between the units of
    the graph of all images; `find_consensus` resamples them."""


@checked
def attribute_folds(
    task: Task, settings: AttributionSettings, folds: Int[np.ndarray, " images"]
) -> AttributionFolds:
    """Attribute all images and each fold of them, in one pass over the images.

    1. Effects of units on all images are the mean of the folds', weighted by their images.
    2. Edges of a fold are scored between the units that the fold or the whole keeps.
    3. Scores of edges of all images are the mean of the folds', weighted by their images.

    Args:
        task: Its images are a tensor; all images of other classes, if it has some, go with each fold.
        settings: Share of units, method and rules.
        folds: Number of each image's fold, see `fold_numbers`.

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
        # 2. Edges of a fold are scored between the units of the whole, in their order, and then its other units.
        kept = dict[int, dict[str, np.ndarray]]()
        scored = dict[int, dict[str, np.ndarray]]()
        for fold, effects in nodes.items():
            kept[fold] = kept_units(encoder, effects, settings)
            scored[fold] = {}
            for site, units in whole.items():
                only_of_fold = np.setdiff1d(kept[fold][site], units)
                scored[fold][site] = np.concatenate([units, only_of_fold])
        edges = fold_edges(own, scored, settings, folds)
        # 3. Edges between the units of the whole, on each fold, and their mean over all images.
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
            # A graph names the pixels that it was found on: of its fold, not of the whole task.
            looked_at = pixels_of(images[torch.from_numpy(folds == fold)], task.others)
            graphs[fold] = replace(graph, provenance=looked_at)
        of_whole = _graph(task, settings, merged, whole, of_all)
        return AttributionFolds(of_whole, graphs, by_pair)


_Kept = Mapping[str, np.ndarray]
"""Units [k] by site."""


def _cut(
    edges: Mapping[tuple[str, str], np.ndarray], scored: _Kept, kept: _Kept
) -> dict[tuple[str, str], np.ndarray]:
    """Return the scores of the edges between the units in ``kept`` alone, in their order."""
    # All kept units are scored, so that no place is -1.
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

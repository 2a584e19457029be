"""Node scores along a path of the image: the gradient at all sites from one backward pass per point.

Integrated gradients at a site (`nodes`) run the rest of the tower for every site and point. Here the image itself goes
along the straight line to its baseline, x + t (b - x), and every point's one backward pass gives the gradient g_l(t) at
all sites l at once:

    effect_l[unit] = mean over images of  sum over positions of  (a_l - b_l) * sum_k w_k g_l(t_k)

with a_l and b_l the activation of the image and the baseline of the site. With the one point t = 0 this is gradient
times difference, attribution patching (arXiv 2310.10348). Only at `input` is it a path integral of what it multiplies,
so only there do effects sum to the metric's change; at other sites judge it by exact patching.
"""

from collections import defaultdict

import numpy as np

from circuitry.circuits.completeness import Completeness
from circuitry.circuits.nodes import NodeEffects, clean_run, per_unit
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit
from circuitry.runs.given import checked
from circuitry.runs.progress import Bar


@checked
def image_path_effects(task: Task, rule: QuadratureRule) -> NodeEffects:
    """Return every unit's mean effect on the metric at every site, by a path of the image.

    The path leads from the image to the baseline's activation of `input`: zeros after normalisation, the mean image, or
    the counterfactual images.

    Args:
        task: With gradients running.
        rule: Points and weights of the path.

    Returns:
        Effects; completeness of `input` alone, where it is among the sites.
    """
    sites = task.sites
    sums: dict[str, np.ndarray] = defaultdict(lambda: np.zeros(()))
    moved, count = 0.0, 0
    hidden, rows = not task.work.progress, rows_that_fit(task.encoder, task.work.memory_gib)
    n_batches = count_batches(task.images, rows)
    for batch in Bar(task.batches(), "image path", n_batches, unit="batch", disable=hidden, leave=False):
        end = batch.ends({INPUT: batch.images})[INPUT]
        clean, first, values = clean_run(task, batch.images, sites, with_gradient=0.0 in rule.points)
        gradients = {site: a.new_zeros(()) for site, a in clean.items()}
        for t, w in zip(rule.points, rule.weights, strict=True):
            x = batch.images + t * (end - batch.images)
            here = first if t == 0 else clean_run(task, x, sites, with_gradient=True)[1]
            gradients = {site: total + w * here[site] for site, total in gradients.items()}
        if INPUT in sites:
            moved += float(values.sum() - clean_run(task, end, [INPUT], with_gradient=False)[2].sum())
        ends = batch.ends(clean)
        for site in sites:
            units = task.encoder.units_of(site, (clean[site] - ends[site]) * gradients[site])
            sums[site] = sums[site] + per_unit(units, task.encoder.unit_dim(site)).sum(0).cpu().double().numpy()
        count += len(batch.images)
    scores = {site: total / count for site, total in sums.items()}
    complete = {INPUT: Completeness(float(scores[INPUT].sum()), moved / count)} if INPUT in sites else {}
    return NodeEffects(scores, complete, count)

"""Node scores along a path of the image: the gradient at all sites from one backward pass per point.

Integrated gradients at a site (`nodes`) run the rest of the tower for every site and point. Here the image itself goes
along the straight line to its baseline, x + t (b - x), and every point's one backward pass gives the gradient g_l(t) at
all sites l at once:

    effect_l[unit] = mean over images of  sum over positions of  (b_l - a_l) * sum_k w_k g_l(t_k)

with a_l and b_l the activation of the image and the baseline of the site. With the one point t = 0 this is gradient
times difference, attribution patching (arXiv 2310.10348). Only at `input` is it a path integral of what it multiplies,
so only there do effects sum to the metric's change; at other sites judge it by exact patching.
"""

import numpy as np
from tqdm import tqdm

from circuitry.circuits.graph import Completeness
from circuitry.circuits.nodes import NodeEffects, _clean_run, _per_unit
from circuitry.circuits.settings import AttributionSettings
from circuitry.models.baselines import check_count
from circuitry.models.batches import ImageBatches
from circuitry.models.encoder import Encoder, checked_sites
from circuitry.models.metrics import Metric
from circuitry.models.sites import INPUT
from circuitry.runs.errors import InputError


def image_path_effects(
    encoder: Encoder,
    images: ImageBatches,
    metric: Metric,
    settings: AttributionSettings,
    progress: bool = False,
) -> NodeEffects:
    """Return every unit's mean effect on the metric at every site, by a path of the image.

    The image's path ends at the baseline's activation of `input`: black after normalisation (zero), the mean image, or
    the counterfactual images.

    Args:
        encoder: As for the other arguments, see `node_effects`; frozen by the caller.
        settings: Of these, rule, baseline and sites.
        progress: Show a bar over batches.

    Returns:
        Effects; completeness of `input` alone, where it is among the sites.

    Raises:
        InputError: see `node_effects`.
    """
    baseline, rule = settings.resolved_baseline, settings.node_rule
    sites = checked_sites(encoder, settings.sites)
    sums: dict[str, np.ndarray] = {}
    moved, count = 0.0, 0
    for batch in tqdm(images, desc="image path", unit="batch", disable=not progress, leave=False):
        end = baseline.activations(encoder, {INPUT: batch}, count)[INPUT]
        clean, first, value = _clean_run(encoder, batch, metric, sites, with_gradient=0.0 in rule.points)
        gradients = {site: a.new_zeros(()) for site, a in clean.items()}
        for t, w in zip(rule.points, rule.weights, strict=True):
            here = first if t == 0 else _clean_run(encoder, batch + t * (end - batch), metric, sites, True)[1]
            gradients = {site: total + w * here[site] for site, total in gradients.items()}
        if INPUT in sites:
            moved += _clean_run(encoder, end, metric, [INPUT], with_gradient=False)[2] - value
        ends = baseline.activations(encoder, clean, count)
        for site in sites:
            units = encoder.units_of(site, (ends[site] - clean[site]) * gradients[site])
            products = _per_unit(units, encoder.unit_dim(site))
            sums[site] = sums.get(site, np.zeros(())) + products.sum(0).cpu().double().numpy()
        count += len(batch)
    if not count:
        raise InputError("Attribution needs at least one image, but there were none.")
    check_count(baseline, count)
    scores = {site: total / count for site, total in sums.items()}
    complete = {INPUT: Completeness(float(scores[INPUT].sum()), moved / count)} if INPUT in sites else {}
    return NodeEffects(scores, complete, count)

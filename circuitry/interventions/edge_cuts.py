"""Edges cut causally: one downstream unit gets its upstream unit's baseline, the other downstream units do not.

An attributed edge says what moves a unit. Here the edge is taken away and the metric measured:

- one edge between neighbouring sites (`cut_effects`): the stage runs with the upstream unit at its baseline, of its
  output only the downstream unit is taken, the others stay clean, and the rest of the tower runs on;
- any edge alone (`cut_each`), the same by brute force;
- sets of edges (`edge_sets`), which `measure_edges` keeps and leaves out, by the runs of `edge_runs`.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import chain, islice, pairwise
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.circuits.graph import AttributionGraph
from circuitry.interventions.circuit_sets import KeptUnits, mark_kept
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.edge_runs import cut_embeddings
from circuitry.interventions.edge_sets import (
    EdgeSet,
    Pair,
    count_edges,
    random_edges,
    take_other_edges,
    without_each_edge,
)
from circuitry.interventions.faithfulness import AblationSettings, curve_settings, measure_groups
from circuitry.models.baselines import AnyBaseline, as_baseline, check_count
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder, clean_activations
from circuitry.models.metrics import Metric, checked_metric
from circuitry.runs.errors import InputError
from circuitry.runs.given import check_kinds
from circuitry.runs.workers import Work

AT_ONCE = 64
"""Sets of edges that are held at once."""


def cut_effects(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    units: KeptUnits,
    *,
    baseline: AnyBaseline = "zero",
    work: Work = Work(),
) -> dict[tuple[str, str], Float[np.ndarray, "down up"]]:
    """Return the exact effect on the metric of cutting each edge between some units of consecutive sites.

    metric(clean) - metric(edge cut), mean over images: positive where the edge helps, as for `patch_effects`.

    Args:
        encoder: As for images, metric, baseline, work and errors, see `patch_effects`.
        units: Units by site, such as a graph's kept ones; edges between sites that follow each other in the encoder.

    Returns:
        Effects [downstream, upstream] in the order of ``units``, by pair of sites.

    Example:
        >>> effects = cut_effects(encoder, photos, metric, graph.kept_units)
        >>> effects["layer3.0", "layer4.0"]    # beside graph.edge_scores["layer3.0", "layer4.0"]
    """
    sites = sorted(units, key=encoder.position)
    pairs = [(u, d) for u, d in pairwise(sites) if encoder.position(d) == encoder.position(u) + 1]
    if not pairs:
        raise InputError(
            f"Edges run between sites that follow each other, but units of {', '.join(sites) or 'none'} were given; "
            f"the order is {', '.join(encoder.sites)}."
        )
    ends, rows = as_baseline(baseline), rows_that_fit(encoder, work.memory_gib)
    sums: dict[tuple[str, str], Any] = dict.fromkeys(pairs, 0.0)
    count = 0
    bar = tqdm(desc="edges", unit="pair of sites", disable=not work.progress)
    with encoder.frozen(), torch.no_grad(), bar:
        for batch in ImageBatches(images, encoder, rows):
            clean = clean_activations(encoder, batch, sites)
            values = ends.activations(encoder, clean, count)
            count += len(batch)
            for up, down in pairs:
                downs = _indices(units[down], clean[down].shape[encoder.unit_dim(down)], down)
                ups = _indices(units[up], clean[up].shape[encoder.unit_dim(up)], up)
                found = np.zeros((len(downs), len(ups)))
                for column, u in enumerate(ups if downs else ()):
                    x = clean[up].clone()
                    _at(x, encoder.unit_dim(up), u).copy_(_at(values[up], encoder.unit_dim(up), u))
                    moved = encoder(x, start=up, stop=down)
                    found[:, column] = _one_by_one(encoder, metric, clean[down], moved, down, downs, rows)
                sums[up, down] = found + sums[up, down]
                bar.update()
    if not count:
        raise InputError("Cutting edges needs at least one image, but there were none.")
    check_count(ends, count)
    return {pair: total / count for pair, total in sums.items()}


def cut_each(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    edges: EdgeSet,
    *,
    baseline: AnyBaseline = "zero",
    work: Work = Work(),
) -> dict[Pair, Float[np.ndarray, "_ _"]]:
    """Return the exact effect on the metric of cutting each of some edges, of a chain or across sites.

    The numbers are those of `cut_effects`; every edge takes a run of its own, from the first site of all on.

    Args:
        encoder: As for images, metric, baseline, work and errors, see `cut_embeddings`.
        edges: Those to be cut in turn, while all others are kept.

    Returns:
        metric(clean) - metric(edge cut), mean over images [down, up], by pair of sites; NaN for other edges.

    Example:
        >>> exact = cut_each(stream.components, photos, metric, edges_among(graph))    # brute force
    """
    check_kinds(encoder=(encoder, Encoder), edges=(edges, Mapping))
    held = images if isinstance(images, Tensor) else list(images)
    whole = {pair: np.ones_like(mask) for pair, mask in edges.items()}
    cuts = chain([whole], without_each_edge(whole, edges))
    values = list[float]()
    while some := list(islice(cuts, AT_ONCE)):
        found = cut_embeddings(encoder, held, some, baseline=baseline, work=work)
        values += [float(checked_metric(metric, one).double().mean()) for one in found]
    effects, place = {}, 1
    for pair, mask in edges.items():
        n = int(mask.sum())
        effects[pair] = np.full(mask.shape, np.nan)
        effects[pair][mask] = values[0] - np.array(values[place : place + n])
        place += n
    return effects


def measure_edges(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    graph: AttributionGraph,
    edge_sets: Sequence[EdgeSet],
    settings: AblationSettings = AblationSettings(),
    *,
    others: Images | None = None,
    work: Work = Work(),
) -> FaithfulnessCurve:
    """Measure the metric with only the edges of each set, with all edges but those, and with random edges.

    Args:
        encoder: As for images, metric, others, work and errors, see `faithfulness_curve`; see `cut_embeddings`.
        graph: What has the units and the class.
        edge_sets: Edges of this graph, the smallest set first; see `take_edges`, `strongest_edge_sets`.
        settings: Of these, baseline, random draws and seed.

    Returns:
        A curve whose units are edges: fractions are shares of all edges. Random edges are those of `random_edges`.

    Example:
        >>> sets = strongest_edge_sets(graph, [0.05, 0.1, 0.2])
        >>> measure_edges(encoder, unseen, metric, graph, sets, AblationSettings(mean)).table()
    """
    check_kinds(encoder=(encoder, Encoder), graph=(graph, AttributionGraph), settings=(settings, AblationSettings))
    if not edge_sets:
        raise InputError("Edges are measured of at least one set, but none was given: see take_edges.")
    rng = np.random.default_rng(settings.seed)
    whole = {pair: np.ones_like(mask) for pair, mask in edge_sets[0].items()}
    groups = {
        "full": [whole],
        "empty": [take_other_edges(whole)],
        "kept": edge_sets,
        "complement": [take_other_edges(edges) for edges in edge_sets],
        "random": [random_edges(graph, edges, rng) for _ in range(settings.random_draws) for edges in edge_sets],
    }
    arrays = measure_groups(partial(cut_embeddings, encoder, work=work), groups, metric, images, others, settings)
    n_edges = tuple(count_edges(edges) for edges in edge_sets)
    return FaithfulnessCurve(
        fractions=tuple(n / count_edges(whole) for n in n_edges),
        ranking="edges",
        n_units=n_edges,
        **arrays,
        class_name=graph.class_name,
        domain=graph.domain,
        settings=curve_settings(settings, graph.inner_sites),
    )


def _one_by_one(
    encoder: Encoder, metric: Metric, clean: Tensor, moved: Tensor, site: str, units: Sequence[int], rows: int
) -> Float[np.ndarray, " units"]:
    """Return clean metric - metric, summed over images, with each unit in turn taken from ``moved``."""
    dim = encoder.unit_dim(site)
    reference = checked_metric(metric, encoder(clean, start=site)).double()
    found = []
    for chunk in torch.split(torch.tensor(units), max(1, rows // len(clean))):
        stack = clean.repeat(len(chunk), *[1] * (clean.dim() - 1))
        for part, unit in zip(stack.chunk(len(chunk)), chunk.tolist(), strict=True):
            _at(part, dim, unit).copy_(_at(moved, dim, unit))
        values = checked_metric(metric, encoder(stack, start=site)).double()
        found.append((reference - rearrange(values, "(unit image) -> unit image", unit=len(chunk))).sum(1))
    return torch.cat(found).cpu().numpy()


def _indices(chosen: Any, size: int, site: str) -> list[int]:
    """Return units in the order given, those of a mask ascending."""
    mask = mark_kept(chosen, size, site)
    given = np.asarray(chosen).reshape(-1)
    return np.flatnonzero(mask).tolist() if given.dtype == bool else given.astype(int).tolist()


def _at(x: Tensor, dim: int, unit: int) -> Tensor:
    return x.select(dim, unit)

"""Edges cut causally: one downstream unit gets its upstream unit's baseline, the other downstream units do not.

An attributed edge says what moves a unit. Here the edge is taken away and the metric measured:

- one edge (`cut_effects`): the stage runs with the upstream unit at its baseline, of its output only the downstream
  unit is taken, the others stay clean, and the rest of the tower runs on;
- a set of edges (`cut_embeddings`): stage by stage every downstream unit is what the stage makes of an input in which
  its cut upstream units are at the baseline and the others are what this run made of them. Units with the same kept
  edges share a run of the stage.

With no edge cut this is the clean run; with all cut, the last stage's output for the baseline. A unit none of whose
outgoing edges is kept plays no part. (Path patching, Goldowsky-Dill et al. 2023, arXiv 2304.05969; edges as in ACDC,
Conmy et al. 2023, arXiv 2304.14997.)
"""

from collections.abc import Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Bool, Float
from torch import Tensor
from tqdm import tqdm

from circuitry.circuits.graph import AttributionGraph, Circuit
from circuitry.interventions.circuit_sets import KeptUnits, mark_kept
from circuitry.interventions.curves import FaithfulnessCurve
from circuitry.interventions.faithfulness import AblationSettings, curve_settings, measure_groups
from circuitry.models.baselines import AnyBaseline, as_baseline, check_count
from circuitry.models.batches import ImageBatches, Images, rows_that_fit
from circuitry.models.encoder import Encoder, clean_activations
from circuitry.models.metrics import Metric, checked_metric
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work

EdgeSet = Mapping[tuple[str, str], Bool[np.ndarray, "down up"]]
"""Which edges are kept, by (upstream, downstream) pair of consecutive sites; of a pair that is not there, all."""


def take_edges(circuit: Circuit, *, keep_error: bool = False) -> dict[tuple[str, str], np.ndarray]:
    """Return a circuit's edges as an `EdgeSet`; with ``keep_error`` all edges of error units are kept, too."""
    source, kept = circuit.source, no_edges(circuit.source)
    for tail, head in circuit.graph.edges:
        (up, u), (down, d) = ((node["site"], node["unit"]) for node in (circuit.graph.nodes[n] for n in (tail, head)))
        kept[up, down][d, u] = True
    if keep_error:
        for (up, down), mask in kept.items():
            mask[:, len(source.node_scores[up]) :] = True
            mask[len(source.node_scores[down]) :] = True
    return kept


def no_edges(graph: AttributionGraph) -> dict[tuple[str, str], np.ndarray]:
    """Return the empty set of edges between the consecutive sites of a graph.

    Raises:
        InputError: for a graph with edges between other sites.
    """
    if far := set(graph.edge_scores) - set(pairwise(graph.inner_sites)):
        up, down = min(far, key=lambda pair: (graph.sites.index(pair[0]), graph.sites.index(pair[1])))
        raise InputError(
            f"Edges are cut between neighbouring sites, but this graph has some from {up} to {down}: cut edges of "
            "heads and neurons through the residual stream (edge_curve, ResidualStream.run)."
        )
    return {
        (up, down): np.zeros((graph.n_units(down), graph.n_units(up)), dtype=bool)
        for up, down in pairwise(graph.inner_sites)
    }


def cut_embeddings(
    encoder: Encoder,
    images: Images,
    edge_sets: Sequence[EdgeSet],
    *,
    baseline: AnyBaseline = "zero",
    work: Work = Work(),
) -> Float[Tensor, "sets images d"]:
    """Return the embeddings of the images with only the edges of each set, all others cut.

    Args:
        encoder: The encoder under study.
        images: A tensor [B, 3, H, W] or an iterable of such batches.
        edge_sets: Kept edges; see `take_edges`.
        baseline: What a cut edge carries; see `circuitry.models.baselines`.
        work: Memory and progress.

    Raises:
        InputError: for no images, sets of other pairs of sites or other sizes, or a baseline that does not fit.

    Example:
        >>> alone = cut_embeddings(encoder, photos, [take_edges(graph.circuit(3))])[0]
    """
    ends, rows = as_baseline(baseline), rows_that_fit(encoder, work.memory_gib)
    chains = [_chain(encoder, edges) for edges in edge_sets]
    sites = sorted({site for chain in chains for site in chain}, key=encoder.position)
    found, done = list[Tensor](), 0
    bar = tqdm(desc="edge sets", unit="run", disable=not work.progress)
    with encoder.frozen(), torch.no_grad(), bar:
        for batch in ImageBatches(images, encoder, rows):
            clean = clean_activations(encoder, batch, sites)
            values = ends.activations(encoder, clean, done)
            done += len(batch)
            parts = []
            for edges, chain in zip(edge_sets, chains, strict=True):
                x = clean[chain[0]]
                for up, down in pairwise(chain):
                    x = _cut_stage(encoder, x, values[up], edges[up, down], (up, down), rows)
                parts.append(encoder(x, start=chain[-1]))
                bar.update()
            found.append(torch.stack(parts))
    if not done:
        raise InputError("Cutting edges needs at least one image and one set of edges, but there were none.")
    check_count(ends, done)
    return torch.cat(found, 1)


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

    metric(edge cut) - metric(clean), mean over images: negative where the edge helps, as for `patch_effects`.

    Args:
        encoder: As for images, metric, baseline, work and errors, see `patch_effects`.
        units: Units by site, such as a graph's kept ones; edges between sites that follow each other in the encoder.

    Returns:
        Effects [downstream, upstream] in the order of ``units``, by pair of sites.

    Example:
        >>> effects = cut_effects(encoder, photos, metric, graph.kept_units)
        >>> effects["layer3.0", "layer4.0"]    # beside graph.edge_scores["layer3.0", "layer4.0"]
    """
    chain = sorted(units, key=encoder.position)
    pairs = [(u, d) for u, d in pairwise(chain) if encoder.position(d) == encoder.position(u) + 1]
    if not pairs:
        raise InputError(
            f"Edges run between sites that follow each other, but units of {', '.join(chain) or 'none'} were given; "
            f"the order is {', '.join(encoder.sites)}."
        )
    ends, rows = as_baseline(baseline), rows_that_fit(encoder, work.memory_gib)
    sums: dict[tuple[str, str], Any] = dict.fromkeys(pairs, 0.0)
    count = 0
    bar = tqdm(desc="edges", unit="pair of sites", disable=not work.progress)
    with encoder.frozen(), torch.no_grad(), bar:
        for batch in ImageBatches(images, encoder, rows):
            clean = clean_activations(encoder, batch, chain)
            values = ends.activations(encoder, clean, count)
            count += len(batch)
            for up, down in pairs:
                downs = _indices(units[down], clean[down].shape[encoder.unit_dim(down)], down)
                columns = []
                for u in _indices(units[up], clean[up].shape[encoder.unit_dim(up)], up):
                    x = clean[up].clone()
                    _at(x, encoder.unit_dim(up), u).copy_(_at(values[up], encoder.unit_dim(up), u))
                    moved = encoder(x, start=up, stop=down)
                    columns.append(_one_by_one(encoder, metric, clean[down], moved, down, downs, rows))
                sums[up, down] = np.stack(columns, 1) + sums[up, down]
                bar.update()
    if not count:
        raise InputError("Cutting edges needs at least one image, but there were none.")
    check_count(ends, count)
    return {pair: total / count for pair, total in sums.items()}


def measure_edges(
    encoder: Encoder,
    images: Images,
    metric: Metric,
    circuits: Sequence[Circuit],
    settings: AblationSettings = AblationSettings(),
    *,
    others: Images | None = None,
    work: Work = Work(),
) -> FaithfulnessCurve:
    """Measure the metric with only the edges of each circuit, with all edges but those, and with random edges.

    Args:
        encoder: As for images, metric, others, work and errors, see `faithfulness_curve`.
        circuits: Of one graph, the one with the fewest edges first.
        settings: Of these, baseline, random draws, seed and whether edges of error units are kept.

    Returns:
        A curve whose units are edges: fractions are shares of all edges. Random edges are as many between the same
        sites, among the kept units.
    """
    if not circuits or len({id(circuit.source) for circuit in circuits}) > 1:
        raise InputError("Edges are measured of at least one circuit, all of one graph: take graph.circuit(1), ...")
    source, rng = circuits[0].source, np.random.default_rng(settings.seed)
    kept = [take_edges(circuit, keep_error=settings.keep_error) for circuit in circuits]
    whole = {pair: np.ones_like(mask) for pair, mask in kept[0].items()}
    groups = {
        "full": [whole],
        "empty": [no_edges(source)],
        "kept": kept,
        "complement": [{pair: ~mask for pair, mask in edges.items()} for edges in kept],
        "random": [_random_edges(source, edges, rng) for _ in range(settings.random_draws) for edges in kept],
    }
    arrays = measure_groups(partial(cut_embeddings, encoder, work=work), groups, metric, images, others, settings)
    n_edges = tuple(sum(int(mask.sum()) for mask in edges.values()) for edges in kept)
    total = sum(mask.size for mask in whole.values())
    return FaithfulnessCurve(
        fractions=tuple(n / total for n in n_edges),
        ranking="edges",
        n_units=n_edges,
        **arrays,
        class_name=source.class_name,
        domain=source.domain,
        settings=curve_settings(settings, source.inner_sites),
    )


def _random_edges(
    graph: AttributionGraph, edges: EdgeSet, rng: np.random.Generator
) -> dict[tuple[str, str], np.ndarray]:
    """Return as many edges between the same sites, drawn among those between kept units."""
    found = no_edges(graph)
    for (up, down), mask in edges.items():
        heads, tails = np.meshgrid(graph.kept_units[down], graph.kept_units[up], indexing="ij")
        chosen = rng.permutation(heads.size)[: int(mask.sum())]
        found[up, down][heads.reshape(-1)[chosen], tails.reshape(-1)[chosen]] = True
    return found


def _one_by_one(
    encoder: Encoder, metric: Metric, clean: Tensor, moved: Tensor, site: str, units: Sequence[int], rows: int
) -> Float[np.ndarray, " units"]:
    """Return metric - clean metric, summed over images, with each unit in turn taken from ``moved``."""
    dim = encoder.unit_dim(site)
    reference = checked_metric(metric, encoder(clean, start=site)).double()
    found = []
    for chunk in torch.split(torch.tensor(units), max(1, rows // len(clean))):
        stack = clean.repeat(len(chunk), *[1] * (clean.dim() - 1))
        for part, unit in zip(stack.chunk(len(chunk)), chunk.tolist(), strict=True):
            _at(part, dim, unit).copy_(_at(moved, dim, unit))
        values = checked_metric(metric, encoder(stack, start=site)).double()
        found.append((rearrange(values, "(unit image) -> unit image", unit=len(chunk)) - reference).sum(1))
    return torch.cat(found).cpu().numpy()


def _cut_stage(encoder: Encoder, x: Tensor, end: Tensor, kept: np.ndarray, pair: tuple[str, str], rows: int) -> Tensor:
    """Return the activation downstream of ``x`` with only the kept edges [down, up]."""
    (up, down), dim = pair, encoder.unit_dim(pair[0])
    if kept.shape[1] != x.shape[dim]:
        raise InputError(
            f"A mask of edges is [units downstream, units upstream], but that of {up}->{down} is {list(kept.shape)} "
            f"and {up!r} has {x.shape[dim]} units: take edges of a circuit of this encoder."
        )
    if kept.all():
        whole: Tensor = encoder(x, start=up, stop=down)
        return whole
    patterns, inverse = np.unique(kept, axis=0, return_inverse=True)
    which, out = torch.from_numpy(inverse.reshape(-1)).to(x.device), x.new_empty(0)
    shape = [1] * (x.dim() + 1)
    shape[0], shape[dim % x.dim() + 1] = -1, x.shape[dim]
    for first in range(0, len(patterns), step := max(1, rows // len(x))):
        masks = torch.from_numpy(patterns[first : first + step]).to(x.device)
        stack = torch.where(masks.reshape([len(masks), *shape[1:]]), x, end).flatten(0, 1)
        y = rearrange(encoder(stack, start=up, stop=down), "(set image) ... -> set image ...", set=len(masks))
        down_dim = encoder.unit_dim(down) % (y.dim() - 1)
        out = out if len(out) else torch.empty_like(y[0])
        for i, part in enumerate(y):
            units = (which == first + i).nonzero()[:, 0]
            out.index_copy_(down_dim, units, part.index_select(down_dim, units))
    return out


def _chain(encoder: Encoder, edges: EdgeSet) -> list[str]:
    """Return the sites that a set's edges run along, checked to follow each other."""
    chain = sorted({site for pair in edges for site in pair}, key=encoder.position)
    places = [encoder.position(site) for site in chain]
    if not chain or set(pairwise(chain)) != set(edges) or places != list(range(places[0], places[-1] + 1)):
        raise InputError(
            "A set of edges has one mask [down, up] for every pair of consecutive sites from a first to a last, but "
            f"{', '.join(f'{up}->{down}' for up, down in edges) or 'none'} was given; the encoder's order is "
            f"{', '.join(encoder.sites)}."
        )
    return chain


def _indices(chosen: Any, size: int, site: str) -> list[int]:
    """Return units in the order given, those of a mask ascending."""
    mask = mark_kept(chosen, size, site)
    given = np.asarray(chosen).reshape(-1)
    return np.flatnonzero(mask).tolist() if given.dtype == bool else given.astype(int).tolist()


def _at(x: Tensor, dim: int, unit: int) -> Tensor:
    return x.select(dim, unit)

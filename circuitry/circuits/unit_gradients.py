"""Edges between some heads and neurons of a transformer, scored to first order without gradients of the whole stream.

The scores are those of `stream_edges.attributed` for the same units. There, each reader has a gradient with respect to
the whole stream. Here, both ends of an edge are divided into atoms: a neuron is one atom, and a head has an atom for
each of its dimensions (as a reader: for each dimension of its query, its key and its value). A writing atom adds a
number for each position times a vector w to the stream. A reading atom is a vector r times the normed stream.

Let d be the change of the writer's number to its baseline, and g the gradient of the metric with respect to what the
reader reads. Let s be the scale of the norm at the stream x that the reader reads, and n the width of the stream. The
derivative of the norm, with r already multiplied with the weights of the norm and centred as the norm centres x, gives

    score = - sum over positions of  g d s (r.w - (r.h)(w.h) / n)     with h = s times the centred x.

So r.w is computed once, and for each position there are only products of numbers.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor, nn

from circuitry.bases.residual import PORTS, Layer, ResidualStream
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.circuits.stream_edges import attributed, unit_edges
from circuitry.circuits.stream_gradients import (
    Activations,
    Tap,
    into_readers,
    neuron_places,
    neuron_rows,
    passed_back,
    tapped_points,
    tapped_run,
)
from circuitry.encoder.narrowing import in_order
from circuitry.encoder.norms import NORMS, centred, normed_with, scale_of
from circuitry.encoder.site_activations import check_finite
from circuitry.encoder.sites import INPUT
from circuitry.encoder.task import Batch, Task
from circuitry.encoder.tensor_batches import count_batches, rows_that_fit
from circuitry.gates.edges import Pair
from circuitry.runs.errors import InputError


class Atoms(NamedTuple):
    """Some units, with the direction along which each unit reads the stream or adds to it."""

    values: Float[Tensor, "atoms positions"]
    """What changes from position to position, over all images of a batch."""
    directions: Float[Tensor, "atoms d_model"]
    """Weights of the atoms."""
    n_units: int
    """Number of the units, which have equally many atoms. The atoms of a unit follow one another."""


def unit_gradients(
    task: Task,
    kept_units: Mapping[str, Int[np.ndarray, " kept"]],
    rule: QuadratureRule,
) -> dict[Pair, np.ndarray]:
    """Return the scores [kept downstream, kept upstream] of edges between units, by pair of sites.

    If a norm of the tower is of an unknown kind, or the map from the stream to its neurons is not affine, the scores
    are computed by `unit_edges` instead.

    Args:
        task: A task of heads and neurons, within ``task.running(gradients=True)``.
        kept_units: Indices of the kept units by site.
        rule: Points of the path from the clean stream before the first block to its baseline.
    """
    kept = {site: kept_units[site] for site in task.sites if site != INPUT}
    stream = ResidualStream.of(task.encoder, kept)
    layers = [layer for layer in stream.layers if layer.site in kept]
    if not all(map(_reads_through_known_norm, layers)):
        return unit_edges(attributed, task, kept_units, rule)
    units = dict[str, Tensor]()
    # The kept units of all earlier sites are the columns.
    into = dict[str, Tensor]()
    columns = dict[str, slice]()
    n_earlier = 0
    for site, of_site in kept.items():
        units[site] = torch.from_numpy(of_site).to(task.encoder.device)
        into[site] = torch.zeros(len(of_site), n_earlier, dtype=torch.float64)
        columns[site] = slice(n_earlier, n_earlier + len(of_site))
        n_earlier += len(of_site)
    n_images = 0
    rows = rows_that_fit(
        stream.components, task.work.memory_gib, beside=_bytes_beside(stream)
    )
    with task.bar("edges", "batch", count_batches(task.images, rows)) as bar:
        for batch in task.batches(rows):
            for site, effects in _batch_effects(stream, batch, units, rule).items():
                # The changes lead to the baseline, so what they add to the metric is minus the effect of the edge.
                into[site] -= effects.cpu().double()
                if not bool(into[site].isfinite().all()):
                    raise InputError(
                        f"Scores of edges into {site!r} are NaN or infinite, although the metric is finite: look at "
                        "its derivative on the path to the baseline, or give an encoder of higher precision."
                    )
            n_images += len(batch.images)
            bar.update()
    blocks = dict[Pair, np.ndarray]()
    for up, down in combinations(kept, 2):
        blocks[up, down] = (into[down][:, columns[up]] / n_images).numpy()
    return blocks


def _bytes_beside(stream: ResidualStream) -> int:
    """Return how many bytes the scores need for each image beside a run with gradients."""
    encoder = stream.components
    points = tapped_points(stream)
    with torch.no_grad():
        _, seen = encoder.run_with_cache(
            encoder.blank(), names_filter=[*points, *stream.sites]
        )
    # Values and gradients of taps; of each site the clean activation, its gradient, the baseline and the change.
    n_values = 2 * sum(seen[point].numel() for point in points)
    n_values += 4 * sum(seen[site].numel() for site in stream.sites)
    # Streams, one for each unit: what the widest layer adds, and gradients of the embedding, copied on the way back.
    n_units = [len(layer.components) for layer in stream.layers]
    n_streams = max(n_units) + 4 * n_units[-1]
    start = seen[stream.sites[0]]
    return (n_values + n_streams * start.numel()) * start.element_size()


def _norm_before(layer: Layer) -> Any:
    """Return the norm between the stream and what a layer computes from it; None if it is not of a known kind."""
    assert layer.block is not None
    step = layer.block.norm_attention if layer.of_heads else layer.block.norm_mlp
    norms = [f for f in in_order(step).functions if not isinstance(f, nn.Identity)]
    return norms[0] if len(norms) == 1 and isinstance(norms[0], NORMS) else None


def _reads_through_known_norm(layer: Layer) -> bool:
    if layer.block is None:
        return True
    return layer.block.affine and _norm_before(layer) is not None


def _batch_effects(
    stream: ResidualStream,
    batch: Batch,
    units: Mapping[str, Tensor],
    rule: QuadratureRule,
) -> dict[str, Float[Tensor, "readers writers"]]:
    """Return the first-order effects of the changes to the baseline on the metric, summed over the images of a batch.

    Args:
        stream: The stream; the kept neurons are components of their own.
        batch: The batch.
        units: Indices of the kept units by site.
        rule: Points of the path.

    Returns:
        For each site but the first, the effects of all kept units of earlier sites, in the order of the sites.
    """
    metric = batch.task.metric
    at_clean = dict[str, Tap]()
    with torch.no_grad():
        start = stream.components(batch.images, stop=stream.sites[0])
    # The run that gives the gradients gives the clean activations, too, unless a hook at its first site would act on
    # what is hooked already.
    hooked = stream.components.hooked_sites
    if 0.0 in rule.points and stream.sites[0] not in hooked:
        at_clean = tapped_run(stream, metric, start, sites=stream.sites[1:])
        clean = {site: at_clean[site].value for site in stream.sites[1:]}
        clean = {stream.sites[0]: start} | clean
        check_finite(clean)
    else:
        clean = batch.clean(stream.sites)
    other = batch.ends(clean)
    step = {site: other[site] - clean[site] for site in stream.sites}
    # A site may keep no unit, for example with a global budget.
    layers = [layer for layer in stream.layers if len(units.get(layer.site, ()))]
    effects = dict[str, Tensor]()
    for t, weight in zip(rule.points, rule.weights, strict=True):
        taps = at_clean
        if t != 0.0 or not at_clean:
            moved = start + t * (other[stream.sites[0]] - start)
            taps = tapped_run(stream, metric, moved)
        writers = list[Atoms]()
        for layer in layers:
            if writers:
                found = _into_layer(stream, layer, units, taps, step, writers)
                effects[layer.site] = effects.get(layer.site, 0) + weight * found
            if layer.site in step:
                writers.append(_writing_atoms(stream, layer, units[layer.site], step))
        taps.clear()  # gone before the next run
    return effects


def _into_layer(
    stream: ResidualStream,
    layer: Layer,
    units: Mapping[str, Tensor],
    taps: Mapping[str, Tap],
    step: Activations,
    writers: Sequence[Atoms],
) -> Float[Tensor, "readers writers"]:
    """Return the effects of the changes that the kept units of a layer read, for all kept units of earlier layers.

    Args:
        stream: The stream.
        layer: The layer.
        units: Indices of the kept units by site.
        taps: Taps of a run.
        step: Changes from the clean activations to the baseline, by site.
        writers: Atoms of each earlier layer with kept units.
    """
    if layer.block is not None:
        readers = _reading_atoms(stream, layer, units[layer.site], taps)
        return _products(readers, writers, _norm_before(layer), taps[layer.reads].value)
    # The embedding is no norm and a matrix, but any last stage. So its units have gradients of the whole stream.
    gradients = into_readers(stream, layer, taps)[:-1].flatten(1)
    columns = list[Tensor]()
    for earlier in stream.layers[:-1]:
        if len(units.get(earlier.site, ())):
            change = stream.written_by(earlier, step)
            if earlier.of_heads:
                change = change[units[earlier.site]]
            columns.append(gradients @ change[: len(units[earlier.site])].flatten(1).T)
    return torch.cat(columns, 1)


def _writing_atoms(
    stream: ResidualStream, layer: Layer, units: Tensor, step: Activations
) -> Atoms:
    """Return the atoms by which some units of a layer add to the stream. Their values are the changes in ``step``."""
    x = stream.components.units_of(layer.site, step[layer.site]).index_select(2, units)
    if layer.of_heads:
        values = rearrange(x, "b p unit d -> (unit d) (b p)")
        directions = stream.write_weights_of(layer.index)[units].flatten(0, 1)
    else:
        values = rearrange(x, "b p unit -> unit (b p)")
        if layer.block is None:
            width = step[layer.site].shape[-1]
            directions = F.one_hot(units, width).to(x)
        else:
            directions = stream.apart_weights(layer)
    return Atoms(values, directions, len(units))


def _reading_atoms(
    stream: ResidualStream, layer: Layer, units: Tensor, taps: Mapping[str, Tap]
) -> Atoms:
    """Return the atoms by which some units of a layer read the stream. Their values are gradients of the metric."""
    if layer.of_heads:
        of_ports = [taps[f"{layer.name}.hook_{port}"].gradient for port in PORTS]
        by_head = torch.stack(of_ports).index_select(3, units)
        values = rearrange(by_head, "port b p unit d -> (unit port d) (b p)")
        weights, _ = stream.read_weights_of(layer.index)
        directions = rearrange(weights[:, units], "port unit d m -> (unit port d) m")
    else:
        by_neuron = taps[f"{layer.name}.hook_pre"].gradient
        places = neuron_places(layer, by_neuron).T.flatten()
        values = rearrange(by_neuron[..., places], "b p atom -> atom (b p)")
        directions = neuron_rows(layer, places, by_neuron).flatten(0, 1)
    return Atoms(values, directions, len(units))


def _products(
    readers: Atoms, writers: Sequence[Atoms], norm: Any, x: Tensor
) -> Float[Tensor, "readers writers"]:
    """Return the effects of the changes of writers through readers; see the formula at the top of this file.

    Args:
        readers: Atoms of the units that read.
        writers: Atoms of the units that add to the stream, by layer.
        norm: The norm through which the readers read the stream.
        x: The stream [batch, position, d_model] that they read.
    """
    scale = scale_of(norm, x.flatten(0, 1))
    hidden = centred(norm, x.flatten(0, 1)) * scale
    one = torch.ones_like(scale[0])
    nothing = torch.zeros_like(hidden[0])
    # Passed back through the norm at a scale of 1: multiplied with its weights, and centred.
    read = passed_back(lambda v: normed_with(norm, v, one), nothing, readers.directions)
    values = readers.values * scale[:, 0]
    across = values * (read @ hidden.T) / len(nothing)
    columns = list[Tensor]()
    for of_layer in writers:
        by_atom = read @ of_layer.directions.T
        by_atom *= values @ of_layer.values.T
        written = of_layer.values * (of_layer.directions @ hidden.T)
        by_atom -= across @ written.T
        columns.append(_by_unit(_by_unit(by_atom, readers.n_units).T, of_layer.n_units))
    return torch.cat(columns).T


def _by_unit(
    by_atom: Float[Tensor, "atoms n"], n_units: int
) -> Float[Tensor, "units n"]:
    """Return the sums over the atoms of each unit."""
    return torch.unflatten(by_atom, 0, (n_units, -1)).sum(1)

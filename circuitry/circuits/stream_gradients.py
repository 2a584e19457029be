"""Gradients of a metric with respect to the residual stream of a transformer, where heads and neurons read it.

One forward and backward pass gives the gradients with respect to q, k and v, to the pre-activations of the neurons, and
to the last residual stream. They are then passed back through the weights and the norm of each reader (a query, key or
value of a head, a neuron or the embedding). This gives the gradient with respect to the copy of the stream that this
reader reads. All readers of a layer are computed at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float, Int
from torch import Tensor

from circuitry.bases.residual import PORTS, Layer, ResidualStream
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.encoder.metrics import Metric, checked_metric
from circuitry.encoder.tensor_batches import rows_that_fit

Activations = Mapping[str, Tensor]
"""Activations by site of the stream."""


class Tap(NamedTuple):
    """An activation of a run, and the gradient of the metric with respect to it."""

    value: Tensor
    """The activation."""
    gradient: Tensor
    """Gradient of the metric's sum over images, with the shape of the activation."""


class StreamGradients(NamedTuple):
    """Gradients of a metric, as weighted means over the points of a path."""

    readers: Float[Tensor, "readers batch position d_model"]
    """Gradients with respect to the copy of the stream that each reader reads."""
    points: Mapping[str, Tensor]
    """Gradients with respect to the activations at some hook points, by the name of the hook point."""


Gradients = Callable[
    [ResidualStream, Metric, Activations, Activations, QuadratureRule, Sequence[str]],
    StreamGradients,
]
"""Takes a stream, a metric, the clean activations, the activations at the baseline, a rule and hook points. Returns the
gradients; see `reader_gradients`."""


def images_at_once(
    stream: ResidualStream,
    n_gradients: int,
    memory_gib: float | None,
    n_patterns: int = 0,
) -> int:
    """Return the number of images that fit into the memory.

    The memory also holds a run with gradients, and the copies that are made when gradients pass the norm of a block.

    Args:
        stream: The stream.
        n_gradients: Number of gradients with respect to the stream that are in memory at the same time.
        memory_gib: The memory in GiB.
        n_patterns: Number of attention patterns that are in memory at the same time.
    """
    encoder = stream.encoder
    with torch.no_grad():
        here = encoder(encoder.blank(), stop=stream.sites[0])
    # Passing gradients back through a block's norm, or through all of its neurons, takes about four copies per reader.
    n_readers = [
        layer.readers.stop - layer.readers.start for layer in stream.layers[1:-1]
    ]
    # Between the first layer and the embedding, each block has two layers: heads, then neurons.
    n_of_blocks = np.add(n_readers[::2], n_readers[1::2])
    widest = 4 * int(n_of_blocks.max())
    n_values = (n_gradients + widest) * here.numel() + n_patterns * here.shape[1] ** 2
    beside = n_values * here.element_size()
    return rows_that_fit(stream.components, memory_gib, beside=beside)


def reader_gradients(
    stream: ResidualStream,
    metric: Metric,
    clean: Activations,
    other: Activations,
    rule: QuadratureRule,
    points: Sequence[str],
) -> StreamGradients:
    """Return gradients of the metric with respect to the copy of the stream that each reader reads.

    A reader is the query, key or value of a head, an MLP, a neuron or the embedding. The gradients are integrated along
    the straight line from the clean stream before the blocks to the stream of the baseline.

    Args:
        stream: The stream.
        metric: The metric of the embedding.
        clean, other: Activations of the clean run and at the baseline.
        rule: Points and weights of the integral.
        points: Hook points of each block, such as ``attn.hook_pattern``, with respect to which gradients are returned,
            too.
    """
    a = clean[stream.sites[0]]
    b = other[stream.sites[0]]
    total = a.new_zeros(len(stream.readers), *a.shape)
    at = dict[str, Tensor]()
    for index, point in product(range(len(stream.blocks)), points):
        at[f"blocks.{index}.{point}"] = a.new_zeros(())
    for t, weight in zip(rule.points, rule.weights, strict=True):
        taps = tapped_run(stream, metric, a + t * (b - a), points)
        for layer in stream.layers[1:]:
            total[layer.readers].add_(into_readers(stream, layer, taps), alpha=weight)
        for point in at:
            at[point] = at[point] + weight * taps[point].gradient
    return StreamGradients(total, at)


def changes(
    stream: ResidualStream, clean: Activations, other: Activations
) -> Iterator[tuple[Layer, Float[Tensor, "writers batch position d_model"]]]:
    """Yield each layer that adds to the residual stream, and the change of what each of its components adds.

    The change is what the component adds at the baseline, minus what it adds on the clean run.
    """
    step = {site: other[site] - clean[site] for site in stream.sites}
    for layer in stream.layers[:-1]:
        yield layer, stream.written_by(layer, step)


def into_readers(
    stream: ResidualStream, layer: Layer, taps: Mapping[str, Tap]
) -> Float[Tensor, "readers batch position d_model"]:
    """Return the gradient of the metric with respect to the copy of the stream that each reader of a layer reads.

    Args:
        stream: The stream.
        layer: The layer.
        taps: Taps of a run, as `tapped_run` returns them.
    """
    block = layer.block
    read = taps[layer.reads]
    if block is None:  # the embedding, whose units may be readers of their own
        if not layer.apart:
            return read.gradient[None]
        gradient = taps[layer.site].gradient
        alone = layer.groups(gradient.shape[-1])[:-1].to(gradient)[:, None] * gradient
        into_units = passed_back(stream.encoder.stages[-1].run, read.value, alone)
        # All other units are one reader. Its gradient is the whole gradient minus the gradients of the units.
        rest = (read.gradient - into_units.sum(0))[None]
        return torch.cat([into_units, rest])
    if layer.of_heads:
        weights, _ = stream.read_weights_of(layer.index)
        of_ports = [taps[f"{layer.name}.hook_{port}"].gradient for port in PORTS]
        ports = torch.stack(of_ports)
        n_images, n_positions = ports.shape[1:3]
        # One matrix product for each head and port, over all images and positions at once.
        flat = rearrange(ports, "port b p head d -> (port head) (b p) d")
        normed = rearrange(
            flat @ weights.flatten(0, 1),
            "reader (b p) m -> reader b p m",
            b=n_images,
            p=n_positions,
        )
        return passed_back(block.norm_attention, read.value, normed)
    by_neuron = taps[f"{layer.name}.hook_pre"].gradient
    at = block.norm_mlp(read.value)
    # All neurons that are not readers of their own are one reader. A gated neuron has two pre-activations.
    n_copies = by_neuron.shape[-1] // block.n_neurons
    others = layer.groups(block.n_neurons)[-1].to(by_neuron).repeat(n_copies)
    normed = passed_back(block.mlp_in, at, (by_neuron * others)[None])
    if layer.apart:
        normed = torch.cat([_into_neurons(layer, by_neuron, at), normed])
    return passed_back(block.norm_mlp, read.value, normed)


def _into_neurons(
    layer: Layer, by_neuron: Tensor, at: Tensor
) -> Float[Tensor, "neurons batch position d_model"]:
    """Return the gradients with respect to the normed stream that each neuron in ``layer.apart`` reads.

    Args:
        layer: The layer; its ``apart`` neurons are readers of their own.
        by_neuron: Gradients with respect to the pre-activations of all neurons.
        at: The normed stream. If the map from it to the pre-activations is not affine, the derivative of the map is
            taken at this stream.
    """
    block = layer.block
    assert block is not None
    if not block.affine:
        alone = layer.groups(block.n_neurons)[:-1].to(by_neuron)
        return passed_back(block.mlp_in, at, alone[:, None, None] * by_neuron)
    read = list[Tensor]()
    for places in neuron_places(layer, by_neuron):  # two rounds for gated neurons
        rows = neuron_rows(layer, places, by_neuron)
        read.append(by_neuron[..., places].movedim(-1, 0)[..., None] * rows[:, None])
    return sum(read[1:], read[0])


def neuron_places(layer: Layer, by_neuron: Tensor) -> Int[Tensor, "copies neurons"]:
    """Return the places of the neurons in ``layer.apart`` among all pre-activations. Gated neurons have two each.

    Args:
        layer: The layer.
        by_neuron: An activation of the pre-activations.
    """
    assert layer.block is not None
    n_neurons = layer.block.n_neurons
    first = torch.arange(0, by_neuron.shape[-1], n_neurons, device=by_neuron.device)
    return first[:, None] + torch.tensor(layer.apart, device=by_neuron.device)


def neuron_rows(
    layer: Layer, places: Int[Tensor, " neurons"], by_neuron: Tensor
) -> Float[Tensor, "neurons position d_model"]:
    """Return the weights by which some pre-activations of an affine MLP read the normed stream, at one position.

    Args:
        layer: The layer.
        places: Indices of the pre-activations.
        by_neuron: An activation of the pre-activations.
    """
    assert layer.block is not None
    one_hot = F.one_hot(places, by_neuron.shape[-1]).to(by_neuron)
    # The map is affine, so its rows are the same everywhere: one position at 0 gives them.
    nothing = by_neuron.new_zeros(1, layer.block.width)
    return passed_back(layer.block.mlp_in, nothing, one_hot[:, None])


def tapped_points(stream: ResidualStream, more: Sequence[str] = ()) -> list[str]:
    """Return the hook points at which `tapped_run` takes taps. ``more`` are further hook points of each block."""
    names = [*(f"attn.hook_{port}" for port in PORTS), "mlp.hook_pre", *more]
    points = [f"blocks.{i}.{name}" for i in range(len(stream.blocks)) for name in names]
    points += [layer.reads for layer in stream.layers[1:]]
    return [*points, stream.layers[-1].site]


def tapped_run(
    stream: ResidualStream,
    metric: Metric,
    x: Float[Tensor, "batch position d_model"],
    more: Sequence[str] = (),
    sites: Sequence[str] = (),
) -> dict[str, Tap]:
    """Run from the stream before the first block to the metric; return a `Tap` at each hook point of a reader.

    These are the queries, keys and values of the heads, the neurons before their nonlinearity, the streams that layers
    read, and the embedding, which has the name of its site.

    Args:
        stream: The stream.
        metric: The metric of the embedding.
        x: The stream before the first block.
        more: Further hook points of each block.
        sites: Sites of the stream that get a tap, too.
    """
    points = [*tapped_points(stream, more), *sites]
    seen: dict[str, Tensor] = {}

    def tap(tensor: Tensor, hook: Any) -> None:
        seen[hook.name] = tensor

    hooks: list[tuple[str, Callable[..., None]]] = [(point, tap) for point in points]
    embedding = stream.components.run_with_hooks(
        x.detach().requires_grad_(), start=stream.sites[0], fwd_hooks=hooks
    )
    value = checked_metric(metric, embedding)
    # A correction of the gradients may detach queries and keys, or a block, from the metric. Their gradient is then 0.
    gradients = torch.autograd.grad(
        value.sum(), list(seen.values()), materialize_grads=True
    )
    taps = dict[str, Tap]()
    for name, gradient in zip(seen, gradients, strict=True):
        taps[name] = Tap(seen[name].detach(), gradient)
    return taps


def passed_back(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    gradients: Float[Tensor, "readers ..."],
) -> Float[Tensor, "readers ..."]:
    """Return gradients with respect to a function's input, given several gradients with respect to its output.

    Args:
        function: The function.
        x: Its input.
        gradients: Gradients with respect to the output, along the first axis; all are passed back at once.
    """
    with torch.enable_grad():
        start = x.detach().requires_grad_()
        out = function(start)
    return torch.autograd.grad(out, start, gradients, is_grads_batched=True)[0]

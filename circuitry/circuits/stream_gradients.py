"""Gradients of a metric where the heads and neurons of a transformer read its residual stream.

One run and its backward pass give the gradients by q, k, v, by the neurons' pre-activations and by the last stream;
through the readers' weights and norms these become gradients by each reader's own copy of the stream, for all readers
of a layer at once.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import product
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from circuitry.bases.residual import PORTS, Layer, ResidualStream
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.encoder.metrics import Metric, checked_metric
from circuitry.encoder.tensor_batches import rows_that_fit

Activations = Mapping[str, Tensor]
"""By site of the stream."""


class Tap(NamedTuple):
    """An activation of a run and the gradient of the metric by it."""

    value: Tensor
    """The activation."""
    gradient: Tensor
    """Gradient of the sum of the metric over images, of the activation's shape."""


class StreamGradients(NamedTuple):
    """Weighted means over a path of the gradients of a metric."""

    readers: Float[Tensor, "readers batch position d_model"]
    """By each reader's own copy of the stream."""
    points: Mapping[str, Tensor]
    """By the activations at some hook points, by name."""


Gradients = Callable[
    [ResidualStream, Metric, Activations, Activations, QuadratureRule, Sequence[str]],
    StreamGradients,
]
"""Returns the gradients, given the clean activations and those at the baseline."""


def images_at_once(
    stream: ResidualStream, n_gradients: int, memory_gib: float, n_patterns: int = 0
) -> int:
    """Return the number of images that fit the memory.

    Args:
        stream: The stream; a run with gradients and the copies of one block's norm count, too.
        n_gradients: Gradients by the stream that are in memory at a time.
        memory_gib: The memory.
        n_patterns: Attention patterns in memory at a time.
    """
    encoder = stream.encoder
    with torch.no_grad():
        here = encoder(encoder.blank(), stop=stream.sites[0])
    # Copies while a block's norm is passed back, or all of its neurons: about four times as many.
    n_readers = [
        layer.readers.stop - layer.readers.start for layer in stream.layers[1:-1]
    ]
    # Between the first layer and the embedding each block has two: heads, then neurons.
    n_of_blocks = np.add(n_readers[::2], n_readers[1::2])
    widest = 4 * int(n_of_blocks.max())
    budget = memory_gib * 2**30
    run = budget / rows_that_fit(stream.components, memory_gib)
    n_values = (n_gradients + widest) * here.numel() + n_patterns * here.shape[1] ** 2
    return max(1, int(budget // (run + n_values * here.element_size())))


def reader_gradients(
    stream: ResidualStream,
    metric: Metric,
    clean: Activations,
    other: Activations,
    rule: QuadratureRule,
    points: Sequence[str],
) -> StreamGradients:
    """Return the gradients by the readers' own copies of the stream.

    They are taken on the line from the clean stream before the blocks to that of the baseline.
    ``points`` are hook points of each block, such as ``attn.hook_pattern``, by which gradients are taken too.
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
    """Yield each layer that writes, with what its writers add at the baseline beyond what they add clean."""
    step = {site: other[site] - clean[site] for site in stream.sites}
    for layer in stream.layers[:-1]:
        yield layer, stream.written_by(layer, step)


def into_readers(
    stream: ResidualStream, layer: Layer, taps: Mapping[str, Tap]
) -> Float[Tensor, "readers batch position d_model"]:
    """Return the gradient of the metric by the stream of each reader of a layer."""
    block = layer.block
    read = taps[layer.reads]
    if block is None:  # the embedding, and its units that are apart
        if not layer.apart:
            return read.gradient[None]
        gradient = taps[layer.site].gradient
        alone = layer.groups(gradient.shape[-1])[:-1].to(gradient)[:, None] * gradient
        into_units = passed_back(stream.encoder.stages[-1].run, read.value, alone)
        # The rest is one reader: it gets what the units leave of the whole gradient.
        rest = (read.gradient - into_units.sum(0))[None]
        return torch.cat([into_units, rest])
    if layer.of_heads:
        weights, _ = stream.read_weights[layer.index]
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
    # All neurons that are not apart are one reader; a gated neuron has two pre-activations.
    n_copies = by_neuron.shape[-1] // block.n_neurons
    others = layer.groups(block.n_neurons)[-1].to(by_neuron).repeat(n_copies)
    normed = passed_back(block.mlp_in, at, (by_neuron * others)[None])
    if layer.apart:
        normed = torch.cat([_into_neurons(layer, by_neuron, at), normed])
    return passed_back(block.norm_mlp, read.value, normed)


def _into_neurons(
    layer: Layer, by_neuron: Tensor, at: Tensor
) -> Float[Tensor, "neurons batch position d_model"]:
    """Return the gradient by what each neuron that is apart reads, behind the norm: its rows of the weights.

    Where these depend on what is read, they are those ``at`` it.
    """
    block = layer.block
    assert block is not None
    if not block.affine:
        alone = layer.groups(block.n_neurons)[:-1].to(by_neuron)
        return passed_back(block.mlp_in, at, alone[:, None, None] * by_neuron)
    width = by_neuron.shape[-1]
    read = list[Tensor]()
    for first in range(0, width, block.n_neurons):  # two of a gated neuron
        places = first + torch.tensor(layer.apart, device=by_neuron.device)
        one_hot = F.one_hot(places, width).to(by_neuron)
        # The map is affine, so its rows at 0 are its rows everywhere: one position serves all.
        nothing = by_neuron.new_zeros(1, block.width)
        rows = passed_back(block.mlp_in, nothing, one_hot[:, None])
        read.append(by_neuron[..., places].movedim(-1, 0)[..., None] * rows[:, None])
    return sum(read[1:], read[0])


def tapped_run(
    stream: ResidualStream,
    metric: Metric,
    x: Float[Tensor, "batch position d_model"],
    more: Sequence[str] = (),
) -> dict[str, Tap]:
    """Run from the stream before the first block to the metric; return taps at the hook points where readers read.

    These are the ports of the heads, the neurons before their nonlinearity, the streams that layers read, ``more``
    points of each block, and the embedding under the name of its site.
    """
    names = [*(f"attn.hook_{port}" for port in PORTS), "mlp.hook_pre", *more]
    points = [f"blocks.{i}.{name}" for i in range(len(stream.blocks)) for name in names]
    points += [layer.reads for layer in stream.layers[1:]]
    points.append(stream.layers[-1].site)
    seen: dict[str, Tensor] = {}

    def tap(tensor: Tensor, hook: Any) -> None:
        seen[hook.name] = tensor

    hooks: list[tuple[str, Callable[..., None]]] = [(point, tap) for point in points]
    embedding = stream.components.run_with_hooks(
        x.detach().requires_grad_(), start=stream.sites[0], fwd_hooks=hooks
    )
    value = checked_metric(metric, embedding)
    # A correction may cut queries and keys, or a block, off the metric: their gradient is then 0.
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
    """Pass several gradients by a function's output back to its input, all at once."""
    with torch.enable_grad():
        start = x.detach().requires_grad_()
        out = function(start)
    return torch.autograd.grad(out, start, gradients, is_grads_batched=True)[0]

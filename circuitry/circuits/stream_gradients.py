"""Gradients of a metric where the heads and neurons of a transformer read its residual stream.

One run and its backward pass give the gradients by q, k, v, by the neurons' pre-activations and by the last stream;
through the readers' weights and norms these become gradients by each reader's own copy of the stream, for all readers
of a layer at once. A correction (`stream_edges`) is a context of the backward pass: in `without_each_block` a block's
outputs are constants, in `relevance` norms, activations and patterns are.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor, nn

from circuitry.bases.residual import PORTS, Layer, ResidualStream
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.encoder.metrics import Metric, checked_metric
from circuitry.encoder.norms import NORMS, normed_with, scale_of
from circuitry.encoder.tensor_batches import rows_that_fit
from circuitry.runs.errors import InputError

Passes = Callable[[ResidualStream], Sequence[AbstractContextManager[Any]]]
"""Returns in what contexts gradients are taken: one backward pass in each."""
Activations = Mapping[str, Tensor]
"""By site of the stream."""
_Hook = Callable[[Tensor, Any], Tensor | None]


class Tap(NamedTuple):
    """An activation of a run and the gradient of the metric by it."""

    value: Tensor
    gradient: Tensor


class StreamGradients(NamedTuple):
    """Weighted means over a path of the gradients of a metric."""

    readers: Float[Tensor, "readers batch position d_model"]
    """By each reader's own copy of the stream."""
    points: Mapping[str, Tensor]
    """By what is at some hook points, by name."""


Gradients = Callable[
    [ResidualStream, Metric, Activations, Activations, QuadratureRule, Sequence[str]],
    StreamGradients,
]
"""Returns the gradients, given the clean activations and those at the baseline."""


def images_at_once(
    stream: ResidualStream, n_gradients: int, memory_gib: float, n_patterns: int = 0
) -> int:
    """Return how many images fit, given the number of gradients by the stream and by the patterns of a head, copies of
    a block's, and a run with gradients."""
    encoder = stream.encoder
    with torch.no_grad():
        here = encoder(encoder.blank(), stop=stream.sites[0])
    # Copies while a block's norm is passed back, or all of its neurons: about four times as many.
    n_readers = [
        layer.readers.stop - layer.readers.start for layer in stream.layers[1:-1]
    ]
    widest = 4 * max(
        heads + mlp for heads, mlp in zip(n_readers[::2], n_readers[1::2], strict=True)
    )
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
    """Return the gradients by what readers read, on the line of the stream before the blocks to the baseline's.

    ``points`` are hook points of each block, such as ``attn.hook_pattern``, by which gradients are taken too.
    """
    a, b = clean[stream.sites[0]], other[stream.sites[0]]
    total = a.new_zeros(len(stream.readers), *a.shape)
    at = {
        f"blocks.{index}.{point}": a.new_zeros(())
        for index in range(len(stream.blocks))
        for point in points
    }
    for t, weight in zip(rule.points, rule.weights, strict=True):
        taps = tapped_run(stream, metric, a + t * (b - a), points)
        for layer in stream.layers[1:]:
            total[layer.readers].add_(_into(stream, layer, taps), alpha=weight)
        at = {
            point: found + weight * taps[point].gradient for point, found in at.items()
        }
    return StreamGradients(total, at)


def layer_gradients(
    stream: ResidualStream,
    metric: Metric,
    clean: Activations,
    other: Activations,
    rule: QuadratureRule,
    points: Sequence[str],
) -> StreamGradients:
    """Return the gradients by what readers read, layer by layer on the line of what that layer alone reads.

    Everything before the layer and past it stays as in the clean run; no gradients by points are taken.
    """
    total = clean[stream.sites[0]].new_zeros(
        len(stream.readers), *clean[stream.sites[0]].shape
    )
    move: Tensor | float = 0.0
    for (before, change), layer in zip(
        changes(stream, clean, other), stream.layers[1:], strict=True
    ):
        move, x = move + change.sum(0), stream.read_by(layer, clean)
        for t, weight in zip(rule.points, rule.weights, strict=True):
            taps = _layer_taps(
                stream, metric, layer, x + t * move, before.site, clean[before.site]
            )
            total[layer.readers].add_(_into(stream, layer, taps), alpha=weight)
    return StreamGradients(total, {})


def changes(
    stream: ResidualStream, clean: Activations, other: Activations
) -> Iterator[tuple[Layer, Float[Tensor, "writers batch position d_model"]]]:
    """Yield each layer that writes, with what its writers add at the baseline beyond what they add clean."""
    step = {site: other[site] - clean[site] for site in stream.sites}
    for layer in stream.layers[:-1]:
        yield layer, stream.written_by(layer, step)


def _layer_taps(
    stream: ResidualStream,
    metric: Metric,
    layer: Layer,
    read: Tensor,
    site: str,
    before: Tensor,
) -> dict[str, Tap]:
    """Return the taps of a layer that reads what is given; before it stands what is at the site of the one before."""
    if layer.block is None:
        made = {layer.reads: read.detach().requires_grad_()}
        embedding = made[layer.site] = stream.encoder.stages[-1].run(made[layer.reads])
    else:
        block = layer.block
        if layer.of_heads:
            ports = block.project(block.norm_attention(read))
            found = {
                f"{layer.name}.hook_{port}": part
                for port, part in zip(PORTS, ports, strict=True)
            }
        else:
            found = {f"{layer.name}.hook_pre": block.mlp_in(block.norm_mlp(read))}
        made = {
            point: value.detach().requires_grad_() for point, value in found.items()
        }
        hooks: list[tuple[str, Callable[..., Tensor]]] = [
            (point, lambda _, hook: made[hook.name]) for point in made
        ]
        embedding = stream.components.run_with_hooks(
            before, start=site, fwd_hooks=hooks
        )
    gradients = torch.autograd.grad(
        checked_metric(metric, embedding).sum(), list(made.values())
    )
    return {layer.reads: Tap(read, read)} | {
        point: Tap(made[point], g) for point, g in zip(made, gradients, strict=True)
    }


def _into(
    stream: ResidualStream, layer: Layer, taps: Mapping[str, Tap]
) -> Float[Tensor, "readers batch position d_model"]:
    """Return the gradient of the metric by the stream of each reader of a layer."""
    block, read = layer.block, taps[layer.reads]
    if block is None:
        if not layer.apart:
            return read.gradient[None]
        gradient = taps[layer.site].gradient
        alone = layer.groups(gradient.shape[-1])[:-1].to(gradient)[:, None] * gradient
        into_units = passed_back(stream.encoder.stages[-1].run, read.value, alone)
        return torch.cat([into_units, (read.gradient - into_units.sum(0))[None]])
    if layer.of_heads:
        weights, _ = stream.read_weights[layer.index]
        ports = torch.stack(
            [taps[f"{layer.name}.hook_{port}"].gradient for port in PORTS]
        )
        n_images, n_positions = ports.shape[1:3]
        normed = rearrange(
            ports, "port b p head d -> (port head) (b p) d"
        ) @ weights.flatten(0, 1)
        normed = rearrange(
            normed, "reader (b p) m -> reader b p m", b=n_images, p=n_positions
        )
        return passed_back(block.norm_attention, read.value, normed)
    by_neuron, at = taps[f"{layer.name}.hook_pre"].gradient, block.norm_mlp(read.value)
    others = (
        layer.groups(block.n_neurons)[-1]
        .to(by_neuron)
        .repeat(by_neuron.shape[-1] // block.n_neurons)
    )
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
    width, read = by_neuron.shape[-1], list[Tensor]()
    for first in range(0, width, block.n_neurons):  # two of a gated neuron
        places = first + torch.tensor(layer.apart, device=by_neuron.device)
        one_hot = F.one_hot(places, width).to(by_neuron)
        rows = passed_back(
            block.mlp_in, by_neuron.new_zeros(1, block.width), one_hot[:, None]
        )
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
    numbers, names = (
        range(len(stream.blocks)),
        (*(f"attn.hook_{port}" for port in PORTS), "mlp.hook_pre", *more),
    )
    points = [f"blocks.{i}.{name}" for i in numbers for name in names]
    points += [*(layer.reads for layer in stream.layers[1:]), stream.layers[-1].site]
    seen: dict[str, Tensor] = {}

    def tap(tensor: Tensor, hook: Any) -> None:
        seen[hook.name] = tensor

    hooks: list[tuple[str, Callable[..., None]]] = [(point, tap) for point in points]
    embedding = stream.components.run_with_hooks(
        x.detach().requires_grad_(), start=stream.sites[0], fwd_hooks=hooks
    )
    value = checked_metric(metric, embedding)
    # A correction may cut queries and keys, or a block, off the metric.
    gradients = torch.autograd.grad(
        value.sum(), list(seen.values()), materialize_grads=True
    )
    return {
        name: Tap(seen[name].detach(), g)
        for name, g in zip(seen, gradients, strict=True)
    }


def passed_back(
    function: Callable[[Tensor], Tensor],
    x: Tensor,
    gradients: Float[Tensor, "readers ..."],
) -> Float[Tensor, "readers ..."]:
    """Pass several gradients by a function's output back to its input, all at once."""
    with torch.enable_grad():
        start = x.detach().requires_grad_()
        out = function(start)
    (found,) = torch.autograd.grad(out, start, gradients, is_grads_batched=True)
    return found


def without_each_block(stream: ResidualStream) -> Sequence[AbstractContextManager[Any]]:
    """Return contexts in which no gradient goes through what one of the blocks adds to the stream, each in turn.

    Where there is one block alone, nothing is left out.
    """
    names = ("hook_attn_out", "hook_mlp_out") if len(stream.blocks) > 1 else ()
    hooks = [
        [(f"blocks.{i}.{name}", _constant) for name in names]
        for i in range(len(stream.blocks))
    ]
    return [stream.components.hooks(fwd_hooks=of_block) for of_block in hooks]


def _constant(tensor: Tensor, hook: Any) -> Tensor:
    return tensor.detach()


@contextmanager
def relevance(stream: ResidualStream, frozen_patterns: bool) -> Iterator[None]:
    """Within the block norms, activations and attention are differentiated by the rules of RelP.

    An `InputError` is raised where a norm runs that is not of `circuitry.encoder.norms`.
    """
    hooks: list[tuple[str, _Hook]] = []
    for block in range(len(stream.blocks)):
        pre = list[Tensor]()
        hooks.append((f"blocks.{block}.mlp.hook_pre", partial(_keep, pre)))
        hooks.append((f"blocks.{block}.mlp.hook_post", partial(_scaled, pre)))
        if frozen_patterns:
            hooks.append((f"blocks.{block}.attn.hook_pattern", _constant))
    with stream.components.hooks(fwd_hooks=hooks):
        handles = [
            norm.register_forward_hook(_frozen_scale)
            if isinstance(norm, NORMS)
            else norm.register_forward_pre_hook(_refuse)
            for norm in stream.encoder.tower.modules()
            if "norm" in type(norm).__name__.lower()
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _keep(kept: list[Tensor], pre: Tensor, hook: Any) -> None:
    kept[:] = [pre]


def _scaled(kept: list[Tensor], post: Tensor, hook: Any) -> Tensor:
    """Return neurons as a constant times what they are made of; at 0 the derivative stays.

    That is one pre-activation (identity rule), or two of a gated neuron (half rule).
    """
    halves = torch.split(kept[0], post.shape[-1], -1)
    factors = [(post / half.masked_fill(half == 0, 1)).detach() for half in halves]
    parts = [
        torch.where(half == 0, post, half * factor)
        for half, factor in zip(halves, factors, strict=True)
    ]
    return torch.stack(parts).mean(0)


def _refuse(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    raise InputError(
        f"Relevance goes through layer norms and RMS norms by a rule, but this tower has a {type(norm).__name__}: take "
        "another method, such as gradient."
    )


def _frozen_scale(norm: Any, inputs: tuple[Tensor], out: Tensor) -> Tensor:
    """Return what a norm gives, with the scale by which it divides as a constant."""
    (x,) = inputs
    linear = normed_with(norm, x, scale_of(norm, x).detach())
    return linear + (out - linear).detach()

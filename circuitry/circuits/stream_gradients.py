"""Gradients of a metric where the heads and neurons of a transformer read its residual stream."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from circuitry.bases.residual import ResidualStream
from circuitry.bases.stream_parts import PORTS
from circuitry.circuits.quadrature import QuadratureRule
from circuitry.encoder.metrics import Metric, checked_metric
from circuitry.encoder.tensor_batches import rows_that_fit


@dataclass(frozen=True)
class Tap:
    """An activation of a run and the gradient of the metric by it."""

    value: Tensor
    gradient: Tensor


@dataclass(frozen=True)
class StreamGradients:
    """Weighted means over a path of the gradients of a metric."""

    readers: Float[Tensor, "readers batch position d_model"]
    """By each reader's own copy of the stream."""
    points: Mapping[str, Tensor]
    """By what is at some hook points, by name."""


def images_at_once(stream: ResidualStream, n_gradients: int, memory_gib: float, n_patterns: int = 0) -> int:
    """Return how many images fit, given the number of gradients by the stream and by the patterns of a head, copies of
    a block's, and a run with gradients."""
    encoder = stream.encoder
    with torch.no_grad():
        blank = torch.zeros(1, 3, *encoder.image_size, dtype=encoder.dtype, device=encoder.device)
        here = encoder(blank, stop=stream.sites[0])
    # Copies while a block's norm is passed back, or all of its neurons: about four times as many.
    widest = 4 * max(3 * block.n_heads + len(stream.neurons[i]) + 1 for i, block in enumerate(stream.blocks))
    budget = memory_gib * 2**30
    run = budget / rows_that_fit(stream.components, memory_gib)
    n_values = (n_gradients + widest) * here.numel() + n_patterns * here.shape[1] ** 2
    return max(1, int(budget // (run + n_values * here.element_size())))


def reader_gradients(
    stream: ResidualStream,
    metric: Metric,
    a: Tensor,
    b: Tensor,
    rule: QuadratureRule,
    points: Sequence[str] = (),
) -> StreamGradients:
    """Return the gradients by what readers read, on the line of the stream before the blocks from ``a`` to ``b``.

    Args:
        points: Hook points of each block, such as ``attn.hook_pattern``, by which gradients are taken too.
    """
    total = a.new_zeros(len(stream.readers), *a.shape)
    at = {f"blocks.{index}.{point}": a.new_zeros(()) for index in range(len(stream.blocks)) for point in points}
    for t, weight in zip(rule.points, rule.weights, strict=True):
        taps = tapped_run(stream, metric, a + t * (b - a), points)
        for stage in range(2 * len(stream.blocks) + 1):
            total[stream.readers_of(stage)].add_(_into_stage(stream, stage, taps), alpha=weight)
        at = {point: found + weight * taps[point].gradient for point, found in at.items()}
    return StreamGradients(total, at)


def stage_gradients(
    stream: ResidualStream,
    metric: Metric,
    clean: Mapping[str, Tensor],
    moves: Sequence[Float[Tensor, "batch position d_model"]],
    rule: QuadratureRule,
) -> StreamGradients:
    """Return the gradients by what readers read, stage by stage on the line of what that stage alone reads.

    Everything before the stage and past it stays as in the clean run.

    Args:
        clean: Activations at the stream's sites.
        moves: For each stage the step from what it reads in the clean run to what it reads at the baseline.
    """
    total = moves[0].new_zeros(len(stream.readers), *moves[0].shape)
    for stage, move in enumerate(moves):
        x, rows = stream.read_by(stage, clean), total[stream.readers_of(stage)]
        for t, weight in zip(rule.points, rule.weights, strict=True):
            taps = _stage_taps(stream, metric, clean, stage, x + t * move)
            rows.add_(_into_stage(stream, stage, taps), alpha=weight)
    return StreamGradients(total, {})


def _stage_taps(
    stream: ResidualStream, metric: Metric, clean: Mapping[str, Tensor], stage: int, read: Tensor
) -> dict[str, Tap]:
    """Return the taps of a stage that reads what is given."""
    index, is_mlp = divmod(stage, 2)
    if index == len(stream.blocks):
        made = {f"blocks.{index - 1}.hook_resid_post": read.detach().requires_grad_()}
        embedding = stream.encoder.stages[-1].run(*made.values())
    else:
        steps, path, before = stream.blocks[index], f"blocks.{index}", stream.sites[stage]
        if is_mlp:
            found = {f"{path}.mlp.hook_pre": steps.mlp_in(steps.norm_mlp(read))}
        else:
            ports = steps.project(steps.norm_attention(read))
            found = {f"{path}.attn.hook_{port}": part for port, part in zip(PORTS, ports, strict=True)}
        made = {point: value.detach().requires_grad_() for point, value in found.items()}
        hooks: list[tuple[str, Callable[..., Tensor]]] = [(point, lambda _, hook: made[hook.name]) for point in made]
        embedding = stream.components.run_with_hooks(clean[before], start=before, fwd_hooks=hooks)
    gradients = torch.autograd.grad(checked_metric(metric, embedding).sum(), list(made.values()))
    taps = {point: Tap(made[point], gradient) for point, gradient in zip(made, gradients, strict=True)}
    return {f"blocks.{index}.{('hook_resid_pre', 'hook_resid_mid')[is_mlp]}": Tap(read, read), **taps}


def _into_stage(
    stream: ResidualStream, stage: int, taps: Mapping[str, Tap]
) -> Float[Tensor, "readers batch position d_model"]:
    """Return the gradient of the metric by the stream of each reader of a stage."""
    index, is_mlp = divmod(stage, 2)
    if index == len(stream.blocks):
        return _into_embedding(stream, taps)
    block, path = stream.blocks[index], f"blocks.{index}"
    if not is_mlp:
        read = rearrange(read_by_ports(stream, index, taps), "port head b p m -> (port head) b p m")
        return passed_back(block.norm_attention, taps[f"{path}.hook_resid_pre"].value, read)
    by_neuron, middle = taps[f"{path}.mlp.hook_pre"].gradient, taps[f"{path}.hook_resid_mid"].value
    others = by_neuron * _repeated(stream.neuron_groups(index)[-1], by_neuron)
    read = passed_back(block.mlp_in, block.norm_mlp(middle), others[None])
    if stream.neurons[index]:
        read = torch.cat([_into_neurons(stream, index, by_neuron, block.norm_mlp(middle)), read])
    return passed_back(block.norm_mlp, middle, read)


def _into_neurons(
    stream: ResidualStream, index: int, by_neuron: Tensor, at: Tensor
) -> Float[Tensor, "neurons batch position d_model"]:
    """Return the gradient by what each neuron that is apart reads, behind the norm: its rows of the weights.

    Where these depend on what is read, they are those ``at`` it.
    """
    block = stream.blocks[index]
    groups = stream.neuron_groups(index)[:-1].to(by_neuron.device)
    if not block.affine:
        return passed_back(block.mlp_in, at, groups.to(by_neuron)[:, None, None] * by_neuron)
    nothing = by_neuron.new_zeros(1, block.width)
    read: Tensor | float = 0.0
    for part in range(by_neuron.shape[-1] // block.n_neurons):  # two of a gated neuron
        places = groups.int().argmax(1) + part * block.n_neurons
        one_hot = torch.nn.functional.one_hot(places, by_neuron.shape[-1]).to(by_neuron)
        rows = passed_back(block.mlp_in, nothing, one_hot[:, None])
        read = read + by_neuron[..., places].movedim(-1, 0)[..., None] * rows[:, None]
    assert isinstance(read, Tensor)
    return read


def _into_embedding(stream: ResidualStream, taps: Mapping[str, Tap]) -> Float[Tensor, "readers batch position d_model"]:
    last = taps[f"blocks.{len(stream.blocks) - 1}.hook_resid_post"]
    if not stream.outputs:
        return last.gradient[None]
    gradient = taps[stream.components.sites[-1]].gradient
    one_hot = torch.nn.functional.one_hot(torch.tensor(stream.outputs, device=gradient.device), gradient.shape[-1])
    alone = passed_back(stream.encoder.stages[-1].run, last.value, one_hot.to(gradient)[:, None] * gradient)
    return torch.cat([alone, (last.gradient - alone.sum(0))[None]])


def _repeated(group: Tensor, by_neuron: Tensor) -> Tensor:
    """Return a mask of neurons for all their pre-activations: two of gated ones."""
    return group.to(by_neuron).repeat(by_neuron.shape[-1] // len(group))


def tapped_run(
    stream: ResidualStream, metric: Metric, x: Float[Tensor, "batch position d_model"], more: Sequence[str] = ()
) -> dict[str, Tap]:
    """Run from the stream before the first block to the metric; return taps at the hook points where readers read.

    These are the ports of the heads, the neurons before their nonlinearity, the streams that the norms read, ``more``
    points of each block, the last stream, and the embedding under the name of its site.
    """
    numbers = range(len(stream.blocks))
    points = [f"blocks.{i}.attn.hook_{port}" for i in numbers for port in PORTS]
    points += [
        f"blocks.{i}.{name}" for i in numbers for name in ("hook_resid_pre", "hook_resid_mid", "mlp.hook_pre", *more)
    ]
    points += [f"blocks.{numbers[-1]}.hook_resid_post", stream.components.sites[-1]]
    seen: dict[str, Tensor] = {}

    def tap(tensor: Tensor, hook: Any) -> None:
        seen[hook.name] = tensor

    hooks: list[tuple[str, Callable[..., None]]] = [(point, tap) for point in points]
    embedding = stream.components.run_with_hooks(x.detach().requires_grad_(), start=stream.sites[0], fwd_hooks=hooks)
    value = checked_metric(metric, embedding)
    # A correction may cut queries and keys, or a block, off the metric.
    gradients = torch.autograd.grad(value.sum(), list(seen.values()), materialize_grads=True)
    return {name: Tap(seen[name].detach(), g) for name, g in zip(seen, gradients, strict=True)}


def read_by_ports(
    stream: ResidualStream, block: int, taps: Mapping[str, Tap]
) -> Float[Tensor, "port head batch position d_model"]:
    """Return the gradient by what each port of a block's heads reads, behind the norm."""
    weights, _ = stream.read_weights[block]
    ports = torch.stack([taps[f"blocks.{block}.attn.hook_{port}"].gradient for port in PORTS])
    n_images, n_positions = ports.shape[1:3]
    read = rearrange(ports, "port b p head d -> (port head) (b p) d") @ weights.flatten(0, 1)
    return rearrange(read, "(port head) (b p) m -> port head b p m", port=len(PORTS), b=n_images, p=n_positions)


def passed_back(
    function: Callable[[Tensor], Tensor], x: Tensor, gradients: Float[Tensor, "readers ..."]
) -> Float[Tensor, "readers ..."]:
    """Pass several gradients by a function's output back to its input, all at once."""
    with torch.enable_grad():
        start = x.detach().requires_grad_()
        out = function(start)
    (found,) = torch.autograd.grad(out, start, gradients, is_grads_batched=True)
    return found

"""Corrections of gradients that score edges of a transformer, for `register_edge_method`.

None ranks edges better than ``exact-readers`` (docs/results/edges.md), so the package has none. After
`register_corrections` they are methods of `score_edges`, `attribute_components` and `attribute(edges=)`:

path-by-layer: the points of the rule lie on the line of what each layer alone reads: a run for every layer and point.
exact-softmax: an edge into a query or key counts the change of the attention pattern itself, not its derivative, which
    vanishes where attention is saturated.
gradient-dropping: the mean size of the effects with one block after the other left out of the backward pass, so that a
    direct effect is seen where one through a later block cancels it.
atp-star: exact softmax and gradient dropping, as in AtP* (Kramar et al. 2024, arXiv 2403.00745). As an edge is cut at
    all positions at once, so are keys, which AtP* patches one by one. The mean size of the effects gets the sign of
    their mean; the mean over images is then taken of signed effects.
relp: coefficients of layer-wise relevance propagation instead of gradients, as in RelP (Jafari et al. 2025, arXiv
    2508.21258): the scale of norms and attention patterns are constants, an activation is x times the constant
    act(x) / x, and of a gate and what it multiplies each counts half. Edges into queries and keys have no effect.
relp-with-patterns: the same, but patterns keep their gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from functools import partial
from typing import Any

from circuitry.runs import InputError
from circuitry.bases import ResidualStream
from circuitry.bases.residual import PORTS, Component, Layer
from circuitry.circuits import EdgeMethod, QuadratureRule, register_edge_method
from circuitry.circuits.stream_edges import StreamScores, attributed
from circuitry.circuits.stream_gradients import (
    Activations,
    Gradients,
    StreamGradients,
    Tap,
    changes,
    into_readers,
    reader_gradients,
)
from circuitry.encoder import Metric, Task
from circuitry.encoder.metrics import checked_metric
from circuitry.encoder.norms import NORMS, normed_with, scale_of
from circuitry.encoder.tensor_batches import one_tensor

import numpy as np
import torch
from torch import Tensor, nn

PATTERNS = ("attn.hook_pattern",)
"""Hook points of a block by which gradients are needed where queries and keys are exact."""
_Hook = Callable[[Tensor, Any], Tensor | None]


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
            total[layer.readers].add_(into_readers(stream, layer, taps), alpha=weight)
    return StreamGradients(total, {})


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


def within(
    context: Callable[[ResidualStream], AbstractContextManager[Any]],
) -> Gradients:
    """Return what takes the gradients by what readers read, each time within a new context."""

    def gradients(
        stream: ResidualStream,
        metric: Metric,
        clean: Activations,
        other: Activations,
        rule: QuadratureRule,
        points: Sequence[str],
    ) -> StreamGradients:
        with context(stream):
            return reader_gradients(stream, metric, clean, other, rule, points)

    return gradients


def gradient_dropping(
    stream: ResidualStream,
    task: Task,
    rule: QuadratureRule,
    *,
    exact: Sequence[str] = (),
) -> StreamScores:
    """Score edges image by image, each with one block after the other left out of the backward pass.

    What a pass leaves out does not count for the components of its own block.
    """
    images = one_tensor(task.images)
    sums = [np.zeros(()), np.zeros(()), np.zeros(())]
    for place in range(len(images)):
        image = task.of_some(images, slice(place, place + 1))
        passes = list[StreamScores]()
        for block in range(len(stream.blocks)):
            without = within(partial(without_block, block=block))
            passes.append(
                attributed(stream, image, rule, gradients=without, exact=exact)
            )
        of_image = (
            over_passes(stream, [one.scores for one in passes], stream.readers),
            over_passes(stream, [one.into for one in passes], stream.readers),
            over_passes(stream, [one.out_of for one in passes], stream.writers),
        )
        sums = [total + one for total, one in zip(sums, of_image, strict=True)]
    scores, into, out_of = (total / len(images) for total in sums)
    return StreamScores(
        stream.readers, stream.writers, scores, into, out_of, len(images)
    )


def over_passes(
    stream: ResidualStream, effects: Sequence[np.ndarray], ends: Sequence[Component]
) -> np.ndarray:
    """Return the mean size of the effects [ends, ...] over the passes that count, with the sign of their mean."""
    if len(effects) == 1:
        return effects[0]
    block = {layer.name: layer.index for layer in stream.layers}
    own = np.array([block[end.layer] for end in ends])
    counts = (np.arange(len(effects))[:, None] != own).astype(float)
    weights = counts / counts.sum(0)
    by_pass = np.stack(effects)
    weights = weights.reshape(*weights.shape, *[1] * (by_pass.ndim - 2))
    size = (weights * np.abs(by_pass)).sum(0)
    mean: np.ndarray = (weights * by_pass).sum(0)
    signed: np.ndarray = np.copysign(size, mean)
    return signed


def without_block(stream: ResidualStream, block: int) -> AbstractContextManager[Any]:
    """Return a context in which no gradient goes through what a block adds to the stream.

    Where there is one block alone, nothing is left out.
    """
    names = ("hook_attn_out", "hook_mlp_out") if len(stream.blocks) > 1 else ()
    hooks = [(f"blocks.{block}.{name}", _constant) for name in names]
    return stream.components.hooks(fwd_hooks=hooks)


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


CORRECTIONS = {
    method.name: method
    for method in (
        EdgeMethod(
            "exact-softmax",
            "by a gradient that counts the change of attention patterns themselves",
            components=partial(attributed, exact=PATTERNS),
            in_stream=True,
        ),
        EdgeMethod(
            "gradient-dropping",
            "by gradients that leave out one block after the other",
            components=gradient_dropping,
            in_stream=True,
        ),
        EdgeMethod(
            "atp-star",
            "by gradients that count the change of attention patterns and leave out one block after the other",
            components=partial(gradient_dropping, exact=PATTERNS),
            in_stream=True,
        ),
        EdgeMethod(
            "relp",
            "by relevance, with norms and attention patterns as constants",
            components=partial(
                attributed, gradients=within(partial(relevance, frozen_patterns=True))
            ),
            in_stream=True,
        ),
        EdgeMethod(
            "relp-with-patterns",
            "by relevance, with norms as constants",
            components=partial(
                attributed, gradients=within(partial(relevance, frozen_patterns=False))
            ),
            in_stream=True,
        ),
        EdgeMethod(
            "path-by-layer",
            "by gradients along a path of what each layer reads",
            components=partial(attributed, gradients=layer_gradients),
            in_stream=True,
        ),
    )
}
"""The corrections as methods of edges, by name."""


def register_corrections() -> None:
    """Make the corrections known, as names that `attribute` and `attribute_components` take."""
    for method in CORRECTIONS.values():
        register_edge_method(method)

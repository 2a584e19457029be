"""Corrections of gradients that score edges of a transformer, for `register_edge_method`.

No correction ranks edges better than ``exact-readers`` (docs/results/edges.md), so the package does not have them.
After `register_corrections` they are methods of `score_edges`, `attribute_components` and `attribute(edges=)`:

path-by-layer: the points of the rule lie on a line for each layer, from the stream that the layer reads to the stream
    with the change of that layer's input alone. This takes a run for every layer and point.
exact-softmax: the score of an edge into a query or key counts the change of the attention pattern itself. The
    derivative of the pattern vanishes where attention is saturated.
gradient-dropping: the score is the mean size of several effects. For each effect another block is left out of the
    backward pass, so that a direct effect is seen even if an effect through a later block cancels it.
atp-star: exact softmax and gradient dropping, as in AtP* (Kramar et al. 2024, arXiv 2403.00745). An edge is cut at all
    positions at once, and so are keys, which AtP* patches one by one. The mean size of the effects gets the sign of
    their mean; the mean over images is then taken of signed effects.
relp: coefficients of layer-wise relevance propagation instead of gradients, as in RelP (Jafari et al. 2025, arXiv
    2508.21258). The scale of norms and attention patterns are constants. An activation is x times the constant
    act(x) / x. A gate and the value that it multiplies count half each. Edges into queries and keys have no effect.
relp-with-patterns: the same as relp, except that attention patterns keep their gradient.
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
"""Hook points of a block whose gradients are needed if queries and keys are exact."""
_Hook = Callable[[Tensor, Any], Tensor | None]


def layer_gradients(
    stream: ResidualStream,
    metric: Metric,
    clean: Activations,
    other: Activations,
    rule: QuadratureRule,
    points: Sequence[str],
) -> StreamGradients:
    """Return the gradients with respect to the input of each reader, along a line for each layer.

    On the line of a layer its input moves from clean to baseline, and nothing else is replaced.

    Args:
        stream: The residual stream.
        metric: The metric.
        clean: Activations of the images.
        other: Activations of the baseline.
        rule: Points on the line and their weights.
        points: Ignored: the gradients at hook points are not returned.
    """
    # [readers, images, positions, width]
    total = clean[stream.sites[0]].new_zeros(
        len(stream.readers), *clean[stream.sites[0]].shape
    )
    move: Tensor | float = 0.0
    for (before, change), layer in zip(
        changes(stream, clean, other), stream.layers[1:], strict=True
    ):
        # The stream that this layer reads has changed by what all layers before wrote.
        move = move + change.sum(0)
        x = stream.read_by(layer, clean)
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
    """Run the tower from a layer with a given input, and return the taps of the layer.

    Args:
        stream: The residual stream.
        metric: The metric.
        layer: The layer.
        read: Its input.
        site: Site of the layer before, from which the run starts.
        before: Activation at that site.
    """
    if layer.block is None:
        made = {layer.reads: read.detach().requires_grad_()}
        embedding = made[layer.site] = stream.encoder.stages[-1].run(made[layer.reads])
    else:
        block = layer.block
        if layer.of_heads:
            ports = block.project(block.norm_attention(read))
            points = map(f"{layer.name}.hook_{{}}".format, PORTS)
            values = dict(zip(points, ports, strict=True))
        else:
            values = {f"{layer.name}.hook_pre": block.mlp_in(block.norm_mlp(read))}
        # Leaves of the graph: the gradient stops at the input of the layer.
        made = {
            point: value.detach().requires_grad_() for point, value in values.items()
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
    taps = {layer.reads: Tap(read, read)}
    for point, gradient in zip(made, gradients, strict=True):
        taps[point] = Tap(made[point], gradient)
    return taps


def within(
    context: Callable[[ResidualStream], AbstractContextManager[Any]],
) -> Gradients:
    """Return a function that computes `reader_gradients`, each time within a new context.

    Args:
        context: Function of a residual stream that returns a context in which gradients are changed.
    """

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
    """Score edges by their mean effect over backward passes; each pass leaves out another block.

    A pass does not count for the components of the block that it leaves out. Images are scored one by one, because the
    mean over passes is of sizes, and the mean over images is of signed effects.
    """
    images = one_tensor(task.images)
    scores = np.zeros(())
    into = np.zeros(())
    out_of = np.zeros(())
    for place in range(len(images)):
        image = task.of_some(images, slice(place, place + 1))
        passes = list[StreamScores]()
        for block in range(len(stream.blocks)):
            without = within(partial(without_block, block=block))
            passes.append(
                attributed(stream, image, rule, gradients=without, exact=exact)
            )
        # The fields of StreamScores, each over passes.
        _, _, by_edge, by_reader, by_writer, _ = zip(*passes, strict=True)
        scores = scores + over_passes(stream, by_edge, stream.readers)
        into = into + over_passes(stream, by_reader, stream.readers)
        out_of = out_of + over_passes(stream, by_writer, stream.writers)
    n = len(images)
    return StreamScores(
        stream.readers, stream.writers, scores / n, into / n, out_of / n, n
    )


def over_passes(
    stream: ResidualStream, effects: Sequence[np.ndarray], ends: Sequence[Component]
) -> np.ndarray:
    """Return the mean size of the effects [ends, ...] over the passes that count, with the sign of their mean.

    Args:
        stream: The residual stream.
        effects: Effects by pass; the pass of a block left it out.
        ends: The readers or writers of the first axis. A pass counts for the ends that are not of its block.
    """
    # With one block nothing is left out, see `without_block`.
    if len(effects) == 1:
        return effects[0]
    block = {layer.name: layer.index for layer in stream.layers}
    own = np.array([block[end.layer] for end in ends])
    # [passes, ends]
    counts = (np.arange(len(effects))[:, None] != own).astype(float)
    weights = counts / counts.sum(0)
    by_pass = np.stack(effects)
    # Further axes, such as writers, share the weights.
    weights = weights.reshape(*weights.shape, *[1] * (by_pass.ndim - 2))
    size = (weights * np.abs(by_pass)).sum(0)
    mean: np.ndarray = (weights * by_pass).sum(0)
    signed: np.ndarray = np.copysign(size, mean)
    return signed


def without_block(stream: ResidualStream, block: int) -> AbstractContextManager[Any]:
    """Return a context in which no gradient goes through the outputs that a block adds to the stream.

    If the tower has one block alone, nothing is left out.
    """
    names = ("hook_attn_out", "hook_mlp_out") if len(stream.blocks) > 1 else ()
    hooks = [(f"blocks.{block}.{name}", _constant) for name in names]
    return stream.components.hooks(fwd_hooks=hooks)


def _constant(tensor: Tensor, hook: Any) -> Tensor:
    """Return an activation as a constant, through which no gradient flows."""
    return tensor.detach()


@contextmanager
def relevance(stream: ResidualStream, frozen_patterns: bool) -> Iterator[None]:
    """Differentiate norms, activations and attention by the rules of RelP within the block.

    Args:
        stream: The residual stream.
        frozen_patterns: Whether attention patterns are constants.

    Raises:
        InputError: If a norm runs that is not of `circuitry.encoder.norms`.
    """
    hooks: list[tuple[str, _Hook]] = []
    for block in range(len(stream.blocks)):
        pre = list[Tensor]()
        hooks.append((f"blocks.{block}.mlp.hook_pre", partial(_keep, pre)))
        hooks.append((f"blocks.{block}.mlp.hook_post", partial(_scaled, pre)))
        if frozen_patterns:
            hooks.append((f"blocks.{block}.attn.hook_pattern", _constant))
    with stream.components.hooks(fwd_hooks=hooks):
        handles = []
        for module in stream.encoder.tower.modules():
            # By its name, since a norm that no rule is known for may be of any class.
            if "norm" not in type(module).__name__.lower():
                continue
            if isinstance(module, NORMS):
                handles.append(module.register_forward_hook(_frozen_scale))
            else:
                handles.append(module.register_forward_pre_hook(_refuse))
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def _keep(kept: list[Tensor], pre: Tensor, hook: Any) -> None:
    """Keep the pre-activations of a run for `_scaled`."""
    kept[:] = [pre]


def _scaled(kept: list[Tensor], post: Tensor, hook: Any) -> Tensor:
    """Return neurons as a constant times their pre-activation.

    A gated neuron has two pre-activations, and each counts half (half rule); other neurons have one (identity
    rule). A neuron whose pre-activation is 0 keeps its derivative.
    """
    scaled = []
    for half in torch.split(kept[0], post.shape[-1], -1):
        # The 1 avoids a division by zero; the neuron takes its own value there.
        factor = (post / half.masked_fill(half == 0, 1)).detach()
        scaled.append(torch.where(half == 0, post, half * factor))
    return torch.stack(scaled).mean(0)


def _refuse(norm: nn.Module, inputs: tuple[Tensor]) -> None:
    """Raise an error when a norm runs that no rule is known for."""
    raise InputError(
        f"Relevance goes through layer norms and RMS norms by a rule, but this tower has a {type(norm).__name__}: take "
        "another method, such as gradient."
    )


def _frozen_scale(norm: Any, inputs: tuple[Tensor], out: Tensor) -> Tensor:
    """Return the output of a norm as a function whose scale is a constant."""
    (x,) = inputs
    # The value is that of the norm to the last bit, the gradient that of the linear function.
    linear = normed_with(norm, x, scale_of(norm, x).detach())
    return linear + (out - linear).detach()


_SCORERS: tuple[tuple[str, str, Callable[..., StreamScores]], ...] = (
    (
        "exact-softmax",
        "by a gradient that counts the change of attention patterns themselves",
        partial(attributed, exact=PATTERNS),
    ),
    (
        "gradient-dropping",
        "by gradients that leave out one block after the other",
        gradient_dropping,
    ),
    (
        "atp-star",
        "by gradients that count the change of attention patterns and leave out one block after the other",
        partial(gradient_dropping, exact=PATTERNS),
    ),
    (
        "relp",
        "by relevance, with norms and attention patterns as constants",
        partial(attributed, gradients=within(partial(relevance, frozen_patterns=True))),
    ),
    (
        "relp-with-patterns",
        "by relevance, with norms as constants",
        partial(
            attributed, gradients=within(partial(relevance, frozen_patterns=False))
        ),
    ),
    (
        "path-by-layer",
        "by gradients along a path of what each layer reads",
        partial(attributed, gradients=layer_gradients),
    ),
)
"""Name, description and function of each correction."""
CORRECTIONS = {
    name: EdgeMethod(name, description, components=scorer, in_stream=True)
    for name, description, scorer in _SCORERS
}
"""The corrections as methods of scoring edges, by name."""


def register_corrections() -> None:
    """Register the corrections under names that `attribute` and `attribute_components` take."""
    for method in CORRECTIONS.values():
        register_edge_method(method)

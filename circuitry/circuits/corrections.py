"""Corrections of attribution patching, by the name of a method: where one gradient predicts a cut poorly.

exact-softmax: an edge into a query or key counts the change of the attention pattern itself, not its derivative, which
    vanishes where attention is saturated.
exact-readers: every edge counts the change of its reader's output, norm and nonlinearity included; only the rest of the
    network is linear. One partial run for each writer.
gradient-dropping: the mean size of the effects with one block after the other left out of the backward pass, so that a
    direct effect is seen where one through a later block cancels it.
atp-star: exact softmax and gradient dropping, as in AtP* (Kramar et al. 2024, arXiv 2403.00745). As an edge is cut at
    all positions at once, so are keys, which AtP* patches one by one. A size gets the sign of the mean that it is the
    mean size of, and the mean over images is one of signed effects.
relp: coefficients of layer-wise relevance propagation instead of gradients, as in RelP (Jafari et al. 2025, arXiv
    2508.21258): the scale of norms and attention patterns are constants, an activation is x times the constant
    act(x) / x, and of a gate and what it multiplies each counts half. Edges into queries and keys have no effect.
relp-with-patterns: the same, but patterns keep their gradient.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuitry.bases.residual import ResidualStream
from circuitry.bases.stream_parts import Component
from circuitry.encoder.norms import NORMS, normed_with, scale_of
from circuitry.runs.errors import InputError

_Hook = Callable[[Tensor, Any], Tensor | None]


def backward_passes(stream: ResidualStream, method: str) -> list[AbstractContextManager[None]]:
    """Return in what contexts gradients are taken: one, or one for each block that is left out in turn.

    Within one for ``relp`` an `InputError` is raised where a norm runs that is not of `circuitry.encoder.norms`.
    """
    if method in ("relp", "relp-with-patterns"):
        return [_relevance(stream, frozen_patterns=method == "relp")]
    if method in ("gradient-dropping", "atp-star") and len(stream.blocks) > 1:
        return [_without(stream, block) for block in range(len(stream.blocks))]
    return [nullcontext()]


def over_passes(effects: Float[Tensor, "passes batch ends ..."], ends: Sequence[Component]) -> Tensor:
    """Return the effects [batch, ends, ...] of passes that each leave a block out; of one pass, that pass's.

    ``ends`` are the components whose own block's pass does not count: it leaves out what they do themselves.
    """
    if len(effects) == 1:
        return effects[0]
    blocks = torch.arange(len(effects), device=effects.device)
    counts = (blocks[:, None] != torch.tensor([end.block for end in ends], device=effects.device)).to(effects)
    weights = (counts / counts.sum(0)).reshape(len(effects), 1, len(ends), *[1] * (effects.dim() - 3))
    return torch.copysign((weights * effects.abs()).sum(0), (weights * effects).sum(0))


@contextmanager
def _without(stream: ResidualStream, block: int) -> Iterator[None]:
    """Within the block of code no gradient goes through what one of the tower's blocks adds to the stream."""
    points = [f"blocks.{block}.{name}" for name in ("hook_attn_out", "hook_mlp_out")]
    with stream.components.hooks(fwd_hooks=[(point, _constant) for point in points]):
        yield


def _constant(tensor: Tensor, hook: Any) -> Tensor:
    return tensor.detach()


@contextmanager
def _relevance(stream: ResidualStream, frozen_patterns: bool) -> Iterator[None]:
    """Within the block of code norms, activations and attention are differentiated by the rules of RelP."""
    hooks: list[tuple[str, _Hook]] = []
    for block in range(len(stream.blocks)):
        keep, scale = _activation_rule()
        hooks += [(f"blocks.{block}.mlp.hook_pre", keep), (f"blocks.{block}.mlp.hook_post", scale)]
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


def _activation_rule() -> tuple[_Hook, _Hook]:
    """Return hooks before and behind neurons, which become a constant times what they are made of.

    That is one pre-activation (identity rule), or two of a gated neuron (half rule); at 0 the derivative stays.
    """
    seen: list[Tensor] = []

    def keep(pre: Tensor, hook: Any) -> None:
        seen[:] = [pre]

    def scale(post: Tensor, hook: Any) -> Tensor:
        halves = torch.split(seen[0], post.shape[-1], -1)
        factors = [(post / half.masked_fill(half == 0, 1)).detach() for half in halves]
        parts = [torch.where(half == 0, post, half * factor) for half, factor in zip(halves, factors, strict=True)]
        return torch.stack(parts).mean(0)

    return keep, scale


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

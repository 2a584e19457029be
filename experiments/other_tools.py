"""The scores of captum, TransformerLens, nnsight and plain PyTorch, for `beside_other_tools`.

`Layers` scores units of any tower by captum, and by hooks of PyTorch. `HeadTool` scores heads and MLPs of transformers'
ViT; a tool only says how it reads and writes values at points of the ViT.
"""

import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from itertools import product
from typing import Any, NamedTuple

from circuitry.circuits.conductance import N_INTERVALS
from circuitry.encoder import Metric
from circuitry.gates.fisher import ROUNDS, SMALLEST, Answers

import numpy as np
import torch
from captum import attr
from torch import Tensor, nn

PORTS = "qkv"
"""Queries, keys and values of attention."""
N_POINTS = 7
"""Points of integrated gradients."""


@dataclass(frozen=True)
class Layers:
    """The outputs of modules as captum and plain PyTorch see them."""

    tower: nn.Module
    metric: Metric
    modules: Mapping[str, nn.Module]
    """The module of each site."""
    axes: Mapping[str, int]
    """Axis of the units of each site."""
    images: Tensor
    others: Tensor
    """The images of the baseline, one for each image."""
    answers: Answers
    """The answers whose Fisher information is measured."""
    n_units: list[int]
    """Number of units of each site."""
    rows: int
    """Largest number of rows of a run."""

    def forward(self, x: Tensor) -> Tensor:
        """Return the metric of images."""
        return self.metric(self.tower(x))

    def each(self, effects_at: Callable[[str, nn.Module], Tensor]) -> np.ndarray:
        """Return the scores of the units of all sites, given a function that returns the effects at one site."""
        scores = [
            self.of_units(site, effects_at(site, module))
            for site, module in self.modules.items()
        ]
        return torch.cat(scores).detach().numpy()

    def of_units(self, site: str, effects: Tensor) -> Tensor:
        """Return the mean over images of the effects of units, summed over positions."""
        by_unit = effects.movedim(self.axes[site], 1).unsqueeze(2)
        return by_unit.flatten(2).sum(2).mean(0)

    def integrated_gradients(self) -> np.ndarray:
        """Return captum's integrated gradients of the units, each site on its own path."""

        def effects_at(_: str, module: nn.Module) -> Tensor:
            method = attr.LayerIntegratedGradients(self.forward, module)
            effects: Tensor = method.attribute(
                self.images,
                self.others,
                n_steps=N_POINTS,
                method="gausslegendre",
                internal_batch_size=self.rows,
            )
            return effects

        return self.each(effects_at)

    def conductance(self) -> np.ndarray:
        """Return captum's conductance of the units.

        Captum takes the gradient at the start of each interval. The mean of both directions is the trapezoid rule.
        """

        def effects_at(_: str, module: nn.Module) -> Tensor:
            method = attr.LayerConductance(self.forward, module)
            there, back = (
                method.attribute(
                    *ends,
                    n_steps=N_INTERVALS,
                    method="riemann_trapezoid",
                    internal_batch_size=self.rows,
                )
                for ends in ((self.images, self.others), (self.others, self.images))
            )
            mean: Tensor = (there - back) / 2
            return mean

        return self.each(effects_at)

    def gradients(self) -> np.ndarray:
        """Return captum's gradient times activation of the units; one run serves all sites."""
        method = attr.LayerGradientXActivation(self.forward, [*self.modules.values()])
        effects = dict(zip(self.modules, method.attribute(self.images), strict=True))
        return self.each(lambda site, _: effects[site])

    def ablation(self) -> np.ndarray:
        """Return captum's ablation of each unit."""

        def effects_at(site: str, module: nn.Module) -> Tensor:
            end = attr.LayerActivation(self.forward, module).attribute(self.others)
            shape = [1] * end.dim()
            shape[self.axes[site]] = -1
            n_units = end.shape[self.axes[site]]
            units = torch.arange(n_units).view(shape).expand_as(end[:1])
            effects = attr.LayerFeatureAblation(self.forward, module).attribute(
                self.images,
                layer_baselines=end,
                layer_mask=units,
                perturbations_per_eval=max(1, self.rows // len(self.images)),
            )
            # Every position has the effect of the whole unit.
            scaled: Tensor = effects * n_units / units.numel()
            return scaled

        return self.each(effects_at)

    def importance(self, opened: Tensor, generator: torch.Generator) -> Tensor:
        """Return the Fisher information of a gate of each unit, by hooks of PyTorch that multiply by gates [units]."""
        gates = dict[str, Tensor]()
        left = iter(torch.split(opened, self.n_units))

        def multiply(site: str, _: nn.Module, __: object, output: Tensor) -> Tensor:
            shape = [1] * output.dim()
            shape[self.axes[site]] = -1
            of_site = next(left).view(shape)
            gates[site] = of_site.repeat_interleave(len(output), 0).requires_grad_()
            return output * gates[site]

        total = torch.zeros(())
        with ExitStack() as hooks:
            for site, module in self.modules.items():
                handle = module.register_forward_hook(partial(multiply, site))
                hooks.callback(handle.remove)
            for x in torch.split(torch.cat([self.images, self.others]), self.rows):
                left = iter(torch.split(opened, self.n_units))
                given = self.answers(self.tower(x))
                directions = torch.stack(
                    [torch.randn(given.shape[1], generator=generator) for _ in x]
                )
                slopes = torch.autograd.grad(given, [*gates.values()], directions)
                of_rows = torch.cat([slope.flatten(1) for slope in slopes], 1)
                total = total + of_rows.square().sum(0)
        return total / (2 * len(self.images))

    def ranks(self) -> np.ndarray:
        """Return the ranks of the units by Fisher information in rounds, as `iterative_ranks` defines them."""
        n = sum(self.n_units)
        generator = torch.Generator().manual_seed(0)
        opened = torch.ones(n)
        ranks = torch.ones(n)
        for number in range(1, ROUNDS + 1):
            importance = self.importance(opened, generator)
            still_open = opened.nonzero()[:, 0]
            rising = still_open[importance[still_open].argsort(stable=True)]
            ranks[rising] = torch.arange(n - len(rising) + 1, n + 1) / n
            n_left = math.ceil(n * SMALLEST ** (number / ROUNDS))
            opened[rising[: len(rising) - n_left]] = 0
        return ranks.numpy()


# Heads and MLPs of a ViT: TransformerLens, nnsight and plain PyTorch.


class Point(NamedTuple):
    """A place in the ViT of transformers whose value is read."""

    module: str
    """Name of the module."""
    side: str
    """``input`` or ``output`` of the module."""
    bridge: str
    """Name of TransformerLens' hook point."""


class Places:
    """The points of a ViT with some number of blocks."""

    def __init__(self, n_blocks: int) -> None:
        blocks = range(n_blocks)
        self.embed = Point("vit.embeddings", "output", "hook_embed")
        self.last = Point("vit.layernorm", "input", "ln_final.hook_in")
        self.before = [
            Point(
                f"vit.layers.{i}.layernorm_before", "input", f"blocks.{i}.ln1.hook_in"
            )
            for i in blocks
        ]
        self.ports = [
            [
                Point(
                    f"vit.layers.{i}.attention.{port}_proj",
                    "output",
                    f"blocks.{i}.attn.hook_{port}",
                )
                for port in PORTS
            ]
            for i in blocks
        ]
        self.z = [
            Point(
                f"vit.layers.{i}.attention.o_proj", "input", f"blocks.{i}.attn.hook_z"
            )
            for i in blocks
        ]
        self.middle = [
            Point(f"vit.layers.{i}.layernorm_after", "input", f"blocks.{i}.ln2.hook_in")
            for i in blocks
        ]
        self.mlp = [
            Point(f"vit.layers.{i}.mlp", "output", f"blocks.{i}.hook_mlp_out")
            for i in blocks
        ]

    @property
    def in_order(self) -> list[Point]:
        """All points in the order of a run."""
        points = [self.embed]
        for block, ports in enumerate(self.ports):
            points += [self.before[block], *ports, self.z[block]]
            points += [self.middle[block], self.mlp[block]]
        return [*points, self.last]


Head = tuple[int, int]
"""Index of the block, and of the head."""
Values = dict[Point, Tensor]


class HeadTool(ABC):
    """What a tool reads and writes in a ViT; scores are made of it in the same way for all tools."""

    def __init__(
        self, vit: Any, images: Tensor, others: Tensor, metric: Metric, rows: int
    ) -> None:
        self.vit: Any = vit
        self.images = images
        self.others = others
        self.metric = metric
        self.rows = rows
        self.n_heads: int = vit.config.num_attention_heads
        self.places = Places(vit.config.num_hidden_layers)

    @abstractmethod
    def run(
        self, x: Tensor, writes: Mapping[Point, Callable[[Tensor], Tensor]]
    ) -> Tensor:
        """Return the metric of images, with the values at points replaced by functions of them."""

    def read(
        self, images: Tensor, points: Sequence[Point], *, gradients: bool = False
    ) -> tuple[Values, Values]:
        """Return values at points and, if they are asked for, the gradients of the metric by them."""
        values = Values()

        def keep(point: Point, value: Tensor) -> Tensor:
            # A view is a reader's own copy, so its gradient is that of this reader alone.
            values[point] = value.view_as(value)
            return values[point]

        with torch.set_grad_enabled(gradients):
            x = images.clone().requires_grad_(gradients)
            metric = self.run(x, {point: partial(keep, point) for point in points})
        return values, slopes_of(metric, values) if gradients else {}

    def patching(self) -> np.ndarray:
        """Return the exact effect of each head: as many heads as fit share a run of the whole tower."""
        z = self.places.z
        other, _ = self.read(self.others, z)
        clean = self.run(self.images, {})
        heads = list(product(range(len(z)), range(self.n_heads)))
        at_once = max(1, self.rows // len(self.images))
        effects = list[Tensor]()
        for k in range(0, len(heads), at_once):
            chosen = heads[k : k + at_once]
            writes = {
                z[block]: partial(self.with_heads, chosen, block, other[z[block]])
                for block in sorted({block for block, _ in chosen})
            }
            values = self.run(self.images.repeat(len(chosen), 1, 1, 1), writes)
            effects.append((clean - values.view(len(chosen), -1)).mean(1))
        return torch.cat(effects).detach().numpy()

    def with_heads(
        self, chosen: Sequence[Head], block: int, other: Tensor, z: Tensor
    ) -> Tensor:
        """Return the heads of a block, in each copy of the images with the baseline of one head of ``chosen``."""
        written = z.clone()
        copies = written.view(len(chosen), *other.shape[:2], self.n_heads, -1)
        baseline = other.view(copies.shape[1:])
        for copy_number, (of_block, head) in enumerate(chosen):
            if of_block == block:
                copies[copy_number, :, :, head] = baseline[:, :, head]
        return written

    def gradients(self) -> np.ndarray:
        """Return the effect of each head to first order."""
        other, _ = self.read(self.others, self.places.z)
        clean, slopes = self.read(self.images, self.places.z, gradients=True)
        effects = list[Tensor]()
        for point in self.places.z:
            effect = ((clean[point] - other[point]) * slopes[point]).flatten(2)
            by_head = torch.unflatten(effect, 2, (self.n_heads, -1))
            effects.append(by_head.sum((1, 3)).mean(0))
        return torch.cat(effects).detach().numpy()

    def edges(self) -> np.ndarray:
        """Return the scores of the edges from heads and MLPs to later queries, keys, values and MLPs, to first order.

        The edges into one reader after the other, each from the first writer on.
        """
        points = self.places.in_order
        other, _ = self.read(self.others, points)
        clean, slopes = self.read(self.images, points, gradients=True)
        change = {point: clean[point].detach() - other[point] for point in points}
        # What has been written so far [writers, batch, position, width].
        written = [change[self.places.embed][None]]
        scores = list[Tensor]()

        def read_by(gradients: Tensor) -> None:
            writers = torch.cat(written).flatten(1)
            scores.append((gradients.flatten(1) @ writers.T).flatten())

        for block, layer in enumerate(self.vit.vit.layers):
            stream = clean[self.places.before[block]].detach()
            read_by(self.into_ports(block, layer, stream, slopes))
            flat = change[self.places.z[block]].flatten(2)
            z = torch.unflatten(flat, 2, (self.n_heads, -1))
            weight = layer.attention.o_proj.weight.unflatten(1, (self.n_heads, -1))
            written.append(torch.einsum("bphd,mhd->hbpm", z, weight))
            read_by(slopes[self.places.middle[block]][None])
            written.append(change[self.places.mlp[block]][None])
        read_by(slopes[self.places.last][None])
        return (torch.cat(scores) / len(self.images)).detach().numpy()

    def into_ports(
        self, block: int, layer: Any, stream: Tensor, slopes: Values
    ) -> Tensor:
        """Return the gradients [readers, ...] by the copy of the stream that each query, key and value reads."""
        into = list[Tensor]()
        for port, point in zip(PORTS, self.places.ports[block], strict=True):
            projection = getattr(layer.attention, f"{port}_proj")
            weight = projection.weight.unflatten(0, (self.n_heads, -1))
            flat = slopes[point].flatten(2)
            of_heads = torch.unflatten(flat, 2, (self.n_heads, -1))
            into.append(torch.einsum("bphd,hdm->hbpm", of_heads, weight))
        after_norm = torch.cat(into)
        copies = stream.expand_as(after_norm).clone().requires_grad_()
        with torch.enable_grad():
            normed = layer.layernorm_before(copies)
        return torch.autograd.grad(normed, copies, after_norm)[0]


class PlainHeads(HeadTool):
    """Plain PyTorch: hooks of modules."""

    def run(
        self, x: Tensor, writes: Mapping[Point, Callable[[Tensor], Tensor]]
    ) -> Tensor:
        with ExitStack() as hooks:
            for point, write in writes.items():
                module = self.vit.get_submodule(point.module)
                if point.side == "input":
                    handle = module.register_forward_pre_hook(
                        lambda _, inputs, write=write: (write(inputs[0]),)
                    )
                else:
                    handle = module.register_forward_hook(
                        lambda _, __, output, write=write: write(output)
                    )
                hooks.callback(handle.remove)
            return self.metric(self.vit(x).logits)


class BridgeHeads(HeadTool):
    """TransformerLens: its bridge of the ViT, whose hook points are named."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        from transformer_lens.model_bridge.sources import build_bridge_from_module

        self.bridge = build_bridge_from_module(
            self.vit, "ViTForImageClassification", hf_config=self.vit.config
        )

    def read(
        self, images: Tensor, points: Sequence[Point], *, gradients: bool = False
    ) -> tuple[Values, Values]:
        names = {point.bridge: point for point in points}
        if not gradients:
            with torch.no_grad():
                _, cache = self.bridge.run_with_cache(images, names_filter=[*names])
            return {names[name]: cache[name] for name in names}, {}
        from transformer_lens.tools.analysis.attribution_patching import (
            cache_activation_and_gradient,
        )

        cache = cache_activation_and_gradient(
            self.bridge,
            images.clone().requires_grad_(),
            lambda logits: self.metric(logits).sum(),
            # Without the embedding the first point asked for would get no gradient.
            names_filter=[self.places.embed.bridge, *names],
        )
        values = {names[name]: cache.activations[name] for name in names}
        slopes = {names[name]: cache.gradients[name] for name in names}
        return values, slopes

    def run(
        self, x: Tensor, writes: Mapping[Point, Callable[[Tensor], Tensor]]
    ) -> Tensor:
        hooks = [
            (point.bridge, lambda value, hook, write=write: write(value))
            for point, write in writes.items()
        ]
        with torch.no_grad():
            return self.metric(self.bridge.run_with_hooks(x, fwd_hooks=hooks))


class NnsightHeads(HeadTool):
    """Nnsight: a trace of the ViT."""

    def __init__(self, *given: Any) -> None:
        super().__init__(*given)
        from nnsight import NNsight  # type: ignore[import-not-found]  # not a dependency

        self.traced = NNsight(self.vit)
        self.envoys = {
            point: self.traced.get(point.module) for point in self.places.in_order
        }

    def run(
        self, x: Tensor, writes: Mapping[Point, Callable[[Tensor], Tensor]]
    ) -> Tensor:
        with self.traced.trace(x):
            for point, write in writes.items():
                envoy = self.envoys[point]
                if point.side == "input":
                    envoy.input = write(envoy.input)
                else:
                    envoy.output = write(envoy.output)
            logits = self.traced.output.logits.save()
        return self.metric(logits)


def slopes_of(metric: Tensor, values: Values) -> Values:
    """Return the gradients of a metric by the values that went into it."""
    gradients = torch.autograd.grad(metric.sum(), [*values.values()], allow_unused=True)
    return dict(zip(values, gradients, strict=True))

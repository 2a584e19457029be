"""Oracles that share no code with attribution: full runs with an activation replaced by a hook."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from circuitry import Encoder


def setting(tower: nn.Module, n: int = 3) -> tuple[Encoder, Tensor, Tensor]:
    encoder = Encoder.from_tower(tower)
    return (
        encoder,
        torch.randn(n, 3, *encoder.image_size),
        F.normalize(torch.randn(4, 16), dim=-1),
    )


def worst(a: dict, b: dict) -> float:  # type: ignore[type-arg]
    return max(float(np.linalg.norm(a[k] - b[k]) / np.linalg.norm(b[k])) for k in b)


def brute_force_nodes(
    encoder: Encoder,
    images: Tensor,
    weights: Tensor,
    site: str,
    points: int,
    ends: Tensor | None = None,
) -> np.ndarray:
    """Left rule by finite sums of full runs, image by image, that a hook changes; ``ends``: baselines of the images."""
    effects = []
    for i, image in enumerate(images):
        with torch.no_grad():
            _, cache = encoder.run_with_cache(image[None])
        end = torch.zeros_like(cache[site]) if ends is None else ends[i : i + 1]
        total: Any = 0
        for k in range(points):
            x = ((1 - k / points) * cache[site] + k / points * end).requires_grad_()
            y = encoder.run_with_hooks(
                image[None], fwd_hooks=[(site, lambda _, hook, x=x: x)]
            )
            total = (
                total + torch.autograd.grad((F.normalize(y) @ weights[1]).sum(), x)[0]
            )
        effect = ((cache[site] - end) * total / points)[0].movedim(
            encoder.unit_dim(site) % cache[site].dim() - 1, 0
        )
        effects.append(effect.flatten(1).sum(1) if effect.dim() > 1 else effect)
    return torch.stack(effects).mean(0).numpy()


def brute_force_edges(
    encoder: Encoder,
    images: Tensor,
    pair: tuple[str, str],
    kept: dict[str, np.ndarray],
    points: int,
    ends: Tensor | None = None,
) -> np.ndarray:
    """Left rule over full runs, one downstream unit at a time, on all images at once; see `brute_force_nodes`."""
    up, down = pair
    with torch.no_grad():
        _, cache = encoder.run_with_cache(images)
    end = torch.zeros_like(cache[up]) if ends is None else ends
    a = cache[up]
    dim_up = encoder.unit_dim(up)
    dim_down = encoder.unit_dim(down)
    rows = []
    for unit in kept[down].tolist():
        total: Any = 0
        for k in range(points):
            x = ((1 - k / points) * a + k / points * end).requires_grad_()
            y = encoder.run_with_hooks(
                images, stop=down, fwd_hooks=[(up, lambda _, hook, x=x: x)]
            )
            gap = F.mse_loss(
                y.select(dim_down, unit), cache[down].select(dim_down, unit)
            )
            total = total + torch.autograd.grad(gap, x)[0]
        effect = ((end - a) * total / points).movedim(dim_up, 1)
        rows.append(
            (effect.flatten(2).sum(2) if effect.dim() > 2 else effect).sum(0)[
                torch.from_numpy(kept[up])
            ]
        )
    return torch.stack(rows).numpy()

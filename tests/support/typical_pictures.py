"""A model of a few layers that tells classes by their typical pictures, and noisy pictures of these classes."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL.Image import fromarray
from torch import nn

from circuitry import DomainFolder, Encoder
from circuitry.models import Clip, from_encoder


def model_and_pictures(
    folder: Path, names: Sequence[str], domains: Sequence[str], n_images: int
) -> tuple[Clip, DomainFolder]:
    """Return the model, and as many pictures of each class in each domain."""
    rng = np.random.default_rng(0)
    typical = rng.integers(40, 215, (len(names), 4, 4, 3))
    for domain in domains:
        for name, picture in zip(names, typical, strict=True):
            place = folder / "data" / domain / name
            place.mkdir(parents=True)
            for i in range(n_images):
                noisy = picture + rng.normal(0, 20, picture.shape)
                fromarray(noisy.clip(0, 255).astype(np.uint8)).save(place / f"{i}.png")
    torch.manual_seed(0)
    first = nn.Sequential(nn.Flatten(), nn.Linear(48, 60))
    tower = nn.Sequential(
        first, nn.Tanh(), nn.Linear(60, 40), nn.Tanh(), nn.Linear(40, 16)
    )
    encoder = Encoder.from_stages(
        tower.eval(), ["0", ("1", "2"), ("3", "4")], (4, 4), -1
    )

    def prepared(picture: Any) -> torch.Tensor:
        pixels = torch.from_numpy(np.array(picture, np.float32))
        return pixels.permute(2, 0, 1) / 128 - 1

    with torch.no_grad():
        rows = tower(torch.stack([prepared(one.astype(np.uint8)) for one in typical]))
    clip = from_encoder(encoder, prepared, dict(zip(names, rows, strict=True)))
    return clip, DomainFolder(folder / "data", split=None)

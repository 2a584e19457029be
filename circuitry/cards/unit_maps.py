"""How strongly, and where in the image, a unit is active.

An activation holds a unit at many positions. Its activation in an image is the largest over all positions; its map is
its activation over the positions that lie in the image. At a head, which has a vector at every position, it is the
length of the vector.
"""

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from circuitry.encoder.encoder import Encoder

MAP_SIDE = 8
"""Most cells of a map in a row or a column; larger maps keep the largest activation of each cell."""


def unit_kind(encoder: Encoder, site: str) -> str:
    """Return the kind of a site's units: channel, feature, head, neuron or latent; hidden channels are channels.

    Example:
        >>> unit_kind(clip.encoder, "layer4.0")
        'channel'
    """
    if site in encoder.error_units:
        return "latent"
    if encoder.unit_dim(site) == 2 or site.endswith(".heads"):
        return "head"
    if site in encoder.carried and encoder.unit_dim(site) != 1:
        return "neuron"
    return "channel" if encoder.unit_dim(site) == 1 and site != encoder.sites[-1] else "feature"


def unit_maps(
    encoder: Encoder, site: str, activation: Float[Tensor, "batch ..."], units: Tensor
) -> Float[Tensor, "batch units positions"]:
    """Return the activation of some units (their numbers) at every position, all positions in one axis."""
    chosen = activation.movedim(encoder.unit_dim(site), 1).index_select(1, units)
    if unit_kind(encoder, site) == "head":
        chosen = chosen.norm(dim=-1)
    return chosen.reshape(*chosen.shape[:2], -1)


def map_grid(encoder: Encoder, site: str, maps: Float[Tensor, "batch units positions"]) -> Tensor | None:
    """Return maps over the image [batch, units, height, width], at most `MAP_SIDE` cells a side.

    None where the units have no place in the image. Tokens before the patches do not count.
    """
    positions = maps.shape[-1]
    if positions == 1:
        return None
    grid = encoder.chain.grid
    if grid is not None and positions == len(grid):
        maps = maps[..., len(grid.first) :]
        return _shrunk(rearrange(maps, "b u (h w) -> b u h w", h=grid.height))
    height, width = encoder.image_size
    rows = round((positions * height / width) ** 0.5)
    if rows * (positions // rows) != positions:
        return None
    return _shrunk(rearrange(maps, "b u (h w) -> b u h w", h=rows))


def _shrunk(maps: Tensor) -> Tensor:
    factor = -(-max(maps.shape[2:]) // MAP_SIDE)
    return F.max_pool2d(maps, factor, ceil_mode=True) if factor > 1 else maps

"""Where units are active: their activations at the positions of a site, arranged as maps over the image."""

import math

import torch.nn.functional as F
from einops import rearrange
from jaxtyping import Float
from torch import Tensor

from circuitry.encoder.encoder import Encoder

MAP_SIDE = 8
"""Largest height and width of a map. A larger map is reduced by max pooling."""


def unit_maps(
    encoder: Encoder,
    site: str,
    activation: Float[Tensor, "batch ..."],
    units: Tensor,
) -> Float[Tensor, "batch units positions"]:
    """Return the activation of some units at every position of a site. All positions lie along one axis.

    Args:
        encoder: The encoder.
        site: The site.
        activation: Activation of the site.
        units: Indices of the units.
    """
    chosen = activation.movedim(encoder.unit_dim(site), 1).index_select(1, units)
    # A head has a vector at each position. Its activation is the length of the vector.
    if encoder.kinds[site].is_vector:
        chosen = chosen.norm(dim=-1)
    return chosen.reshape(*chosen.shape[:2], -1)


def image_grid(
    encoder: Encoder,
    site: str,
    maps: Float[Tensor, "batch units positions"],
) -> Float[Tensor, "batch units height width"] | None:
    """Arrange numbers at the positions of a site as maps over the image.

    Numbers of tokens before the patches, such as the class token, are left out.

    Returns:
        The maps, or None if the positions of the site do not form a grid over the image.
    """
    positions = maps.shape[-1]
    # A single position: after pooling, or a class token alone, a unit describes the whole image.
    if positions == 1:
        return None
    grid = encoder.chain.grid
    if grid is not None and positions == len(grid):
        maps = maps[..., len(grid.first) :]
        rows = grid.height
    else:
        # Positions of a convolution. The number of rows follows from the shape of the image.
        height, width = encoder.image_size
        rows = round((positions * height / width) ** 0.5)
        # If the positions do not fill a grid, they do not lie in the image.
        if rows * (positions // rows) != positions:
            return None
    return rearrange(maps, "b u (h w) -> b u h w", h=rows)


def map_grid(
    encoder: Encoder,
    site: str,
    maps: Float[Tensor, "batch units positions"],
) -> Float[Tensor, "batch units height width"] | None:
    """Arrange activations at positions as `image_grid` does, in at most `MAP_SIDE` rows and columns, by max pooling."""
    cells = image_grid(encoder, site, maps)
    if cells is None:
        return None
    factor = math.ceil(max(cells.shape[2:]) / MAP_SIDE)
    if factor == 1:
        return cells
    # ceil_mode keeps a last row or column that does not fill a cell.
    return F.max_pool2d(cells, factor, ceil_mode=True)

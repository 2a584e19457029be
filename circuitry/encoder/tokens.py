"""The tokens of a transformer: first those without a place in the image, then its patches, row by row. No torch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Shaped

from circuitry.runs.errors import InputError

CLASS_TOKEN = "class token"


@dataclass(frozen=True)
class TokenGrid:
    """The tokens of a tower, in order; see `Encoder.token_grid`.

    Example:
        >>> grid = clip.encoder.token_grid
        >>> grid.patches(direct_effects(stream, photos, weights[3]).by_position)    # of heads, over each image
    """

    first: tuple[str, ...]
    """Names of the tokens before the patches: class token, registers."""
    height: int
    width: int
    """Of the grid of patches."""

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return len(self.first) + self.height * self.width

    def patches(self, by_token: Shaped[np.ndarray, "*axes tokens"]) -> Shaped[np.ndarray, "*axes height width"]:
        """Return numbers by token as grids over the image, without the tokens before them.

        Raises:
            InputError: for another number of tokens.
        """
        if by_token.shape[-1:] != (len(self),):
            raise InputError(
                f"This tower has {len(self)} tokens ({len(self.first)} and {self.height} x {self.width} patches), but "
                f"numbers of shape {list(by_token.shape)} were given: their last axis is the tokens."
            )
        return by_token[..., len(self.first) :].reshape(*by_token.shape[:-1], self.height, self.width)

"""Where a transformer's tokens lie: first those of no place in the image, then its patches, row by row. No torch."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Shaped

from circuitry.runs.errors import InputError

CLASS_TOKEN = "class token"


@dataclass(frozen=True)
class TokenGrid:
    """The tokens of a tower, in order; see `token_grid`.

    Example:
        >>> grid = token_grid(clip.encoder.tower)
        >>> by_position = edges_by_position(stream, photos, metric, [("blocks.2.attn.1", "blocks.3.mlp")])
        >>> position_heatmap(grid.patches(by_position)[0, 0], pixels, title="...", measure="effect on the logit")
    """

    first: tuple[str, ...]
    """What the tokens before the patches are called: class token, registers."""
    height: int
    width: int
    """Of the grid of patches."""

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return len(self.first) + self.height * self.width

    def patches(self, by_token: Shaped[np.ndarray, "*axes tokens"]) -> Shaped[np.ndarray, "*axes height width"]:
        """Return numbers by token as grids over the image, without the tokens of no place.

        Raises:
            InputError: for another number of tokens.
        """
        self._check(by_token)
        return by_token[..., len(self.first) :].reshape(*by_token.shape[:-1], self.height, self.width)

    def class_token(self, by_token: Float[np.ndarray, "*axes tokens"]) -> Float[np.ndarray, "*axes"]:
        """Return the class token's of numbers by token.

        Raises:
            InputError: for a tower without a class token, or another number of tokens.
        """
        self._check(by_token)
        if CLASS_TOKEN not in self.first:
            others = f" and {', '.join(self.first)}" if self.first else ""
            raise InputError(
                f"This tower has no class token: its {len(self)} tokens are {self.height} x {self.width} patches"
                f"{others}, which it pools; take the patches."
            )
        found: np.ndarray = by_token[..., self.first.index(CLASS_TOKEN)]
        return found

    def _check(self, by_token: np.ndarray) -> None:
        if by_token.shape[-1:] != (len(self),):
            raise InputError(
                f"This tower has {len(self)} tokens ({len(self.first)} and {self.height} x {self.width} patches), but "
                f"numbers of shape {list(by_token.shape)} were given: their last axis is the tokens."
            )

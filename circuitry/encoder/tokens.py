"""The tokens of a transformer: first the tokens that belong to no patch, then the patches, row by row.

Does not import torch.
"""

from dataclasses import dataclass

CLASS_TOKEN = "class token"


@dataclass(frozen=True)
class TokenGrid:
    """The tokens of a tower, and the grid of its patches in the image; see `Encoder.token_grid`.

    Example:
        >>> vit.encoder.token_grid
        TokenGrid(first=('class token',), height=4, width=4)
        >>> len(vit.encoder.token_grid)
        17
    """

    first: tuple[str, ...]
    """Names of the tokens before the patches: the class token, then the registers."""
    height: int  #: Number of rows of the grid of patches.
    width: int
    """Number of columns of the grid of patches."""

    def __len__(self) -> int:
        """Return the number of tokens."""
        return len(self.first) + self.height * self.width


def register_names(count: int) -> tuple[str, ...]:
    """Return the names of ``count`` register tokens."""
    return tuple(f"register {i + 1}" for i in range(count))

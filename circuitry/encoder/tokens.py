"""The tokens of a transformer: tokens without a place in the image, then the patches, row by row. No torch."""

from dataclasses import dataclass

CLASS_TOKEN = "class token"


@dataclass(frozen=True)
class TokenGrid:
    """Places of a tower's tokens in the image; see `Encoder.token_grid`.

    Example:
        >>> vit.encoder.token_grid
        TokenGrid(first=('class token',), height=4, width=4)
        >>> len(vit.encoder.token_grid)
        17
    """

    first: tuple[str, ...]
    """Names of the tokens before the patches: the class token and registers."""
    height: int  #: Rows of the grid of patches.
    width: int
    """Columns of the grid of patches."""

    def __len__(self) -> int:
        """Return how many tokens there are."""
        return len(self.first) + self.height * self.width


def register_names(count: int) -> tuple[str, ...]:
    """Return the names of a tower's registers."""
    return tuple(f"register {i + 1}" for i in range(count))

"""Direct effects of components: what `direct_effects` measures, image by image. No torch."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.runs.arguments import DISTINCT


@dataclass(frozen=True, eq=False, repr=False)
class DirectEffects:
    """Direct effects of the components of a transformer on a class logit, image by image.

    Example:
        >>> stream = circuitry.bases.ResidualStream.of(vit.encoder)
        >>> weight = vit.text_weights(folder.classes)[1]
        >>> table = circuitry.circuits.direct_effects(stream, images, weight).to_pandas()
        >>> list(table), table["writer"].iloc[-1]
        (['writer', 'effect'], 'rest')
    """

    writers: Annotated[tuple[str, ...], DISTINCT]
    """Names of heads and MLPs."""
    effects: Float[np.ndarray, "images writers"]
    """Number that each writer adds to the logit of each image."""
    rest: Float[np.ndarray, " images"]
    """Effect of all biases together."""
    logits: Float[np.ndarray, " images"]
    """The class logit, which effects and rest add up to."""

    def to_pandas(self) -> pd.DataFrame:
        """Return means over images: writer, effect, largest first, then ``rest``; they add up to the mean logit."""
        table = pd.DataFrame({"writer": self.writers, "effect": self.effects.mean(0)})
        # A stable order: writers of equal effect stay in the order of the tower.
        table = table.sort_values("effect", key=abs, ascending=False, kind="stable")
        rest = pd.DataFrame({"writer": ["rest"], "effect": [self.rest.mean()]})
        return pd.concat([table, rest], ignore_index=True)

    def __repr__(self) -> str:
        first = self.to_pandas().iloc[0]
        return (
            f"DirectEffects of {len(self.writers)} components on a logit of {self.logits.mean():.3g} over "
            f"{len(self.logits)} images; the largest: {first['effect']:.3g} of {first['writer']}"
        )

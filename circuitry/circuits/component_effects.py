"""Direct effects of the components of a transformer on a class logit, image by image: the result of `direct_effects`.

The direct effect of a component is what it adds to the logit through the residual stream alone, past all later
components.

Does not import torch.
"""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.runs.arguments import DISTINCT
from circuitry.runs.notebooks import Shown


@dataclass(frozen=True, eq=False, repr=False)
class DirectEffects(Shown):
    """Direct effects of the components of a transformer on a class logit, image by image.

    The components are the heads, the MLPs and ``embed``, the residual stream before the first block. They are called
    writers, because they add to the residual stream. The direct effect of a writer is what it adds to the logit past
    all later components.

    Example:
        >>> stream = circuitry.bases.ResidualStream.of(vit.encoder)
        >>> weight = vit.text_weights(folder.classes)[1]
        >>> table = circuitry.circuits.direct_effects(stream, images, weight).to_pandas()
        >>> list(table), table["writer"].iloc[-1]
        (['writer', 'effect'], 'rest')
    """

    writers: Annotated[tuple[str, ...], DISTINCT]
    """Names of ``embed``, the heads and the MLPs."""
    effects: Float[np.ndarray, "images writers"]
    """What each writer adds to the logit of each image."""
    rest: Float[np.ndarray, " images"]
    """What all biases together add to the logit of each image."""
    logits: Float[np.ndarray, " images"]
    """The class logit of each image: the sum of the effects and the rest."""

    def to_pandas(self) -> pd.DataFrame:
        """Return a table of the mean effects over images, with the columns writer and effect.

        A writer is a component that adds to the residual stream, such as a head. The writer with the largest absolute
        effect comes first. The last row is ``rest``, the effect of all biases. The effects of all rows add up to the
        mean logit.
        """
        table = pd.DataFrame({"writer": self.writers, "effect": self.effects.mean(0)})
        # A stable sort keeps writers with equal effects in the order of the tower.
        table = table.sort_values("effect", key=abs, ascending=False, kind="stable")
        rest = pd.DataFrame({"writer": ["rest"], "effect": [self.rest.mean()]})
        return pd.concat([table, rest], ignore_index=True)

    def __repr__(self) -> str:
        first = self.to_pandas().iloc[0]
        return (
            f"DirectEffects of {len(self.writers)} components on a logit of {self.logits.mean():.3g} over "
            f"{len(self.logits)} images; the largest: {first['effect']:.3g} of {first['writer']}"
        )

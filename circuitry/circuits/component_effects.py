"""Direct effects of components: what `direct_effects` measures, image by image. No torch."""

from dataclasses import dataclass
from typing import Annotated

import numpy as np
import pandas as pd
from jaxtyping import Float

from circuitry.runs.given import DISTINCT


@dataclass(frozen=True, eq=False, repr=False)
class DirectEffects:
    """Direct effects of the components of a transformer on a class logit, image by image.

    Example:
        >>> found.to_pandas().head()    # the components with the largest mean effect
    """

    writers: Annotated[tuple[str, ...], DISTINCT]  #: Names of heads and MLPs.
    effects: Float[
        np.ndarray, "images writers"
    ]  #: What each adds to the logit of each image.
    rest: Float[np.ndarray, " images"]
    """Effect of all biases together."""
    logits: Float[np.ndarray, " images"]
    """The class logit, which effects and rest add up to."""

    def to_pandas(self) -> pd.DataFrame:
        """Return means over images: writer, effect, largest first, then ``rest``; they add up to the mean logit."""
        table = pd.DataFrame({"writer": self.writers, "effect": self.effects.mean(0)})
        rest = pd.DataFrame({"writer": ["rest"], "effect": [self.rest.mean()]})
        return pd.concat(
            [
                table.sort_values("effect", key=abs, ascending=False, kind="stable"),
                rest,
            ],
            ignore_index=True,
        )

    def __repr__(self) -> str:
        first = self.to_pandas().iloc[0]
        return (
            f"DirectEffects of {len(self.writers)} components on a logit of {self.logits.mean():.3g} over "
            f"{len(self.logits)} images; the largest: {first['effect']:.3g} of {first['writer']}"
        )

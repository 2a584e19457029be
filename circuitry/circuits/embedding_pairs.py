"""Split the embedding of a CLIP ResNet into pairs of a head of its attention pooling and a unit of its last block.

The embedding is exactly a sum over pairs of a head h and a unit c (arXiv 2509.19943), and a rest of positions and
biases:

    embedding  = sum over h, c of  read[h, c] direction[h, c]  +  rest
    read[h, c] = sum over positions t of  pattern[h, t] x[t, c]

So the class logit, the cosine of the embedding with a class's text weight, is the sum of the pairs' direct effects.
Each pair has one direction in the space of texts, the same for all images.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from einops import rearrange
from jaxtyping import Float
from open_clip.modified_resnet import AttentionPool2d
from torch import Tensor

from circuitry.encoder.encoder import Encoder
from circuitry.encoder.narrowing import pooled_tokens
from circuitry.encoder.tensor_batches import ImageBatches, Images, rows_that_fit
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked
from circuitry.runs.workers import Work


@dataclass(frozen=True, eq=False)
class PoolingPairs:
    """The embeddings of images as sums over pairs of (head of the attention pooling, unit of the last block)."""

    read: Float[np.ndarray, "images heads units"]
    """A unit's mean over positions, weighted by a head's attention pattern."""
    directions: Float[np.ndarray, "heads units d"]
    """The contribution of a pair to the embedding, per unit of ``read``."""
    rest: Float[np.ndarray, "images d"]
    """The contribution of positions and biases."""

    @property
    def embeddings(self) -> Float[np.ndarray, "images d"]:
        """The sum of pairs and rest: the embeddings of the images, not normalised."""
        found: np.ndarray = (
            np.einsum("bhc,hcd->bd", self.read, self.directions, optimize=True)
            + self.rest
        )
        return found

    def effects(
        self, weight: Float[np.ndarray, " d"]
    ) -> Float[np.ndarray, "images heads units"]:
        """Return the direct effect of each pair on the logit of a normalised text weight, or a difference of two."""
        lengths = np.linalg.norm(self.embeddings, axis=-1)
        found: np.ndarray = (
            self.read * (self.directions @ weight) / lengths[:, None, None]
        )
        return found


@checked
def pooling_pairs(encoder: Encoder, images: Images) -> PoolingPairs:
    """Decompose the embeddings of a CLIP ResNet into pairs of a head of its pooling and a unit that it reads.

    Example:
        >>> pairs = pooling_pairs(clip.encoder, photos)
        >>> pairs.effects(weights[3]).mean(0)  # of each head and unit on the logit of the class 3
    """
    pool = getattr(encoder.tower, "attnpool", None)
    if not isinstance(pool, AttentionPool2d):
        raise InputError(
            "Pairs of heads and units need a CLIP ResNet's attention pooling, but a "
            f"{type(encoder.tower).__name__} has none: use direct_effects."
        )
    with encoder.running():
        encoder.check_unhooked(
            "pairs add up to an embedding that nothing changes behind them",
            encoder.sites[-2],
        )
        batches = ImageBatches(
            images, encoder, rows_that_fit(encoder, Work().memory_gib)
        )
        parts = [
            _read(pool, encoder(batch, stop=encoder.sites[-2])) for batch in batches
        ]
        value = rearrange(
            pool.v_proj.weight, "(head s) c -> head c s", head=pool.num_heads
        )
        out = rearrange(
            pool.c_proj.weight, "d (head s) -> head s d", head=pool.num_heads
        )
        read, rest = (torch.cat(some) for some in zip(*parts, strict=True))
        return PoolingPairs(
            *(one.cpu().double().numpy() for one in (read, value @ out, rest))
        )


def _read(pool: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the units as heads read them [batch, head, unit], and the part of positions and biases [batch, d]."""
    n, units, position = pool.num_heads, pooled_tokens(x), pool.positional_embedding
    tokens = units + position
    q, k = (
        rearrange(of, "b t (head s) -> b head t s", head=n)
        for of in (pool.q_proj(tokens[:, :1]), pool.k_proj(tokens))
    )
    pattern = (q @ k.mT * q.shape[-1] ** -0.5).softmax(-1)[
        :, :, 0
    ]  # batch, head, token
    placed = rearrange(
        pool.v_proj(position), "t (head s) -> head t s", head=n
    )  # with the bias: patterns add up to 1
    rest = pool.c_proj(
        rearrange(pattern[:, :, None] @ placed, "b head 1 s -> b (head s)")
    )
    return torch.einsum("bht,btc->bhc", pattern, units), rest

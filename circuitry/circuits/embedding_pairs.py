"""Split the embedding of a CLIP ResNet into pairs of a head of its attention pooling and a unit of its last block.

The embedding is exactly a sum over pairs of a head h and a unit c (arXiv 2509.19943), and a rest of positions and
biases:

    embedding  = sum over h, c of  read[h, c] direction[h, c]  +  rest
    read[h, c] = sum over positions t of  pattern[h, t] x[t, c]

So the class logit, the cosine of the embedding with a class's text weight, is the sum of the pairs' direct effects.
Each pair has one direction in the space of texts, the same for all images.
"""

from dataclasses import dataclass
from functools import partial
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
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work


@dataclass(frozen=True, eq=False)
class PoolingPairs:
    """The embeddings of images as sums over pairs of (head of the attention pooling, unit of the last block).

    Example:
        >>> pairs = pooling_pairs(encoder, images)
        >>> bool(np.allclose(pairs.embeddings, encoder(images).detach(), atol=1e-4))
        True
    """

    read: Float[np.ndarray, "images heads units"]
    """A unit's mean over positions, weighted by a head's attention pattern."""
    directions: Float[np.ndarray, "heads units d"]
    """The contribution of a pair to the embedding, per unit of ``read``."""
    rest: Float[np.ndarray, "images d"]
    """The contribution of positions and biases."""

    @property
    def embeddings(self) -> Float[np.ndarray, "images d"]:
        """The sum of pairs and rest: the embeddings of the images, not normalised."""
        # Optimised, this is one matrix product; else numpy loops over all four axes.
        of_pairs = np.einsum("bhc,hcd->bd", self.read, self.directions, optimize=True)
        embeddings: np.ndarray = of_pairs + self.rest
        return embeddings

    def effects(
        self, weight: Float[np.ndarray, " d"]
    ) -> Float[np.ndarray, "images heads units"]:
        """Return the direct effect of each pair on the logit of a normalised text weight, or a difference of two."""
        lengths = np.linalg.norm(self.embeddings, axis=-1)
        logits = self.read * (self.directions @ weight)
        effects: np.ndarray = logits / lengths[:, None, None]
        return effects


@checked
def pooling_pairs(encoder: Encoder, images: Images) -> PoolingPairs:
    """Decompose the embeddings of a CLIP ResNet into pairs of a head of its pooling and a unit that it reads.

    Example:
        >>> pairs = pooling_pairs(encoder, images)
        >>> effects = pairs.effects(weights[1].numpy())  # on the logit of the class 1
        >>> effects.shape == pairs.read.shape  # [images, heads, units]
        True
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
        rows = rows_that_fit(encoder, Work().memory_gib)
        reads = list[Tensor]()
        rests = list[Tensor]()
        for batch in ImageBatches(images, encoder, rows):
            read, rest = _read(pool, encoder(batch, stop=encoder.sites[-2]))
            reads.append(read)
            rests.append(rest)
        # A unit passes a head's value and then its part of the output: one matrix for each head.
        n = pool.num_heads
        value = rearrange(pool.v_proj.weight, "(head s) c -> head c s", head=n)
        out = rearrange(pool.c_proj.weight, "d (head s) -> head s d", head=n)
        return PoolingPairs(
            _as_array(torch.cat(reads)),
            _as_array(value @ out),
            _as_array(torch.cat(rests)),
        )


def _as_array(x: Tensor) -> np.ndarray:
    return x.cpu().double().numpy()


def _read(pool: Any, x: Tensor) -> tuple[Tensor, Tensor]:
    """Return the units as heads read them [batch, head, unit], and the part of positions and biases [batch, d]."""
    units = pooled_tokens(x)
    position = pool.positional_embedding
    tokens = units + position
    by_head = partial(rearrange, head=pool.num_heads)
    # Only the first token, the mean of all, is a query: its output is the embedding.
    q = by_head(pool.q_proj(tokens[:, :1]), "b t (head s) -> b head t s")
    k = by_head(pool.k_proj(tokens), "b t (head s) -> b head t s")
    scores = q @ k.mT * q.shape[-1] ** -0.5
    pattern = scores.softmax(-1)[:, :, 0]  # [batch, head, token]
    # With the value's bias, which heads read in full: their patterns add up to 1.
    placed = by_head(pool.v_proj(position), "t (head s) -> head t s")
    of_heads = rearrange(pattern[:, :, None] @ placed, "b head 1 s -> b (head s)")
    rest = pool.c_proj(of_heads)
    return torch.einsum("bht,btc->bhc", pattern, units), rest

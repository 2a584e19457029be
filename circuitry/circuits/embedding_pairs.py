"""Write the embedding of a CLIP ResNet as a sum over pairs: a head of the attention pooling and a unit that it reads.

The units are the units of the last block. The embedding is exactly a sum of one contribution for each pair of a head h
and a unit c, plus a rest that comes from positional embeddings and biases (arXiv 2509.19943). Let x[t, c] be the
activation of unit c at position t, and pattern[h, t] the attention of head h to this position. Then

    embedding  = sum over h, c of  read[h, c] direction[h, c]  +  rest
    read[h, c] = sum over positions t of  pattern[h, t] x[t, c]

So the class logit, which is the cosine of the embedding with the text weight of a class, is the sum of the direct
effects of the pairs and of the rest. Each pair has a single direction in the space of embeddings, the same for all
images.
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
    """What a head reads of a unit: the mean of the unit over positions, weighted by the head's attention pattern."""
    directions: Float[np.ndarray, "heads units d"]
    """Direction of each pair: it adds ``read`` times this vector to the embedding."""
    rest: Float[np.ndarray, "images d"]
    """What positional embeddings and biases add to the embedding."""

    @property
    def embeddings(self) -> Float[np.ndarray, "images d"]:
        """The embeddings of the images, not normalised: the sum of all pairs and the rest."""
        # With optimize=True this is one matrix product. Without it numpy would loop over all four axes.
        of_pairs = np.einsum("bhc,hcd->bd", self.read, self.directions, optimize=True)
        embeddings: np.ndarray = of_pairs + self.rest
        return embeddings


@checked
def pooling_pairs(encoder: Encoder, images: Images) -> PoolingPairs:
    """Decompose the embeddings of a CLIP ResNet into sums of contributions.

    There is one contribution for each pair of a head of the attention pooling and a unit of the last block, which the
    head reads. A rest comes from positional embeddings and biases.

    Example:
        >>> pairs = pooling_pairs(encoder, images)
        >>> effects = pairs.read * (pairs.directions @ weights[1].numpy())  # on the class 1, times the length
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
        # A unit passes through the value of a head and then through the head's share of the output: a matrix per head.
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
    """Return what each head reads from each unit, and the part of the embedding that comes from no unit.

    The first array [batch, heads, units] is the mean of a unit over positions, weighted by the attention of a head. The
    second array [batch, d] comes from positional embeddings and biases. They are ``read`` and ``rest`` of
    `PoolingPairs`.

    Args:
        pool: The attention pooling of the tower.
        x: Activations of the last block for a batch of images.
    """
    units = pooled_tokens(x)
    position = pool.positional_embedding
    tokens = units + position
    by_head = partial(rearrange, head=pool.num_heads)
    # Only the first token, which is the mean of all tokens, is used as a query: its output is the embedding.
    q = by_head(pool.q_proj(tokens[:, :1]), "b t (head s) -> b head t s")
    k = by_head(pool.k_proj(tokens), "b t (head s) -> b head t s")
    scores = q @ k.mT * q.shape[-1] ** -0.5
    pattern = scores.softmax(-1)[:, :, 0]  # [batch, head, token]
    # With the bias of the values, which enters fully because the attention pattern of a head sums to 1.
    placed = by_head(pool.v_proj(position), "t (head s) -> head t s")
    of_heads = rearrange(pattern[:, :, None] @ placed, "b head 1 s -> b (head s)")
    rest = pool.c_proj(of_heads)
    return torch.einsum("bht,btc->bhc", pattern, units), rest

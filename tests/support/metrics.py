"""A metric that is linear in no site."""

from torch import Tensor


def product(embedding: Tensor) -> Tensor:
    return embedding[:, 0] * embedding[:, 1] + embedding[:, 2]

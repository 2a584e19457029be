"""How much answers depend on each gate while all are open: what learned masks start from.

With J_i = d answers of image i / d gate, closing a gate a little costs |J_i|^2 of squared distance. Its mean over
images is the diagonal of the Fisher information, as in pruning (Theis et al. 2018, arXiv 1801.05787): unlike the mean
effect, it spares a unit that raises the answers of one image and lowers those of another.
"""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor


def answer_changes(
    answers_under: Callable[[Tensor, Tensor], Tensor],
    gates: Float[Tensor, " gates"],
    images: Sequence[int],
    generator: torch.Generator,
) -> Float[Tensor, " gates"]:
    """Return an estimate of the mean over images of the squared change of the answers by each gate.

    Args:
        answers_under: From gates and places of images to answers [images, answers], differentiable in the gates.
        gates: Where the change is taken.
        images: Places of images, one gradient each: of the answers times a normal random vector, whose mean square is
            that of all answers.
        generator: Of the random vectors.
    """
    at, total = gates.detach().clone().requires_grad_(), torch.zeros_like(gates)
    for place in images:
        found = answers_under(at, torch.tensor([place]))
        direction = torch.randn(found.shape, generator=generator).to(found)
        total += torch.autograd.grad(found, [at], [direction])[0].square()
    return total / len(images)


def normal_ranks(values: Float[Tensor, " units"]) -> Float[Tensor, " units"]:
    """Return the normal quantiles of the ranks of values, the first the lower among equals."""
    ranks = torch.argsort(torch.argsort(values, stable=True)).double()
    quantiles: Tensor = torch.special.ndtri((ranks + 0.5) / len(values))
    return quantiles.float()

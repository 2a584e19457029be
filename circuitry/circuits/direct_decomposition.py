"""Decompose a class logit exactly into the direct effects of components, which skip all later components.

The class logit is the cosine of the embedding with a class's text weight. With the length of the embedding, and the
scale of the tower's last norm, as they are on the image, it is linear in the residual stream behind the last block, and
so it is the sum of what the last stage makes of what each writer put there (Gandelsman et al. 2024, arXiv 2310.05916),
and of the biases.

For CLIP's ResNets see `pooling_pairs`.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from circuitry.bases.residual import ResidualStream
from circuitry.circuits.component_effects import DirectEffects
from circuitry.encoder.norms import NORMS, normed_with, scale_of
from circuitry.encoder.tensor_batches import ImageBatches, Images, rows_that_fit
from circuitry.runs.arguments import checked
from circuitry.runs.errors import InputError
from circuitry.runs.workers import Work

ROUNDINGS = 100
"""How often rounding may add up in the last step of a tower that is linear."""


@checked
def direct_effects(
    stream: ResidualStream, images: Images, weight: Float[Tensor, " d"]
) -> DirectEffects:
    """Decompose the class logit into heads, MLPs and what stands before the first block.

    Args:
        weight: Text weight of the class, normalised; ``weights[label]``.

    Raises:
        InputError: for no images, a weight of another size, a tower that pools by attention or has more than a
            linear map behind its pooling, or hooks in the blocks or behind them.

    Example:
        >>> stream = circuitry.bases.ResidualStream.of(vit.encoder)
        >>> weight = vit.text_weights(folder.classes)[1]
        >>> direct = circuitry.circuits.direct_effects(stream, images, weight)
        >>> bool(np.allclose(direct.effects.sum(1) + direct.rest, direct.logits, atol=1e-4))
        True
    """
    width = _check_linear(stream)
    if weight.shape != (width,):
        raise InputError(
            f"The text weight of a class has the {width} numbers of an embedding, but one of shape "
            f"{list(weight.shape)} was given: give one row of the text weights."
        )
    class_text = weight.detach().cpu().double().numpy()
    effects = list[np.ndarray]()
    of_rest = list[np.ndarray]()
    logits = list[np.ndarray]()
    for vectors, rest, embedding in _added(stream, images, Work()):
        # The length of the whole embedding for all terms, so that they add up to its cosine.
        lengths = np.linalg.norm(embedding, axis=-1)
        effects.append((vectors @ class_text).T / lengths)
        of_rest.append(rest @ class_text / lengths)
        logits.append(embedding @ class_text / lengths)
    return DirectEffects(
        tuple(map(str, stream.writers)),
        np.concatenate(effects, -1).T,
        np.concatenate(of_rest),
        np.concatenate(logits),
    )


@checked
def direct_vectors(
    stream: ResidualStream, images: Images, work: Work = Work()
) -> Float[np.ndarray, "images writers d"]:
    """Return the vector that each writer adds to the embedding directly: times a text weight it is a direct effect.

    It takes the arguments of `direct_effects`, and does not divide by the length of the embedding.

    Example:
        >>> stream = circuitry.bases.ResidualStream.of(vit.encoder)
        >>> vectors = circuitry.circuits.direct_vectors(stream, images)
        >>> vectors.shape[:2] == (4, len(stream.writers))
        True
    """
    _check_linear(stream)
    return np.concatenate([vectors for vectors, *_ in _added(stream, images, work)])


def _added(
    stream: ResidualStream, images: Images, work: Work
) -> Iterator[list[np.ndarray]]:
    """Yield the additions of each writer [images, writers, d] and of all biases [images, d], and the embeddings."""
    components = stream.components
    last = stream.encoder.stages[-1].run
    n_blocks = len(stream.blocks)
    end = f"blocks.{n_blocks - 1}.hook_resid_post"
    why = "what components add adds up where nothing changes it: put hooks before the blocks, at stream.components"
    with components.running():
        components.check_unhooked(why, stream.sites[0])
        stream.encoder.check_unhooked(why)
        rows = rows_that_fit(stream.encoder, work.memory_gib)
        for batch in ImageBatches(images, components, rows):
            _, cache = components.run_with_cache(
                batch, names_filter=lambda name: name in (*stream.sites, end)
            )
            biases = sum(bias for i in range(n_blocks) for bias in stream.biases(i))
            with _held_norms(stream.encoder.tower):
                # First the embedding: its run sets the scales that all others are divided by.
                embedding = last(cache[end])
                zero = torch.zeros_like(cache[end])
                # Less the last stage's own biases, which count once, with the rest.
                at_zero = last(zero)
                vectors = [last(written) - at_zero for written in stream.written(cache)]
                rest = last(zero + biases)
            terms = (torch.stack(vectors, 1), rest, embedding)
            yield [term.cpu().double().numpy() for term in terms]


@contextmanager
def _held_norms(tower: nn.Module) -> Iterator[None]:
    """Within the block each norm divides by the scale of its first input, so that it is an affine map."""
    scales: dict[nn.Module, Tensor] = {}

    def held(norm: nn.Module, inputs: tuple[Tensor], out: Tensor) -> Tensor:
        (x,) = inputs
        if norm not in scales:
            scales[norm] = scale_of(norm, x.detach())
        return normed_with(norm, x, scales[norm])

    with ExitStack() as hooks:
        for norm in tower.modules():
            if isinstance(norm, NORMS):
                hooks.callback(norm.register_forward_hook(held).remove)
        yield


def _check_linear(stream: ResidualStream) -> int:
    """Return the width of the embedding after checking that it is linear in the last stream with fixed norm scales."""
    encoder = stream.encoder
    last = encoder.stages[-1]
    x = encoder.read_unhooked(encoder.blank(), encoder.sites[-2:-1])[encoder.sites[-2]]
    with encoder.running(), _held_norms(encoder.tower):
        last.run(x)  # which sets the scales
        generator = torch.Generator().manual_seed(0)
        # A long step, so that a curve is no rounding.
        step = 10 * x.std() * torch.randn(x.shape, generator=generator).to(x)
        at_zero = last.run(torch.zeros_like(x))
        there = last.run(step) - at_zero
        back = last.run(-2 * step) - at_zero
    # A linear map takes the step -2 s to -2 times what it makes of s.
    error = (back + 2 * there).abs().max()
    if error > ROUNDINGS * torch.finfo(x.dtype).eps * back.abs().max():
        raise InputError(
            f"Direct effects need an embedding that is linear in the last residual stream, but {last.site} of this "
            f"{type(encoder.tower).__name__} pools by attention or has layers that are not linear behind its pooling: "
            "look at the effects of its heads as units instead (in_components)."
        )
    return at_zero.shape[-1]

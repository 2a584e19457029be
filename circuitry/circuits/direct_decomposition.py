"""Decompose a class logit exactly into the direct effects of components.

The direct effect of a component (a head or an MLP) is what it adds to the logit through the residual stream alone, past
all later components. The class logit is the cosine of the embedding with the text weight of a class. For each image,
the length of the embedding and the scale of the tower's last norm are held fixed. Then the logit is linear in the
residual stream after the last block. So the logit is a sum with a term for each component (Gandelsman et al. 2024,
arXiv 2310.05916). To compute the term of a component, the last stage is applied to the vector that the component adds
to the stream. The term is the dot product of the result with the text weight, divided by the length of the embedding.
The biases add one more term.

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
"""How many rounding errors may add up in the check that the last stage of a tower is linear."""


@checked
def direct_effects(
    stream: ResidualStream, images: Images, weight: Float[Tensor, " d"]
) -> DirectEffects:
    """Return the direct effects on a class logit of all heads, all MLPs and the stream before the first block.

    Args:
        stream: The residual stream of the tower.
        images: The images.
        weight: Normalised text weight of the class: ``weights[label]``.

    Raises:
        InputError: if there are no images, the weight has a wrong size, the tower pools by attention or has more than a
            linear map after its pooling, or there are hooks in the blocks or after them.

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
        # All terms are divided by the length of the whole embedding, so that they add up to its cosine.
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
    """Return the vector that each component adds to the embedding directly, past all later components.

    The components are the ``writers`` of the stream: ``embed``, the heads and the MLPs. The product of a vector with
    the text weight of a class, divided by the length of the embedding, is a direct effect on the class logit; see
    `direct_effects`.

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
    """Yield, for each batch, the terms whose sum is the embedding, and the embedding itself.

    There are three arrays: the vectors that the writers add [images, writers, d], the vector that all biases together
    add [images, d], and the embeddings [images, d].
    """
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
                # The embedding comes first: its run sets the scales by which the norms divide in all other runs.
                embedding = last(cache[end])
                zero = torch.zeros_like(cache[end])
                # The output at zero is subtracted, because the biases of the last stage belong to the rest.
                at_zero = last(zero)
                vectors = [last(written) - at_zero for written in stream.written(cache)]
                rest = last(zero + biases)
            terms = (torch.stack(vectors, 1), rest, embedding)
            yield [term.cpu().double().numpy() for term in terms]


@contextmanager
def _held_norms(tower: nn.Module) -> Iterator[None]:
    """Within the block, let each norm keep the scale of its first run, so that it is an affine map.

    A norm divides its input by a scale. Each norm computes the scale at its first run in the block, and divides by the
    same scale in all later runs.
    """
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
    """Return the width of the embedding; raise `InputError` if the embedding is not linear in the last residual stream.

    The scales of the norms are held fixed in this check.
    """
    encoder = stream.encoder
    last = encoder.stages[-1]
    x = encoder.read_unhooked(encoder.blank(), encoder.sites[-2:-1])[encoder.sites[-2]]
    with encoder.running(), _held_norms(encoder.tower):
        last.run(x)  # this sets the scales
        generator = torch.Generator().manual_seed(0)
        # A long step, so that a curvature is larger than the rounding errors.
        step = 10 * x.std() * torch.randn(x.shape, generator=generator).to(x)
        at_zero = last.run(torch.zeros_like(x))
        there = last.run(step) - at_zero
        back = last.run(-2 * step) - at_zero
    # A linear map takes the step -2 s to -2 times its value at the step s.
    error = (back + 2 * there).abs().max()
    if error > ROUNDINGS * torch.finfo(x.dtype).eps * back.abs().max():
        raise InputError(
            f"Direct effects need an embedding that is linear in the last residual stream, but {last.site} of this "
            f"{type(encoder.tower).__name__} pools by attention or has layers that are not linear behind its pooling: "
            "look at the effects of its heads as units instead (in_components)."
        )
    return at_zero.shape[-1]

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
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked
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
        >>> found = direct_effects(ResidualStream.of(clip.encoder), photos, weights[3])
        >>> found.to_pandas().head()
    """
    width = _check_linear(stream)
    if weight.shape != (width,):
        raise InputError(
            f"The text weight of a class has the {width} numbers of an embedding, but one of shape "
            f"{list(weight.shape)} was given: give one row of the text weights."
        )
    class_text = weight.detach().cpu().double().numpy()
    parts = []
    for vectors, rest, embedding in _added(stream, images, Work()):
        lengths = np.linalg.norm(embedding, axis=-1)
        parts.append(
            [(one @ class_text).T / lengths for one in (vectors, rest, embedding)]
        )
    effects, of_rest, logits = (
        np.concatenate(some, -1).T for some in zip(*parts, strict=True)
    )
    return DirectEffects(tuple(map(str, stream.writers)), effects, of_rest, logits)


@checked
def direct_vectors(
    stream: ResidualStream, images: Images, work: Work = Work()
) -> Float[np.ndarray, "images writers d"]:
    """Return what each writer adds to the embedding directly: the effect on any class is its product with the text.

    Takes the arguments of `direct_effects`, and does not divide by the length of the embedding.
    """
    _check_linear(stream)
    return np.concatenate([vectors for vectors, *_ in _added(stream, images, work)])


def _added(
    stream: ResidualStream, images: Images, work: Work
) -> Iterator[list[np.ndarray]]:
    """Yield what each writer [images, writers, d] and all biases [images, d] add to the embeddings, and these."""
    components, last, n_blocks = (
        stream.components,
        stream.encoder.stages[-1].run,
        len(stream.blocks),
    )
    end = f"blocks.{n_blocks - 1}.hook_resid_post"
    why = "what components add adds up where nothing changes it: put hooks before the blocks, at stream.components"
    with components.running():
        components.check_unhooked(why, stream.sites[0])
        stream.encoder.check_unhooked(why)
        for batch in ImageBatches(
            images, components, rows_that_fit(stream.encoder, work.memory_gib)
        ):
            _, cache = components.run_with_cache(
                batch, names_filter=lambda name: name in (*stream.sites, end)
            )
            biases = sum(bias for i in range(n_blocks) for bias in stream.biases(i))
            with _held_norms(stream.encoder.tower):
                embedding = last(cache[end])
                nothing = last(torch.zeros_like(cache[end]))
                vectors = [last(written) - nothing for written in stream.written(cache)]
                rest = last(torch.zeros_like(cache[end]) + biases)
            yield [
                one.cpu().double().numpy()
                for one in (torch.stack(vectors, 1), rest, embedding)
            ]


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
    encoder, last = stream.encoder, stream.encoder.stages[-1]
    x = encoder.read_unhooked(encoder.blank(), encoder.sites[-2:-1])[encoder.sites[-2]]
    with encoder.running(), _held_norms(encoder.tower):
        last.run(x)  # which sets the scales
        step = (
            10
            * x.std()
            * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        )
        at_zero = last.run(torch.zeros_like(x))
        there, back = (last.run(one) - at_zero for one in (step, -2 * step))
    if (back + 2 * there).abs().max() > ROUNDINGS * torch.finfo(
        x.dtype
    ).eps * back.abs().max():
        raise InputError(
            f"Direct effects need an embedding that is linear in the last residual stream, but {last.site} of this "
            f"{type(encoder.tower).__name__} pools by attention or has layers that are not linear behind its pooling: "
            "look at the effects of its heads as units instead (in_components)."
        )
    return at_zero.shape[-1]

"""Decompose a class logit exactly into the direct effects of components, which skip all later components.

The class logit is the cosine of the embedding with a class's text weight. With the length of the embedding, and the
scale of the tower's last norm, as they are on the image, it is linear in the residual stream behind the last block, and
so it is the sum of what each writer put there (Gandelsman et al. 2024, arXiv 2310.05916):

    logit = sum over writers of  sum over positions of  written . g   + rest,   g = d logit / d stream

For CLIP's ResNets see `pooling_pairs`.
"""

from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager

import numpy as np
import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from circuitry.bases.residual import ResidualStream
from circuitry.circuits.component_effects import DirectEffects
from circuitry.encoder.encoder import Encoder
from circuitry.encoder.norms import NORMS, normed_with, scale_of
from circuitry.encoder.tensor_batches import ImageBatches, Images, rows_that_fit
from circuitry.runs.errors import InputError
from circuitry.runs.given import checked
from circuitry.runs.workers import Work

ROUNDINGS = 100
"""How often rounding may add up in the last step of a tower that is linear."""


@checked
def direct_effects(stream: ResidualStream, images: Images, weight: Float[Tensor, " d"]) -> DirectEffects:
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
    width, encoder = _check_linear(stream), stream.encoder
    if weight.shape != (width,):
        raise InputError(
            f"The text weight of a class has the {width} numbers of an embedding, but one of shape "
            f"{list(weight.shape)} was given: give one row of the text weights."
        )
    parts = []
    with stream.components.running():
        weight = weight.detach().to(encoder.device, encoder.dtype).clone()  # it may be of inference mode
        for embedding, cache, last in _runs(stream, images, Work()):
            slope, constant = _last_step(encoder, last, weight)
            effects = torch.einsum("wbpm,bpm->bw", stream.written(cache), slope)
            rest = constant + sum(slope.sum(1) @ bias for i in range(len(stream.blocks)) for bias in stream.biases(i))
            logits = F.normalize(embedding, dim=-1) @ weight
            parts.append([one.cpu().double().numpy() for one in (effects, rest, logits)])
    return DirectEffects(tuple(map(str, stream.writers)), *(np.concatenate(some) for some in zip(*parts, strict=True)))


@checked
def direct_vectors(
    stream: ResidualStream, images: Images, work: Work = Work()
) -> Float[np.ndarray, "images writers d"]:
    """Return what each writer adds to the embedding directly: the effect on any class is its product with the text.

    Takes the arguments of `direct_effects`, and does not divide by the length of the embedding.
    """
    _check_linear(stream)
    last, parts = stream.encoder.stages[-1].run, []
    with stream.components.running():
        for _, cache, end in _runs(stream, images, work):
            with _held_norms(stream.encoder.tower):
                last(end)
                nothing = last(torch.zeros_like(end))
                vectors = [last(written) - nothing for written in stream.written(cache)]
            parts.append(torch.stack(vectors, 1).cpu().double().numpy())
    return np.concatenate(parts)


def _runs(stream: ResidualStream, images: Images, work: Work) -> Iterator[tuple[Tensor, Mapping[str, Tensor], Tensor]]:
    """Yield the embeddings of each batch, what writers wrote, and the last residual stream."""
    _check_hooks(stream)
    end = f"blocks.{len(stream.blocks) - 1}.hook_resid_post"
    wanted = {*stream.sites, end}
    for batch in ImageBatches(images, stream.components, rows_that_fit(stream.encoder, work.memory_gib)):
        embedding, cache = stream.components.run_with_cache(batch, names_filter=lambda name: name in wanted)
        yield embedding, cache, cache[end]


def _last_step(encoder: Encoder, stream: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    """Return the gradient of the logit by the last stream, and the logit of a zero stream, scales of norms fixed."""
    last = encoder.stages[-1].run
    with _held_norms(encoder.tower), torch.enable_grad():
        x = stream.detach().requires_grad_()
        embedding = last(x)
        length = embedding.detach().norm(dim=-1)
        (slope,) = torch.autograd.grad(((embedding @ weight) / length).sum(), x)
        constant = (last(torch.zeros_like(stream)) @ weight) / length
    return slope, constant.detach()


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
    blank = torch.zeros(1, 3, *encoder.image_size, dtype=encoder.dtype, device=encoder.device)
    x = encoder.read_unhooked(blank, encoder.sites[-2:-1])[encoder.sites[-2]]
    with encoder.running(), _held_norms(encoder.tower):
        last.run(x)  # which sets the scales
        step = 10 * x.std() * torch.randn(x.shape, generator=torch.Generator().manual_seed(0)).to(x)
        at_zero = last.run(torch.zeros_like(x))
        there, back = (last.run(one) - at_zero for one in (step, -2 * step))
    if (back + 2 * there).abs().max() > ROUNDINGS * torch.finfo(x.dtype).eps * back.abs().max():
        raise InputError(
            f"Direct effects need an embedding that is linear in the last residual stream, but {last.site} of this "
            f"{type(encoder.tower).__name__} pools by attention or has layers that are not linear behind its pooling: "
            "look at the effects of its heads as units instead (in_components)."
        )
    return at_zero.shape[-1]


def _check_hooks(stream: ResidualStream) -> None:
    """Raise `InputError` where hooks act in the blocks or behind them, or on the encoder that is not run."""
    why = "what components add adds up where nothing changes it: put hooks before the blocks, at stream.components"
    stream.components.check_unhooked(why, stream.sites[0])
    stream.encoder.check_unhooked(why)

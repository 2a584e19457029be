"""Train a sparse autoencoder on the activations of a site (Bricken et al. 2023, Towards Monosemanticity).

1. `sample_activations`: stream images through the encoder up to a site; every position is a sample of its
   units, or a few positions per image, drawn at random;
2. `train_sae`: Adam on mean over samples of |x - decode(encode(x))|^2 / d + l1 sum(features), the decoder's rows
   kept at length one (or features would shrink and rows grow to evade the penalty);
3. dead features are resampled: one that was active on no sample since the last check gets the direction of a
   sample drawn with probability ~ (its squared error)^2, a small encoder weight, and an optimizer without memory;
4. `diagnose_sae`: dead features, active features per sample (L0), explained variance.

The loop is our own, since the Overcomplete package has neither a decoder bias nor resampling, prints while it
trains, and would bring OpenCV and matplotlib for two matrices and Adam.
"""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, replace
from typing import NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.data.batches import Preprocess
from circuitry.data.domains import DomainFolder, ImageRecord
from circuitry.models.clip import Clip
from circuitry.models.encoder import Encoder
from circuitry.models.image_pass import activations
from circuitry.models.sae import SparseAutoencoder
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import digest
from circuitry.runs.workers import Work
from circuitry.training.settings import SaeTraining

RESAMPLED_ENCODER = 0.2
"""Length of a resampled feature's encoder weights, relative to the mean of those that are alive."""
RESAMPLING_BATCHES = 8
"""Batches among whose samples new directions are drawn."""


class Diagnostics(NamedTuple):
    """How well a sparse autoencoder describes activations."""

    dead: int
    """Features that are active on no sample."""
    l0: float
    """Mean number of active features."""
    explained_variance: float
    """1 - sum of squared errors / sum of squared distances from the mean; 1 is perfect."""


def sample_activations(
    encoder: Encoder,
    preprocess: Preprocess,
    records: Sequence[ImageRecord],
    site: str | None = None,
    *,
    positions_per_image: int | None = None,
    seed: int = 0,
    work: Work = Work(),
) -> Float[Tensor, "samples units"]:
    """Return the activations of a site as samples of its units, on the CPU.

    Args:
        encoder, preprocess: Of one model; RGB picture -> tensor [3, H, W].
        records: Which images.
        site: Site to read (default: the embedding).
        positions_per_image: How many positions of each image to keep, at random without replacement (default: all).
            It bounds memory: images times positions times units times four bytes, for a moment twice that.
        seed: Seed of the choice of positions.
        work: Whether unreadable images are an error, and progress bars.

    Raises:
        InputError: For an unknown site, no images, fewer than one position, or activations that are not finite.

    Example:
        >>> sample_activations(clip.encoder, clip.preprocess, images.records, "layer3.2", positions_per_image=4).shape
        torch.Size([8000, 1024])
    """
    site = encoder.sites[-1] if site is None else site
    unit_dim = encoder.unit_dim(site)
    if positions_per_image is not None and positions_per_image < 1:
        raise InputError(f"At least one position per image is needed, but {positions_per_image} was given.")
    generator = torch.Generator().manual_seed(seed)
    samples = []
    bar = work.bar(f"activations at {site}")
    for _, found in activations(encoder, preprocess, records, [site], strict=work.strict, progress=bar):
        activation = found[site].movedim(unit_dim, -1)
        flat = activation.reshape(len(activation), -1, activation.shape[-1]).float().cpu()
        if positions_per_image is not None and positions_per_image < flat.shape[1]:
            # Image by image, so that the choice does not depend on how images are cut into batches.
            chosen = [torch.randperm(flat.shape[1], generator=generator)[:positions_per_image] for _ in flat]
            flat = flat.gather(1, torch.stack(chosen)[:, :, None].expand(-1, -1, flat.shape[2]))
        samples.append(flat.flatten(0, 1))
    if not samples:
        raise InputError("Activations are sampled from at least one image that can be read, but there was none.")
    return torch.cat(samples)


def train_sae_on_images(
    clip: Clip,
    images: DomainFolder,
    settings: SaeTraining = SaeTraining(),
    *,
    site: str | None = None,
    positions_per_image: int | None = None,
    work: Work = Work(),
) -> SparseAutoencoder:
    """Train a sparse autoencoder on one site of a model, on all images of a folder.

    See `sample_activations` and `train_sae`. The seed of the settings is that of the positions, too; without a site it
    is the embedding, normalised as CLIP compares it.

    Example:
        >>> sae = train_sae_on_images(clip, DomainFolder("DomainNet", split="train"))
        >>> sae.save("runs/sae.safetensors")
    """
    place = clip.encoder.sites[-1] if site is None else site
    samples = sample_activations(
        clip.encoder, clip.preprocess, images.records, place,
        positions_per_image=positions_per_image, seed=settings.seed, work=work,
    )  # fmt: skip
    device = clip.encoder.device
    sae = train_sae(samples, settings, normalise=site is None, site=place, device=device, progress=work.progress)
    model = {"model": clip.name, "model_digest": clip.digest, "positions_per_image": positions_per_image}
    return replace(sae, about=sae.about | model | {"images": digest([r.relative for r in images.records])})


def train_sae(
    samples: Float[Tensor, "samples d"],
    settings: SaeTraining = SaeTraining(),
    *,
    normalise: bool = False,
    site: str | None = None,
    device: str | torch.device = "cpu",
    progress: bool = True,
) -> SparseAutoencoder:
    """Train a sparse autoencoder with ReLU. Equal seeds give equal results on one machine.

    Args:
        samples: One sample per row, e.g. from `sample_activations`.
        settings: What to train with (default: the study's numbers).
        normalise: Scale samples to length one; the autoencoder then does so itself (the study: image embeddings).
        site: Where the activations come from; stored.
        device: Where to train; the result stays there.
        progress: Show a bar.

    Returns:
        The autoencoder. Its ``about`` holds ``training`` (the settings), ``diagnostics`` on all samples (dead, l0,
        explained_variance) and ``history`` (at each check: step, loss, l0 and explained variance of one batch, features
        that were dead since the check before, and how many of them were resampled).

    Raises:
        InputError: For samples that are too few or not finite, or a training that diverges.

    Example:
        >>> sae = train_sae(samples, SaeTraining(steps=20_000), normalise=True, site=clip.encoder.sites[-1])
        >>> sae.about["diagnostics"]
        {'dead': 3, 'l0': 21.4, 'explained_variance': 0.91}
    """
    if len(samples) < 2 or not bool(samples.isfinite().all()):
        given = f"{len(samples)} were given" if len(samples) < 2 else "some hold NaN or infinite values"
        raise InputError(f"A sparse autoencoder is trained on at least two samples, all finite, but {given}.")
    generator = torch.Generator().manual_seed(settings.seed)
    inputs = F.normalize(samples.detach().float(), dim=-1) if normalise else samples.detach().float()
    sae = _initial(inputs, settings.expansion * inputs.shape[1], generator).to(device)
    weights = [w.requires_grad_() for w in (sae.w_enc, sae.b_enc, sae.w_dec, sae.b_dec)]
    optimizer = torch.optim.Adam(weights, lr=settings.lr)
    batches = _batches(inputs, settings.batch_size, device, generator)
    active = torch.zeros(sae.n_features, dtype=torch.bool, device=device)
    history: list[dict[str, float]] = []
    steps, every = settings.steps, settings.resample_every
    for step in tqdm(range(1, steps + 1), desc="sparse autoencoder", unit="step", disable=not progress, leave=False):
        x = next(batches)
        features = sae.encode(x)
        loss = (x - sae.decode(features)).pow(2).mean() + settings.l1 * features.sum(-1).mean()
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        _step_with_unit_rows(optimizer, sae.w_dec)
        active |= (features > 0).any(0)
        if step % every and step < steps:
            continue
        if not all(bool(tensor.isfinite().all()) for tensor in [loss, *weights]):
            raise InputError(
                f"The training of the sparse autoencoder diverged by step {step}, its loss or weights are no finite "
                f"numbers: train with a lr lower than {settings.lr}, or a l1 lower than {settings.l1}."
            )
        dead = (~active).nonzero()[:, 0]
        resampled = 0
        if step <= steps - every:
            _resample(sae, optimizer, dead, torch.cat([next(batches) for _ in range(RESAMPLING_BATCHES)]), generator)
            resampled = len(dead)
        now = diagnose_sae(sae, x)._replace(dead=len(dead))
        history.append({"step": step, "loss": loss.item(), **now._asdict(), "resampled": resampled})
        active.zero_()
    about = {"training": asdict(settings) | {"normalise": normalise, "samples": len(inputs)}}
    w_enc, b_enc, w_dec, b_dec = (weight.detach() for weight in weights)
    done = SparseAutoencoder(w_enc, b_enc, w_dec, b_dec, normalised=normalise, site=site)
    return replace(done, about={**about, "diagnostics": diagnose_sae(done, inputs)._asdict(), "history": history})


@torch.no_grad()
def diagnose_sae(sae: SparseAutoencoder, samples: Float[Tensor, "samples d"], *, batch_size: int = 4096) -> Diagnostics:
    """Measure a sparse autoencoder on samples, which need not be those that it was trained on.

    Explained variance is that of the samples as they are encoded: of length one where ``sae.normalised``.
    """
    alive = torch.zeros(sae.n_features, dtype=torch.bool, device=sae.w_enc.device)
    mean = torch.zeros(sae.d, dtype=torch.float64)
    active, error, square = 0, 0.0, 0.0
    for batch in torch.split(samples, batch_size):
        x = batch.to(sae.w_enc)
        x = F.normalize(x, dim=-1) if sae.normalised else x
        features = sae.encode(x)
        alive |= (features > 0).any(0)
        active += int((features > 0).sum())
        error += float((x - sae.decode(features)).cpu().double().pow(2).sum())  # on the CPU: MPS has no doubles
        square += float(x.cpu().double().pow(2).sum())
        mean += x.cpu().double().sum(0) / len(samples)
    variance = square - len(samples) * float(mean @ mean)
    return Diagnostics(int((~alive).sum()), active / len(samples), 1 - error / variance if variance else 0.0)


def _initial(samples: Tensor, features: int, generator: torch.Generator) -> SparseAutoencoder:
    """Return random directions, the encoder the decoder's transpose; the decoder's bias starts at the samples' mean."""
    directions = F.normalize(torch.randn(features, samples.shape[1], generator=generator), dim=-1)
    mean = samples.mean(0).cpu()
    return SparseAutoencoder(directions.T.clone(), torch.zeros(features), directions, mean)


def _batches(
    samples: Tensor, batch_size: int, device: str | torch.device, generator: torch.Generator
) -> Iterator[Tensor]:
    """Yield batches for ever, pass after shuffled pass; what a pass leaves over is dropped."""
    size = min(batch_size, len(samples))
    while True:
        order = torch.randperm(len(samples), generator=generator)
        for chosen in torch.split(order[: len(samples) // size * size], size):
            yield samples[chosen].to(device)


@torch.no_grad()
def _step_with_unit_rows(optimizer: torch.optim.Optimizer, w_dec: Tensor) -> None:
    """Step along the sphere of rows of length one: no gradient along a row, and lengths restored after it."""
    assert w_dec.grad is not None
    w_dec.grad -= (w_dec.grad * w_dec).sum(1, keepdim=True) * w_dec
    optimizer.step()
    w_dec.copy_(F.normalize(w_dec, dim=-1))


@torch.no_grad()
def _resample(
    sae: SparseAutoencoder, optimizer: torch.optim.Optimizer, dead: Tensor, x: Tensor, generator: torch.Generator
) -> None:
    """Point dead features at samples that are described badly, in place."""
    if not len(dead):
        return
    error = (x - sae.decode(sae.encode(x))).pow(2).sum(-1).cpu()
    weight = error.pow(2) + torch.finfo(torch.float32).tiny
    chosen = torch.multinomial(weight, len(dead), replacement=True, generator=generator)
    directions = F.normalize(x[chosen.to(x.device)] - sae.b_dec, dim=-1)
    alive = torch.ones(sae.n_features, dtype=torch.bool, device=x.device)
    alive[dead] = False
    length = float(sae.w_enc[:, alive].norm(dim=0).mean()) if bool(alive.any()) else 1.0
    sae.w_dec[dead] = directions
    sae.w_enc[:, dead] = RESAMPLED_ENCODER * length * directions.T
    sae.b_enc[dead] = 0
    for tensor, index in ((sae.w_dec, (dead,)), (sae.w_enc, (slice(None), dead)), (sae.b_enc, (dead,))):
        for name in ("exp_avg", "exp_avg_sq"):
            optimizer.state[tensor][name][index] = 0

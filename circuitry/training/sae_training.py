"""Train a sparse autoencoder on samples of activations, or on the images of a model that has them.

`samples` has where samples come from, `sae_loop` how an autoencoder learns from them. A training is resumed where a
file of its state lies, and gives the weights of an uninterrupted one in the end.
"""

import tempfile
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor
from tqdm import tqdm

from circuitry.data.domains import DomainFolder
from circuitry.models.clip import Clip
from circuitry.models.sae import SparseAutoencoder
from circuitry.runs.provenance import digest
from circuitry.runs.workers import Work
from circuitry.training.devices import pinned_threads
from circuitry.training.run_folder import described
from circuitry.training.sae_loop import SaeLoop, diagnose_sae
from circuitry.training.samples import ImageFiles, extract_samples, sample_activations
from circuitry.training.training_settings import SaeTraining


def train_sae_on_images(
    clip: Clip,
    images: DomainFolder,
    settings: SaeTraining = SaeTraining(),
    *,
    tables: Sequence[Path] = (),
    folder: Path | None = None,
    site: str | None = None,
    positions_per_image: int | None = None,
    work: Work = Work(),
) -> SparseAutoencoder:
    """Train a sparse autoencoder on one site of a model, on all images of a folder and of tables.

    See `sample_activations` and `train_sae`. The seed of the settings is that of the positions, too; without a site it
    is the embedding, normalised as CLIP compares it. More images than ``settings.piece`` are streamed from disk.

    Args:
        clip, images: Of which model, and on which images.
        settings: What to train with.
        tables: More images: tables with the column ``filepath``, such as a base set's captions.
        folder: Where activations and the state of the training are kept, so that a killed one goes on (default: in
            memory, or for the time of the training where temporary files lie); all in it may be removed afterwards.
        site, positions_per_image: See `sample_activations`.
        work: How it is carried out.

    Example:
        >>> sae = train_sae_on_images(clip, DomainFolder("DomainNet", split="train"))
        >>> sae.save("runs/sae.safetensors")
        >>> train_sae_on_images(clip, images, SaeTraining.study(), tables=[Path("cc12m.tsv")], folder=Path("runs/sae"))
    """
    place = clip.encoder.sites[-1] if site is None else site
    model = {"model": clip.name, "model_digest": clip.digest, "positions_per_image": positions_per_image}
    read = {"site": place, "positions_per_image": positions_per_image, "seed": settings.seed}
    files = ImageFiles.of(images.records, tables) if tables or folder or len(images.records) > settings.piece else None
    with ExitStack() as stack:
        stack.enter_context(pinned_threads(settings.threads))  # of the encoder, too
        samples: Tensor | Sequence[Tensor]
        if files is None:
            samples = sample_activations(
                clip.encoder, clip.preprocess, images.records, place,
                positions_per_image=positions_per_image, seed=settings.seed, work=work,
            )  # fmt: skip
        else:
            kept = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            about = {**model, **read, "piece": settings.piece, "threads": settings.threads}
            samples = extract_samples(clip.encoder, clip.preprocess, files, kept / "activations", about, work=work)
        sae = train_sae(
            samples, settings, normalise=site is None, site=place, device=clip.encoder.device,
            state=None if folder is None else folder / "state.safetensors", progress=work.progress,
        )  # fmt: skip
    on = {"images": digest([r.relative for r in images.records]), "tables": [described(table) for table in tables]}
    return replace(sae, about=sae.about | model | on)


def train_sae(
    samples: Float[Tensor, "samples d"] | Sequence[Tensor],
    settings: SaeTraining = SaeTraining(),
    *,
    normalise: bool = False,
    site: str | None = None,
    device: str | torch.device = "cpu",
    state: Path | None = None,
    progress: bool = True,
) -> SparseAutoencoder:
    """Train a sparse autoencoder with ReLU. Equal seeds give equal results on one machine.

    Args:
        samples: One sample per row, e.g. from `sample_activations`, or pieces of them, of which one is held at a time.
        settings: What to train with (default: the study's rates and sizes; `SaeTraining.study` has the rest).
        normalise: Scale samples to length one; the autoencoder then does so itself (the study: image embeddings).
        site: Where the activations come from; stored.
        device: Where to train; the result stays there.
        state: File to keep the state of the training in at each check, and to go on from. It stays, so that a result
            which was not yet kept is found again.
        progress: Show a bar.

    Returns:
        The autoencoder. Its ``about`` holds ``training`` (the settings), ``diagnostics`` on all samples (dead, l0,
        explained_variance) and ``history`` (at each check: step, loss, l0 and explained variance of one batch, features
        that were dead since the check before, and how many of them were resampled).

    Raises:
        InputError: For samples that are too few or not finite, a training that diverges, or the state of another.

    Example:
        >>> sae = train_sae(samples, SaeTraining(steps=20_000), normalise=True, site=clip.encoder.sites[-1])
        >>> sae.about["diagnostics"]
        {'dead': 3, 'l0': 21.4, 'explained_variance': 0.91}
    """
    pieces = [samples] if isinstance(samples, Tensor) else samples
    with pinned_threads(settings.threads):
        loop = SaeLoop(pieces, settings, normalise=normalise, device=device)
        about = asdict(settings) | {"normalise": normalise, "samples": loop.n_samples}
        if state is not None and state.is_file():
            loop.restore(state, about)
        bar = tqdm(
            total=loop.steps,
            initial=loop.step,
            desc="sparse autoencoder",
            unit="step",
            disable=not progress,
            leave=False,
        )
        with bar:
            while loop.step < loop.steps:
                checked = loop.take_step()
                if checked and state is not None:
                    loop.save(state, about)
                bar.update()
        done = replace(loop.trained(), site=site)
        found = diagnose_sae(done, pieces)._asdict()
    return replace(done, about={"training": about, "diagnostics": found, "history": loop.history})

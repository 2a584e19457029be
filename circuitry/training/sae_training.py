"""Train a sparse autoencoder on samples of activations (`samples`), or on the images of a model."""

import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, replace
from pathlib import Path

import torch
from jaxtyping import Float
from torch import Tensor

from circuitry.bases.sae import SparseAutoencoder
from circuitry.data.domains import DomainFolder
from circuitry.encoder.modes import own_modes
from circuitry.models.clip import Clip
from circuitry.runs.arguments import Count, checked
from circuitry.runs.progress import Bar
from circuitry.runs.provenance import digest
from circuitry.runs.workers import Work
from circuitry.training.run_folder import described
from circuitry.training.sae_loop import SaeLoop, diagnose_sae
from circuitry.training.samples import extract_samples, image_files, sample_activations
from circuitry.training.training_settings import SaeTraining


@checked
def train_sae_on_images(
    clip: Clip,
    images: DomainFolder,
    settings: SaeTraining = SaeTraining(),
    *,
    tables: Sequence[Path] = (),
    folder: Path | None = None,
    site: str | None = None,
    positions_per_image: Count | None = None,
    work: Work = Work(),
) -> SparseAutoencoder:
    """Train a sparse autoencoder on one site of a model, on all images of a folder and of tables.

    See `sample_activations` and `train_sae`. The seed of the settings also chooses the positions. More images than
    ``settings.piece`` are streamed from disk.

    Args:
        tables: More images: tables with the column ``filepath``, such as a mixture with a base set; see
            `image_files`.
        folder: Folder of activations and of the training's state, from which a killed training resumes (default:
            memory, or a temporary folder). It may be removed afterwards.
        site: Site (default: the embedding, normalised as CLIP compares it).

    Example:
        >>> from circuitry.training import SaeTraining, train_sae_on_images
        >>> few = SaeTraining(expansion=2, steps=5)
        >>> sae = train_sae_on_images(clip, folder, few, site="layer4.0", work=circuitry.Work(progress=False))
        >>> sae.save("runs/sae.safetensors")
    """
    place = clip.encoder.sites[-1] if site is None else site
    model = {
        "model": clip.name,
        **clip.identity,
        "positions_per_image": positions_per_image,
    }
    from_disk = bool(tables or folder or len(images.records) > settings.piece)
    with ExitStack() as stack:
        stack.enter_context(pinned_threads(settings.threads))  # for the encoder, too
        samples: Tensor | Sequence[Tensor]
        if not from_disk:
            samples = sample_activations(
                clip.encoder, clip.preprocess, images.records, place,
                positions_per_image=positions_per_image, seed=settings.seed, work=work,
            )  # fmt: skip
        else:
            kept = folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            about = {
                **model,
                "site": place,
                "seed": settings.seed,
                "piece": settings.piece,
                "threads": settings.threads,
            }
            samples = extract_samples(
                clip.encoder,
                clip.preprocess,
                image_files(images.records, tables),
                kept / "activations",
                about,
                work=work,
            )
        sae = train_sae(
            samples, settings, normalise=site is None, site=place, device=clip.encoder.device,
            state=None if folder is None else folder / "state.safetensors", progress=work.progress,
        )  # fmt: skip
    on = {
        "images": digest([r.relative for r in images.records]),
        "tables": [described(table) for table in tables],
    }
    return replace(sae, about=sae.about | model | on)


@contextmanager
def pinned_threads(number: int) -> Iterator[None]:
    """Set the number of PyTorch's CPU threads, and restore it afterwards.

    Another number rounds sums differently, so weights would depend on the cores of the machine.
    """
    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@own_modes(gradients=True)
@checked
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
        samples: One sample per row, e.g. from `sample_activations`, or pieces of samples, one in memory at a time.
        normalise: Scale samples to length one, as the trained autoencoder then does (the study: image embeddings).
        site: Site of the activations; stored.
        state: File of the training's state, written at each check; a training resumes from it. It stays afterwards.

    Returns:
        The autoencoder. Its ``about`` holds ``training`` (the settings), ``diagnostics`` on all samples (dead, l0,
        explained_variance) and ``history``: at each check step, loss, l0 and explained variance of one batch, the
        number of features dead since the check before, and how many of them were resampled.

    Example:
        >>> from circuitry.training import SaeTraining, train_sae
        >>> sae = train_sae(torch.randn(64, 8), SaeTraining(steps=5), progress=False)
        >>> sae.about["diagnostics"]
        {'dead': ..., 'l0': ..., 'explained_variance': ...}
    """
    pieces = [samples] if isinstance(samples, Tensor) else samples
    with pinned_threads(settings.threads):
        loop = SaeLoop(pieces, settings, normalise=normalise, device=device)
        about = asdict(settings) | {"normalise": normalise, "samples": loop.n_samples}
        if state is not None and state.is_file():
            loop.restore(state, about)
        bar = Bar(
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
    return replace(
        done, about={"training": about, "diagnostics": found, "history": loop.history}
    )

"""Train a sparse autoencoder on given samples of activations, or on activations of a model on images.

See `samples` for samples of activations, and `sae_loop` for the training loop.
"""

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
    """Train a sparse autoencoder on the activations of one site of a model, on all images of a folder and of tables.

    See `sample_activations` and `train_sae`. The activations are stored on disk if ``tables`` or a ``folder`` is given,
    or if there are more than ``settings.piece`` images. Otherwise they are held in memory.

    Args:
        clip: The model.
        images: Images to train on.
        settings: Settings of the training. Their seed also determines which positions of an image are drawn.
        tables: Tables of more images to train on, with the column ``filepath``; see `image_files`.
        folder: Folder for the activations and for the state of the training. A training that was killed resumes from
            this folder. After the training the folder can be removed (default: a temporary folder if activations are
            stored on disk; the training cannot be resumed).
        site: Site of the activations (default: the embedding; then samples are scaled to length one, because CLIP
            compares embeddings in this way).
        positions_per_image: Number of positions of each image that are drawn (default: all positions).
        work: How the activations are computed, and whether progress bars are shown.

    Returns:
        The autoencoder, as from `train_sae`. Its ``about`` also describes the model and the images.

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
        # The encoder uses these threads, too.
        stack.enter_context(pinned_threads(settings.threads))
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
    """Set the number of PyTorch's CPU threads, and restore the old number afterwards.

    Sums are rounded differently with another number of threads. So without a fixed number, weights would depend on the
    number of cores of the machine.
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
        samples: One sample per row, for example from `sample_activations`. A sequence of such tensors can also be
            given. Then only one tensor is in memory at a time.
        settings: Settings of the training.
        normalise: If True, samples are scaled to length one, and the autoencoder scales its inputs in the same way. The
            study does so for image embeddings.
        site: Site of the activations. It is stored in the autoencoder.
        device: Device of the weights.
        state: File that the state of the training is written to at each check. If the file exists, the training resumes
            from it. It is not removed after the training.
        progress: Whether a progress bar is shown.

    Returns:
        The autoencoder. Its ``about`` has ``training``, the settings; ``diagnostics``, the values of `Diagnostics` on
        all samples; and ``history``, a list with a dictionary for each check. A dictionary has the step; the loss, l0
        and explained variance of one batch; the number of dead features, which no sample has activated since the
        previous check; and how many of these were resampled.

    Raises:
        InputError: if there are fewer than two samples, if a sample is not finite, if the training diverges, or if
            ``state`` belongs to another training.

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

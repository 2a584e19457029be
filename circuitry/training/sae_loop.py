"""The training loop of a sparse autoencoder (Bricken et al. 2023, Towards Monosemanticity).

Each step is a step of Adam on the loss |x - decode(encode(x))|^2 / d + l1 sum(features), averaged over the samples x of
a batch. After each step the rows of the decoder are scaled back to length one. Otherwise features would shrink and rows
would grow, which evades the penalty.

A feature is dead if no sample has activated it since the last check. At a check, dead features can be resampled: a
sample is drawn with a probability in proportion to the square of its squared error, and the feature gets the direction
of this sample, small encoder weights, and zero moments of Adam.

Samples are given in pieces. A piece is a tensor of samples. Only one piece is in memory at a time.

The package Overcomplete could not be used instead. It has neither a decoder bias nor resampling, it prints while it
trains, and it would add OpenCV and matplotlib as dependencies.
"""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn

from circuitry.bases.sae import SparseAutoencoder
from circuitry.encoder.modes import own_modes
from circuitry.runs.arguments import checked
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError
from circuitry.runs.provenance import difference
from circuitry.training.samples import SampleBatches
from circuitry.training.training_settings import SaeTraining

_STATE_FORMAT = "circuitry sparse autoencoder training 1"
RESAMPLED_ENCODER = 0.2
"""Length of the encoder weights of a resampled feature, relative to their mean length in features that are not dead."""
RESAMPLING_BATCHES = 8
"""Number of batches from which the directions of resampled features are drawn."""
_DIAGNOSED = 4096
"""Number of samples that `diagnose_sae` processes at a time."""
CHECK_EVERY = 1000
"""Number of steps between two checks if features are never resampled."""
_WEIGHTS = ("w_enc", "b_enc", "w_dec", "b_dec")
_MOMENTS = ("exp_avg", "exp_avg_sq")


class Diagnostics(NamedTuple):
    """Quality of a sparse autoencoder on samples."""

    dead: int
    """Number of features that no sample activates."""
    l0: float
    """Mean number of active features of a sample."""
    explained_variance: float
    """1 - sum of squared errors / sum of squared distances from the mean sample. It is 1 if there are no errors, and is
    set to 0 if all samples are equal."""


HISTORY = ("step", "loss", *Diagnostics._fields, "resampled")
"""Keys of the entry that each check adds to the history."""


@own_modes()
@checked
def diagnose_sae(
    sae: SparseAutoencoder, samples: Float[Tensor, "samples d"] | Sequence[Tensor]
) -> Diagnostics:
    """Measure the quality of a sparse autoencoder on samples.

    If the autoencoder normalises its inputs (``sae.normalised``), explained variance is computed from the normalised
    samples.

    Args:
        sae: The autoencoder.
        samples: One sample per row, or a sequence of such tensors. Then only one tensor is in memory at a time.

    Example:
        >>> from circuitry.training import SaeTraining, diagnose_sae, train_sae
        >>> samples = torch.randn(64, 8)
        >>> sae = train_sae(samples, SaeTraining(steps=5), progress=False)
        >>> diagnose_sae(sae, samples)
        Diagnostics(dead=..., l0=..., explained_variance=...)
    """
    alive = torch.zeros(sae.n_features, dtype=torch.bool, device=sae.w_enc.device)
    total = torch.zeros(sae.d, dtype=torch.float64)
    n, active, error, square = 0, 0, 0.0, 0.0
    pieces = [samples] if isinstance(samples, Tensor) else samples
    for batch in _in_turn(pieces):
        given = batch.to(sae.w_enc)
        x, features = sae.scaled(given), sae.encode(given)
        alive |= (features != 0).any(0)
        n += len(x)
        active += int((features != 0).sum())
        error += float(
            (x - sae.decode(features)).cpu().double().pow(2).sum()
        )  # moved to the CPU because MPS has no doubles
        square += float(x.cpu().double().pow(2).sum())
        total += x.cpu().double().sum(0)
        del batch, given, x  # they may be views, which would keep this piece in memory
    if not n:
        raise InputError(
            "An autoencoder is diagnosed on at least one sample, but there were none."
        )
    variance = square - float(total @ total) / n
    return Diagnostics(
        int((~alive).sum()), active / n, 1 - error / variance if variance else 0.0
    )


def initial_weights(
    mean: Float[Tensor, " d"], features: int, how: str, generator: torch.Generator
) -> SparseAutoencoder:
    """Return an autoencoder with initial weights. The rows of its decoder are random and have length one.

    Args:
        mean: Mean of the samples.
        features: Number of features.
        how: How the other weights are initialised. With ``transposed``, the encoder is the transpose of the decoder,
            the bias of the encoder is zero, and the bias of the decoder is ``mean``. With ``kaiming``, the encoder
            follows Kaiming's uniform rule for a tensor [1, features, d], whose fan-in is features times d; the bias of
            the encoder is uniform between -1 / sqrt(features) and 1 / sqrt(features); and the bias of the decoder is
            zero. The library that the study used (sparse_autoencoder by ai-safety-foundation) initialises weights in
            this way if the autoencoder has a single component.
        generator: Generator of random numbers.
    """
    d = len(mean)
    if how == "transposed":
        rows = F.normalize(torch.randn(features, d, generator=generator), dim=-1)
        return SparseAutoencoder(rows.T.clone(), torch.zeros(features), rows, mean)
    encoder = nn.init.kaiming_uniform_(
        torch.empty(1, features, d), nonlinearity="relu", generator=generator
    )
    bias = nn.init.uniform_(
        torch.empty(features), -(features**-0.5), features**-0.5, generator=generator
    )
    rows = F.normalize(torch.randn(features, d, generator=generator), dim=-1)
    return SparseAutoencoder(encoder[0].T.clone(), bias, rows, torch.zeros(d))


class SaeLoop:
    """The state of the training of a sparse autoencoder, and the steps of the training.

    The state consists of the weights, the optimizer, the position in the samples, and the history.

    Args:
        pieces: Tensors of samples. Only one piece is in memory at a time.
        settings: Settings of the training.
        normalise: If True, samples are scaled to length one.
        device: Device of the weights.
    """

    def __init__(
        self,
        pieces: Sequence[Tensor],
        settings: SaeTraining,
        *,
        normalise: bool,
        device: str | torch.device,
    ) -> None:
        self.settings = settings
        self.normalise = normalise
        self.device = device
        sizes, mean = _survey(pieces, normalise)
        self.n_samples = sum(sizes)
        # Weights, batches and resampling share a generator, so that a training can be resumed with its state.
        self._generator = torch.Generator().manual_seed(settings.seed)
        features = settings.expansion * len(mean)
        self.sae = initial_weights(
            mean, features, settings.initialisation, self._generator
        ).to(device)
        self._weights = {
            name: getattr(self.sae, name).requires_grad_() for name in _WEIGHTS
        }
        self._optimizer = torch.optim.Adam(self._weights.values(), lr=settings.lr)
        self._batches = SampleBatches(
            pieces,
            settings.batch_size,
            drop_last=settings.drop_last,
            generator=self._generator,
        )
        # Features that were active since the last check.
        self._active = torch.zeros(features, dtype=torch.bool, device=device)
        a_pass = sum(map(self._batches.batches_of, sizes))
        self.steps = (
            settings.epochs * a_pass if settings.steps is None else settings.steps
        )
        """Number of steps of the whole training."""
        self.step = 0
        """Number of steps that have been taken."""
        self.history: list[dict[str, float]] = []
        """An entry for each check, with the keys `HISTORY`."""

    def take_step(self) -> bool:
        """Take one step, and check the training if a check is due. Return whether there was a check.

        A check is due after the last step, and at regular intervals. The interval is ``resample_every`` of the
        settings, or `CHECK_EVERY` if features are never resampled.
        """
        x = self._next_batch()
        features = self.sae.encode(x)
        error = (x - self.sae.decode(features)).pow(2).mean()
        # Features are not negative, so their sum is their L1 norm.
        loss = error + self.settings.l1 * features.sum(-1).mean()
        self._optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        _step_with_unit_rows(self._optimizer, self.sae.w_dec)
        self._active |= (features > 0).any(0)
        self.step += 1
        every = self.settings.resample_every or CHECK_EVERY
        if self.step % every and self.step < self.steps:
            return False
        self.check(x, loss)
        return True

    def check(self, x: Float[Tensor, "batch d"], loss: Float[Tensor, ""]) -> None:
        """Check the training: resample dead features if the settings say so, and add an entry to the history.

        Args:
            x: The last batch. Its quality measures go to the history.
            loss: Loss of this batch.

        Raises:
            InputError: if the training has diverged.
        """
        settings = self.settings
        every = settings.resample_every
        if not all(bool(t.isfinite().all()) for t in (loss, *self._weights.values())):
            raise InputError(
                f"The training of the sparse autoencoder diverged by step {self.step}: its loss or weights are not "
                f"finite. Train with a lr lower than {settings.lr}, or a l1 lower than {settings.l1}."
            )
        dead = (~self._active).nonzero()[:, 0]
        resampled = 0
        # Features are not resampled in the last interval, because a resampled feature needs an interval to learn.
        if every and self.step <= self.steps - every:
            drawn = torch.cat([self._next_batch() for _ in range(RESAMPLING_BATCHES)])
            _resample(self.sae, self._optimizer, dead, drawn, self._generator)
            resampled = len(dead)
        now = diagnose_sae(self.sae, x)._replace(dead=len(dead))
        self.history.append(
            {
                "step": self.step,
                "loss": loss.item(),
                **now._asdict(),
                "resampled": resampled,
            }
        )
        self._active.zero_()

    def trained(self) -> SparseAutoencoder:
        """Return the autoencoder with its current weights.

        If this loop scales samples to length one, the autoencoder does the same with its inputs.
        """
        weights = {name: weight.detach() for name, weight in self._weights.items()}
        return SparseAutoencoder(
            **weights, normalised="length" if self.normalise else None
        )

    def save(self, path: Path, about: Mapping[str, Any]) -> None:
        """Write the whole state of the training to a file, completely or not at all.

        Args:
            path: The file.
            about: Description of the training. `restore` refuses the file if its caller gives another description.
        """
        tensors = {
            "active": self._active,
            "generator": self._generator.get_state(),
            **self._batches.state(),
        }
        for name, weight in self._weights.items():
            tensors[name] = weight
            tensors |= {
                f"{name}.{moment}": self._optimizer.state[weight][moment]
                for moment in _MOMENTS
            }
        header = {"about": about, "step": self.step, "history": self.history}
        write_arrays(
            path,
            _STATE_FORMAT,
            header,
            {key: t.detach().cpu().numpy() for key, t in tensors.items()},
        )

    def restore(self, path: Path, about: Mapping[str, Any]) -> None:
        """Restore the state that `save` wrote.

        Args:
            path: The file.
            about: Description of this training.

        Raises:
            InputError: if the file is damaged, or if `save` was given another description. Then the state belongs to
                another training.
        """
        header, arrays = read_arrays(
            path, _STATE_FORMAT, "state of a sparse autoencoder's training"
        )
        if header["about"] != about:
            raise InputError(
                f"{path} is the state of another training ({difference(about, header['about'])}): remove it, or choose "
                "another folder."
            )
        tensors = {name: torch.from_numpy(array) for name, array in arrays.items()}
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(tensors[name])
                # Adam stores the number of steps as a tensor on the CPU.
                state = {"step": torch.tensor(float(header["step"]))}
                for moment in _MOMENTS:
                    state[moment] = tensors[f"{name}.{moment}"].to(weight)
                self._optimizer.state[weight] = state
        self._active = tensors["active"].to(self.device)
        self._generator.set_state(tensors["generator"])
        self._batches.restore(tensors)
        self.step = header["step"]
        # The file has sorted the keys. Here they get the order of `HISTORY` again.
        history = header["history"]
        self.history = [{name: entry[name] for name in HISTORY} for entry in history]

    def _next_batch(self) -> Tensor:
        return _prepared(next(self._batches), self.normalise).to(self.device)


def _prepared(samples: Tensor, normalise: bool) -> Tensor:
    samples = samples.detach().float()
    return F.normalize(samples, dim=-1) if normalise else samples


def _in_turn(pieces: Sequence[Tensor]) -> Iterator[Tensor]:
    # Pieces are read from disk one by one. A variable would keep a piece in memory while the next piece is read.
    for i in range(len(pieces)):
        yield from torch.split(pieces[i], _DIAGNOSED)


def _survey(pieces: Sequence[Tensor], normalise: bool) -> tuple[list[int], Tensor]:
    """Return the number of samples of each piece, and the mean of all samples.

    Raises:
        InputError: if there are fewer than two samples, or if a sample is not finite.
    """
    sizes = list[int]()
    means = list[Tensor]()
    finite = True
    for i in range(len(pieces)):
        samples = _prepared(pieces[i], normalise)
        sizes.append(len(samples))
        means.append(samples.mean(0).cpu().double())
        finite &= bool(samples.isfinite().all())
        del samples  # so that it is not in memory while the next piece is read
    if sum(sizes) < 2 or not finite:
        given = "some hold NaN or infinite values"
        if sum(sizes) < 2:
            given = f"{sum(sizes)} were given"
        raise InputError(
            f"A sparse autoencoder needs at least two samples, all finite, but {given}."
        )
    share = torch.tensor(sizes, dtype=torch.float64) / sum(sizes)
    return sizes, (torch.stack(means) * share[:, None]).sum(0).float()


@torch.no_grad()
def _step_with_unit_rows(optimizer: torch.optim.Optimizer, w_dec: Tensor) -> None:
    """Take a step of the optimizer that changes only the directions of the decoder's rows; their length stays one."""
    assert w_dec.grad is not None
    # The component of the gradient along a row is removed. Otherwise Adam's moments would accumulate it, although the
    # normalisation undoes its effect.
    w_dec.grad -= (w_dec.grad * w_dec).sum(1, keepdim=True) * w_dec
    optimizer.step()
    w_dec.copy_(F.normalize(w_dec, dim=-1))


@torch.no_grad()
def _resample(
    sae: SparseAutoencoder,
    optimizer: torch.optim.Optimizer,
    dead: Tensor,
    x: Tensor,
    generator: torch.Generator,
) -> None:
    """Resample dead features in place: give them the directions of samples with large errors.

    Args:
        sae: The autoencoder.
        optimizer: Its optimizer, whose moments of the dead features become zero.
        dead: Indices of the dead features.
        x: Samples from which directions are drawn.
        generator: Generator of random numbers.
    """
    if not len(dead):
        return
    # The weight of a sample is the square of its squared error. The tiny number is for the case that no sample has an
    # error.
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
    # The moments that Adam has from the old feature would move the new feature away from its direction.
    for tensor, index in (
        (sae.w_dec, (dead,)),
        (sae.w_enc, (slice(None), dead)),
        (sae.b_enc, (dead,)),
    ):
        for name in ("exp_avg", "exp_avg_sq"):
            optimizer.state[tensor][name][index] = 0

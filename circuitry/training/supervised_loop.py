"""Epochs of a supervised training, each of which depends on seed, its number and the weights before it alone.

1. SGD with Nesterov momentum 0.9; weight decay for all weights but those of norms and biases; from each milestone on
   the learning rate is a tenth of what it was.
2. The order of the images comes from (seed, epoch), the random crop of an image from (seed, epoch, image). So an
   interrupted run goes on as if nothing had happened, and how many processes read images changes nothing.
3. Each of several processes takes its share of every batch; accelerate averages their gradients.
4. In float16 the loss is scaled, so that small gradients do not vanish; a step whose gradients overflow is left out.
5. Weights, momenta, the scale and history are stored in one file.
"""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate
from tqdm import tqdm

from circuitry.data.images import load_image
from circuitry.runs.arrays import read_arrays, write_arrays
from circuitry.runs.errors import InputError
from circuitry.training.supervised_model import TowerClassifier, Transform, as_arrays, set_state
from circuitry.training.training_settings import SupervisedTraining, TrainingWork

_STATE_FORMAT = "circuitry supervised training 2"
_MOMENTUM = 0.9
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # the first: batch, instance, sync


def learning_rate(epoch: int, lr: float, milestones: Sequence[int]) -> float:
    """Return the learning rate of an epoch, counted from 0: ``lr`` a tenth for every milestone that is reached."""
    reached = sum(epoch >= milestone for milestone in milestones)
    return float(lr / 10**reached)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the parameters as an optimizer takes them: weights decay, those of norms and biases do not.

    A bias is what is named so, relative position biases and those of attention's projections included.
    """
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in (weight_decay, 0.0)]
    for name, parameter in model.named_parameters():
        module, _, own = name.rpartition(".")
        spared = isinstance(model.get_submodule(module), _NORMS) or "bias" in own
        groups[spared]["params"].append(parameter)
    return groups


def half_precision(precision: str, device_type: str) -> torch.dtype | None:
    """Return what forward passes are computed in where PyTorch finds it safe; None for float32 throughout."""
    if precision == "amp" and device_type == "cuda":
        return torch.float16
    return None if precision == "fp32" else torch.bfloat16


def seed_of(*numbers: int) -> int:
    """Return one seed for several numbers, unrelated to that of any others."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True, eq=False)
class SeededImages(Dataset[Any]):
    """Images of one epoch with their labels; unreadable ones are an InputError in their place."""

    files: np.ndarray
    targets: Int[np.ndarray, " images"]
    transform: Transform
    seed: int
    epoch: int

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | InputError:
        try:
            image = load_image(os.fsdecode(self.files[index]))
        except InputError as error:
            return error
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, self.epoch, index))
            return self.transform(image), int(self.targets[index])

    def batches(self, batch_size: int, rank: int = 0, processes: int = 1) -> list[list[int]]:
        """Return this process's share of every whole batch of the epoch, as places of images."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self))
        whole = order[: len(self) // batch_size * batch_size]
        found: list[list[int]] = whole.reshape(-1, processes, batch_size // processes)[:, rank].tolist()
        return found


class TrainingLoop:
    """A model in training: runs one epoch after another, and is stored and restored between two."""

    def __init__(self, model: TowerClassifier, name: str, settings: SupervisedTraining, device: str) -> None:
        if device.startswith("cuda:"):
            torch.cuda.set_device(device)
        self.accelerator = Accelerator(cpu=device == "cpu")
        if self.accelerator.device.type != device.partition(":")[0]:
            raise InputError(
                f"This process has already used accelerate on {self.accelerator.device.type} and cannot train on "
                f"{device}: start another."
            )
        self.name = name
        self.settings = settings
        self.model = model.to(self.accelerator.device)
        groups = parameter_groups(model, settings.weight_decay)
        self.optimizer = torch.optim.SGD(groups, lr=settings.lr, momentum=_MOMENTUM, nesterov=True)
        self._parallel_model = self.accelerator.prepare(model)
        self._half = half_precision(settings.precision, self.accelerator.device.type)
        self.scaler = torch.amp.GradScaler(self.accelerator.device.type, enabled=self._half is torch.float16)
        self.history: list[dict[str, float]] = []
        """One entry per finished epoch, with its number counted from 1."""

    @property
    def epochs_done(self) -> int:
        """How many epochs are finished."""
        return len(self.history)

    def run_epoch(self, images: SeededImages, work: TrainingWork) -> None:
        """Train on all images once, and add to the history; InputError for an unreadable image, or when it diverges."""
        started = time.perf_counter()
        settings, epoch, accelerator = self.settings, self.epochs_done, self.accelerator
        lr = learning_rate(epoch, settings.lr, settings.milestones)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(seed_of(images.seed, epoch, accelerator.process_index))  # of what is random in the tower
        batches = images.batches(settings.batch_size, accelerator.process_index, accelerator.num_processes)
        n_images = len(batches) * settings.batch_size
        loss_sum, correct = self._run_batches(images, batches, work)
        loss = float(accelerator.reduce(loss_sum, "mean")) / len(batches)
        weights = (tensor for tensor in self.model.state_dict().values() if tensor.is_floating_point())
        if not math.isfinite(loss) or not all(bool(tensor.isfinite().all()) for tensor in weights):
            raise InputError(
                f"The training diverged in epoch {epoch + 1}, where the mean loss is {loss:g} or weights are no finite "
                f"numbers: train into another folder with a lr lower than {settings.lr}."
            )
        self.history.append(
            {
                "epoch": epoch + 1,
                "lr": lr,
                "loss": loss,
                "accuracy": int(accelerator.reduce(correct, "sum")) / n_images,
                "images_per_second": round(n_images / (time.perf_counter() - started), 1),
            }
        )

    def _run_batches(self, images: SeededImages, batches: list[list[int]], work: TrainingWork) -> tuple[Tensor, Tensor]:
        """Take the steps of an epoch; return the sum of losses and the number of right answers, of this process."""
        accelerator, settings = self.accelerator, self.settings
        on_gpu = accelerator.device.type == "cuda"
        loader = DataLoader(
            images, batch_sampler=batches, num_workers=work.workers, collate_fn=_collate, pin_memory=on_gpu
        )
        self._parallel_model.train()
        loss = torch.zeros((), device=accelerator.device)
        correct = torch.zeros((), device=accelerator.device, dtype=torch.long)
        hidden = not work.progress or not accelerator.is_main_process
        label = f"epoch {self.epochs_done + 1}/{settings.epochs}"
        with tqdm(total=len(batches) * settings.batch_size, unit="image", desc=label, disable=hidden) as bar:
            for batch in loader:
                if isinstance(batch, InputError):
                    raise batch
                inputs, targets = (part.to(accelerator.device, non_blocking=True) for part in batch)
                with torch.autocast(accelerator.device.type, self._half, enabled=self._half is not None):
                    logits = self._parallel_model(inputs)
                    step_loss = F.cross_entropy(logits, targets)
                self.optimizer.zero_grad()
                accelerator.backward(self.scaler.scale(step_loss))
                self.scaler.step(self.optimizer)
                self.scaler.update()
                loss += step_loss.detach()
                correct += (logits.argmax(dim=1) == targets).sum()
                bar.update(settings.batch_size)
        return loss, correct

    def save(self, path: Path) -> None:
        """Write weights, momenta, scale and history, whole or not at all."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            if "momentum_buffer" in self.optimizer.state[parameter]:
                tensors[f"momentum.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        header = {"history": self.history, "scaler": self.scaler.state_dict()}
        write_arrays(path, _STATE_FORMAT, header, as_arrays(tensors))

    def restore(self, path: Path) -> None:
        """Go on from what `save` has written; InputError for a damaged file, or the state of another model."""
        header, arrays = read_arrays(path, _STATE_FORMAT, "state of a supervised training")
        weights = {key.removeprefix("model."): array for key, array in arrays.items() if key.startswith("model.")}
        set_state(self.model, weights, str(path), self.name)
        for name, parameter in self.model.named_parameters():
            if f"momentum.{name}" in arrays:
                momentum = torch.from_numpy(arrays[f"momentum.{name}"].copy()).view_as(parameter)
                self.optimizer.state[parameter]["momentum_buffer"] = momentum.to(parameter.device)
        if self.scaler.is_enabled():
            self.scaler.load_state_dict(header["scaler"])
        self.history = header["history"]


def _collate(items: list[Any]) -> Any:
    """Return a batch, or the reason why there is none: an exception of another process would bring its traceback."""
    return next((item for item in items if isinstance(item, InputError)), None) or default_collate(items)

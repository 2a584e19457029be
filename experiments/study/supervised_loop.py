"""Epochs of a supervised training. An epoch depends only on the seed, its number and the weights before it.

1. SGD with Nesterov momentum 0.9; weight decay of all weights except norms and biases; each milestone divides the
   learning rate by ten.
2. (seed, epoch) gives the order of the images, (seed, epoch, image) the random crop of an image. So an interrupted run
   ends like an uninterrupted one, and the number of reading processes changes nothing.
3. Several processes share every batch; accelerate averages their gradients.
4. In float16 the loss is scaled, so that small gradients do not vanish; a step with overflowing gradients is skipped.
5. One file stores weights, momenta, scale and history.
"""

import math
import os
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from circuitry.runs import InputError, read_arrays, write_arrays
from circuitry.data import load_image
from circuitry.data.images import Decoding
from circuitry.runs.progress import Bar
from circuitry.training import TrainingWork
from experiments.study.supervised_model import TowerClassifier, Transform, as_arrays, set_state
from experiments.study.supervised_settings import SupervisedTraining

import numpy as np
import torch
import torch.nn.functional as F
from accelerate import Accelerator
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate

_STATE_FORMAT = "circuitry supervised training 2"
_MOMENTUM = 0.9
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # the first: batch, instance, sync


def learning_rate(epoch: int, lr: float, milestones: Sequence[int]) -> float:
    """Return the learning rate of an epoch, counted from 0: ``lr`` divided by ten at every milestone."""
    reached = sum(epoch >= milestone for milestone in milestones)
    return float(lr / 10**reached)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the optimizer's groups of parameters: with weight decay, and without for norms and biases.

    Every parameter with "bias" in its name is a bias, also of relative positions and attention's projections.
    """
    groups: list[dict[str, Any]] = [{"params": [], "weight_decay": decay} for decay in (weight_decay, 0.0)]
    for name, parameter in model.named_parameters():
        module, _, own = name.rpartition(".")
        spared = isinstance(model.get_submodule(module), _NORMS) or "bias" in own
        groups[spared]["params"].append(parameter)
    return groups


def half_precision(precision: str, device_type: str) -> torch.dtype | None:
    """Return the type of forward passes where PyTorch finds it safe; None for float32 throughout."""
    if precision == "amp" and device_type == "cuda":
        return torch.float16
    return None if precision == "fp32" else torch.bfloat16


def seed_of(*numbers: int) -> int:
    """Return one seed for several numbers, independent of the seeds of other numbers."""
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True, eq=False)
class SeededImages(Dataset[Any]):
    """Images of one epoch with their labels; an unreadable image gives an InputError as its item."""

    files: np.ndarray
    targets: Int[np.ndarray, " images"]
    transform: Transform
    seed: int
    epoch: int
    decoding: Decoding = "upright"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | InputError:
        try:
            image = load_image(os.fsdecode(self.files[index]), self.decoding).convert("RGB")  # before it is resized
        except InputError as error:
            return error
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, self.epoch, index))
            return self.transform(image), int(self.targets[index])

    def batches(self, batch_size: int, rank: int = 0, processes: int = 1) -> list[list[int]]:
        """Return this process's share of every whole batch of the epoch, as indices of images."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self))
        whole = order[: len(self) // batch_size * batch_size]
        found: list[list[int]] = whole.reshape(-1, processes, batch_size // processes)[:, rank].tolist()
        return found


class TrainingLoop:
    """A model in training, which runs epoch after epoch and can be stored and restored in between."""

    def __init__(self, model: TowerClassifier, name: str, settings: SupervisedTraining, device: str) -> None:
        if device.startswith("cuda:"):
            torch.cuda.set_device(device)
        self.accelerator = Accelerator(cpu=device == "cpu")
        if self.accelerator.device.type != device.partition(":")[0]:
            raise InputError(
                f"This process has already used accelerate on {self.accelerator.device.type} and cannot train on "
                f"{device}: start another process."
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
        """One entry per finished epoch, numbered from 1."""

    @property
    def epochs_done(self) -> int:
        """Return the number of finished epochs."""
        return len(self.history)

    def run_epoch(self, images: SeededImages, work: TrainingWork) -> None:
        """Train on all images once, and add to the history; InputError if an image is unreadable or it diverges."""
        started = time.perf_counter()
        settings, epoch, accelerator = self.settings, self.epochs_done, self.accelerator
        lr = learning_rate(epoch, settings.lr, settings.milestones)
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        torch.manual_seed(seed_of(images.seed, epoch, accelerator.process_index))  # for dropout in the tower
        batches = images.batches(settings.batch_size, accelerator.process_index, accelerator.num_processes)
        n_images = len(batches) * settings.batch_size
        loss_sum, correct = self._run_batches(images, batches, work)
        loss = float(accelerator.reduce(loss_sum, "mean")) / len(batches)
        weights = (tensor for tensor in self.model.state_dict().values() if tensor.is_floating_point())
        if not math.isfinite(loss) or not all(bool(tensor.isfinite().all()) for tensor in weights):
            raise InputError(
                f"The training diverged in epoch {epoch + 1}: the mean loss is {loss:g}, or weights are not finite. "
                f"Train into another folder with a lr lower than {settings.lr}."
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
        """Take the steps of an epoch; return this process's sum of losses and number of right answers."""
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
        with Bar(total=len(batches) * settings.batch_size, unit="image", desc=label, disable=hidden) as bar:
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
        """Write weights, momenta, scale and history atomically."""
        tensors = {f"model.{name}": tensor for name, tensor in self.model.state_dict().items()}
        for name, parameter in self.model.named_parameters():
            if "momentum_buffer" in self.optimizer.state[parameter]:
                tensors[f"momentum.{name}"] = self.optimizer.state[parameter]["momentum_buffer"]
        header = {"history": self.history, "scaler": self.scaler.state_dict()}
        write_arrays(path, _STATE_FORMAT, header, as_arrays(tensors))

    def restore(self, path: Path) -> None:
        """Restore the state that `save` wrote; InputError for a damaged file, or the state of another model."""
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
    """Return a batch, or an InputError among its items: raised in a reading process, it would carry a traceback."""
    return next((item for item in items if isinstance(item, InputError)), None) or default_collate(items)

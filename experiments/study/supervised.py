"""Train a classifier on the image tower of a CLIP model: the study's supervised baseline.

1. SGD with Nesterov momentum 0.9; weight decay of all weights except norms and biases; each milestone divides the
   learning rate by ten.
2. (seed, epoch) gives the order of the images, (seed, epoch, image) the random crop of an image. So an interrupted run
   ends like an uninterrupted one, and the number of reading processes changes nothing.
3. With ``torchrun`` several processes share every batch; accelerate averages gradients, batch norms see one share.
4. In float16 the loss is scaled, so that small gradients do not vanish; a step with overflowing gradients is skipped.
"""

import math
import os
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from circuitry.runs import (
    Amount,
    Bar,
    Count,
    InputError,
    Positive,
    at_least,
    file_lock,
    naming_damage,
    one_of,
    this_rank,
    whole_file,
)
from circuitry.data import Decoding, load_image
from circuitry.models import register_model
from circuitry.training import (
    ModelTraining,
    TrainingWork,
    available_device,
    check_training_table,
    claim_run,
    read_chunks,
)
from experiments.study.supervised_model import (
    LabelTable,
    Transform,
    build_classifier,
    found_labels,
    write_classifier,
)

import numpy as np
import open_clip
import pandas as pd
import torch
import torch.nn.functional as F
from accelerate import Accelerator, PartialState
from jaxtyping import Int
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset, default_collate


@dataclass(frozen=True, kw_only=True)
class SupervisedTraining(ModelTraining):
    """Settings of `train_supervised`; the defaults of rates, batch and epochs are the study's."""

    epochs: Count = 90
    batch_size: Annotated[int, at_least(2)] = 256
    lr: Positive = 0.01
    milestones: tuple[Count, ...] = (30, 50, 70)
    """Epochs, counted from 0, at which the learning rate falls to a tenth."""
    weight_decay: Amount = 1e-4
    precision: Annotated[str, one_of("fp32", "amp", "amp_bf16")] = "fp32"
    """Precision: fp32; amp_bf16, forward passes in bfloat16 where PyTorch finds it safe; amp, in float16 with a scaled
    loss (on the CPU: amp_bf16)."""


_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
"""The first: batch, instance, sync."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the optimizer's groups of parameters: with weight decay, and without for norms and biases."""
    groups: list[dict[str, Any]] = [
        {"params": [], "weight_decay": decay} for decay in (weight_decay, 0.0)
    ]
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
            # RGB before it is resized: a palette cannot be interpolated.
            image = load_image(os.fsdecode(self.files[index]), self.decoding).convert(
                "RGB"
            )
        except InputError as error:
            return error
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, self.epoch, index))
            return self.transform(image), int(self.targets[index])

    def batches(
        self, batch_size: int, rank: int = 0, processes: int = 1
    ) -> list[list[int]]:
        """Return this process's share of every whole batch of the epoch, as indices of images."""
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self))
        whole = order[: len(self) // batch_size * batch_size]
        found: list[list[int]] = whole.reshape(-1, processes, batch_size // processes)[
            :, rank
        ].tolist()
        return found


class TrainingLoop:
    """A model in training, which runs epoch after epoch and can be stored and restored in between."""

    def __init__(
        self, model: nn.Module, settings: SupervisedTraining, device: str
    ) -> None:
        if device.startswith("cuda:"):
            torch.cuda.set_device(device)
        self.accelerator = Accelerator(cpu=device == "cpu")
        self.settings = settings
        self.model = model.to(self.accelerator.device)
        groups = parameter_groups(model, settings.weight_decay)
        self.optimizer = torch.optim.SGD(
            groups, lr=settings.lr, momentum=0.9, nesterov=True
        )
        self._parallel_model = self.accelerator.prepare(model)
        self._half = half_precision(settings.precision, self.accelerator.device.type)
        self.scaler = torch.amp.GradScaler(
            self.accelerator.device.type, enabled=self._half is torch.float16
        )
        self.history: list[dict[str, float]] = []
        """One entry per finished epoch, numbered from 1."""

    def run_epoch(self, images: SeededImages, work: TrainingWork) -> None:
        """Train on all images once, and add to the history; InputError if an image is unreadable or it diverges."""
        started = time.perf_counter()
        settings = self.settings
        accelerator = self.accelerator
        lr = settings.lr / 10 ** sum(
            images.epoch >= milestone for milestone in settings.milestones
        )
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # For dropout in the tower.
        torch.manual_seed(seed_of(images.seed, images.epoch, accelerator.process_index))
        batches = images.batches(
            settings.batch_size, accelerator.process_index, accelerator.num_processes
        )
        n_images = len(batches) * settings.batch_size
        gpu = accelerator.device.type == "cuda"
        loader = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=work.workers,
            collate_fn=_collate,
            pin_memory=gpu,
        )
        self._parallel_model.train()
        losses = torch.zeros((), device=accelerator.device)
        correct = torch.zeros((), device=accelerator.device, dtype=torch.long)
        hidden = not work.progress or not accelerator.is_main_process
        label = f"epoch {images.epoch + 1}/{settings.epochs}"
        with Bar(total=n_images, unit="image", desc=label, disable=hidden) as bar:
            for batch in loader:
                if isinstance(batch, InputError):
                    raise batch
                inputs, targets = (
                    part.to(accelerator.device, non_blocking=True) for part in batch
                )
                with torch.autocast(
                    accelerator.device.type, self._half, enabled=self._half is not None
                ):
                    logits = self._parallel_model(inputs)
                    step_loss = F.cross_entropy(logits, targets)
                self.optimizer.zero_grad()
                accelerator.backward(self.scaler.scale(step_loss))
                self.scaler.step(self.optimizer)
                self.scaler.update()
                losses += step_loss.detach()
                correct += (logits.argmax(dim=1) == targets).sum()
                bar.update(settings.batch_size)
        loss = float(accelerator.reduce(losses, "mean")) / len(batches)
        weights = (
            tensor
            for tensor in self.model.state_dict().values()
            if tensor.is_floating_point()
        )
        if not math.isfinite(loss) or not all(
            bool(tensor.isfinite().all()) for tensor in weights
        ):
            raise InputError(
                f"The training diverged in epoch {images.epoch + 1}: the mean loss is {loss:g}, or weights are not "
                f"finite. Train into another folder with a lr lower than {settings.lr}."
            )
        accuracy = int(accelerator.reduce(correct, "sum")) / n_images
        rate = round(n_images / (time.perf_counter() - started), 1)
        done = {
            "epoch": images.epoch + 1,
            "lr": lr,
            "loss": loss,
            "accuracy": accuracy,
            "images_per_second": rate,
        }
        self.history.append(done)

    @property
    def _stateful(self) -> dict[str, Any]:
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def save(self, path: Path) -> None:
        """Write weights, momenta, scale and history atomically."""
        state = {name: part.state_dict() for name, part in self._stateful.items()}
        with whole_file(path) as temporary:
            torch.save({**state, "history": self.history}, temporary)

    def restore(self, path: Path) -> None:
        """Restore the state that `save` wrote; InputError for a damaged file, or the state of another model."""
        with naming_damage(path):
            state = torch.load(
                path, map_location=self.accelerator.device, weights_only=True
            )
            for name, part in self._stateful.items():
                part.load_state_dict(state[name])
            self.history = state["history"]


def _collate(items: list[Any]) -> Any:
    """Return a batch, or an InputError among its items: raised in a reading process, it would carry a traceback."""
    return next(
        (item for item in items if isinstance(item, InputError)), None
    ) or default_collate(items)


LabelChoice = Callable[[Iterable[str]], LabelTable]
"""Classes of a table of images -> the outputs of the head."""


def train_supervised(
    table: Path,
    out: Path,
    settings: SupervisedTraining,
    choose_labels: LabelChoice = found_labels,
    work: TrainingWork = TrainingWork(),
) -> Path:
    """Train a classifier; return its last checkpoint, ``out/checkpoints/epoch_N.safetensors``, for `load_supervised`.

    A second call with the same settings returns at once when the run is finished, and otherwise resumes after the last
    complete epoch; it ends with the weights of an uninterrupted run. ``out/metrics.csv`` has a line per epoch.
    """
    out = Path(out).absolute()
    rank, processes = this_rank()
    # Of several machines each has its own GPUs.
    device = available_device(work.device, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    if settings.batch_size % processes:
        raise InputError(
            f"The batch_size of all processes together must be a multiple of their number, but "
            f"{settings.batch_size} for {processes} processes was given."
        )
    table = Path(table).absolute()
    check_training_table(table, ("filepath",), settings.batch_size)
    lines = pd.concat(read_chunks(table, ("filepath",)), ignore_index=True)
    files, targets, labels = read_samples(lines, choose_labels)
    name = register_model(settings.model)
    config = {name: open_clip.get_model_config(name)}
    about_labels = [labels.classes, dict(labels.labels)]
    folder = claim_run(
        out, settings, config, table, labels=about_labels, processes=processes
    )
    last = out / "checkpoints" / f"epoch_{settings.epochs}.safetensors"
    state = out / "state.pt"

    def keep(loop: TrainingLoop) -> None:
        """Write the classifier, trained or untrained, if the settings keep this epoch."""
        epoch = len(loop.history)
        kept = settings.keep_checkpoints
        if epoch == settings.epochs or (kept and epoch % kept == 0):
            write_classifier(last.with_stem(f"epoch_{epoch}"), loop.model, name, labels)

    def train(*job: object) -> list[Path]:
        # Another number rounds sums differently.
        torch.set_num_threads(settings.threads)
        torch.manual_seed(seed_of(settings.seed))
        classifier, transform, _ = build_classifier(
            name, len(labels.classes), settings.crop_scale
        )
        loop = TrainingLoop(classifier, settings, device)
        if state.is_file():
            loop.restore(state)
        elif rank == 0:
            keep(loop)
        for epoch in range(len(loop.history), settings.epochs):
            loop.run_epoch(
                SeededImages(
                    files, targets, transform, settings.seed, epoch, settings.decoding
                ),
                work,
            )
            if rank == 0:
                with whole_file(out / "metrics.csv") as temporary:
                    pd.DataFrame(loop.history).to_csv(temporary, index=False)
                keep(loop)
                # Last: an epoch that is not in it is repeated, with the same result.
                loop.save(state)
            loop.accelerator.wait_for_everyone()
        return [last]

    if folder.is_done(folder.jobs[0]):
        return last
    if rank:
        train()
    else:
        with file_lock(out, "alone"):
            folder.run(train)
            state.unlink(missing_ok=True)
    PartialState().wait_for_everyone()  # all processes see a finished run from here on
    return last


def read_samples(
    lines: pd.DataFrame, choose_labels: LabelChoice
) -> tuple[np.ndarray, Int[np.ndarray, " images"], LabelTable]:
    """Return the files of a table as one array of bytes, the label of each, and the label table."""
    named = (
        lines["class"]
        if "class" in lines
        else lines["filepath"].map(lambda file: Path(file).parent.name)
    )
    names, places = np.unique(named.fillna("").to_numpy(dtype=str), return_inverse=True)
    classes = names.tolist()
    labels = choose_labels(classes)
    if unknown := [name for name in classes if name not in labels.labels]:
        raise InputError(
            f"The training table has images of {len(unknown)} classes without a label, such as "
            f"{', '.join(map(repr, unknown[:5]))}: correct its column class (default: names of the images' folders)."
        )
    files = np.array([os.fsencode(file) for file in lines["filepath"]])
    return files, np.array([labels.labels[name] for name in classes])[places], labels

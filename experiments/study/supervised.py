"""Train a classifier on the image tower of a CLIP model: the study's supervised baseline.

1. The optimizer is SGD with Nesterov momentum 0.9. All weights decay except weights of norms and biases. Each milestone
   divides the learning rate by ten.
2. The order of the images depends on the seed and the epoch alone. The random crop of an image depends on the seed, the
   epoch and the image alone. So an interrupted run ends like an uninterrupted run, and the number of reading processes
   changes nothing.
3. With ``torchrun`` several processes share every batch. Accelerate averages the gradients. A batch norm sees the share
   of its process.
4. In float16 the loss is scaled, so that small gradients do not vanish. A step with overflowing gradients is skipped.
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
    """Settings of `train_supervised`; the default rates, batch size and number of epochs are the study's."""

    epochs: Count = 90
    batch_size: Annotated[int, at_least(2)] = 256
    lr: Positive = 0.01
    milestones: tuple[Count, ...] = (30, 50, 70)
    """Epochs, counted from 0, at which the learning rate falls to a tenth."""
    weight_decay: Amount = 1e-4
    precision: Annotated[str, one_of("fp32", "amp", "amp_bf16")] = "fp32"
    """Precision of the forward passes: fp32; amp_bf16 for bfloat16 in operations where PyTorch considers it safe; amp
    for float16 in these operations, with a scaled loss (on the CPU amp is amp_bf16)."""


_NORMS = (
    nn.modules.batchnorm._NormBase,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)
"""Modules whose weights do not decay. The first is the base of batch, instance and synchronized batch norms."""


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return two groups of parameters for the optimizer: with weight decay, and without it (norms and biases)."""
    decaying: list[nn.Parameter] = []
    constant: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        module, _, last = name.rpartition(".")
        # Decay would change the scale that a norm has learned, and shift every bias to zero.
        if isinstance(model.get_submodule(module), _NORMS) or "bias" in last:
            constant.append(parameter)
        else:
            decaying.append(parameter)
    return [
        {"params": decaying, "weight_decay": weight_decay},
        {"params": constant, "weight_decay": 0.0},
    ]


def half_precision(precision: str, device_type: str) -> torch.dtype | None:
    """Return the number type of operations that are safe in half precision; None if all are in float32."""
    if precision == "amp" and device_type == "cuda":
        return torch.float16
    return None if precision == "fp32" else torch.bfloat16


def seed_of(*numbers: int) -> int:
    """Return one seed for several numbers, independent of the seeds of other numbers."""
    # Shifted, so that the seed fits into a signed number of 64 bits.
    return int(np.random.SeedSequence(numbers).generate_state(1, np.uint64)[0] >> 1)


@dataclass(frozen=True, eq=False)
class SeededImages(Dataset[Any]):
    """Images of one epoch with their labels; the item of an unreadable image is an InputError."""

    files: np.ndarray  # paths as bytes: one array is shared by reading processes, a list would be copied
    targets: Int[np.ndarray, " images"]
    transform: Transform
    seed: int
    epoch: int
    decoding: Decoding = "upright"

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> tuple[Tensor, int] | InputError:
        try:
            image = load_image(os.fsdecode(self.files[index]), self.decoding)
        except InputError as error:
            return error
        # RGB before it is resized: a palette cannot be interpolated.
        image = image.convert("RGB")
        # The seed of an image is its own, so that the order of reading changes no crop.
        with torch.random.fork_rng(devices=[]):
            torch.default_generator.manual_seed(seed_of(self.seed, self.epoch, index))
            return self.transform(image), int(self.targets[index])

    def batches(
        self, batch_size: int, rank: int = 0, processes: int = 1
    ) -> list[list[int]]:
        """Return the share of this process in every full batch of the epoch, as indices of images.

        The last images of the order, which fill no batch, are left out.
        """
        order = np.random.default_rng([self.seed, self.epoch]).permutation(len(self))
        full = order[: len(self) // batch_size * batch_size]
        # [batches, processes, images of a process]
        shares = full.reshape(-1, processes, batch_size // processes)
        of_process: list[list[int]] = shares[:, rank].tolist()
        return of_process


class TrainingLoop:
    """A model in training, which runs epoch after epoch. Between epochs it can be stored and restored."""

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
        """The numbers of each finished epoch; epochs count from 1."""

    def run_epoch(self, images: SeededImages, work: TrainingWork) -> None:
        """Train on all images once, and add the epoch to the history.

        Raises:
            InputError: An image is unreadable, or the training diverges.
        """
        started = time.perf_counter()
        settings = self.settings
        accelerator = self.accelerator
        n_passed = sum(images.epoch >= epoch for epoch in settings.milestones)
        lr = settings.lr / 10**n_passed
        for group in self.optimizer.param_groups:
            group["lr"] = lr
        # For dropout in the tower, which must differ between processes.
        torch.manual_seed(seed_of(images.seed, images.epoch, accelerator.process_index))
        batches = images.batches(
            settings.batch_size, accelerator.process_index, accelerator.num_processes
        )
        n_images = len(batches) * settings.batch_size
        device = accelerator.device
        loader = DataLoader(
            images,
            batch_sampler=batches,
            num_workers=work.workers,
            collate_fn=_collate,
            pin_memory=device.type == "cuda",
        )
        self._parallel_model.train()
        # Sums stay on the device: reading them in each step would wait for the GPU.
        losses = torch.zeros((), device=device)
        correct = torch.zeros((), device=device, dtype=torch.long)
        hidden = not work.progress or not accelerator.is_main_process
        label = f"epoch {images.epoch + 1}/{settings.epochs}"
        with Bar(total=n_images, unit="image", desc=label, disable=hidden) as bar:
            for batch in loader:
                if isinstance(batch, InputError):
                    raise batch
                inputs = batch[0].to(device, non_blocking=True)
                targets = batch[1].to(device, non_blocking=True)
                half = self._half
                with torch.autocast(device.type, half, enabled=half is not None):
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
        finite = math.isfinite(loss)
        # The last step may have spoiled weights that no loss has seen; integers are always finite.
        for tensor in self.model.state_dict().values():
            finite = finite and bool(tensor.isfinite().all())
        if not finite:
            raise InputError(
                f"The training diverged in epoch {images.epoch + 1}: the mean loss is {loss:g}, or weights are not "
                f"finite. Train into another folder with a lr lower than {settings.lr}."
            )
        accuracy = int(accelerator.reduce(correct, "sum")) / n_images
        rate = round(n_images / (time.perf_counter() - started), 1)
        numbers = {
            "epoch": images.epoch + 1,
            "lr": lr,
            "loss": loss,
            "accuracy": accuracy,
            "images_per_second": rate,
        }
        self.history.append(numbers)

    @property
    def _stateful(self) -> dict[str, Any]:
        """Return everything that changes in training and has a state, by its name in the file."""
        return {"model": self.model, "optimizer": self.optimizer, "scaler": self.scaler}

    def save(self, path: Path) -> None:
        """Write the weights, the momenta, the scale of the loss and the history atomically."""
        state = {name: held.state_dict() for name, held in self._stateful.items()}
        with whole_file(path) as temporary:
            torch.save({**state, "history": self.history}, temporary)

    def restore(self, path: Path) -> None:
        """Restore the state that `save` wrote.

        Raises:
            InputError: The file is damaged, or holds the state of another model.
        """
        with naming_damage(path):
            state = torch.load(
                path, map_location=self.accelerator.device, weights_only=True
            )
            for name, held in self._stateful.items():
                held.load_state_dict(state[name])
            self.history = state["history"]


def _collate(items: list[Any]) -> Any:
    """Return the batch of some items, or the first InputError among the items."""
    for item in items:
        # An error that a reading process raised would carry the traceback of that process.
        if isinstance(item, InputError):
            return item
    return default_collate(items)


LabelChoice = Callable[[Iterable[str]], LabelTable]
"""Takes the classes of a table of images. Returns the outputs of the head."""


def train_supervised(
    table: Path,
    out: Path,
    settings: SupervisedTraining,
    choose_labels: LabelChoice = found_labels,
    work: TrainingWork = TrainingWork(),
) -> Path:
    """Train a classifier, and return its last checkpoint, which `load_supervised` loads.

    A second call with the same settings returns at once if the run is finished. Otherwise it resumes after the last
    complete epoch, and ends with the weights of an uninterrupted run.

    Args:
        table: Table of training images: column filepath, and perhaps class (default: the name of an image's folder).
        out: Folder of the run: ``checkpoints/epoch_N.safetensors``, and ``metrics.csv`` with a line for each epoch.
        choose_labels: Function that returns the outputs of the head for the classes of the table.
    """
    out = Path(out).absolute()
    rank, processes = this_rank()
    # The processes of one machine share its GPUs, and other machines have their own.
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
        """Write the classifier if the settings keep this epoch; epoch 0 is the untrained classifier."""
        epoch = len(loop.history)
        kept = settings.keep_checkpoints
        if epoch == settings.epochs or (kept and epoch % kept == 0):
            write_classifier(last.with_stem(f"epoch_{epoch}"), loop.model, name, labels)

    def train(*job: object) -> list[Path]:
        """Train from the last complete epoch to the end; all processes do so together."""
        # Another number of threads rounds sums differently.
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
            images = SeededImages(
                files, targets, transform, settings.seed, epoch, settings.decoding
            )
            loop.run_epoch(images, work)
            if rank == 0:
                with whole_file(out / "metrics.csv") as temporary:
                    pd.DataFrame(loop.history).to_csv(temporary, index=False)
                keep(loop)
                # Last, because an epoch that the state lacks is repeated, with the same result.
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
    # From here on all processes see a finished run.
    PartialState().wait_for_everyone()
    return last


def read_samples(
    lines: pd.DataFrame, choose_labels: LabelChoice
) -> tuple[np.ndarray, Int[np.ndarray, " images"], LabelTable]:
    """Read the lines of a table of images.

    Returns:
        The files as one array of bytes, the label of each file, and the table of labels.

    Raises:
        InputError: A class has no label.
    """
    if "class" in lines:
        named = lines["class"].fillna("")
    else:
        named = lines["filepath"].map(lambda file: Path(file).parent.name)
    # Tables have millions of lines but few classes, so that labels are looked up once for each class.
    names, places = np.unique(named.to_numpy(dtype=str), return_inverse=True)
    classes = names.tolist()
    labels = choose_labels(classes)
    unknown = [name for name in classes if name not in labels.labels]
    if unknown:
        raise InputError(
            f"The training table has images of {len(unknown)} classes without a label, such as "
            f"{', '.join(map(repr, unknown[:5]))}: correct its column class (default: names of the images' folders)."
        )
    files = np.array([os.fsencode(file) for file in lines["filepath"]])
    of_classes = np.array([labels.labels[name] for name in classes])
    return files, of_classes[places], labels

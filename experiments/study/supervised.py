"""Train a classifier on the image tower of a CLIP model: the study's supervised baseline.

With ``torchrun`` or ``accelerate launch`` several processes share every batch; batch norms then see one share. Each
epoch ends with the whole state on disk.

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
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, ClassVar

from circuitry.runs import (
    Amount,
    Bar,
    Count,
    InputError,
    Job,
    Positive,
    at_least,
    digest,
    file_lock,
    one_of,
    read_arrays,
    this_rank,
    whole_file,
    write_arrays,
)
from circuitry.data import Decoding, load_image
from circuitry.models import register_model
from circuitry.training import (
    CheckedTable,
    ModelTraining,
    TrainingWork,
    available_device,
    check_training_table,
    claim_run,
)
from experiments.study.supervised_model import (
    LabelTable,
    TowerClassifier,
    Transform,
    as_arrays,
    build_classifier,
    found_labels,
    set_state,
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

PRECISIONS = ("fp32", "amp", "amp_bf16")


@dataclass(frozen=True, kw_only=True)
class SupervisedTraining(ModelTraining):
    """Settings of `train_supervised`; the defaults of rates, batch and epochs are the study's."""

    STUDY: ClassVar = {"precision": "amp", "keep_checkpoints": 5, "decoding": "as-stored"}
    epochs: Count = 90
    batch_size: Annotated[int, at_least(2)] = 256
    lr: Positive = 0.01
    milestones: tuple[Count, ...] = (30, 50, 70)
    """Epochs, counted from 0, at which the learning rate falls to a tenth."""
    weight_decay: Amount = 1e-4
    precision: Annotated[str, one_of(*PRECISIONS)] = "fp32"
    """Precision: fp32; amp_bf16, forward passes in bfloat16 where PyTorch finds it safe; amp, in float16 with a scaled
    loss (on the CPU: amp_bf16)."""

    def __post_init__(self) -> None:
        if list(self.milestones) != sorted(set(self.milestones)):
            raise InputError(
                f"The milestones of a training are epochs above 0 in rising order, but {self.milestones} was given."
            )


_STATE_FORMAT = "circuitry supervised training 2"
_MOMENTUM = 0.9
_NORMS = (nn.modules.batchnorm._NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)  # the first: batch, instance, sync


def learning_rate(epoch: int, lr: float, milestones: Sequence[int]) -> float:
    """Return the learning rate of an epoch, counted from 0: ``lr`` divided by ten at every milestone."""
    reached = sum(epoch >= milestone for milestone in milestones)
    return float(lr / 10**reached)


def parameter_groups(model: nn.Module, weight_decay: float) -> list[dict[str, Any]]:
    """Return the optimizer's groups of parameters: with weight decay, and without for norms and biases."""
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
        set_state(self.model, weights)
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


LabelChoice = Callable[[Iterable[str]], LabelTable]  # classes of a table of images -> the outputs of the head
_METRICS = ("epoch", "lr", "loss", "accuracy", "images_per_second")


def train_supervised(
    table: Path,
    out: Path,
    settings: SupervisedTraining,
    labels: LabelTable | LabelChoice = found_labels,
    work: TrainingWork = TrainingWork(),
) -> Path:
    """Train a classifier; return its last checkpoint, ``out/checkpoints/epoch_N.safetensors``, for `load_supervised`.

    A second call with the same settings returns at once when the run is finished, and otherwise resumes after the last
    complete epoch; it ends with the weights of an uninterrupted run. ``out/metrics.csv`` has a line per epoch: learning
    rate, mean loss and accuracy on the training images during the epoch, images per second.
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
    checked = check_training_table(
        Path(table).absolute(), ("filepath",), settings.batch_size, skip_missing=settings.skip_missing
    )
    files, targets, labels = read_samples(checked, labels)
    name = register_model(settings.model)
    about_labels = digest([labels.classes, dict(labels.labels)])
    config = open_clip.get_model_config(name)
    folder = claim_run(out, settings, {name: config}, checked, labels=about_labels, processes=processes)
    last = out / "checkpoints" / f"epoch_{settings.epochs}.safetensors"
    if folder.is_done(folder.jobs[0]):
        return last

    def train(job: Job, nothing: Any) -> list[Path]:
        torch.manual_seed(seed_of(settings.seed))
        classifier, transform, _ = build_classifier(name, len(labels.classes), settings.crop_scale)
        loop = TrainingLoop(classifier, name, settings, device)
        state = out / "state.safetensors"
        if state.is_file():
            loop.restore(state)
        elif rank == 0:
            _write_checkpoint(out, loop, labels)
        while loop.epochs_done < settings.epochs:
            images = SeededImages(files, targets, transform, settings.seed, loop.epochs_done, settings.decoding)
            loop.run_epoch(images, work)
            if rank == 0:
                _write_epoch(out, loop, labels)
                loop.save(state)  # last: an epoch that is not in it is repeated, with the same result
            loop.accelerator.wait_for_everyone()
        return [last]

    threads = torch.get_num_threads()
    with torch.random.fork_rng(devices=[]), ExitStack() as stack:
        torch.set_num_threads(settings.threads)  # another number rounds sums differently
        stack.callback(torch.set_num_threads, threads)
        if rank:
            train(folder.jobs[0], None)
        else:
            with file_lock(out, "alone"):
                folder.run(train)
                (out / "state.safetensors").unlink(missing_ok=True)
        PartialState().wait_for_everyone()  # all processes see a finished run from here on
    return last


def read_samples(
    table: CheckedTable, labels: LabelTable | LabelChoice = found_labels
) -> tuple[np.ndarray, Int[np.ndarray, " images"], LabelTable]:
    """Return the files of a table as one array of bytes, the label of each, and the label table."""
    files, places = [], []
    seen: dict[str, int] = {}  # class -> place in order of appearance
    for chunk in table.chunks():
        if "class" in chunk:
            names = chunk["class"].fillna("").tolist()
        else:
            names = [Path(file).parent.name for file in chunk["filepath"]]
        files.append(np.array([os.fsencode(file) for file in chunk["filepath"]]))
        places.append(np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64))
    labels = labels if isinstance(labels, LabelTable) else labels(seen)
    unknown = [name for name in seen if name not in labels.labels]
    if unknown:
        raise InputError(
            f"{table.path} has images of {len(unknown)} classes that are not in the label table, such as "
            f"{', '.join(map(repr, unknown[:5]))}: add them to it, or correct the table's column class (default: the "
            "names of the images' folders)."
        )
    label_of_place = np.array([labels.labels[name] for name in seen], dtype=np.int64)
    return np.concatenate(files), label_of_place[np.concatenate(places)], labels


def _write_epoch(out: Path, loop: TrainingLoop, labels: LabelTable) -> None:
    """Write the metrics so far, and the checkpoint if it is kept."""
    with whole_file(out / "metrics.csv") as temporary:
        pd.DataFrame(loop.history, columns=_METRICS).to_csv(temporary, index=False, lineterminator="\n")
    _write_checkpoint(out, loop, labels)


def _write_checkpoint(out: Path, loop: TrainingLoop, labels: LabelTable) -> None:
    """Write the classifier, trained or untrained, if the settings keep this epoch."""
    epoch, kept = loop.epochs_done, loop.settings.keep_checkpoints
    if epoch == loop.settings.epochs or (kept and epoch % kept == 0):
        path = out / "checkpoints" / f"epoch_{epoch}.safetensors"
        write_classifier(path, loop.model, loop.name, labels, epoch)

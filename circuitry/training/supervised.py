"""Train a classifier on the image tower of a CLIP model: the study's supervised baseline.

1. The table of images is checked from end to end; every image's class gets its label.
2. The settings are recorded in ``out/settings.json``: a finished run is returned, an interrupted one goes on.
3. The epochs run (`supervised_loop`), each of them ending with the whole state on disk.

One device or several: started by ``torchrun`` or ``accelerate launch``, each process takes its share of every batch
(the statistics of batch norms are those of a share).
"""

import os
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import open_clip
import pandas as pd
import torch
from jaxtyping import Int

from circuitry.models.architectures import register_model
from circuitry.runs.errors import InputError
from circuitry.runs.files import whole_file
from circuitry.runs.provenance import digest
from circuitry.runs.workers import this_rank
from circuitry.training.devices import training_device
from circuitry.training.labels import LabelTable, found_labels
from circuitry.training.run_folder import alone, file_digest, is_finished, record
from circuitry.training.supervised_loop import Schedule, SeededImages, Training, seed_of
from circuitry.training.supervised_model import build_classifier, write_classifier
from circuitry.training.table import CheckedTable, check_table

_PRECISIONS = ("fp32", "amp_bf16")
_NOT_COMPARED = ("workers", "device")


def train_supervised(
    table: Path,
    out: Path,
    *,
    model: str | Path,
    labels: LabelTable | None = None,
    epochs: int = 90,
    batch_size: int = 256,
    lr: float = 0.01,
    milestones: tuple[int, ...] = (30, 50, 70),
    weight_decay: float = 1e-4,
    crop_scale: float = 0.9,
    seed: int = 0,
    workers: int = 2,
    device: str | None = None,
    precision: str = "fp32",
    keep_checkpoints: int = 0,
    skip_missing: bool = False,
    progress: bool = True,
) -> Path:
    """Train a classifier; return its last checkpoint, ``out/checkpoints/epoch_N.safetensors``, for `load_supervised`.

    The defaults are the study's. Calling it again with the same settings returns at once when the run is finished,
    and otherwise goes on after the last complete epoch, with the weights of an uninterrupted run in the end.
    ``out/metrics.csv`` has a line per epoch: learning rate, mean loss and accuracy on the training images while they
    were trained on, images per second.

    Args:
        table: table with the columns ``filepath`` and ``class``; without the latter the class of an image is the
            name of its folder, so the tables of `train_clip` will do.
        out: folder of the run.
        model: name of an open_clip model or of a config of this package ("rn-tiny"), or a JSON file.
        labels: outputs of the head and which of them every class counts as, see `merged_labels`; unless told, an
            output for every class of the table, sorted by name.
        epochs: passes over the table.
        batch_size: images per step, of all processes together; what is left of the table after the last whole
            batch waits for the next epoch.
        lr: learning rate at the start.
        milestones: epochs, counted from 0, from which on it is a tenth of what it was.
        weight_decay: of all weights but those of norms and biases.
        crop_scale: least share of an image's area that a random crop keeps; the default is open_clip's.
        seed: of weights, order of images, and crops.
        workers: processes that read images, for each that trains.
        device: "cpu", "cuda", "cuda:1", "mps"; None takes a GPU where there is one; under torchrun one for each.
        precision: "fp32", or "amp_bf16": forward passes in bfloat16 where PyTorch finds it safe.
        keep_checkpoints: keep a checkpoint after every so many epochs, see `checkpoints`; 0 keeps only the last.
        skip_missing: train without the images whose files do not exist, instead of refusing the table.

    Raises:
        InputError: a table, model, device or number that cannot be trained with; an image that cannot be read; a
            loss that is no finite number; in ``out`` a run with other settings, a damaged state, or a training that
            is going on.

    Example:
        >>> labels = merged_labels(imagenet_classes, domainnet_classes, partners)
        >>> checkpoint = train_supervised(Path("train.tsv"), Path("runs/supervised"), model="RN50", labels=labels)
        >>> model = circuitry.load_supervised(checkpoint)
    """
    out = Path(out).absolute()
    rank, processes = this_rank()
    # Of several machines each has its own GPUs.
    device = training_device(device, int(os.environ.get("LOCAL_WORLD_SIZE", "1")))
    schedule = Schedule(epochs, batch_size, lr, milestones, weight_decay)
    _check_choices(schedule, crop_scale, seed, precision, keep_checkpoints, processes)
    checked = check_table(Path(table).absolute(), ("filepath",), batch_size, skip_missing=skip_missing)
    files, targets, labels = read_samples(checked, labels)
    name = register_model(model)
    settings = {
        **schedule._asdict(),
        "crop-scale": crop_scale,
        "seed": seed,
        "processes": processes,
        "workers": workers,
        "device": device,
        "precision": precision,
        "keep-checkpoints": keep_checkpoints,
        "model": {name: open_clip.get_model_config(name)},
        "train-data": file_digest(checked.path),
        "skipped": checked.n_missing,
        "labels": digest([labels.classes, dict(labels.labels)]),
    }
    last = out / "checkpoints" / f"epoch_{epochs}.safetensors"
    if is_finished(out, settings, _NOT_COMPARED) and last.is_file():
        return last
    with ExitStack() as stack:
        if rank == 0:
            stack.enter_context(alone(out))
            record(out, settings, finished=False)
        stack.enter_context(torch.random.fork_rng(devices=[]))
        torch.manual_seed(seed_of(seed))
        classifier, transform, _ = build_classifier(name, len(labels.classes), crop_scale)
        training = Training(classifier, name, schedule, device, precision)
        state = out / "state.safetensors"
        if state.is_file():
            training.restore(state)
        while training.epochs_done < epochs:
            training.run_epoch(SeededImages(files, targets, transform, seed, training.epochs_done), workers, progress)
            if rank == 0:
                _write_epoch(out, training, labels, keep_checkpoints)
                training.save(state)  # last: what is not in it is made again, and the same
            training.accelerator.wait_for_everyone()
        if rank == 0:
            record(out, settings, finished=True)
            state.unlink(missing_ok=True)
    return last


def read_samples(
    table: CheckedTable, labels: LabelTable | None = None
) -> tuple[np.ndarray, Int[np.ndarray, " images"], LabelTable]:
    """Return the files of a table as bytes, the label of each, and the label table: that given, or the classes found.

    Bytes in one array: forked reading processes then share its memory, which lists of strings end up copying.

    Raises:
        InputError: classes that the label table does not know.
    """
    files, places = [], []
    seen: dict[str, int] = {}  # class -> place in order of appearance
    for chunk in table.chunks():
        if "class" in chunk:
            names = chunk["class"].fillna("").tolist()
        else:
            names = [Path(file).parent.name for file in chunk["filepath"]]
        files.append(np.array([os.fsencode(file) for file in chunk["filepath"]]))
        places.append(np.array([seen.setdefault(name, len(seen)) for name in names], dtype=np.int64))
    labels = found_labels(seen) if labels is None else labels
    unknown = [name for name in seen if name not in labels.labels]
    if unknown:
        raise InputError(
            f"{table.path} has images of {len(unknown)} classes that are not in the label table, such as "
            f"{', '.join(map(repr, unknown[:5]))}; add them to it, or correct the table's column 'class' (without "
            "one, an image's class is the name of its folder)"
        )
    label_of_place = np.array([labels.labels[name] for name in seen], dtype=np.int64)
    return np.concatenate(files), label_of_place[np.concatenate(places)], labels


def _write_epoch(out: Path, training: Training, labels: LabelTable, keep_checkpoints: int) -> None:
    """Write the metrics so far, and the checkpoint where one is kept."""
    with whole_file(out / "metrics.csv") as temporary:
        pd.DataFrame(training.history).to_csv(temporary, index=False, lineterminator="\n")
    epoch = training.epochs_done
    if epoch == training.schedule.epochs or (keep_checkpoints and epoch % keep_checkpoints == 0):
        path = out / "checkpoints" / f"epoch_{epoch}.safetensors"
        write_classifier(path, training.model, training.name, labels, epoch)


def _check_choices(
    schedule: Schedule, crop_scale: float, seed: int, precision: str, keep_checkpoints: int, processes: int
) -> None:
    epochs, batch_size, lr, milestones, weight_decay = schedule
    if epochs < 1 or batch_size < 2 or not lr > 0 or not weight_decay >= 0 or seed < 0 or keep_checkpoints < 0:
        raise InputError(
            "expected at least 1 epoch, 2 images per batch, a positive lr, and a weight_decay, seed and "
            f"keep_checkpoints of at least 0; given epochs={epochs}, batch_size={batch_size}, lr={lr}, "
            f"weight_decay={weight_decay}, seed={seed}, keep_checkpoints={keep_checkpoints}"
        )
    if list(milestones) != sorted(set(milestones)) or min(milestones, default=1) < 1:
        raise InputError(f"milestones are epochs above 0 in rising order; given {milestones}")
    if not 0 < crop_scale <= 1:
        raise InputError(f"crop_scale is a share of an image's area, above 0 and up to 1; given {crop_scale}")
    if precision not in _PRECISIONS:
        raise InputError(f"expected the precision {' or '.join(_PRECISIONS)}, given {precision!r}")
    if batch_size % processes:
        raise InputError(
            f"batch_size is that of all processes together and must be a multiple of their number; given "
            f"batch_size={batch_size} and {processes} processes"
        )

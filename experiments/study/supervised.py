"""Train a classifier on the image tower of a CLIP model: the study's supervised baseline.

With ``torchrun`` or ``accelerate launch`` several processes share every batch; batch norms then see one share. Each
epoch (`supervised_loop`) ends with the whole state on disk.
"""

import os
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from circuitry.runs import InputError, Job, digest, this_rank, whole_file
from circuitry.models.architectures import register_model
from circuitry.runs.given import checked
from circuitry.training import TrainingWork
from circuitry.training.devices import available_device, pinned_threads
from circuitry.training.run_folder import TRAINING_JOB, alone, claim_run
from circuitry.training.training_table import CheckedTable, check_training_table
from experiments.study.labels import LabelTable, found_labels
from experiments.study.supervised_loop import SeededImages, TrainingLoop, seed_of
from experiments.study.supervised_model import build_classifier, write_classifier
from experiments.study.supervised_settings import SupervisedTraining

import numpy as np
import open_clip
import pandas as pd
import torch
from accelerate import PartialState
from jaxtyping import Int

LabelChoice = Callable[[Iterable[str]], LabelTable]
"""Classes of a table of images -> the outputs of the head."""
_METRICS = ("epoch", "lr", "loss", "accuracy", "images_per_second")


@checked
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

    Args:
        table: Table with the columns ``filepath`` and ``class``; without ``class`` the name of an image's folder is its
            class, so the tables of `train_clip` fit, too.
        out: Folder of the run.
        settings: See `SupervisedTraining`.
        labels: Outputs of the head and the output of every class (see `merged_labels`), or a function that makes them
            from the classes of the table (default: one output for each, sorted by name).
        work: Device, reading processes and progress.

    Raises:
        InputError: For an unusable table, model or device; an unreadable image; a training that diverges; a folder that
            holds a run with other settings, a damaged state, or a running training.

    Example:
        >>> labels = merged_labels(imagenet_classes, domainnet_classes, partners)
        >>> run = Path("runs/supervised")
        >>> checkpoint = train_supervised(Path("train.tsv"), run, SupervisedTraining(model="RN50"), labels)
        >>> model = circuitry.load_supervised(checkpoint)
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
    if folder.is_done(TRAINING_JOB):
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

    with torch.random.fork_rng(devices=[]), pinned_threads(settings.threads):
        if rank:
            train(TRAINING_JOB, None)
        else:
            with alone(out):
                folder.run(train)
                (out / "state.safetensors").unlink(missing_ok=True)
        PartialState().wait_for_everyone()  # all processes see a finished run from here on
    return last


def read_samples(
    table: CheckedTable, labels: LabelTable | LabelChoice = found_labels
) -> tuple[np.ndarray, Int[np.ndarray, " images"], LabelTable]:
    """Return the files of a table as one array of bytes, the label of each, and the label table.

    Forked reading processes share the memory of one array; they would copy a list of strings.
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

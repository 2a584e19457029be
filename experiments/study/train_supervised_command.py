"""Train the supervised baseline of a CLIP: the same image tower, with a linear head of classes instead of captions.

The training images come from a folder or from a table. Of a folder (``--data``) this program takes the train lists
(root/<domain>_train.txt) of the chosen domains. A table (``--table``), such as a training mixture, has the column
filepath, and the column class unless the folders of the images have the names of the classes.

The outputs of the head are the classes of the training images. If a table has images in ImageNet's folders (n01440764,
...) and ``--data`` is DomainNet, the outputs are the study's 1345 classes of both data sets. An ImageNet class with a
partner in DomainNet then counts as the partner.

The program prints the accuracy on the test lists of ``--data``, among the classes there, and the path of the
checkpoint. An interrupted run goes on after its last complete epoch.

    python -m experiments.study train-supervised --data EmojiDomains --out runs/emoji --model rn-tiny --epochs 30
    torchrun --nproc-per-node 8 -m experiments.study train-supervised --study --table mixture.tsv --data DomainNet \\
        --out runs/rn50-supervised
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import ClassVar

from circuitry.runs import this_rank, whole_file
from circuitry import DomainFolder
from circuitry.data import with_decoding
from circuitry.training import TrainingWork, predictions, record_run, tidy_accuracy
from experiments.study.supervised import (
    LabelChoice,
    SupervisedTraining,
    train_supervised,
)
from experiments.study.supervised_model import (
    found_labels,
    load_supervised,
    study_labels,
)

import pandas as pd
import tyro


@dataclass(frozen=True)
class Config:
    """Settings of a training run."""

    ONE_OF: ClassVar = (("data", "table"),)

    out: Path
    """Folder of the results: the run, and the table of training images."""
    data: Path | None = None
    """Folder of the images, with train and test lists; with --table only its test lists and classes are used."""
    table: Path | None = None
    """Table of training images: column filepath, and column class unless folders have the names of the classes."""
    domains: tuple[str, ...] | None = None
    """Domains that are trained on and tested (default: all)."""
    training: tyro.conf.OmitArgPrefixes[SupervisedTraining] = SupervisedTraining(
        model="RN50"
    )
    """The model, and how it is trained; the defaults are the study's."""
    work: tyro.conf.OmitArgPrefixes[TrainingWork] = TrainingWork()
    """The device, and the processes that read images."""


def main(config: Config) -> None:
    """Train the classifier, evaluate it on the test lists, and print its accuracy and its checkpoint."""
    table = config.table or table_of_folder(config)
    run = config.out / "supervised"
    checkpoint = train_supervised(
        table, run, config.training, label_table(config), config.work
    )
    # Of several processes only the first one records, evaluates and prints.
    if this_rank().worker:
        return
    record_run(run, table, config.training)
    if config.data is not None:
        images = DomainFolder(config.data, split="test", domains=config.domains)
        model = load_supervised(checkpoint)
        heads = {"supervised": model.head_for(images.all_classes)}
        preprocess = with_decoding(model.preprocess, config.training.decoding)
        accuracy = tidy_accuracy(predictions(model.encoder, heads, preprocess, images))
        shown = accuracy.pivot(index="domain", columns="measure", values="value")
        print(shown.to_string(float_format=lambda v: f"{v:.3f}"))
    print(f"checkpoint: {checkpoint}")


def table_of_folder(config: Config) -> Path:
    """Write the table of all train lists of the folder, and return its path."""
    assert config.data is not None  # `Config` demands a folder or a table
    records = DomainFolder(config.data, split="train", domains=config.domains).records
    rows = [(str(record.path), record.class_name) for record in records]
    table = pd.DataFrame(rows, columns=["filepath", "class"])
    path = config.out / "train.tsv"
    # Several processes may write it at once: each writes its own file and renames it.
    with whole_file(path) as temporary:
        table.to_csv(temporary, sep="\t", index=False, lineterminator="\n")
    return path


def label_table(config: Config) -> LabelChoice:
    """Return the function that chooses the outputs of the head for the classes of the table."""
    if config.data is None:
        return found_labels
    return partial(study_labels, DomainFolder(config.data, split="train").all_classes)

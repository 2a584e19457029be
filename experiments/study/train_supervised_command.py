"""Train the supervised baseline of a CLIP: the same image tower, with a linear head of classes instead of captions.

From a folder (``--data``) it takes the train lists (root/<domain>_train.txt) of the chosen domains; ``--table`` is a
table of images (filepath, and class unless that is the name of an image's folder), a training mixture for one. The
outputs of the head are the classes found; for a table with images in ImageNet's folders (n01440764, ...) and DomainNet
as ``--data`` they are the study's 1345 of both, where an ImageNet class with a partner in DomainNet counts as that
class. Prints the accuracy on the test lists of ``--data``, among the classes there, and the path of the checkpoint. A
killed run goes on after its last whole epoch.

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
    """Folder of the results: the run."""
    data: Path | None = None
    """Folder of the images: with train and test lists; with --table only its test lists and classes are used."""
    table: Path | None = None
    """Table of training images: with the column filepath, and class unless folders are named so."""
    domains: tuple[str, ...] | None = None
    """Domains to look at (default: all)."""
    training: tyro.conf.OmitArgPrefixes[SupervisedTraining] = SupervisedTraining(
        model="RN50"
    )
    """What to train, and with what; the defaults are the study's."""
    work: tyro.conf.OmitArgPrefixes[TrainingWork] = TrainingWork()
    """How the training is carried out."""


def main(config: Config) -> None:
    """Train, evaluate, print."""
    table = config.table or table_of_folder(config)
    run = config.out / "supervised"
    checkpoint = train_supervised(
        table, run, config.training, label_table(config), config.work
    )
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
    """Write the table of all train lists of the folder."""
    assert config.data is not None  # one of the two is given
    records, path = (
        DomainFolder(config.data, split="train", domains=config.domains).records,
        config.out / "train.tsv",
    )
    with whole_file(path) as temporary:
        columns = {
            "filepath": [str(r.path) for r in records],
            "class": [r.class_name for r in records],
        }
        pd.DataFrame(columns).to_csv(
            temporary, sep="\t", index=False, lineterminator="\n"
        )
    return path


def label_table(config: Config) -> LabelChoice:
    """Return what chooses the outputs of the head by the classes of the table."""
    if config.data is None:
        return found_labels
    return partial(study_labels, DomainFolder(config.data, split="train").all_classes)

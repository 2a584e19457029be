"""Train a CLIP on images sorted by domain and class, or on any table of captioned images.

From a folder (``--data``) it takes all images of the train lists (root/<domain>_train.txt) of the chosen domains and
their captions (root/captions.tsv: filepath<TAB>title); ``--table`` is such a table with full paths, a training
mixture for one. Trains through open_clip's own trainer, prints the zero-shot accuracy on the test lists of ``--data``
and the path of the checkpoint. A killed run goes on after its last whole epoch. The loss is also measured on
the validation table that lies beside --table. ``--preset`` takes a tiny model, or a training of the study on its
GPUs: rn50, vit-s-32 or swin-t, with -imagenet-captions, -cc3m or -cc12m.

    circuitry train --data EmojiDomains --out runs/emoji-clip
    circuitry train --preset rn50-imagenet-captions --table mixture.tsv --data DomainNet \\
        --out runs/rn50 --workers 8
    circuitry train ... --processes 1 --accumulation 8      # on one GPU, with the same batch norms
    circuitry train ... --cluster slurm --job-options slurm_partition=gpu gpus_per_node=8  # as a job
"""

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from circuitry import comparison, data, models, training
from circuitry.runs import job_options
from circuitry.runs.arguments import one_of
from circuitry.runs.workers import CLUSTERS, run_array
from circuitry.training import ClipTraining, TrainingWork, clip_preset

TRAINING = clip_preset("rn-tiny")


@dataclass(frozen=True)
class Config:
    """Settings of a training run."""

    ONE_OF: ClassVar = (("data", "table"),)

    out: Path
    """Folder of the results: the run."""
    data: Path | None = None
    """Folder of the images: with train and test lists and captions.tsv; with --table only its test lists are used."""
    table: Path | None = None
    """Table of training images: with the columns filepath and title."""
    validation: Path | None = None
    """Such a table of other images, to measure the loss on after each epoch (default: the one that lies beside --table
    and is named like it, with -validation, if there is one)."""
    domains: tuple[str, ...] | None = None
    """Domains to look at (default: all)."""
    name_class: bool = False
    """Add the class to every caption, "baby chick, animal bird": for captions that name something finer."""
    training: tyro.conf.OmitArgPrefixes[ClipTraining] = TRAINING
    """What to train, and with what; the defaults are those of the preset rn-tiny."""
    work: tyro.conf.OmitArgPrefixes[TrainingWork] = TrainingWork()
    """How the training is carried out."""
    cluster: Annotated[str | None, one_of(*CLUSTERS)] = None
    """Work by jobs of a cluster: slurm, or local for a process on this machine (needs submitit)."""
    job_options: tuple[str, ...] = ()
    """submitit's parameters of the jobs as name=value: slurm_partition=gpu gpus_per_node=8 cpus_per_task=64."""


def main(config: Config) -> None:
    """Train and evaluate, here or in a job; print."""
    import pandas as pd  # here, so that a wrong line is answered at once

    print(f"training: {config.training}")
    if config.cluster is None:
        train_and_evaluate(config)
    else:
        run_array(
            partial(train_and_evaluate, config),
            1,
            config.out / "jobs",
            cluster=config.cluster,
            options=job_options(config.job_options),
        )
    if config.data is not None:
        accuracy = pd.read_csv(config.out / "accuracy.csv")
        shown = accuracy.pivot(
            index=["classifier", "domain"], columns="measure", values="value"
        )
        print(shown.to_string(float_format="{:.3f}".format))
    print(f"checkpoint: {training.checkpoints(config.out / 'clip')[-1][1]}")


def train_and_evaluate(config: Config, worker: int = 0, workers: int = 1) -> None:
    """Train, and write the accuracy on the test lists beside the run; as a job it is the only one of its array."""
    # Of --data only the test lists are used where there is a table.
    table = config.table or table_of_folder(config)
    out = config.out / "clip"
    checkpoint = training.train_clip(
        table, out, config.training, config.work, validation_table(config)
    )
    training.record_run(out, table, config.training)
    if config.data is not None:
        images = data.DomainFolder(config.data, split="test", domains=config.domains)
        clip = models.load_clip(config.training.model, checkpoint=checkpoint)
        # Tests decode files as the training did.
        clip = clip.with_decoding(config.training.decoding)
        accuracy = training.zero_shot_accuracy(clip, images)
        comparison.write_named_table(config.out / "accuracy.csv", accuracy)


def validation_table(config: Config) -> Path | None:
    """Return the table to measure the loss on, if any."""
    if config.validation is not None:
        return config.validation
    if config.table is None:
        return None
    name = f"{config.table.stem}-validation{config.table.suffix}"
    beside = config.table.with_name(name)
    return beside if beside.is_file() else None


def table_of_folder(config: Config) -> Path:
    """Write the table of all train lists of the folder."""
    assert config.data is not None
    records = data.DomainFolder(
        config.data, split="train", domains=config.domains
    ).records
    captions = training.read_captions(config.data)
    if config.name_class:
        for record in records:
            caption = captions.get(record.relative, "")
            # A caption may be absent; the class is a caption, too.
            captions[record.relative] = f"{caption}, {data.readable(record.class_name)}"
    captioned = training.with_captions(records, captions)
    return training.write_captioned_table(captioned, config.out / "train.tsv")

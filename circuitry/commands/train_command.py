"""Train a CLIP on images sorted by domain and class, or on any table of captioned images.

With ``--data``, the training images are all images in the train lists (root/<domain>_train.txt) of the chosen domains.
Their captions are in the table root/captions.tsv, with the columns filepath and title; without this table they are
sentences with a word for the style and the class. Without lists all images train, and accuracy is of these. With
``--table``, the training images are listed in another table with these columns and with full paths, such as a training
mixture.

The model is trained by open_clip's own trainer. The command prints the path of the checkpoint, and the zero-shot
accuracy on the test lists of ``--data``. If the training is killed, the same command goes on after the last complete
epoch. If a validation table lies beside ``--table``, the loss on it is measured, too.

The option ``--preset`` names the settings of a training. The presets rn-tiny and vit-tiny train a tiny model. The
presets of the study are called rn50, vit-s-32 or swin-t, followed by -imagenet-captions, -cc3m or -cc12m. They train on
as many GPUs as the study did, unless ``--processes`` says otherwise.

    circuitry train --data EmojiDomains --out runs/emoji-clip
    circuitry train --preset rn50-imagenet-captions --table mixture.tsv --data DomainNet \\
        --out runs/rn50 --workers 8
    circuitry train --start mine.pt --model ViT-B-32 --lr 1e-5 --data pictures --out runs/tuned  # fine-tuning
    circuitry train --preset lite0-tuned --data pictures --out runs/lite0  # a tower of photographs becomes a CLIP
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
    """Folder of the results: checkpoints, logs and accuracies."""
    data: Path | None = None
    """Folder of the images, with train lists, test lists and captions.tsv. With --table, only its test lists are
    used."""
    table: Path | None = None
    """Table of training images, with the columns filepath and title."""
    validation: Path | None = None
    """Table of other images, with the same columns. The loss on these images is measured after each epoch (default: a
    table beside --table that has the same name with -validation added, if there is one)."""
    domains: tuple[str, ...] | None = None
    """Domains to look at (default: all)."""
    name_class: bool = False
    """Add the class to every caption, as in "baby chick, animal bird". This is for captions that name something more
    specific than the class."""
    training: tyro.conf.OmitArgPrefixes[ClipTraining] = TRAINING
    """What is trained, and how. The defaults are the settings of the preset rn-tiny."""
    work: tyro.conf.OmitArgPrefixes[TrainingWork] = TrainingWork()
    """How the training is carried out."""
    cluster: Annotated[str | None, one_of(*CLUSTERS)] = None
    """Train in a job: slurm for a job of a cluster, local for a process on this machine (needs submitit)."""
    job_options: tuple[str, ...] = ()
    """submitit's parameters of the job as name=value: slurm_partition=gpu gpus_per_node=8 cpus_per_task=64."""


def main(config: Config) -> None:
    """Train and evaluate a model, in this process or in a job. Print the accuracy and the path of the checkpoint."""
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
    """Train a model, and write its accuracy on the test lists into the folder of the results.

    Args:
        worker, workers: Ignored. `run_array` passes them to every job; here its array has a single job.
    """
    # If there is a table, only the test lists of --data are used.
    table = config.table or table_of_folder(config)
    out = config.out / "clip"
    checkpoint = training.train_clip(
        table, out, config.training, config.work, validation_table(config)
    )
    training.record_run(out, table, config.training)
    if config.data is not None:
        images = data.DomainFolder(config.data, split="test", domains=config.domains)
        clip = models.load_clip(config.training.model, checkpoint=checkpoint)
        # Test images are decoded in the same way as training images.
        clip = clip.with_decoding(config.training.decoding)
        accuracy = training.zero_shot_accuracy(clip, images)
        comparison.write_named_table(config.out / "accuracy.csv", accuracy)


def validation_table(config: Config) -> Path | None:
    """Return the table of validation images, on which the loss is measured, or None if there is no such table."""
    if config.validation is not None:
        return config.validation
    if config.table is None:
        return None
    name = f"{config.table.stem}-validation{config.table.suffix}"
    beside = config.table.with_name(name)
    return beside if beside.is_file() else None


def table_of_folder(config: Config) -> Path:
    """Write a table of the images in the train lists of the folder, with their captions, and return its path."""
    assert config.data is not None
    records = data.DomainFolder(
        config.data, split="train", domains=config.domains
    ).records
    if not (config.data / "captions.tsv").is_file():
        generated = training.generated_captions()
        captioned = training.with_captions(records, generated)
        return training.write_captioned_table(captioned, config.out / "train.tsv")
    captions = training.read_captions(config.data)
    if config.name_class:
        for record in records:
            # An image without a caption has the name of its class alone.
            texts = [captions.get(record.relative), data.readable(record.class_name)]
            captions[record.relative] = ", ".join(filter(None, texts))
    captioned = training.with_captions(records, captions)
    return training.write_captioned_table(captioned, config.out / "train.tsv")

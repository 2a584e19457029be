"""Train a CLIP on images sorted by domain and class, or on any table of captioned images.

From a folder (``--data``) it takes all images of the train lists (root/<domain>_train.txt) of the chosen domains and
their captions (root/captions.tsv: filepath<TAB>title); ``--table`` is such a table with full paths, a training
mixture for one. Trains through open_clip's own trainer, prints the zero-shot accuracy on the test lists of ``--data``
and the path of the checkpoint. A killed run goes on after its last whole epoch. With ``--study`` the preset is that of
RN50 and ImageNet-Captions unless another is named, trained as the study did on its GPUs; the loss is then also measured
on the validation table that lies beside --table.

    circuitry train --data EmojiDomains --out runs/emoji-clip
    circuitry train --study --preset rn50-imagenet-captions --table mixture.tsv --data DomainNet \\
        --out runs/rn50 --workers 8
    circuitry train ... --processes 1 --accumulation 8      # on one GPU, with the same batch norms
    circuitry train ... --cluster slurm --job-options slurm_partition=gpu gpus_per_node=8  # as a job
    circuitry train ... --cluster slurm --nodes 2 --job-options slurm_partition=gpu gpus_per_node=4
    PET_NODE_RANK=0 PET_MASTER_ADDR=gpu0 PET_MASTER_PORT=29500 circuitry train ... --nodes 2  # or so
"""

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, ClassVar

import pandas as pd
import tyro

from circuitry import DomainFolder, load_clip
from circuitry.comparison.table import write_named_table
from circuitry.data import readable
from circuitry.runs import InputError, StudySettings, run_array
from circuitry.runs.given import one_of
from circuitry.runs.presets import with_defaults
from circuitry.runs.workers import CLUSTERS, job_options
from circuitry.training import (
    ClipTraining,
    TrainingWork,
    checkpoints,
    clip_preset,
    read_captions,
    record_run,
    train_clip,
    with_captions,
    write_captioned_table,
    zero_shot_accuracy,
)
from circuitry.training.devices import join_nodes, node_rank
from circuitry.training.training_settings import CLIP_PRESETS

PRESET = "rn-tiny"
TRAINING = clip_preset(PRESET)


@dataclass(frozen=True)
class Config(StudySettings):
    """Settings of a training run."""

    STUDY: ClassVar = {"preset": "rn50-imagenet-captions"}

    ONE_OF: ClassVar = (("data", "table"),)

    out: Path
    """Folder of the results: the run."""
    data: Path | None = None
    """Folder of the images: with train and test lists and captions.tsv; with --table only its test lists are used."""
    table: Path | None = None
    """Table of training images: with the columns filepath and title."""
    validation: Path | None = None
    """Such a table of other images, to measure the loss on after each epoch (with --study: the one that lies beside
    --table and is named like it, with -validation)."""
    validation_split: str | None = None
    """Which of DomainNet's lists to validate on: the loss is measured on them, as on --validation."""
    domains: tuple[str, ...] | None = None
    """Domains to look at (default: all)."""
    name_class: bool = False
    """Add the class to every caption, "baby chick, animal bird": for captions that name something finer."""
    training: tyro.conf.OmitArgPrefixes[ClipTraining] = TRAINING
    """What to train, and with what; the defaults are the preset's."""
    work: tyro.conf.OmitArgPrefixes[TrainingWork] = TrainingWork()
    """How the training is carried out."""
    cluster: Annotated[str | None, one_of(*CLUSTERS)] = None
    """Work by jobs of a cluster: slurm, or local for a process on this machine (needs submitit)."""
    job_options: tuple[str, ...] = ()
    """submitit's parameters of the jobs as name=value: slurm_partition=gpu gpus_per_node=8 cpus_per_task=64."""
    preset: Annotated[str, one_of(*CLIP_PRESETS)] = PRESET
    """Defaults of the training's options: of a tiny model, or of an architecture and base set of the study."""


def defaults(kind: type[Config]) -> type[Config]:
    """Return the settings with the defaults of the preset that the command line names, as the study used it or not.

    ``kind`` is the class of the settings, whose default preset is the study's with ``--study``.
    """
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default=kind.preset)
    preset = parser.parse_known_args(sys.argv[1:])[0].preset
    return with_defaults(kind, {"preset": preset, "training": clip_preset(preset, study=kind.by_study)})


def main(config: Config) -> None:
    """Train and evaluate, here or in a job; print."""
    if config.data is None and config.table is None:
        raise InputError("Give a folder of images as --data, a table of them as --table, or both.")
    if config.by_study:
        print(f"training: {config.training}")
    if config.cluster is None:
        train_and_evaluate(config)
        if node_rank(config.work.nodes):
            return
    else:
        nodes = config.work.nodes
        if nodes > 1 and config.cluster != "slurm":
            raise InputError(f"A job on {nodes} machines needs --cluster slurm, but {config.cluster} was given.")
        options = job_options(config.job_options) | ({"nodes": nodes, "tasks_per_node": 1} if nodes > 1 else {})
        run_array(partial(job, config), 1, config.out / "jobs", cluster=config.cluster, options=options)
    if config.data is not None:
        accuracy = pd.read_csv(config.out / "accuracy.csv")
        shown = accuracy.pivot(index=["classifier", "domain"], columns="measure", values="value")
        print(shown.to_string(float_format=lambda v: f"{v:.3f}"))
    print(f"checkpoint: {checkpoints(config.out / 'clip')[-1][1]}")


def job(config: Config, worker: int, workers: int) -> None:
    """Do what the job runs, the only one of its array, or this machine's part of it."""
    if config.work.nodes > 1:
        join_nodes()
    train_and_evaluate(config)


def train_and_evaluate(config: Config) -> None:
    """Train, and write the accuracy on the test lists beside the run; of several machines the first one does."""
    table = config.table or mixture_of_folder(config, "train")
    model = config.training.model
    checkpoint = train_clip(table, config.out / "clip", config.training, config.work, validation_table(config))
    if node_rank(config.work.nodes):
        return
    record_run(config.out / "clip", table, config.training)
    if config.data is not None:
        images = DomainFolder(config.data, split="test", domains=config.domains)
        clip = load_clip(model, checkpoint=checkpoint).with_decoding(config.training.decoding)
        accuracy = zero_shot_accuracy(clip, images)
        write_named_table(config.out / "accuracy.csv", accuracy)


def validation_table(config: Config) -> Path | None:
    """Return the table to measure the loss on, if any."""
    if config.validation is not None:
        return config.validation
    if config.validation_split is not None:
        if config.data is None:
            raise InputError("The lists of --validation-split are those of a folder: give it as --data.")
        return mixture_of_folder(config, config.validation_split)
    if not config.by_study or config.table is None:
        return None
    beside = config.table.with_name(f"{config.table.stem}-validation{config.table.suffix}")
    if beside.is_file():
        return beside
    print(f"no loss on validation images, since there is no {beside}")
    return None


def mixture_of_folder(config: Config, split: str) -> Path:
    """Write the table of all lists of a split of the folder."""
    assert config.data is not None
    records = DomainFolder(config.data, split=split, domains=config.domains).records
    captions = read_captions(config.data)
    if config.name_class:
        captions |= {r.relative: f"{captions.get(r.relative, '')}, {readable(r.class_name)}" for r in records}
    return write_captioned_table(with_captions(records, captions), config.out / f"{split}.tsv")

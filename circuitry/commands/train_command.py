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
from pathlib import Path
from typing import Annotated, ClassVar

import tyro

from circuitry.runs.given import one_of
from circuitry.runs.workers import CLUSTERS
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

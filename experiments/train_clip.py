"""Train a CLIP on images sorted by domain and class, or on any table of captioned images.

From a folder (``--data``) it takes all images of the train lists (root/<domain>_train.txt) of the chosen domains and
their captions (root/captions.tsv: filepath<TAB>title); ``--table`` is such a table with full paths, a training
mixture for one. Trains through open_clip's own trainer, prints the zero-shot accuracy on the test lists of ``--data``
and the path of the checkpoint. A killed run goes on after its last whole epoch.

    python experiments/train_clip.py --data EmojiDomains --out runs/emoji-clip
    python experiments/train_clip.py --preset rn50-imagenet-captions --table mixture.tsv --data DomainNet \\
        --out runs/rn50 --processes 8 --precision amp --workers 8 --keep-checkpoints 1
    python experiments/train_clip.py ... --cluster slurm --job-options slurm_partition=gpu gpus_per_node=8  # as a job
"""

import argparse
import sys
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import pandas as pd
import tyro

from circuitry import DomainFolder, load_clip
from circuitry.data.captions import readable
from circuitry.data.mixtures.files import read_captions, write_mixture
from circuitry.runs.command_line import run_script
from circuitry.runs.errors import InputError
from circuitry.runs.workers import job_options, run_array
from circuitry.training.clip import train_clip
from circuitry.training.evaluation import zero_shot_accuracy
from circuitry.training.run_folder import checkpoints
from circuitry.training.settings import ClipTraining, TrainingWork, clip_preset

PRESET = "rn-tiny"
TRAINING = clip_preset(PRESET)


@dataclass(frozen=True)
class Config:
    """Settings of a training run."""

    out: Path
    """Folder of the run."""
    data: Path | None = None
    """Folder of the images, with train and test lists and captions.tsv; with --table only its test lists are used."""
    table: Path | None = None
    """Table of training images with the columns filepath and title."""
    domains: tuple[str, ...] | None = None
    """Domains of the folder (default: all)."""
    name_class: bool = False
    """Add the class to every caption, "baby chick, animal bird": for captions that name something finer."""
    training: tyro.conf.OmitArgPrefixes[ClipTraining] = TRAINING
    """What to train, and with what; the defaults are the preset's."""
    work: tyro.conf.OmitArgPrefixes[TrainingWork] = TrainingWork()
    """How the training is carried out."""
    cluster: str | None = None
    """Run as a job: on slurm, or local for a process on this machine (needs submitit)."""
    job_options: tuple[str, ...] = ()
    """submitit's parameters as name=value, e.g. slurm_partition=gpu gpus_per_node=8 cpus_per_task=64."""


@dataclass(frozen=True)
class CommandLine(Config):
    """Settings of a training run, from those of a preset."""

    preset: str = PRESET
    """Defaults of the training's options: rn-tiny, vit-tiny, <rn50|vit-s-32|swin-t>-<imagenet-captions|cc3m|cc12m>."""


def command_line() -> CommandLine:
    """Return the defaults of the command line, which are those of the preset that it names."""
    parser = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    parser.add_argument("--preset", default=PRESET)
    preset = parser.parse_known_args(sys.argv[1:])[0].preset
    return CommandLine(out=tyro.MISSING, preset=preset, training=clip_preset(preset))


def main(config: Config) -> None:
    """Train and evaluate, here or in a job; print."""
    if config.data is None and config.table is None:
        raise InputError("Give a folder of images as --data, a table of them as --table, or both.")
    if config.cluster is None:
        train_and_evaluate(config)
    else:
        options = job_options(config.job_options)
        run_array(partial(job, config), 1, config.out / "jobs", cluster=config.cluster, options=options)
    if config.data is not None:
        accuracy = pd.read_csv(config.out / "accuracy.csv")
        shown = accuracy.pivot(index=["classifier", "domain"], columns="measure", values="value")
        print(shown.to_string(float_format=lambda v: f"{v:.3f}"))
    print(f"checkpoint: {checkpoints(config.out / 'clip')[-1][1]}")


def job(config: Config, worker: int, workers: int) -> None:
    """Do what the job runs, the only one of its array."""
    train_and_evaluate(config)


def train_and_evaluate(config: Config) -> None:
    """Train, and write the accuracy on the test lists beside the run."""
    table = config.table or mixture_of_folder(config)
    model = config.training.model
    checkpoint = train_clip(table, config.out / "clip", config.training, config.work)
    if config.data is not None:
        images = DomainFolder(config.data, split="test", domains=config.domains)
        clip = load_clip(model, checkpoint=checkpoint)
        accuracy = zero_shot_accuracy(clip, images)
        accuracy.to_csv(config.out / "accuracy.csv", index=False)


def mixture_of_folder(config: Config) -> Path:
    """Write the table of all train lists of the folder."""
    assert config.data is not None
    records = DomainFolder(config.data, split="train", domains=config.domains).records
    captions = read_captions(config.data)
    if config.name_class:
        captions |= {r.relative: f"{captions.get(r.relative, '')}, {readable(r.class_name)}" for r in records}
    return write_mixture(records, captions, config.out / "train.tsv")


if __name__ == "__main__":
    run_script(CommandLine, main, __doc__, command_line)

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

from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path

import pandas as pd

from circuitry import DomainFolder, load_clip
from circuitry.data.captions import readable
from circuitry.data.mixtures.files import read_captions, write_mixture
from circuitry.runs.command_line import run_script
from circuitry.runs.errors import InputError
from circuitry.runs.workers import job_options, run_array
from circuitry.training.clip import train_clip
from circuitry.training.evaluation import zero_shot_accuracy
from circuitry.training.presets import ClipPreset, clip_preset, crop_arguments
from circuitry.training.run_folder import checkpoints
from circuitry.training.study import record_run


@dataclass(frozen=True)
class Config:
    """Settings of a training run."""

    out: Path
    """Folder of the run."""
    data: Path | None = None
    """Folder of the images, with train and test lists and captions.tsv; with --table only its test lists are used."""
    table: Path | None = None
    """Table of training images with the columns filepath and title."""
    preset: str = "rn-tiny"
    """Model and hyper-parameters: <rn50|vit-s-32|swin-t>-<imagenet-captions|cc3m|cc12m>, rn-tiny, vit-tiny."""
    model: str | None = None
    """Instead of the preset's: open_clip model name, a name shipped here, or the path of a model-config JSON."""
    domains: tuple[str, ...] | None = None
    """Domains of the folder; all unless told."""
    name_class: bool = False
    """Add the class to every caption, "baby chick, animal bird": for captions that name something finer."""
    epochs: int | None = None
    """Passes over the images, instead of the preset's."""
    batch_size: int | None = None
    """Images per step of all processes together, instead of the preset's."""
    lr: float | None = None
    """Peak learning rate, instead of the preset's."""
    warmup: int | None = None
    """Steps until the peak learning rate, instead of the preset's."""
    crop_scale: float | None = None
    """Least share of an image's area that a random crop keeps, instead of the preset's."""
    keep_checkpoints: int = 0
    """Keep a checkpoint after every so many epochs; 0 keeps only the last."""
    skip_missing: bool = False
    """Train without the images whose files do not exist, instead of refusing the table."""
    device: str | None = None
    """cpu, cuda or cuda:1; a GPU where there is one unless told."""
    processes: int = 1
    """How many train together, each on a GPU of its own or a share of the cores."""
    workers: int = 2
    """Processes that read images, for each that trains."""
    precision: str = "fp32"
    """open_clip's name of the precision: fp32, amp, amp_bf16, ..."""
    seed: int = 0
    """Seed of training."""
    cluster: str | None = None
    """Run as a job: on slurm, or local for a process on this machine (needs circuitry[cluster])."""
    job_options: tuple[str, ...] = ()
    """submitit's parameters as name=value, e.g. slurm_partition=gpu gpus_per_node=8 cpus_per_task=64."""


def main(config: Config) -> None:
    """Train and evaluate, here or in a job; print."""
    if config.data is None and config.table is None:
        raise InputError("expected a folder of images as --data, a table of them as --table, or both; given neither")
    settings(config)  # a wrong one is told before a job waits in a queue
    if config.cluster is None:
        train_and_evaluate(config)
    else:
        options = job_options(config.job_options)
        run_array(partial(job, config), 1, config.out / "jobs", cluster=config.cluster, options=options)
    if config.data is not None:
        accuracy = pd.read_csv(config.out / "accuracy.csv").drop(columns="part")
        print(accuracy.to_string(index=False, float_format=lambda v: f"{v:.3f}"))
    print(f"checkpoint: {checkpoints(config.out / 'clip')[-1][1]}")


def job(config: Config, worker: int, workers: int) -> None:
    """What the job runs, the only one of its array."""
    train_and_evaluate(config)


def settings(config: Config) -> ClipPreset:
    """Return the preset with what the command line says instead."""
    names = ("model", "epochs", "batch_size", "lr", "warmup")
    changes = {name: value for name in names if (value := getattr(config, name)) is not None}
    if config.crop_scale is not None:
        changes["extra"] = crop_arguments(config.crop_scale)
    return replace(clip_preset(config.preset), **changes)


def train_and_evaluate(config: Config) -> None:
    """Train, and write the accuracy on the test lists beside the run."""
    chosen = settings(config)
    table = config.table or mixture_of_folder(config)
    checkpoint = train_clip(
        table,
        config.out / "clip",
        **asdict(chosen),
        seed=config.seed,
        processes=config.processes,
        workers=config.workers,
        device=config.device,
        precision=config.precision,
        keep_checkpoints=config.keep_checkpoints,
        skip_missing=config.skip_missing,
    )
    record_run(config.out / "clip", table, str(chosen.model), config.seed)
    if config.data is not None:
        images = DomainFolder(config.data, split="test", domains=config.domains)
        clip = load_clip(chosen.model, checkpoint=checkpoint)
        accuracy = zero_shot_accuracy(clip.encoder, clip.preprocess, clip.text_weights(images.all_classes), images)
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
    run_script(Config, main, __doc__)

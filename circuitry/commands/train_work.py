"""Train a CLIP, and evaluate it."""

from functools import partial
from pathlib import Path

import pandas as pd

from circuitry import DomainFolder, load_clip
from circuitry.commands.train_command import Config
from circuitry.comparison.table import write_named_table
from circuitry.data.captions import readable
from circuitry.runs.workers import job_options, run_array
from circuitry.training import (
    checkpoints,
    read_captions,
    train_clip,
    with_captions,
    write_captioned_table,
    zero_shot_accuracy,
)
from circuitry.training.run_folder import record_run


def main(config: Config) -> None:
    """Train and evaluate, here or in a job; print."""
    print(f"training: {config.training}")
    if config.cluster is None:
        train_and_evaluate(config)
    else:
        options = job_options(config.job_options)
        run_array(
            partial(train_and_evaluate, config),
            1,
            config.out / "jobs",
            cluster=config.cluster,
            options=options,
        )
    if config.data is not None:
        accuracy = pd.read_csv(config.out / "accuracy.csv")
        shown = accuracy.pivot(
            index=["classifier", "domain"], columns="measure", values="value"
        )
        print(shown.to_string(float_format=lambda v: f"{v:.3f}"))
    print(f"checkpoint: {checkpoints(config.out / 'clip')[-1][1]}")


def train_and_evaluate(config: Config, worker: int = 0, workers: int = 1) -> None:
    """Train, and write the accuracy on the test lists beside the run; as a job it is the only one of its array."""
    table = config.table or table_of_folder(config)
    model = config.training.model
    checkpoint = train_clip(
        table,
        config.out / "clip",
        config.training,
        config.work,
        validation_table(config),
    )
    record_run(config.out / "clip", table, config.training)
    if config.data is not None:
        images = DomainFolder(config.data, split="test", domains=config.domains)
        clip = load_clip(model, checkpoint=checkpoint).with_decoding(
            config.training.decoding
        )
        accuracy = zero_shot_accuracy(clip, images)
        write_named_table(config.out / "accuracy.csv", accuracy)


def validation_table(config: Config) -> Path | None:
    """Return the table to measure the loss on, if any."""
    if config.validation is not None:
        return config.validation
    if config.table is None:
        return None
    beside = config.table.with_name(
        f"{config.table.stem}-validation{config.table.suffix}"
    )
    return beside if beside.is_file() else None


def table_of_folder(config: Config) -> Path:
    """Write the table of all train lists of the folder."""
    assert config.data is not None
    records = DomainFolder(config.data, split="train", domains=config.domains).records
    captions = read_captions(config.data)
    if config.name_class:
        captions |= {
            r.relative: f"{captions.get(r.relative, '')}, {readable(r.class_name)}"
            for r in records
        }
    return write_captioned_table(
        with_captions(records, captions), config.out / "train.tsv"
    )

"""Classify images with one or more checkpoints, and write the report."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from circuitry.commands.evaluate_command import Config
from circuitry.comparison.lesion_reading import KNOWN
from circuitry.data.imagenet_classes import class_key
from circuitry.data.names import chosen_names
from circuitry.reports import Finding, Report, write_results
from circuitry.reports.figures import domain_marks
from circuitry.reports.page import Written
from circuitry.reports.result_tables import listings_of
from circuitry.reports.sections.accuracies import add_accuracy, recognised
from circuitry.runs import versions
from circuitry.training import tidy_accuracy
from circuitry.training.accuracy import accuracy_kinds, class_accuracy
from circuitry.training.evaluation import zero_shot_predictions
from circuitry.training.run_folder import kept_checkpoints


def main(config: Config) -> Written:
    """Classify, print the accuracies, and write."""
    images = config.images()
    held_out = (
        chosen_names("class", config.held_out, images.all_classes, class_key)
        if config.held_out
        else ()
    )
    evaluated = []
    for epoch, path in files(config):
        clip = replace(config, checkpoint=path).clip()
        answers = zero_shot_predictions(clip, images, held_out)
        kinds = accuracy_kinds(tidy_accuracy(answers, held_out))
        evaluated.append(kinds if epoch is None else kinds.assign(epoch=epoch))
    table, last = pd.concat(evaluated, ignore_index=True), evaluated[-1]
    shown = ["epoch", "domain", "all", "seen", "held_out", "chance"]
    print(
        table[
            [name for name in shown if name in table and table[name].notna().any()]
        ].to_string(index=False)
    )
    report = Report(f"How accurate is {config.model} on {config.data.name}?")
    mean, chance, by_class = (
        last["all"].mean(),
        last["chance"].iloc[0],
        class_accuracy(answers),
    )
    claim = (
        f"{mean:.1%} are recognised, mean over domains; guessing reaches {chance:.1%}."
    )
    overall = Finding(
        claim,
        "Every class of a domain has equal weight.",
        "Other class texts; fewer classes.",
    )
    report.summary(
        [overall, recognised(by_class.assign(known=by_class["right"] >= KNOWN), last)]
    )
    add_accuracy(report, last, domain_marks(images.domains))
    if len(evaluated) > 1:
        report.section("Over the checkpoints")
        report.table(table, "Accuracy by domain, of every kept checkpoint.")
    provenance = {
        "model": config.model,
        "weights": config.checkpoint or config.pretrained,
        **versions(),
    }
    tables = {"accuracy": table, "accuracy_by_class": by_class}
    return write_results(
        report, tables, config.out, None, provenance, None, listings_of(images)
    )


def files(config: Config) -> Iterator[tuple[int | None, Path | None]]:
    """Yield the epoch and the file of each checkpoint: of a run, or the one that was given."""
    if config.checkpoint is None or not config.checkpoint.is_dir():
        yield None, config.checkpoint
        return
    yield from kept_checkpoints(config.checkpoint).items()

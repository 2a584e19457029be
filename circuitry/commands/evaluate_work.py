"""Classify images with one or more checkpoints, and write the report."""

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pandas as pd

from circuitry.commands.evaluate_command import Config
from circuitry.data.imagenet_classes import class_key
from circuitry.data.names import chosen_names
from circuitry.reports import Finding, Report, write_results
from circuitry.reports.figures import domain_marks
from circuitry.reports.page import Written
from circuitry.reports.result_tables import listings_of
from circuitry.reports.sections.accuracies import add_accuracy
from circuitry.runs import versions
from circuitry.training import accuracy_kinds, kept_checkpoints, zero_shot_accuracy


def main(config: Config) -> Written:
    """Classify, print the accuracies, and write."""
    images = config.images()
    held_out = chosen_names("class", config.held_out, images.all_classes, class_key) if config.held_out else ()
    evaluated = []
    for epoch, path in files(config):
        clip = replace(config, checkpoint=path).clip()
        kinds = accuracy_kinds(zero_shot_accuracy(clip, images, held_out))
        evaluated.append(kinds if epoch is None else kinds.assign(epoch=epoch))
    table, last = pd.concat(evaluated, ignore_index=True), evaluated[-1]
    shown = ["epoch", "domain", "all", "seen", "held_out", "chance"]
    print(table[[name for name in shown if name in table and table[name].notna().any()]].to_string(index=False))
    report = Report(f"How accurate is {config.model} on {config.data.name}?")
    report.summary([ends(last)])
    add_accuracy(report, last, domain_marks(images.domains))
    if len(evaluated) > 1:
        report.section("Over the checkpoints")
        report.table(table, "Accuracy by domain, of every kept checkpoint.")
    provenance = {"model": config.model, "weights": config.checkpoint or config.pretrained, **versions()}
    tables = {"accuracy": table}
    return write_results(report, tables, config.out, None, provenance, None, listings_of(images))


def files(config: Config) -> Iterator[tuple[int | None, Path | None]]:
    """Yield the epoch and the file of each checkpoint: of a run, or the one that was given."""
    if config.checkpoint is None or not config.checkpoint.is_dir():
        yield None, config.checkpoint
        return
    yield from kept_checkpoints(config.checkpoint).items()


def ends(accuracy: pd.DataFrame) -> Finding:
    """Say where the model is best and worst."""
    means, chance = accuracy.set_index("domain")["all"], accuracy["chance"].iloc[0]
    best, worst = str(means.idxmax()), str(means.idxmin())
    where = f"most in {best} ({means[best]:.1%}), least in {worst} ({means[worst]:.1%})" if len(means) > 1 else best
    claim = f"{means.mean():.1%} are recognised, mean over domains, {where}; guessing reaches {chance:.1%}."
    return Finding(claim, "Every class of a domain has equal weight.", "Other class texts; fewer classes.")

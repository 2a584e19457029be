"""How accurate is a model on images by domain, or every checkpoint of a training run?

All images are classified by the class texts, without training on them. The command prints the accuracy in each domain,
and writes a report. If --checkpoint is the folder of a training run, every checkpoint in it is evaluated.

    circuitry evaluate --model ViT-B-32 --pretrained openai --data DomainNet
    circuitry evaluate --model RN50 --checkpoint runs/clip --data DomainNet       # each checkpoint of a training
    circuitry evaluate ... --groups class                       # each class in each domain is a group: worst and mean
    circuitry evaluate ... --groups pictures.csv background     # groups by a column of a listing of the images
    circuitry evaluate ... --checkpoint edited.pt --before mine.pt    # groups before and after an edit
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from circuitry import analysis, comparison, data, models, questions, reports, training
from circuitry.data import chosen_names, class_key
from circuitry.data.shared_options import HeldOut, word_or_column
from circuitry.models import ModelOptions
from circuitry.runs import Forwards, Plan, PlanSettings, Step, versions

if TYPE_CHECKING:
    import pandas as pd

    from circuitry.reports import Written


@dataclass(frozen=True, kw_only=True)
class Config(PlanSettings, ModelOptions):
    """Settings of the evaluation."""

    out: Path = Path("runs/evaluate")
    """Folder of the results: tables and the report."""
    held_out: HeldOut = ()
    groups: Annotated[Sequence[str], word_or_column("class")] = ()
    """Groups of images, whose worst and mean are told: class, each class in each domain; or a listing of the
    images and its column of groups."""
    before: Path | None = None
    """Another checkpoint of the model, such as before an edit. The table of groups has the answers of both (groups
    without --groups: class)."""


def main(config: Config) -> "Written":
    """Classify the images, print the accuracies, and write the report."""
    import pandas as pd  # here, so that a wrong line is answered at once

    images = config.images()
    held_out: tuple[str, ...] = ()
    if config.held_out:
        held_out = chosen_names("class", config.held_out, images.all_classes, class_key)
    # The last checkpoint comes last: the report is about it.
    tables = []
    for epoch, path in files(config):
        clip = replace(config, checkpoint=path).clip()
        answers = training.zero_shot_predictions(clip, images, held_out)
        by_domain = training.accuracy_kinds(training.tidy_accuracy(answers, held_out))
        tables.append(by_domain if epoch is None else by_domain.assign(epoch=epoch))
    # From here on, `answers` and `last` are about the last checkpoint.
    last = tables[-1]
    accuracy = pd.concat(tables, ignore_index=True)
    by_class = training.class_accuracy(answers)
    print(_known_columns(accuracy).to_string(index=False))
    report = reports.Report(f"How accurate is {config.model} on {config.data.name}?")
    mean = last["all"].mean()
    chance = last["chance"].iloc[0]
    overall = reports.Finding(
        f"{mean:.1%} are recognised, mean over domains; guessing reaches {chance:.1%}.",
        "Every class of a domain has equal weight.",
        "Other class texts; fewer classes.",
    )
    known = by_class.assign(known=by_class["right"] >= comparison.KNOWN)
    answer = analysis.AccuracyAnswer(last, known)
    report.summary([overall, *answer.findings()])
    answer.add_to(report, questions.AnswerContext(images))
    results = {"accuracy": accuracy, "accuracy_by_class": by_class}
    if config.groups or config.before is not None:
        before = None
        if config.before is not None:
            earlier = replace(config, checkpoint=config.before, pretrained=None).clip()
            before = training.zero_shot_predictions(earlier, images, held_out)
        groups = None
        if len(config.groups) == 2:
            groups = data.item_column(*config.groups)
        of_groups = training.group_accuracy(answers, groups, before)
        results["groups"] = of_groups
        print(of_groups.to_string(index=False))
        print(worst_and_mean(of_groups).to_string())
        report.section("Groups")
        report.table(of_groups, "Right answers by group, the worst first.")
    if len(tables) > 1:
        report.section("Over the checkpoints")
        report.table(accuracy, "Accuracy by domain, of every kept checkpoint.")
    provenance = {
        "model": config.model,
        "weights": config.checkpoint or config.pretrained,
        **versions(),
    }
    return reports.write_results(
        report,
        results,
        config.out,
        None,
        provenance,
        listings=reports.listings_of(images),
    )


def worst_and_mean(groups: "pd.DataFrame") -> "pd.DataFrame":
    """Return the accuracy of the worst group, and the mean over groups.

    Args:
        groups: The accuracies of groups, with the columns right, or before and after.
    """
    names = {"min": "worst group", "mean": "mean of groups"}
    shares = groups.filter(["right", "before", "after"])
    return shares.agg(["min", "mean"]).rename(index=names)


def plan(config: Config) -> Plan:
    """Return what the evaluation needs. Its results are not kept one by one, so all of it is left."""
    images = config.images()
    checkpoints = list(files(config))
    n_images = len(checkpoints) * len(images)
    step = Step("evaluation", len(checkpoints), Forwards(alone=n_images), n_images)
    clip = replace(config, checkpoint=checkpoints[-1][1]).clip()
    return Plan([step], models.tower_speed(clip, images.records))


def _known_columns(accuracy: "pd.DataFrame") -> "pd.DataFrame":
    """Return those columns of a table of accuracies that the command prints. Empty columns are left out."""
    # Without held-out classes, or with a single checkpoint, some columns are empty.
    columns = ["epoch", "domain", "all", "seen", "held_out", "chance"]
    return accuracy.reindex(columns=columns).dropna(axis="columns", how="all")


def files(config: Config) -> Iterator[tuple[int | None, Path | None]]:
    """Yield the epoch and the file of each checkpoint.

    If --checkpoint is not the folder of a training run, yield a single pair: the epoch None, and the checkpoint, or
    None if no checkpoint was given.
    """
    if config.checkpoint is None or not config.checkpoint.is_dir():
        yield None, config.checkpoint
        return
    yield from training.kept_checkpoints(config.checkpoint).items()

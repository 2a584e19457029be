"""Write a checkpoint of a model after removing a part, and say what that costs.

The part is a class's own, from a folder of own parts, or that of a style. Its units are set to their means in the
weights, and the checkpoint is one that open_clip loads. Pictures that did not find the part are then classified before
and after.

    circuitry edit --without runs/own-parts/circuits --class dog --model mine.json --checkpoint mine.pt --data pictures

The part of a style is found here. A CLIP that has seen a style with some classes alone may answer these classes to
every picture of the style, though it knows other classes from other styles. The command finds the units with which the
model tells the style and which classes do not need.

    circuitry edit --without-style sketch --model mine.json --checkpoint mine.pt --data pictures --out edited.pt
    circuitry edit --without-style sketch ... --held-out dog horse    # not seen in the style; their pictures only test
    circuitry edit --without-style sketch ... --told folders          # captions of the model name no styles

A style may be any label of the images, which a listing of them has in a column:

    circuitry edit --without-style marked --label pictures.csv mark --told "a picture with a watermark" "a picture" ...
    circuitry edit --without-style "a sketch" --label text --told "a sketch" "a photo" ...    # the model's own answers
    circuitry edit --without-style water --label pictures.csv background --told folders --spare gull duck ...
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from tyro.conf import arg

from circuitry import circuits, comparison, data, models, questions, training
from circuitry.circuits.circuit_settings import OwnShare
from circuitry.commands.evaluate_command import worst_and_mean
from circuitry.data.shared_options import HeldOut, option, word_or_column
from circuitry.models.options import ModelOptions, TextsChoice
from circuitry.runs.errors import InputError

if TYPE_CHECKING:
    import pandas as pd

    from circuitry.circuits import Circuit

IN_WEIGHTS = ("zero", "mean-position", "mean-unit")
"""Baselines that weights hold: of means by position, the mean over positions."""
N_COMPARED = 8
"""Number of images, about, on which the checkpoint is compared with the ablation."""


def _told(*words: str) -> str | Sequence[str]:
    """Return a single word as it is, and several texts together."""
    if len(words) == 1:
        return words[0]
    return words


@dataclass(frozen=True, kw_only=True)
class Config(ModelOptions):
    """Settings of the edit."""

    without: Path | None = None
    """A folder of own parts of this model, such as runs/own-parts/circuits. The parts of --class in all domains (or in
    those of --domains) are removed."""
    class_name: Annotated[str | None, arg(name="class")] = None
    """The class whose part is removed."""
    without_style: str | None = None
    """The style (a domain of the images) whose part is found and removed."""
    out: Path = Path("edited.pt")
    """File of the checkpoint. A table beside it, with the ending .csv, has the accuracies before and after."""
    held_out: HeldOut = ()
    label: Annotated[Sequence[str], word_or_column("domain", "text")] = ("domain",)
    """What a style is: the domain of an image; the text of --told that the model itself gives the image; or a column of
    a listing of the images, such as the background or whether there is a watermark. Images that the listing does not
    name are left out."""
    told: Annotated[
        str | Sequence[str], option(_told, "{texts,folders} | TEXT", "*")
    ] = "texts"
    """What tells the styles: texts such as "a sketch of a dog"; folders, the mean embeddings of the images of each
    style; or a text for each style, first for the one that is removed."""
    spare: tuple[str, ...] = ()
    """Classes that a style's part should not cost (default: all classes)."""
    texts: TextsChoice = None
    """Texts of the classes that a style's part should not cost (default: own-style; pooled with another --label).
    """
    share: OwnShare | None = None
    """Share of the units that are removed. Default for a class: that of its parts in the folder; for a style: the
    smallest share after which its pictures are called by it no more often than by chance."""


def main(config: Config) -> None:
    """Find or read the part, write the checkpoint and the table, and print the table."""
    if (config.without is None) == (config.without_style is None):
        raise InputError(
            "An edit removes the part of one class or of one style: give --without FOLDER --class CLASS, or "
            "--without-style STYLE."
        )
    if config.without is not None:
        table, kept = without_class(config, config.without)
    else:
        table, kept = without_style(config)
    comparison.write_named_table(config.out.with_suffix(".csv"), table)
    print(in_short(table, *kept).to_string(float_format="{:.2f}".format))
    print(f"checkpoint: {config.out}")


def without_class(config: Config, path: Path) -> "tuple[pd.DataFrame, tuple[str, str]]":
    """Remove the own parts of a class.

    Args:
        config: The settings.
        path: The folder of own parts.

    Returns:
        The accuracies before and after, and the column and the value of the rows that are the class's own.
    """
    folder = circuits.GraphFolder(path)
    name = config.class_name
    if name not in folder.classes:
        raise InputError(
            f"{path} has own parts of {', '.join(folder.classes)}, but --class {name} was given: give one of these."
        )
    domains = data.chosen_names("domain", config.domains, folder.domains)
    clip = config.clip(components=True)
    images = config.images()
    used = set[str]()
    parts = list["Circuit"]()
    for domain in domains:
        if (name, domain) in folder:
            graph = folder[name, domain]
            part = graph.circuit(None)
            if config.share is not None:
                part = graph.strongest(config.share, budget="global")
            parts.append(part)
            used.update(graph.provenance["images"], graph.provenance["others"])
    made = folder.identity
    if made["baseline"] not in IN_WEIGHTS:
        raise InputError(
            f"A checkpoint holds units at zero or at their means over all images, but the parts in {path} were found "
            f"with the baseline {made['baseline']!r}: find them with --baseline mean-unit."
        )
    baseline = models.FolderBaseline(
        made["baseline"], clip, images, made["n_images"], made["seed"]
    )
    removed = clip.without(parts, baseline.of(name, images.domains[0], 1))
    left = {r.relative: r.domain for r in images.records if r.relative not in used}
    if not left:
        raise InputError(
            f"No image is left to test the edit, as all {len(images)} found the part: give more."
        )
    tested = images.labelled(left)
    step = max(1, len(tested) // N_COMPARED)
    _, some = models.read_images(clip, tested.records[::step])
    removed.save(config.out, some)
    print_removed(removed, parts[0])
    tables = list["pd.DataFrame"]()
    for column, model in (("before", clip), ("after", edited(config))):
        answers = training.zero_shot_predictions(model, tested)
        table = training.class_accuracy(answers).rename(columns={"right": column})
        tables.append(table[["domain", "class", "n_images", column]])
    return tables[0].merge(tables[1]), ("class", name)


def without_style(config: Config) -> "tuple[pd.DataFrame, tuple[str, str]]":
    """Find the part of a style, and remove it; see `without_class`."""
    style = config.without_style or ""
    clip = config.clip(components=True)
    images = config.images()
    texts = "own-style"
    told = config.told
    if config.label != ("domain",):
        # Labels are no words for a style.
        texts = "pooled"
        if len(config.label) == 2:
            labels = data.item_column(*config.label)
        elif isinstance(told, str):
            raise InputError(
                f"With --label text a picture's label is one of several texts, but --told {told} was given: give two "
                "or more texts, such as --told 'a sketch' 'a photo'."
            )
        else:
            labels = questions.labels_by_texts(clip, images, told)
        images = images.labelled(labels)
        if config.label == ("text",):
            told = [style, *(text for text in images.domains if text != style)]
    held_out: tuple[str, ...] = ()
    if config.held_out:
        held_out = data.chosen_names(
            "class", config.held_out, images.classes, data.class_key
        )
    question = questions.StylePart.of_folder(
        clip,
        images,
        style,
        held_out,
        told,
        config.texts or texts,
        config.spare,
    )
    part = question.find(share=config.share)
    tested = question.tested(part)
    removed = clip.without(part, question.task.baseline)
    removed.save(config.out)
    print_removed(removed, part)
    table = question.answers(tested, clip, "before").merge(
        question.answers(tested, edited(config), "after")
    )
    return table, ("domain", style)


def edited(config: Config) -> "models.Clip":
    """Return the model of the checkpoint: what the file holds is what is measured."""
    return replace(config, checkpoint=config.out, pretrained=None).clip()


def print_removed(removed: "models.Clip", part: "Circuit") -> None:
    """Print how many units a model lacks. The part is one of those that were removed."""
    units = sum(map(len, removed.removed_units.values()))
    n_units = sum(len(scores) for scores in part.source.node_scores.values())
    print(f"{units} of {n_units} units removed")


def in_short(table: "pd.DataFrame", column: str, value: str) -> "pd.DataFrame":
    """Return accuracies before and after: of a class and of other classes, or of a style and of all styles.

    The last rows are the worst and the mean of the groups (a class in a domain) that are not the class or style.

    Args:
        table: The accuracies before and after, by class and domain.
        column: The column of what was removed: class or domain.
        value: The class or style that was removed.
    """
    import pandas as pd  # here, so that a wrong line is answered at once

    columns = ["before", "after"]
    is_own = table[column] == value
    if column == "class":
        own = table[is_own].set_index("domain")[columns]
        rest = table[~is_own].groupby("domain", sort=False)[columns].mean()
        parts = {value: own, "other classes": rest}
    else:
        of_styles = table.groupby("domain", sort=False)[columns].mean()
        in_style = table[is_own].set_index("class")[columns]
        parts = {"all classes": of_styles, value: in_style}
    return pd.concat({**parts, "other groups": worst_and_mean(table[~is_own])})

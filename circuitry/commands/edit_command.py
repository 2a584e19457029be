"""Write a checkpoint of a CLIP after removing its part of a style, and say what that costs.

A CLIP that has seen a style with some classes alone may answer these classes to every picture of the style, though it
knows other classes from other styles. This command finds the units with which the model tells the style and which
classes do not need, sets them to their means in the weights, and writes a checkpoint that open_clip loads. Pictures
that were not used are then classified before and after: in each style, and each class in the style.

    circuitry edit --without-style sketch --model mine.json --checkpoint mine.pt --data pictures --out edited.pt
    circuitry edit --without-style sketch ... --held-out dog horse    # not seen in the style; their pictures only test
    circuitry edit --without-style sketch ... --told folders          # captions of the model name no styles
"""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from circuitry import comparison, data, models, questions
from circuitry.circuits.circuit_settings import OwnShare
from circuitry.data.shared_options import HeldOut
from circuitry.models.options import ModelOptions, TextsChoice

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, kw_only=True)
class Config(ModelOptions):
    """Settings of the edit."""

    without_style: str
    """The style (a domain of the images) whose part is removed."""
    out: Path = Path("edited.pt")
    """File of the checkpoint. A table beside it, with the ending .csv, has the accuracies before and after."""
    held_out: HeldOut = ()
    told: Literal["texts", "folders"] = "texts"
    """What tells the styles: texts such as "a sketch of a dog", or the mean embeddings of the folders."""
    texts: TextsChoice = "own-style"
    share: OwnShare | None = None
    """Share of the units that are removed (default: the smallest share after which pictures of the style are called by
    it no more often than by chance)."""


def main(config: Config) -> None:
    """Find the part, write the checkpoint and the table, and print the table."""
    clip = config.clip(components=True)
    images = config.images()
    held_out: tuple[str, ...] = ()
    if config.held_out:
        held_out = data.chosen_names(
            "class", config.held_out, images.classes, data.class_key
        )
    question = questions.StylePart.of_folder(
        clip,
        images,
        config.without_style,
        held_out,
        config.told,
        config.texts or "own-style",
    )
    part = question.find(share=config.share)
    tested = question.tested(part)
    clip.without(part, question.task.baseline).save(config.out)
    # What the file holds is what is measured.
    edited = models.load_clip(config.model, config.out, device=config.device)
    table = question.answers(tested, clip, "before").merge(
        question.answers(tested, edited.with_decoding(config.decoding), "after")
    )
    comparison.write_named_table(config.out.with_suffix(".csv"), table)
    n_units = sum(len(scores) for scores in part.source.node_scores.values())
    print(f"{part.count} of {n_units} units removed")
    print(in_short(table, question).to_string(float_format="{:.2f}".format))
    print(f"checkpoint: {config.out}")


def in_short(table: "pd.DataFrame", question: "questions.StylePart") -> "pd.DataFrame":
    """Return the accuracies before and after: of each style, and of each class in the style of the question.

    Args:
        table: The table of `StylePart.answers`, before and after.
    """
    import pandas as pd  # here, so that a wrong line is answered at once

    columns = ["before", "after"]
    of_styles = table.groupby("domain", sort=False)[columns].mean()
    in_style = table[table["domain"] == question.style].set_index("class")[columns]
    return pd.concat({"all classes": of_styles, question.style: in_style})

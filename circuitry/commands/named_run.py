"""The run that a command line names: its model and images are taken where the line names none. No torch."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from circuitry.analysis import QuickstartModel
from circuitry.analysis.quickstart_settings import QUICKSTART
from circuitry.analysis.run_layout import drawn_circuits, run_of
from circuitry.models import ModelOptions
from circuitry.runs.errors import InputError
from circuitry.runs.files import at_home
from circuitry.runs.manifest import NAME, check_folder
from circuitry.runs.settings_file import SETTINGS, read_settings, words_of

_SUBJECT = ("--model", "--checkpoint", "--pretrained", "--data", "--config", "--help")
"""A line with one of these says itself what it is about, or does nothing."""


def with_the_run(kind: type[Any], words: Sequence[str]) -> list[str]:
    """Return a command line with what its run says of model and images in front, which the line's own words overrule.

    Commands that read circuits take model and images from the settings of the run that ``--circuits`` or ``--run``
    names, unless the line names a model or images.
    """
    named_circuits = _value(words, "--circuits")
    named_run = _value(words, "--run")
    if not issubclass(kind, QuickstartModel) or not (named_circuits or named_run):
        return list(words)
    circuits = drawn_circuits(Path(at_home(named_run)))
    if named_circuits:
        circuits = Path(at_home(named_circuits))
    if circuits.is_dir():
        check_folder(circuits)
    run = run_of(circuits)
    names = {field.name for field in fields(kind)}
    added = []
    if "run" in names and not named_run:
        added = ["--run", str(run)]
    asks_a_model = "with_model" not in names or "--with-model" in words
    says_it_itself = {word.partition("=")[0] for word in words} & {*_SUBJECT}
    if asks_a_model and not says_it_itself and (circuits / NAME).is_file():
        added += words_of(_subject_of(run))
    return [*added, *words]


def check_the_quickstart(name: str, config: Any) -> None:
    """Say that a command reads the quickstart's run, where its line names no other; refuse where there is none."""
    if not isinstance(config, QuickstartModel):
        return
    read = getattr(config, "run", None) or getattr(config, "circuits", None)
    if read is None or not Path(read).is_relative_to(QUICKSTART):
        return
    if not QUICKSTART.is_dir():
        raise InputError(
            f"Without --circuits this reads {QUICKSTART}, which is not there: run circuitry quickstart first, or give "
            "--circuits."
        )
    print(
        f"circuitry {name} reads {QUICKSTART}, unless --circuits is given",
        file=sys.stderr,
        flush=True,
    )


def _value(words: Sequence[str], option: str) -> str:
    """Return the value of an option in a command line; empty if it has none."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, sign, value = word.partition("=")
        if name == option:
            return value if sign else following
    return ""


def _subject_of(run: Path) -> dict[str, Any]:
    """Return the model and images of a run by option; a quickstart leaves the images to the default."""
    if not (run / SETTINGS).is_file():
        raise InputError(
            f"There is no {SETTINGS} in {run} that says model and images: give --model and --data."
        )
    known = {field.name for field in fields(ModelOptions)} - {"device"}
    settings = read_settings(run / SETTINGS)
    return {name: value for name, value in settings.items() if name in known}

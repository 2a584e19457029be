"""The run that a command line names: its model and images are taken where the line names none. No torch."""

import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from circuitry.analysis import QuickstartModel
from circuitry.analysis.quickstart_settings import (
    QUICKSTART,
    drawn_circuits,
    run_of,
)
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
    folders = {
        option: Path(at_home(value))
        for option in ("--circuits", "--run")
        if (value := _value(words, option))
    }
    if not issubclass(kind, QuickstartModel) or not folders:
        return list(words)
    circuits = folders.get("--circuits") or drawn_circuits(folders["--run"])
    if circuits.is_dir():
        check_folder(circuits)
    names = {field.name for field in fields(kind)}
    run = run_of(circuits)
    added = ["--run", str(run)] if "run" in names and "--run" not in folders else []
    asks_a_model = "with_model" not in names or "--with-model" in words
    if (
        asks_a_model
        and (circuits / NAME).is_file()
        and not {word.partition("=")[0] for word in words} & {*_SUBJECT}
    ):
        added += words_of(_subject_of(run))
    return [*added, *words]


def check_the_quickstart(name: str, config: Any) -> None:
    """Say that a command reads the quickstart's run, where its line names no other; refuse where there is none."""
    read = getattr(config, "run", None) or getattr(config, "circuits", None)
    if (
        not isinstance(config, QuickstartModel)
        or read is None
        or not Path(read).is_relative_to(QUICKSTART)
    ):
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


def _value(words: Sequence[str], option: str) -> str | None:
    """Return the value of an option in a command line, if it has one."""
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, sign, value = word.partition("=")
        if name == option:
            return value if sign else following
    return None


def _subject_of(run: Path) -> dict[str, Any]:
    """Return the model and images of a run by option; a quickstart leaves the images to the default."""
    if not (run / SETTINGS).is_file():
        raise InputError(
            f"There is no {SETTINGS} in {run} that says model and images: give --model and --data."
        )
    known = {field.name for field in fields(ModelOptions)} - {"device"}
    return {
        name: value
        for name, value in read_settings(run / SETTINGS).items()
        if name in known
    }

"""Take the model and images of an earlier run, if a command line names this run but no model or images.

Does not import torch.
"""

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
"""Options that name a model or images themselves, or with which a command does no work."""


def with_the_run(kind: type[Any], words: Sequence[str]) -> list[str]:
    """Return a command line to which the model and images of an earlier run were added as options.

    They are added for commands that read circuits, if ``--circuits`` or ``--run`` names a run, and if no option of the
    line names a model or images. They are read from the settings of the run. The explorer needs them only with
    ``--with-model``; for the explorer, ``--run`` is also added if the line names only the circuits of the run. In all
    other cases the line is returned unchanged. Added options stand at the beginning of the line. So if an option is
    given twice, the user's value counts.

    Args:
        kind: The class of the command's settings.
        words: The words of the command line after the name of the command.
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
    # The explorer shows a run, even if its line names only the circuits of this run.
    if "run" in names and not named_run:
        added = ["--run", str(run)]
    # Without --with-model the explorer only reads files, so the settings of the run are not needed.
    asks_a_model = "with_model" not in names or "--with-model" in words
    says_it_itself = {word.partition("=")[0] for word in words} & {*_SUBJECT}
    if asks_a_model and not says_it_itself and (circuits / NAME).is_file():
        added += words_of(_subject_of(run))
    # They are added in front, because the last value counts if an option is given twice.
    return [*added, *words]


def check_the_quickstart(name: str, config: Any) -> None:
    """If a command reads the run of the quickstart, check that this run exists, and print that the command reads it.

    A command reads this run if its settings name no other run or circuits.

    Args:
        name: Name of the command.
        config: Settings of the command.

    Raises:
        InputError: if the command reads the run of the quickstart, but the quickstart was never run.
    """
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
    """Return the value of an option in a command line, or an empty text if the line does not have the option."""
    # An option is written --option VALUE or --option=VALUE.
    for word, following in zip(words, [*words[1:], ""], strict=False):
        name, sign, value = word.partition("=")
        if name == option:
            return value if sign else following
    return ""


def _subject_of(run: Path) -> dict[str, Any]:
    """Return the settings of a run that name its model and images, by option.

    The settings of a quickstart name no images, so its images are the default of the command.

    Raises:
        InputError: if the run has no file of settings.
    """
    if not (run / SETTINGS).is_file():
        raise InputError(
            f"There is no {SETTINGS} in {run} that says model and images: give --model and --data."
        )
    # The device is left out, because this machine may have other devices than the machine of the run.
    known = {field.name for field in fields(ModelOptions)} - {"device"}
    settings = read_settings(run / SETTINGS)
    return {name: value for name, value in settings.items() if name in known}

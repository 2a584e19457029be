"""The run that a command line names: its model and images are taken where the line names none. No torch."""

import sys
from collections.abc import Sequence
from pathlib import Path

from circuitry.analysis.quickstart_settings import DRAWN_IMAGES, QUICKSTART, UNITS
from circuitry.commands.help_pages import HelpPage
from circuitry.runs.errors import InputError
from circuitry.runs.manifest import NAME
from circuitry.runs.settings_file import SETTINGS, words_of

_SUBJECT = ("--model", "--checkpoint", "--pretrained", "--data")
"""A line with one of these says itself what it is about."""


def with_the_run(page: HelpPage, words: Sequence[str]) -> list[str]:
    """Return the words of a command line after those that its run adds; say so where the quickstart's run is read.

    Commands that read circuits take model and images from the settings of the run that ``--circuits`` or ``--run``
    names, unless the line names a model or images. Without either option they read the quickstart's run.

    Raises:
        InputError: where no quickstart was run, for the folder of a circuit that ``circuitry find`` made, and where
            nothing says the model and the images.
    """
    given, added = _by_option(words), list[str]()
    which = "--circuits" if "--circuits" in page.flags else "--data"
    reads_quickstart = "--data" in page.flags and str(QUICKSTART) in page.flags["--data"].help
    named = next((option for option in ("--circuits", "--run") if given.get(option)), None)
    if "--config" in given or not reads_quickstart or (which == "--data" and which in given):
        return list(words)
    if named is None:
        if not QUICKSTART.is_dir():
            raise InputError(
                f"Without {which} this reads {QUICKSTART}, which is not there: run circuitry quickstart first, or give "
                f"{which}."
            )
        print(f"circuitry {page.command} reads {QUICKSTART}, unless {which} is given", file=sys.stderr, flush=True)
        return list(words)
    circuits = Path(given[named][0], "circuits" if named == "--run" else "")
    for folder in (circuits, circuits.parent):
        if (folder / "circuit").is_dir() and (folder / NAME).is_file():
            raise InputError(
                f"{folder} is of circuitry find, which circuitry {page.command} does not read yet: look at "
                f"{folder / 'report.html'}, or give circuits of circuitry compare."
            )
    if "--run" in page.flags.keys() - given.keys():
        added += ["--run", str(circuits.parent)]
    asks_a_model = page.command != "explore" or "--with-model" in given
    if asks_a_model and (circuits / NAME).is_file() and not given.keys() & {*_SUBJECT}:
        group = page.flags["--model"].group
        wanted = {option.name for option in page.options if option.group == group} - given.keys() - {"--device"}
        for option, values in _subject_of(circuits.parent).items():
            added += [option, *values] if option in wanted else []
    return [*added, *words]


def _subject_of(run: Path) -> dict[str, list[str]]:
    """Return the settings of a run by option; with its images and weights where the quickstart made them."""
    if not (run / SETTINGS).is_file():
        raise InputError(f"There is no {SETTINGS} in {run} that says model and images: give --model and --data.")
    found = _by_option(words_of(run / SETTINGS))
    if "--data" not in found and (run / DRAWN_IMAGES).is_dir():
        (model,) = found["--model"]
        found["--data"] = [str(run / DRAWN_IMAGES)]
        if found.get("--units", ["None"]) == ["None"]:
            found["--units"] = [UNITS[model]]
        if (weights := run / f"{model}.safetensors").is_file():
            found["--checkpoint"] = [str(weights)]
    return found


def _by_option(words: Sequence[str]) -> dict[str, list[str]]:
    """Return the values that follow each option."""
    found, values = dict[str, list[str]](), list[str]()
    for word in words:
        if word.startswith("--"):
            option, sign, value = word.partition("=")
            values = found[option.replace("_", "-")] = [value] if sign else []
        else:
            values.append(word)
    return found

"""Command lines of the scripts: settings from a dataclass, errors of input in one sentence without a traceback.

A script imports this module first, before torch: OpenMP reads the variables that this module sets when it is loaded,
and timm does not find wandb, which nobody uses, and which leaves folders behind in a process that is killed.
"""

import io
import json
import logging
import os
import shlex
import signal
import sys
import warnings
import webbrowser
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, Protocol, TypeVar, get_type_hints, runtime_checkable

import tyro

from circuitry.runs.errors import InputError
from circuitry.runs.given import checked, fitting
from circuitry.runs.path_refusals import sentence_of
from circuitry.runs.presets import StudySettings, with_study_defaults
from circuitry.runs.processes import interrupted_by_sigterm
from circuitry.runs.progress import QUIET
from circuitry.runs.provenance import command
from circuitry.runs.settings_file import option_name, words_of, write_settings
from circuitry.runs.workers import short_waits

os.environ.update(short_waits(os.environ))
sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]  # as the import system has it for "not there"

Config = TypeVar("Config")

STUDY_HELP = "Take the study's settings as defaults, wherever they differ; what is given besides still holds."


@dataclass(frozen=True)
class General:
    """Options that every command takes beside its own."""

    json: bool = False
    """Print the answer in short and the paths as JSON, and nothing else, on the standard output."""
    open: bool = False
    """Open the page in the browser."""
    quiet: bool = False
    """Show no progress, and only errors of the libraries."""
    config: Path | None = None
    """Settings of an earlier run, the file settings.toml of its folder; options that are given besides still hold."""


@runtime_checkable
class Outcome(Protocol):
    """What a command may return: its text is printed at the end."""

    @property
    def report(self) -> Path:
        """The page to open."""

    def facts(self) -> Mapping[str, Any]:
        """Return the answer in short, and the paths, in plain values."""


@checked
def run_script(
    config_type: type[Config],
    main: Callable[[Config], Any],
    description: str | None,
    defaults: Callable[[type[Config]], type[Config]] | None = None,
) -> None:
    """Read ``config_type`` from the command line, with its own defaults or those of ``defaults``, and run ``main``.

    ``--study`` changes the defaults to the study's, of settings that have such a preset (`StudySettings`), and says so;
    `General` has the options that every command takes. What ``main`` returns (`Outcome`) is printed at the end.
    Errors that a user can mend (of input, and those of `sentence_of`) end the process with status 2 and their message;
    an interrupt or SIGTERM ends it with status 130 or 143 and the command that goes on.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"  # without the line of code that gave it
    try:
        general, arguments = _general_options(config_type, sys.argv[1:])
        if issubclass(config_type, StudySettings):
            description = f"{description or ''}\n\n--study: {STUDY_HELP}"
            if "--study" in arguments:
                arguments.remove("--study")
                config_type = with_study_defaults(config_type)
        config_type = config_type if defaults is None else defaults(config_type)
        with interrupted_by_sigterm(), redirect_stdout(sys.stderr) if general.json else nullcontext():
            config = _fitting(_parsed(config_type, description, arguments))
            if isinstance(config, StudySettings) and config.by_study:
                print(f"the study's settings: {', '.join(f'{n} {getattr(config, n)}' for n in config.study_values())}")
            outcome = main(config)
            write_settings(config, command())
        _tell(outcome, general)
    except InputError as error:
        end_with(str(error))
    except OSError as error:
        if (sentence := sentence_of(error)) is None:
            raise
        end_with(sentence)
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        print(f"interrupted; this goes on: {_again()}", file=sys.stderr)
        sys.exit(128 + number)


def _general_options(config_type: type[Any], arguments: Sequence[str]) -> tuple[General, list[str]]:
    """Take the general options out of a command line; the words of ``--config`` come before the others."""
    own = {field.name for field in fields(config_type)}
    found: dict[str, Any] = {}
    left: list[str] = []
    given = iter(arguments)
    for argument in given:
        option, sign, value = argument.partition("=")
        name = option.removeprefix("--") if option.startswith("--") else ""
        if name in own or name not in General.__dataclass_fields__ or (sign and name != "config"):
            left.append(argument)
        elif name == "config":
            path = value if sign else next(given, "")
            if not path:
                raise InputError("--config takes a file of settings, but none was given: add one.")
            found[name] = Path(path)
        else:
            found[name] = True
    general = General(**found)
    if general.quiet:
        os.environ[QUIET] = "1"
        logging.getLogger().setLevel(logging.ERROR)
    return general, [*(words_of(general.config) if general.config is not None else ()), *left]


def _parsed(config_type: type[Config], description: str | None, arguments: Sequence[str]) -> Config:
    """Return the settings that tyro reads; an `InputError` of a class of settings stays one, without tyro's box."""
    shown = io.StringIO()
    try:
        with redirect_stderr(shown):
            return tyro.cli(config_type, description=description, args=arguments)
    except SystemExit as ended:
        error: BaseException | None = ended
        while error is not None and not isinstance(error, InputError):
            error = error.__context__
        if error is not None:
            raise error from None
        print(shown.getvalue(), file=sys.stderr, end="")
        raise


def _fitting(config: Config) -> Config:
    """Refuse values that do not fit the annotations of a class of settings, by the names of their options."""
    hints = get_type_hints(type(config), include_extras=True)
    for field in fields(config):  # type: ignore[arg-type]
        hint = hints[field.name]
        fitting(getattr(config, field.name), hint, f"--{option_name(field.name, hint)}")
    return config


def _tell(outcome: Outcome | None, general: General) -> None:
    """Print how a command ended, and open its report where that was asked for."""
    if general.json:
        print(json.dumps({"command": command(), **({} if outcome is None else outcome.facts())}, ensure_ascii=False))
    elif outcome is not None:
        print(outcome)
    if general.open and outcome is not None:
        webbrowser.open(outcome.report.resolve().as_uri())


def _again() -> str:
    """Return this command line as it was typed."""
    script, *arguments = sys.argv
    return " ".join([script if " " in script else f"python {script}", *map(shlex.quote, arguments)])


def end_with(sentence: str) -> None:
    """End the process with status 2 and a sentence that says what to mend."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)

"""Command lines of the scripts: settings from a dataclass, errors of input in one sentence without a traceback.

A script imports this module first, before torch: OpenMP reads the variables that this module sets when it is loaded,
and timm does not find wandb, which nobody uses, and which leaves folders behind in a process that is killed.
"""

import logging
import os
import signal
import sys
import warnings
from collections.abc import Callable
from typing import TypeVar

import tyro

from circuitry.runs.errors import InputError
from circuitry.runs.given import checked
from circuitry.runs.path_refusals import sentence_of
from circuitry.runs.presets import StudySettings, with_study_defaults
from circuitry.runs.processes import interrupted_by_sigterm
from circuitry.runs.workers import short_waits

os.environ.update(short_waits(os.environ))
sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]  # as the import system has it for "not there"

Config = TypeVar("Config")

STUDY_HELP = "With --study the defaults are the study's, wherever they differ; what is given besides still holds."


@checked
def run_script(
    config_type: type[Config],
    main: Callable[[Config], None],
    description: str | None,
    defaults: Callable[[type[Config]], type[Config]] | None = None,
) -> None:
    """Read ``config_type`` from the command line, with its own defaults or those of ``defaults``, and run ``main``.

    ``--study`` changes the defaults to the study's, of settings that have such a preset (`StudySettings`), and says so.
    Errors that a user can mend (of input, and those of `sentence_of`) end the process with status 2 and their message;
    an interrupt or SIGTERM ends it with status 130 or 143 and a word on how to go on.
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"  # without the line of code that gave it
    arguments = sys.argv[1:]
    if issubclass(config_type, StudySettings):
        description = f"{description or ''}\n\n{STUDY_HELP}"
        if "--study" in arguments:
            arguments.remove("--study")
            config_type = with_study_defaults(config_type)
            print(f"the study's settings: {', '.join(f'{n} {v}' for n, v in config_type.study_values().items())}")
    try:
        config_type = config_type if defaults is None else defaults(config_type)
        with interrupted_by_sigterm():
            main(tyro.cli(checked(config_type), description=description, args=arguments))
    except InputError as error:
        _end(str(error))
    except OSError as error:
        if (sentence := sentence_of(error)) is None:
            raise
        _end(sentence)
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        print("interrupted; the same command goes on from what is finished", file=sys.stderr)
        sys.exit(128 + number)


def _end(sentence: str) -> None:
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)

"""Run a script from the command line: read its settings into a dataclass, and print input errors without a traceback.

A script imports this module before torch, for two reasons. First, this module sets environment variables that OpenMP
reads when torch is loaded. Second, this module hides the package wandb from timm: nobody uses wandb here, and it leaves
folders behind if the process is killed.
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
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext, redirect_stderr, redirect_stdout
from dataclasses import dataclass, field, fields, is_dataclass, make_dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, TypeVar, get_type_hints

import tyro
from tyro.conf import FlagCreatePairsOff, arg

from circuitry.runs.arguments import fitting
from circuitry.runs.errors import InputError, sentence_of
from circuitry.runs.processes import interrupted_by_sigterm
from circuitry.runs.progress import QUIET
from circuitry.runs.provenance import command
from circuitry.runs.settings_file import STUDY, expanded, option_name, write_settings
from circuitry.runs.workers import short_waits

os.environ.update(short_waits(os.environ))
sys.modules.setdefault("wandb", None)  # type: ignore[arg-type]  # None makes an import fail

Config = TypeVar("Config")


@dataclass(frozen=True)
class General:
    """Options that every command accepts in addition to its own options.

    If a command defines an option with the name of one of these options, the option of the command replaces it.
    """

    json: Annotated[
        bool,
        FlagCreatePairsOff,
        arg(
            help="Print the answer in short and the paths as JSON, and nothing else, on the standard output."
        ),
    ] = False
    open: Annotated[
        bool, FlagCreatePairsOff, arg(help="Open the page in the browser.")
    ] = False
    quiet: Annotated[
        bool,
        FlagCreatePairsOff,
        arg(help="Show no progress, and only errors of the libraries."),
    ] = False
    config: Annotated[
        Path | None,
        arg(
            help="Settings of an earlier run, its file settings.toml; what is given besides still holds."
        ),
    ] = None
    preset: Annotated[
        str | None,
        arg(
            help="Settings by name, or their file; they and --config hold in the order they are given in."
        ),
    ] = None
    study: Annotated[
        bool,
        FlagCreatePairsOff,
        arg(help=f"The same as --preset {STUDY}: as the ICML study did it."),
    ] = False


def run_script(
    config_type: type[Config], main: Callable[[Config], Any], description: str | None
) -> None:
    """Read the settings of a script from the command line, and run the script.

    The command line may also have the options of `General`. When the script is finished, its settings are written into
    the folder of its results.

    An error that a user can mend ends the process with status 2 and a message: an `InputError`, or an error of the
    operating system that `sentence_of` explains. Ctrl-C ends the process with status 130, SIGTERM with status 143; both
    print the command that resumes the work.

    Args:
        config_type: A dataclass whose fields are the options of the script.
        main: Runs the script with these settings. If it returns a result, the text of the result is printed, or the
            dictionary ``facts()`` of the result as JSON (with --json). With --open, the page ``report`` of the result
            is opened in the browser.
        description: Help text of the script.

    Example:
        >>> from dataclasses import dataclass
        >>> @dataclass
        ... class Config:
        ...     classes: tuple[str, ...] = ()
        >>> def main(config):
        ...     print(config.classes)
        >>> import sys
        >>> sys.argv = ["mine.py", "--classes", "cat", "dog"]
        >>> circuitry.runs.run_script(Config, main, "What this does.")
        ('cat', 'dog')
    """
    logging.basicConfig(format="%(message)s", level=logging.WARNING)
    # A warning is printed without the line of code that caused it.
    warnings.formatwarning = lambda message, *_, **__: f"{message}\n"
    try:
        config, general = read_line(config_type, sys.argv[1:], description)
        if general.quiet:
            os.environ[QUIET] = "1"
            logging.getLogger().setLevel(logging.ERROR)
        with (
            interrupted_by_sigterm(),
            redirect_stdout(sys.stderr) if general.json else nullcontext(),
        ):
            outcome = main(config)
            write_settings(config, command())
        if general.json:
            facts = {} if outcome is None else outcome.facts()
            print(json.dumps({"command": command(), **facts}, ensure_ascii=False))
        elif outcome is not None:
            print(outcome)
        if general.open and outcome is not None:
            webbrowser.open(outcome.report.resolve().as_uri())
    except InputError as error:
        end_with(str(error))
    except OSError as error:
        sentence = sentence_of(error)
        if sentence is None:
            raise
        end_with(sentence)
    except KeyboardInterrupt as error:
        number = error.args[0] if error.args else signal.SIGINT
        script, *words = sys.argv
        program = script if " " in script else f"python {script}"
        again = " ".join([program, *map(shlex.quote, words)])
        print(f"interrupted; this goes on: {again}", file=sys.stderr)
        sys.exit(128 + number)


def read_line(
    config_type: type[Config], words: Sequence[str], description: str | None = None
) -> tuple[Config, General]:
    """Return the settings and the general options that a command line gives.

    Args:
        config_type: A dataclass whose fields are the options of the command.
        words: The words of the command line after the name of the command.
        description: Help text of the command.

    Raises:
        InputError: if a value does not fit its option, if two options exclude each other, or if an option needs another
            option that is missing.
        SystemExit: if tyro cannot read the line, or if the line asks for help; the reason or the help is printed first.
    """
    read = _parsed(with_general(config_type), description, expanded(words, config_type))
    _refuse_together(read)
    hints = get_type_hints(config_type, include_extras=True)
    own = {}
    for option in fields(config_type):  # type: ignore[arg-type]
        name = option.name
        written = f"--{option_name(name, hints[name])}"
        own[name] = fitting(getattr(read, name), hints[name], written)
    general = {}
    for option in fields(General):
        if option.name not in own:
            general[option.name] = getattr(read, option.name)
    return config_type(**own), General(**general)


def with_general(config_type: type[Config]) -> type[Config]:
    """Return a subclass of a class of settings that also has the options of `General`.

    Options that the class defines itself stay as they are.
    """
    own = {option.name for option in fields(config_type)}  # type: ignore[arg-type]
    added = [
        (option.name, option.type, field(default=option.default))
        for option in fields(General)
        if option.name not in own
    ]
    frozen = config_type.__dataclass_params__.frozen  # type: ignore[attr-defined]
    made = make_dataclass(
        config_type.__name__, added, bases=(config_type,), frozen=frozen, kw_only=True
    )
    made.__module__ = config_type.__module__
    made.__doc__ = config_type.__doc__
    return made


def _unwrap_helps(config_type: type[Any]) -> None:
    """Join the help text of each option into one line, since the terminal breaks the lines anew."""
    try:
        # Tyro reads help texts with this package. It is loaded only if help is to be printed.
        from docstring_parser import parse_from_object
    except ImportError:  # another version of tyro
        return
    texts: dict[str, str] = {}
    for kind in reversed(config_type.__mro__):
        if is_dataclass(kind):
            for parameter in parse_from_object(kind).params:
                texts[parameter.arg_name] = parameter.description or ""
    for option in fields(config_type):
        if option.name in texts:
            one_line = " ".join(texts[option.name].split())
            option.metadata = MappingProxyType({"help": one_line})


def _parsed(
    config_type: type[Config], description: str | None, arguments: Sequence[str]
) -> Config:
    """Return the settings that tyro reads from the words of a command line.

    If a class of settings raises `InputError`, this error is raised unchanged, instead of being printed in the frame
    that tyro draws around error messages.
    """
    shown = io.StringIO()
    if {"-h", "--help"} & {*arguments}:
        _unwrap_helps(config_type)
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


def _refuse_together(config: Any) -> None:
    """Raise `InputError` if the given options exclude each other, or if an option is missing that another one needs.

    A class of settings may have three attributes with rules. Each of them is a tuple of groups, and a group is a tuple
    of names of fields. The fields in a group of `NOT_BOTH` exclude each other. The first field in a group of `NEEDS`
    needs all other fields of the group. At least one field in a group of `ONE_OF` must be given. A field counts as
    given if its value is not the default, and neither None nor empty.
    """
    given = set()
    for option in fields(config):
        value = getattr(config, option.name)
        if value != option.default and value not in (None, ()):
            given.add(option.name)

    def groups(rule: str) -> Iterator[list[str]]:
        for kind in type(config).__mro__:
            for group in vars(kind).get(rule, ()):
                yield [name.replace("-", "_") for name in group]

    def options(names: Sequence[str], word: str = "and") -> str:
        return f" {word} ".join(f"--{name.replace('_', '-')}" for name in names)

    for group in groups("NOT_BOTH"):
        if len(given & {*group}) > 1:
            raise InputError(f"Expected one of {options(group)}, but both were given.")
    for group in groups("ONE_OF"):
        if not given & {*group}:
            raise InputError(f"Expected {options(group, 'or')}, but neither was given.")
    for first, *needed in groups("NEEDS"):
        if first in given and not given >= {*needed}:
            raise InputError(
                f"The option {options([first])} needs {options(needed)}, but it was not given."
            )


def end_with(sentence: str) -> None:
    """Print a sentence that says what to mend, and end the process with status 2."""
    print(f"error: {sentence}", file=sys.stderr)
    sys.exit(2)

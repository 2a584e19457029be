"""Run the command that a command line names. Torch is loaded only after the options were found to be right."""

import gc
import importlib
import os
import signal
import sys
from collections.abc import Mapping
from functools import partial
from typing import Annotated, Any, Union

import tyro

import circuitry
from circuitry.commands.named_run import check_the_quickstart, with_the_run
from circuitry.runs.command_line import end_with, run_script, with_general
from circuitry.runs.errors import InputError, unknown_name

COMMANDS: Mapping[str, tuple[str, str]] = {
    "quickstart": ("start here", "the whole study in miniature, on drawn images"),
    "info": ("start here", "versions, devices and caches, and what is missing"),
    "find": ("circuits", "which units recognise one class, and do they work?"),
    "own-parts": (
        "circuits",
        "which units are a class's own, and are they the same in another style?",
    ),
    "compare": (
        "circuits",
        "are the circuits of my model shared between the domains of my images?",
    ),
    "check": ("circuits", "do circuits recover the answer of the model?"),
    "explain": ("look inside", "why does a model give its answer to one picture?"),
    "cards": ("look inside", "what does each unit of the circuits respond to?"),
    "explore": ("look inside", "a page to look into circuits, units and images"),
    "train-sae": ("models", "train a sparse autoencoder on activations"),
    "train": ("models", "train a CLIP"),
    "edit": ("models", "a checkpoint after removing the model's part of a style"),
    "evaluate": (
        "models",
        "how accurate is a checkpoint, or every checkpoint of a run?",
    ),
}
"""Name of a command -> its group and its line of help. The commands of a group follow each other."""
WITHOUT_MODELS = ("quickstart", "info")
"""Commands whose own process runs no model. The quickstart runs its model in other processes."""


def module_of(name: str) -> str:
    """Return the name of the module that contains the options and the work of a command."""
    return f"circuitry.commands.{name.replace('-', '_')}_command"


USAGE = """usage: circuitry COMMAND [OPTIONS]
       circuitry COMMAND --help      lists the options
       circuitry --completion SHELL  prints what completes commands and options in bash, zsh or fish:
                                     source <(circuitry --completion bash)
       circuitry --version"""

SHELLS = ("bash", "zsh", "fish")


GARBAGE = gc.get_threshold()
"""Thresholds of Python's garbage collector when this module is loaded."""


def run_command() -> None:
    """Run the command that ``sys.argv`` names. Without a command, print the list of all commands.

    If the command line is wrong, print what is wrong, and end the process with status 2.

    Example:
        >>> import subprocess, sys
        >>> code = "from circuitry.commands import run_command; run_command()"
        >>> line = [sys.executable, "-c", code, "--version"]
        >>> subprocess.run(line, capture_output=True, text=True).stdout
        'circuitry ...'
    """
    # While modules are loaded there is hardly any garbage, but searching for it would take a fifth of the time.
    gc.set_threshold(100_000)
    name, *arguments = sys.argv[1:] or ["--help"]
    try:
        if name in ("--help", "-h"):
            print(list_of_commands())
        elif name == "--version":
            print(f"circuitry {circuitry.__version__}")
        elif name == "--completion":
            print_completion(" ".join(arguments) or "bash")
        elif name not in COMMANDS:
            raise unknown_name("command", name, COMMANDS)
        else:
            # Only the module of this command is loaded, so that its help is shown at once.
            module = importlib.import_module(module_of(name))
            sys.argv = [f"circuitry {name}", *with_the_run(module.Config, arguments)]
            run_script(module.Config, partial(begin, name), module.__doc__)
        # A closed pipe is noticed only when text is written. This should happen here, and not at the exit.
        sys.stdout.flush()
    except InputError as error:
        end_with(str(error))
    except BrokenPipeError:
        # The reader, such as head, has closed the pipe. At its exit Python writes once more, now to nowhere.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def begin(name: str, config: Any) -> Any:
    """Load the libraries of models, and run a command.

    Args:
        name: Name of the command.
        config: Its settings. With ``dry_run`` the command only says what it needs.
    """
    # This comes before the libraries are loaded, because it ends the command if the quickstart was never run.
    check_the_quickstart(name, config)
    print(
        f"circuitry {name}: loading the libraries of models takes some seconds",
        file=sys.stderr,
        flush=True,
    )
    if name not in WITHOUT_MODELS:
        importlib.import_module("circuitry.models.loading")
    # From now on garbage may hold activations, whose memory has to be freed.
    gc.set_threshold(*GARBAGE)
    module = importlib.import_module(module_of(name))
    if getattr(config, "dry_run", False):
        return module.plan(config)
    return module.main(config)


def print_completion(shell: str) -> None:
    """Print a script, made by tyro, with which a shell completes commands and options."""
    if shell not in SHELLS:
        raise InputError(
            f"Expected one of {', '.join(SHELLS)} after --completion, but {shell!r} was given."
        )
    kinds = [
        Annotated[
            with_general(importlib.import_module(module_of(name)).Config),
            tyro.conf.subcommand(name),
        ]
        for name in COMMANDS
    ]
    # For tyro, the commands are the members of a union of types.
    either: Any = Union[tuple(kinds)]  # noqa: UP007
    tyro.cli(either, prog="circuitry", args=["--tyro-print-completion", shell])


def list_of_commands() -> str:
    """Return the usage and the list of all commands by group, with a line for each command."""
    width = max(map(len, COMMANDS))
    lines = [USAGE]
    # The commands of a group follow each other.
    last_group = ""
    for name, (group, line) in COMMANDS.items():
        if group != last_group:
            lines += ["", group]
        lines.append(f"  {name:{width}}  {line}")
        last_group = group
    study = "The programs of the ICML 2025 study: python -m experiments.study, in a checkout."
    return "\n".join([*lines, "", study])

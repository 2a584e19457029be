"""Hand a command line over to the command that it names. No torch, until the options are right."""

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
    "check": ("circuits", "do circuits recover the answer, and in other domains, too?"),
    "cards": ("look inside", "what does each unit of the circuits respond to?"),
    "explore": ("look inside", "a page to look into circuits, units and images"),
    "train-sae": ("models", "train a sparse autoencoder on activations"),
    "train": ("models", "train a CLIP"),
    "evaluate": (
        "models",
        "how accurate is a checkpoint, or every checkpoint of a run?",
    ),
}
"""Name -> its group and its line of help; names of a group stand beside each other."""
WITHOUT_MODELS = ("quickstart", "info")
"""Commands whose own process runs no model."""


def module_of(name: str) -> str:
    """Return the name of the module of a command, with its options and its work."""
    return f"circuitry.commands.{name.replace('-', '_')}_command"


USAGE = """usage: circuitry COMMAND [OPTIONS]
       circuitry COMMAND --help      lists the options
       circuitry --completion SHELL  prints what completes commands and options in bash, zsh or fish:
                                     source <(circuitry --completion bash)
       circuitry --version"""

SHELLS = ("bash", "zsh", "fish")


GARBAGE = gc.get_threshold()
"""When this process looks for garbage."""


def run_command() -> None:
    """Run the command that ``sys.argv`` names, or print the list of all.

    A wrong line ends the process with status 2 and a text that says what is wrong.
    """
    # Modules that are loaded are no garbage: looking for it takes a fifth of the time.
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
            module = importlib.import_module(module_of(name))
            sys.argv = [f"circuitry {name}", *with_the_run(module.Config, arguments)]
            run_script(module.Config, partial(begin, name), module.__doc__)
        sys.stdout.flush()
    except InputError as error:
        end_with(str(error))
    except BrokenPipeError:  # whoever reads, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def begin(name: str, config: Any) -> Any:
    """Run a command: load the libraries of models, then look for garbage as ever, since cycles hold activations."""
    check_the_quickstart(name, config)
    print(
        f"circuitry {name}: loading the libraries of models takes some seconds",
        file=sys.stderr,
        flush=True,
    )
    if name not in WITHOUT_MODELS:
        importlib.import_module("circuitry.models.loading")
    gc.set_threshold(*GARBAGE)
    return importlib.import_module(module_of(name)).main(config)


def print_completion(shell: str) -> None:
    """Print a script that completes commands and options, made by tyro."""
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
    either: Any = Union[tuple(kinds)]  # noqa: UP007
    tyro.cli(either, prog="circuitry", args=["--tyro-print-completion", shell])


def list_of_commands() -> str:
    """Return the list of all commands by group, with a line each."""
    width = max(map(len, COMMANDS))
    lines = [USAGE]
    for group in dict.fromkeys(group for group, _ in COMMANDS.values()):
        lines += ["", group]
        lines += [
            f"  {name:{width}}  {line}"
            for name, (of, line) in COMMANDS.items()
            if of == group
        ]
    return "\n".join(
        [
            *lines,
            "",
            "The programs of the ICML 2025 study: python -m experiments.study, in a checkout.",
        ]
    )

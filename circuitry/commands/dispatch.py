"""Hand a command line over to the command that it names; only that command's module is imported. No torch.

A line that cannot be right is refused before, by the stored help page.
"""

import gc
import importlib
import os
import signal
import sys
from collections.abc import Sequence

import circuitry
from circuitry.commands.command_list import COMMANDS, module_of
from circuitry.commands.completion import completion_script
from circuitry.commands.help_pages import help_page
from circuitry.commands.named_run import with_the_run
from circuitry.commands.wrong_lines import near_words, refuse_wrong
from circuitry.runs.command_line import end_with, run_script
from circuitry.runs.errors import InputError

USAGE = """usage: circuitry COMMAND [OPTIONS]
       circuitry COMMAND --help      lists the options
       circuitry --completion SHELL  prints what completes commands and options in bash, zsh or fish:
                                     source <(circuitry --completion bash)
       circuitry --version"""


def run_command() -> None:
    """Run the command that ``sys.argv`` names, or print the list of all.

    A wrong line ends the process with status 2 and a sentence.
    """
    name, *arguments = sys.argv[1:] or ["--help"]
    try:
        if name in ("--help", "-h"):
            print(list_of_commands())
        elif name == "--version":
            print(f"circuitry {circuitry.__version__}")
        elif name == "--completion":
            print(completion_script({name: help_page(name) for name in COMMANDS}, " ".join(arguments) or "bash"))
        elif name not in COMMANDS:
            raise InputError(f"There is no command {name!r}{near_words(name, list(COMMANDS))}: see circuitry --help.")
        elif {"--help", "-h"} & {*arguments}:
            print(help_page(name).text(), end="")
        else:
            refuse_wrong(help_page(name), arguments)
            arguments = with_the_run(help_page(name), arguments)
            if "--quiet" not in arguments:
                said = f"circuitry {name}: loading the libraries of models takes some seconds"
                print(said, file=sys.stderr, flush=True)
            hand_over(name, arguments)
        sys.stdout.flush()
    except InputError as error:
        end_with(str(error))
    except BrokenPipeError:  # whoever reads, such as head, has had enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(128 + signal.SIGPIPE)


def hand_over(name: str, arguments: Sequence[str]) -> None:
    """Import the module of a command, and run it with some arguments."""
    sys.argv = [f"circuitry {name}", *arguments]
    gc.disable()  # modules that are loaded are no garbage: looking for it takes a fifth of the time
    try:
        module = importlib.import_module(module_of(name))
    except KeyboardInterrupt:
        print("interrupted before any work began", file=sys.stderr)
        sys.exit(130)
    finally:
        gc.freeze()
        gc.enable()
    run_script(module.Config, module.main, module.__doc__, getattr(module, "defaults", None))


def list_of_commands() -> str:
    """Return the list of all commands by group, with a line each."""
    width = max(map(len, COMMANDS))
    lines = [USAGE]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", group]
        lines += [f"  {name:{width}}  {one.help}" for name, one in COMMANDS.items() if one.group == group]
    return "\n".join(lines)

"""Hand a command line over to the command that it names; only that command's module is imported. No torch."""

import importlib
import sys
from collections.abc import Sequence

import circuitry
from circuitry.commands.command_list import COMMANDS, completion_script, module_of
from circuitry.commands.help_pages import help_page
from circuitry.data.names import unknown_name
from circuitry.runs.command_line import GENERAL_HELP, run_script

USAGE = """usage: circuitry COMMAND [OPTIONS]
       circuitry COMMAND --help    lists the options
       circuitry --completion      prints what completes commands and options in bash:
                                   source <(circuitry --completion)"""


def run_command() -> None:
    """Run the command that ``sys.argv`` names, or print the list of all.

    A wrong name ends the process with status 2 and the names that are near.
    """
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print(list_of_commands())
    elif name == "--version":
        print(f"circuitry {circuitry.__version__}")
    elif name == "--completion":
        print(completion_script({name: help_page(name) for name in COMMANDS}))
    elif name not in COMMANDS:
        print(f"error: {unknown_name('command', name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    elif arguments in (["--help"], ["-h"]):
        print(help_page(name), end="")
    else:
        if "--quiet" not in arguments:
            print(f"circuitry {name}: loading the libraries of models takes some seconds", file=sys.stderr, flush=True)
        hand_over(name, arguments)


def hand_over(name: str, arguments: Sequence[str]) -> None:
    """Import the module of a command, and run it with some arguments."""
    sys.argv = [f"circuitry {name}", *arguments]
    try:
        module = importlib.import_module(module_of(name))
    except KeyboardInterrupt:
        print("interrupted before any work began", file=sys.stderr)
        sys.exit(130)
    description = f"{module.__doc__}\n\n{GENERAL_HELP}"
    run_script(module.Config, module.main, description, getattr(module, "defaults", None))


def list_of_commands() -> str:
    """Return the list of all commands by group, with a line each."""
    width = max(map(len, COMMANDS))
    lines = [USAGE]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", group]
        lines += [f"  {name:{width}}  {one.help}" for name, one in COMMANDS.items() if one.group == group]
    return "\n".join(lines)

"""Hand a command line over to the command that it names; only that command's module is imported. No torch."""

import importlib
import sys

import circuitry
from circuitry.commands.command_list import COMMANDS, module_of
from circuitry.data.names import unknown_name
from circuitry.runs.command_line import run_script

USAGE = "usage: circuitry COMMAND [OPTIONS]    (circuitry COMMAND --help lists the options)"


def run_command() -> None:
    """Run the command that ``sys.argv`` names, or print the list of all.

    A wrong name ends the process with status 2 and the names that are near.
    """
    name, *arguments = sys.argv[1:] or ["--help"]
    if name in ("--help", "-h"):
        print(list_of_commands())
    elif name == "--version":
        print(f"circuitry {circuitry.__version__}")
    elif name not in COMMANDS:
        print(f"error: {unknown_name('command', name, COMMANDS)}", file=sys.stderr)
        sys.exit(2)
    else:
        sys.argv = [f"circuitry {name}", *arguments]
        module = importlib.import_module(module_of(name))
        run_script(module.Config, module.main, module.__doc__, getattr(module, "defaults", None))


def list_of_commands() -> str:
    """Return the list of all commands by group, with a line each."""
    width = max(map(len, COMMANDS))
    lines = [USAGE]
    for group in dict.fromkeys(command.group for command in COMMANDS.values()):
        lines += ["", group]
        lines += [f"  {name:{width}}  {one.help}" for name, one in COMMANDS.items() if one.group == group]
    return "\n".join(lines)

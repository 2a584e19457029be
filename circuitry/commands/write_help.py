"""Write the help pages again after a change of options: ``python -m circuitry.commands.write_help``."""

import contextlib
import io
import os
import sys

from circuitry.commands.command_list import COMMANDS
from circuitry.commands.dispatch import hand_over
from circuitry.commands.help_pages import PAGES
from circuitry.runs.files import whole_file

PLAIN = {"COLUMNS": "100", "NO_COLOR": "1"}
"""Variables of the environment that a page is made with."""


def made_page(name: str) -> str:
    """Return the help of a command as its options make it now."""
    before, argv, shown = {key: os.environ.get(key) for key in PLAIN}, sys.argv, io.StringIO()
    try:
        os.environ |= PLAIN
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            hand_over(name, ["--help"])
    finally:
        sys.argv = argv
        for key, value in before.items():
            os.environ.pop(key)
            os.environ |= {} if value is None else {key: value}
    return "\n".join(line.rstrip() for line in shown.getvalue().splitlines()) + "\n"


if __name__ == "__main__":
    for command_name in COMMANDS:
        with whole_file(PAGES / f"{command_name}.txt") as temporary:
            temporary.write_text(made_page(command_name), encoding="utf-8")

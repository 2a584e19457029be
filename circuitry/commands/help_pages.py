"""Help pages of the commands, written once: no model library is loaded to show one. No torch."""

from pathlib import Path

HELP_PAGES = Path(__file__).with_name("help")


def help_page(name: str) -> str:
    """Return the help of a command, as `write_help` wrote it."""
    return (HELP_PAGES / f"{name}.txt").read_text(encoding="utf-8")

"""Help pages of the commands, written once: no model library is loaded to show one, or to refuse a line. No torch."""

import json
import re
import textwrap
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

HELP_PAGES = Path(__file__).with_name("help")
_WIDTH = 100
GENERAL = "Every command also takes"
"""Group of the options that every command has."""
EXIT = "Exit status: 0 done, 2 wrong input, 130 interrupted (Ctrl-C), 143 ended (SIGTERM)."


class Option(NamedTuple):
    """An option of a command, or words that it takes without one (then ``flags`` has a name without hyphens)."""

    flags: tuple[str, ...]
    """``--strict`` and ``--no-strict`` of a switch."""
    group: str
    help: str
    takes: str = ""
    """What the help shows for its values; nothing of a switch."""
    words: int | None = 0
    """How many values; None for any number."""
    none: bool = False
    """Whether the word None is a value."""
    required: bool = False
    wanted: str = ""
    """What a value has to be beside its type."""
    taken: tuple[Any, ...] = ()
    """The words, or the smallest and the largest number, that are taken; nothing for any."""

    @property
    def name(self) -> str:
        """The option as one types it."""
        return self.flags[0]


class HelpPage(NamedTuple):
    """What a command is for, and its options."""

    command: str
    about: str
    options: tuple[Option, ...]
    not_both: tuple[tuple[str, ...], ...] = ()
    """Options that exclude each other."""
    one_of: tuple[tuple[str, ...], ...] = ()
    """Options, at least one is needed."""
    needs: tuple[tuple[str, ...], ...] = ()
    """An option, and those that it needs."""

    @property
    def see(self) -> str:
        """Where all options are listed."""
        return f"circuitry {self.command} --help"

    @property
    def flags(self) -> dict[str, Option]:
        """Each option by what one types."""
        return {flag: option for option in self.options for flag in option.flags if flag.startswith("--")}

    def text(self) -> str:
        """Return the page as it is printed."""
        needed = [f"{option.name} {option.takes}" for option in self.options if option.required]
        words = [f"[{option.name.upper()} ...]" for option in self.options if not option.name.startswith("--")]
        usage = textwrap.wrap(
            " ".join(["usage: circuitry", self.command, *words, *needed, "[OPTIONS]"]),
            width=_WIDTH,
            subsequent_indent=" " * 7,
        )
        groups = list(dict.fromkeys(option.group for option in self.options))
        parts = ["\n".join(usage), self.about]
        for group in groups:
            lines = chain.from_iterable(_lines(option) for option in self.options if option.group == group)
            parts.append("\n".join([f"{group}:", *lines]))
        return "\n\n".join([*parts, EXIT]) + "\n"


def help_page(name: str) -> HelpPage:
    """Return the help of a command, as `write_help` wrote it."""
    found = json.loads((HELP_PAGES / f"{name}.json").read_text(encoding="utf-8"))
    options = tuple(map(_option_of, found.pop("options")))
    pairs = {key: tuple(map(tuple, value)) for key, value in found.items() if isinstance(value, list)}
    return HelpPage(found["command"], found["about"], options, **pairs)


def _option_of(stored: dict[str, Any]) -> Option:
    values: Any = {key: tuple(value) if isinstance(value, list) else value for key, value in stored.items()}
    return Option(**values)


def page_json(page: HelpPage) -> str:
    """Return a page as its file has it, an option a line; values that are the default are left out."""
    options = [
        {key: value for key, value in option._asdict().items() if value != Option._field_defaults.get(key)}
        for option in page.options
    ]
    rest = {key: value for key, value in page._asdict().items() if value and key != "options"}
    lines = ",\n  ".join(json.dumps(option, ensure_ascii=False) for option in options)
    return json.dumps(rest, indent=1, ensure_ascii=False)[:-2] + f',\n "options": [\n  {lines}\n ]\n}}\n'


def _lines(option: Option) -> list[str]:
    """Return the lines of an option: what one types, and what it does."""
    call = textwrap.wrap(
        re.sub(r",(?=\S)", ", ", f"{', '.join(option.flags)} {option.takes}".strip()),
        width=_WIDTH - 2,
        initial_indent="  ",
        subsequent_indent=" " * 6,
    )
    told = textwrap.wrap(option.help, width=_WIDTH - 26)
    if len(call) == 1 and len(call[0]) < 25 and told:
        return [f"{call[0]:25} {told[0]}", *(f"{'':26}{line}" for line in told[1:])]
    return [*call, *(f"{'':26}{line}" for line in told)]

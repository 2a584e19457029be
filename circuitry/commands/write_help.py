"""Write the help pages again after a change of options: ``python -m circuitry.commands.write_help``.

A page is what tyro prints, with three changes: lines of the description stay as they are, options stand in groups by
the class of settings that declares them, and None is no choice.
"""

import contextlib
import importlib
import io
import os
import re
import sys
import textwrap
from collections.abc import Iterator
from dataclasses import fields, is_dataclass
from typing import Any

from circuitry.commands.command_list import COMMANDS, module_of
from circuitry.commands.dispatch import hand_over
from circuitry.commands.help_pages import HELP_PAGES
from circuitry.runs import StudySettings
from circuitry.runs.command_line import GENERAL_HELP, STUDY_HELP
from circuitry.runs.files import whole_file

_PLAIN = {"COLUMNS": "100", "NO_COLOR": "1"}
"""Variables of the environment that a page is made with."""
_OPTION = re.compile(r"^  (?:-h, )?--(?:no-)?([a-z0-9.-]+)", re.MULTILINE)


def made_page(name: str) -> str:
    """Return the help of a command as its options make it now."""
    module = importlib.import_module(module_of(name))
    groups: dict[str, list[str]] = {}
    for option, text in _blocks(_printed(name)):
        groups.setdefault(_group(module.Config, option), []).append(text)
    study = [STUDY_HELP] if issubclass(module.Config, StudySettings) else []
    first = sorted(groups, key=lambda group: not any("--model " in text for text in groups[group]))
    told = "\n".join("\n".join(["", f"{group}:", *groups[group]]) for group in first)
    start = [f"usage: circuitry {name} [OPTIONS]", str(module.__doc__).strip(), *study, GENERAL_HELP]
    page = "\n\n".join(start) + "\n" + told
    return "\n".join(line.rstrip() for line in page.splitlines()) + "\n"


def _printed(name: str) -> str:
    before, argv, shown = {key: os.environ.get(key) for key in _PLAIN}, sys.argv, io.StringIO()
    try:
        os.environ |= _PLAIN
        with contextlib.redirect_stdout(shown), contextlib.suppress(SystemExit):
            hand_over(name, ["--help"])
    finally:
        sys.argv = argv
        for key, value in before.items():
            os.environ.pop(key)
            os.environ |= {} if value is None else {key: value}
    printed = re.sub(r"\s*\(default:\s*(None)?\)", "", shown.getvalue()).replace("{None}|", "").replace("{None,", "{")
    printed = re.sub(r"\{?\[(\w+) \[\1 \.\.\.\]\]\}?", r"[\1 ...]", printed)
    header = re.search(r"^ (?:positional arguments|options) *$", printed, re.MULTILINE)
    return printed[header.end() if header else 0 :]


def _blocks(printed: str) -> Iterator[tuple[str, str]]:
    """Yield each option with its line and what it does."""
    starts = [*_OPTION.finditer(printed)]
    for match, following in zip(starts, [*starts[1:], None], strict=True):
        text = printed[match.start() : None if following is None else following.start()]
        call, _, told = re.sub(r"\n +", "  ", text.strip()).partition("  ")
        wrapped = textwrap.wrap(" ".join(told.split()), width=74)
        inline = len(call) < 23
        lines = [f"  {call:23} {wrapped[0]}" if inline and wrapped else f"  {call}"]
        yield match[1], "\n".join([*lines, *(f"{'':26}{line}" for line in wrapped[inline:])])


def _group(settings: Any, option: str) -> str:
    """Return the first words of the class of settings that declares an option."""
    head, _, rest = option.partition(".")
    for field in fields(settings):
        value_type = type(field.default)
        if rest and field.name == head.replace("-", "_"):
            return _group(value_type, rest)
        if is_dataclass(value_type) and option.replace("-", "_") in value_type.__dataclass_fields__:
            return _group(value_type, option)
    declaring = [kind for kind in settings.__mro__ if option.replace("-", "_") in vars(kind).get("__annotations__", {})]
    return re.split(r"[.:;]", str((declaring or [settings])[-1].__doc__))[0]


if __name__ == "__main__":
    for command_name in COMMANDS:
        with whole_file(HELP_PAGES / f"{command_name}.txt") as temporary:
            temporary.write_text(made_page(command_name), encoding="utf-8")

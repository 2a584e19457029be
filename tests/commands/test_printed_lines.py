"""Every command line that pages, help texts, messages and the explorer show is right by the commands' own check.

A line of a block of code is complete, unless three dots stand for the rest or for values. Elsewhere a command is either
complete, or has none of the options that it needs.
"""

import ast
import importlib
import io
import re
import shlex
from collections.abc import Iterator
from contextlib import redirect_stderr
from dataclasses import MISSING, fields
from functools import cache
from itertools import chain, pairwise
from pathlib import Path
from typing import Any, get_type_hints

import tyro

from circuitry import InputError
from circuitry.commands.dispatch import COMMANDS, module_of
from circuitry.runs.command_line import read_line
from circuitry.runs.settings_file import option_name
from experiments.study.__main__ import PROGRAMS
from tests.support.committed_tables import PAGES, ROOT
from tests.support.scripts import script

DOTS = ("...", "…")
SCRIPT = re.compile(r"experiments/(\w+)\.py")
VALUE = "1"
"""Stands for what a shell, a reader or a program puts in."""
OF_DISPATCH = ("--help", "--version", "--completion")
TEXTS = [*PAGES, *(ROOT / name for name in ("CONTRIBUTING.md", "CHANGELOG.md"))]
SOURCES = [
    *sorted((ROOT / "circuitry").rglob("*.py")),
    *sorted((ROOT / "experiments").glob("*.py")),
]
SCRIPTS_OF_PAGES = sorted((ROOT / "circuitry" / "explorer" / "page").glob("*.js"))
FENCED = re.compile(r"^```\{?(\w[\w-]*)?.*?\n(.*?)^```", re.DOTALL | re.MULTILINE)
SPAN = re.compile(r"(?<!`)(`{1,2})(?!`)(.+?)(?<!`)\1(?!`)", re.DOTALL)
SENTENCE = re.compile(
    rf"circuitry (?:{'|'.join(COMMANDS)})\b(?: --[a-z][\w.-]*(?:[ =][^\s-]\S*)*)*"
)
"""A command in a sentence without marks of code, with the options that follow."""


def shown_in_text(text: str, *, prose: bool = False) -> Iterator[tuple[str, bool]]:
    """Yield command lines and whether each is a line of a block of code; of prose also those without marks of code."""
    blocks = [
        block for kind, block in FENCED.findall(text) if kind in ("", "bash", "console")
    ]
    text = FENCED.sub("", text)
    indented = [line for line in text.splitlines() if line.startswith("    ")]
    for line in chain.from_iterable(
        joined(block) for block in [*blocks, "\n".join(indented)]
    ):
        yield line, True
    text = "\n".join(line for line in text.splitlines() if not line.startswith("    "))
    for _, span in SPAN.findall(text):
        yield " ".join(span.split()), False
    if prose:
        for line in SENTENCE.findall(" ".join(SPAN.sub("", text).split())):
            yield line.rstrip(".,:;)"), False


def joined(block: str) -> list[str]:
    return re.sub(r"\\\n\s*", " ", block).splitlines()


def shown_in_code(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the command lines of a module's texts; in an f-string each value is a word."""
    text = path.read_text(encoding="utf-8")
    tree = ast.parse(
        text if re.search(r"circuitry (?!import)|python experiments", text) else ""
    )
    within = {
        id(part)
        for node in ast.walk(tree)
        if isinstance(node, ast.JoinedStr)
        for part in node.values
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.JoinedStr):
            text = "".join(
                str(part.value) if isinstance(part, ast.Constant) else VALUE
                for part in node.values
            )
        elif (
            isinstance(node, ast.Constant)
            and isinstance(node.value, str)
            and id(node) not in within
        ):
            text = node.value
        else:
            continue
        yield from shown_in_text(text, prose=True)


def shown_in_a_page(path: Path) -> Iterator[tuple[str, bool]]:
    """Yield the command lines of the explorer's code: those of a block, and those in a sentence."""
    text = re.sub(r"\$\{[^{}]*\}", VALUE, path.read_text(encoding="utf-8"))
    for line in re.findall(r"<(?:code|pre)>(circuitry .*?)</", text):
        yield line, True
    for line in SENTENCE.findall(re.sub(r"<(code|pre)>.*?</\1>", "", text)):
        yield line.rstrip(".,:;"), False


def commands_of(line: str) -> Iterator[list[str]]:
    """Yield the words of each command of a shell's line; a variable or a name in capital letters is a word."""
    line = re.sub(r"\$\{?\w+\}?", VALUE, line.removeprefix("$ "))
    lexer = shlex.shlex(line, posix=True, punctuation_chars="();&|<>")
    lexer.whitespace_split = True
    try:
        words = list(lexer)
    except ValueError:  # an apostrophe of a sentence
        words = line.split()
    command: list[str] | None = None
    for word in [*words, ";"]:
        if set(word) <= set("();&|<>"):
            if command:
                yield command
            command = None
        elif command is not None:
            command.append(
                VALUE if re.fullmatch(r"[A-Z_]{2,}", word) and command else word
            )
        elif word in ("circuitry", "clip-circuitry", "experiments.study"):
            command = []
        elif SCRIPT.fullmatch(word):
            command = [word]


def wrong_in(line: str, complete: bool) -> list[str]:
    found = []
    for words in commands_of(line):
        name, *arguments = words
        if (
            name in (*OF_DISPATCH, *DOTS, VALUE)
            or re.fullmatch("[A-Z]+", name)
            or "--help" in arguments
        ):
            continue
        of_script = SCRIPT.fullmatch(name)
        if name not in {**COMMANDS, **PROGRAMS} and not (
            of_script and (ROOT / name).is_file()
        ):
            found.append(f"{line!r}: no command {name!r}")
        elif not of_script:
            module = (
                module_of(name)
                if name in COMMANDS
                else f"experiments.study.{name.replace('-', '_')}_command"
            )
            found += wrong_for(
                importlib.import_module(module).Config, line, words, complete
            )
        elif arguments:
            found += wrong_for(
                loaded(of_script[1]).Config,
                line,
                [word for word in words if word not in DOTS],
                True,
            )
    return found


loaded = cache(script)


def wrong_for(
    kind: type[Any], line: str, words: list[str], complete: bool
) -> list[str]:
    """Return what settings say of the words of a command; what an incomplete line lacks is put in."""
    hints = get_type_hints(kind, include_extras=True)
    options = {
        f"--{option_name(one.name, hints[one.name])}": one for one in fields(kind)
    }
    needed = [
        name
        for name, one in options.items()
        if one.default is MISSING
        and one.default_factory is MISSING
        and tyro.conf.Positional not in getattr(hints[one.name], "__metadata__", ())
    ]
    takes_values = {
        name for name, one in options.items() if hints[one.name] is not bool
    }
    arguments = [
        VALUE if word in DOTS and before in takes_values else word
        for before, word in pairwise(words)
    ]
    typed = {word.partition("=")[0] for word in arguments}
    groups = [
        [f"--{name}" for name in group]
        for of in kind.__mro__
        for group in vars(of).get("ONE_OF", ())
    ]
    needed += [group[0] for group in groups if not typed & {*group}]
    if typed & {*DOTS} or not (complete or typed & {*needed}):
        arguments += [
            word for option in needed if option not in typed for word in (option, VALUE)
        ]
    if "--config" in arguments:  # of a run that nobody has made
        del arguments[(place := arguments.index("--config")) : place + 2]
        arguments += [
            word for option in needed if option not in typed for word in (option, VALUE)
        ]
    try:
        with redirect_stderr(io.StringIO()) as said:
            read_line(kind, [word for word in arguments if word not in DOTS])
    except (InputError, SystemExit) as error:
        return [f"{line!r}: {' '.join(said.getvalue().split()) or error}"]
    return []


def test_command_lines_that_are_shown_are_right() -> None:
    shown = {
        path.relative_to(ROOT): list(shown_in_text(path.read_text(encoding="utf-8")))
        for path in TEXTS
    }
    shown |= {path.relative_to(ROOT): list(shown_in_code(path)) for path in SOURCES}
    shown |= {
        path.relative_to(ROOT): list(shown_in_a_page(path)) for path in SCRIPTS_OF_PAGES
    }
    for suffix, fewest in ((".md", 50), (".py", 50), (".js", 5)):
        lines = [
            line
            for path, found in shown.items()
            if path.suffix == suffix
            for line, _ in found
        ]
        assert len([words for line in lines for words in commands_of(line)]) > fewest
    wrong = {
        str(path): [said for one in found for said in wrong_in(*one)]
        for path, found in shown.items()
    }
    assert {path: said for path, said in wrong.items() if said} == {}

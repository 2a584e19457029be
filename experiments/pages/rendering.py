"""Pages of results made of their tables: a template in Markdown beside a module that names its numbers.

``circuits.md`` holds the sentences of a page, with a place for each number, and ``circuits.py`` beside it the numbers,
each an expression over committed tables. Templates may name numbers of other pages, too: ``{circuits.rounds}``.
A place ends in how its number is written: ``.2f`` and the like; ``.0%`` is percent with a space. Spans, intervals and
lists write each of their numbers so; ``|`` at the end makes a list the cells of a row. Zero has no sign.

Write all pages again, after a table or a sentence changed:

    python -m experiments.pages
"""

import importlib
import re
import textwrap
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from string import Formatter
from types import ModuleType
from typing import Any

from experiments.pages.tables import Interval, Span

TEMPLATES = Path(__file__).parent
ROOT = TEMPLATES.parents[1]
QUESTIONS = (
    "own_parts",
    "circuits",
    "edges",
    "real",
    "style",
    "mark",
    "trust",
    "speed",
)
"""Pages with questions and their answers, in the order of the list of results; each has a module of numbers."""
PAGES = (*QUESTIONS, "index")
README = "five_results"
"""The template of the README's section on results."""
SECTION = re.compile(r"(?<=^## Five results\n\n).*?(?=\n## )", re.DOTALL | re.MULTILINE)
"""The place of that section in the README."""


class NumberFormatter(Formatter):
    """Write numbers as the pages do."""

    def format_field(self, value: Any, spec: str) -> str:
        if isinstance(value, Interval):
            low = self.format_field(value.low, spec)
            high = self.format_field(value.high, spec)
            return f"{self.format_field(value.value, spec)} [{low}, {high}]"
        if isinstance(value, Span):
            low = self.format_field(value.low, spec).removesuffix(" %")
            return f"{low} to {self.format_field(value.high, spec)}"
        if isinstance(value, Sequence) and not isinstance(value, str):
            separator = " | " if spec.endswith("|") else ", "
            of_each = spec.removesuffix("|")
            return separator.join(self.format_field(each, of_each) for each in value)
        if spec.endswith("%"):
            # 0.285 is 28.499999999999996 percent in floating point.
            value = round(100 * value, 6)
            return f"{self.format_field(value, spec[:-1] + 'f')} %"
        number = format(value, spec).replace("e-0", "e-")
        # A number that rounds to zero has no sign, since its sign is not shown by the digits.
        return re.sub(r"^[-+](?=0\.?0*$)", "", number)


def filled(template: str, *values: object, **named: object) -> str:
    """Return a template with its numbers written."""
    return NumberFormatter().vformat(template, values, named)


def template(page: str) -> str:
    """Return the template of a page."""
    return (TEMPLATES / f"{page}.md").read_text(encoding="utf-8")


@cache
def numbers(page: str) -> ModuleType:
    """Return the module that names the numbers of a page."""
    return importlib.import_module(f"experiments.pages.{page}")


@cache
def rendered(page: str) -> str:
    """Return a page as Markdown, its numbers computed from the committed tables."""
    named: dict[str, object] = {name: numbers(name) for name in QUESTIONS}
    # A page names its own numbers without the name of its module.
    if page in QUESTIONS:
        named |= vars(numbers(page))
    if page == "index":
        named["answers"] = {name: answers(name) for name in QUESTIONS}
    return filled(template(page), **named)


def answers(page: str) -> str:
    """Return a list of the questions of a page with their answers: its titles, and the first paragraph below each."""
    sections = re.findall(
        r"^## (.+?\?)\n\n(.+?)\n\n", rendered(page), flags=re.DOTALL | re.MULTILINE
    )
    return "\n".join(answer_of(page, *section) for section in sections)


def answer_of(page: str, question: str, answer: str) -> str:
    """Return one question with its answer, folded to lines of 120 characters."""
    anchor = re.sub(r"[^\w -]", "", question.lower()).replace(" ", "-")
    # A number and its percent sign stay on one line.
    text = f"- [{question}]({page}.md#{anchor}) {answer}".replace(" %", "\xa0%")
    folded = textwrap.fill(
        text,
        120,
        subsequent_indent="  ",
        break_long_words=False,
        break_on_hyphens=False,
    )
    return folded.replace("\xa0", " ")


def path_of(page: str) -> Path:
    """Return the file that is made of a template: a page of its own, or the README with one section of it."""
    return ROOT / ("README.md" if page == README else f"docs/results/{page}.md")


def written(page: str) -> str:
    """Return the whole text that the file of a page should have."""
    if page != README:
        return rendered(page)
    text = path_of(page).read_text(encoding="utf-8")
    # Without the section nothing would be written, and nothing compared.
    (section,) = SECTION.findall(text)
    return text.replace(section, rendered(page))

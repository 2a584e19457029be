"""Numbers in README and documentation are what their committed tables give, rounded as there.

The modules of `tests.claims` hold phrases with a place for each number and comparative word, and where these come from.
"""

import re
from functools import cache
from pathlib import Path
from string import Formatter

import pytest

from experiments.study.toy_page import written_page
from tests.claims import CLAIMS
from tests.support.committed_tables import DOCS, RESULT_PAGES, RESULTS, ROOT

OF_THE_EXAMPLE = {"2"}
"""Percentages of README's example, which its own test runs."""
COMPARATIVES = re.compile(
    r"\b(significant(ly)?|above|below|at (least|most)|least|most|farthest|lowest|highest|largest|smallest|best|leads?|"
    r"falls|not find|none of|(?<!node )overlap)\b"
)
FURTHER = re.compile(
    rf"{COMPARATIVES.pattern}|\b(higher|lower|more|fewer|less|better|worse|larger|smaller|faster|slower|than|only|all|"
    r"every|none|both|never|always)\b",
    re.IGNORECASE,
)
"""Words of comparison of the pages of results, where a word that compares nothing measured is another word."""
NUMBER = re.compile(r"(?<![\w./-])[-+]?\d+(,\d{3})*(\.\d+)?(e-\d+)?(?!\w)")
SETTING = re.compile(
    r"95 % interval|0\.5 is chance|\d+ px|Gauss-Radau \d|\d cores|PyTorch [\d.]+"
)
"""Numbers of a page that were set, not measured."""
MADE = "toy.md"
"""The page that is made of its tables, word by word."""
CHECKED = [page for page in RESULT_PAGES if page.name != MADE]


def in_one_line(text: str) -> str:
    """Return a text with single spaces, and hyphens for minus signs."""
    return re.sub(r"\s+", " ", text.replace("\N{MINUS SIGN}", "-"))


SAID = in_one_line(DOCS)


@cache
def pieces_of(phrase: str) -> list[tuple[str, bool]]:
    """Return the pieces of a phrase with its numbers, without minus zero, and whether each piece is computed."""
    values, pieces = iter(CLAIMS[phrase]()), []
    for literal, name, spec, _ in Formatter().parse(phrase):
        pieces.append((literal, False))
        if name is not None:
            pieces.append(
                (re.sub(r"^-(0\.0+)$", r"\1", format(next(values), spec or "")), True)
            )
    return pieces


def said_in(phrase: str) -> str:
    return "".join(piece for piece, _ in pieces_of(phrase))


def computed_in(text: str) -> set[int]:
    """Return the places of a text that claims compute."""
    computed: set[int] = set()
    for phrase in CLAIMS:
        said = said_in(phrase)
        for found in re.finditer(
            f"(?i:{re.escape(said[0])}){re.escape(said[1:])}", text
        ):
            start = found.start()
            for piece, is_computed in pieces_of(phrase):
                computed |= (
                    set(range(start, start + len(piece))) if is_computed else set()
                )
                start += len(piece)
    return computed


def not_computed(
    text: str, *patterns: re.Pattern[str], hidden: str = r"\0"
) -> list[str]:
    """Return what of a text is like a pattern and no claim computes, each with what stands before it."""
    computed = computed_in(text)
    shown = re.sub(hidden, lambda found: " " * len(found[0]), text)
    matches = [match for pattern in patterns for match in pattern.finditer(shown)]
    return [
        text[: match.end()][-60:] for match in matches if match.start() not in computed
    ]


def sentences_of(page: Path) -> str:
    """Return what a page says, without titles, heads of tables and blocks of code."""
    text = page.read_text(encoding="utf-8")
    text = re.sub(
        r"^```.*?^```$|^#[^\n]*$|^\|[^\n]*\|\n(?=\|[-|: ]+\|$)",
        "",
        text,
        flags=re.DOTALL | re.MULTILINE,
    )
    return in_one_line(text)


HIDDEN = rf"`[^`]*`|\[[^]]*\?\](?=\()|\]\([^)]*\)|!\[[^]]*\]|{SETTING.pattern}"
"""Code, titles that are linked, links and pictures, and settings."""


def test_comparative_words_of_the_five_results_are_computed() -> None:
    readme = in_one_line((ROOT / "README.md").read_text(encoding="utf-8"))
    assert (
        not_computed(
            readme.partition("## Five results")[2].partition("## Documentation")[0],
            COMPARATIVES,
        )
        == []
    )


@pytest.mark.parametrize("page", CHECKED, ids=lambda page: page.stem)
def test_numbers_and_comparative_words_of_results_are_computed(page: Path) -> None:
    assert not_computed(sentences_of(page), FURTHER, NUMBER, hidden=HIDDEN) == []


@pytest.mark.parametrize("page", RESULT_PAGES, ids=lambda page: page.stem)
def test_the_list_of_questions_has_each_with_its_answer(page: Path) -> None:
    listed = in_one_line((page.parent / "index.md").read_text(encoding="utf-8"))
    sections = re.findall(
        r"^## (.+?)\n\n(.+?)\n\n",
        page.read_text(encoding="utf-8"),
        flags=re.DOTALL | re.MULTILINE,
    )
    for question, answer in sections if page.name not in ("index.md", MADE) else []:
        place = re.sub(r"[^\w -]", "", question.lower()).replace(" ", "-")
        entry = f"[{question}]({page.name}#{place}) "
        assert entry + in_one_line(answer) in listed


def test_the_page_on_the_study_in_small_is_made_of_its_tables() -> None:
    assert (ROOT / "docs" / "results" / MADE).read_text(
        encoding="utf-8"
    ) == written_page(RESULTS / "toy_study")


@pytest.mark.parametrize("phrase", CLAIMS)
def test_readme_says_what_the_tables_give(phrase: str) -> None:
    assert said_in(phrase) in SAID, f"no page says: {said_in(phrase)}"


@pytest.mark.parametrize("page", ["README.md", "docs/limits.md"])
def test_pages_quote_numbers_that_the_results_have(page: str) -> None:
    prose = re.sub(
        r"```.*?```|`[^`]*`|\]\([^)]*\)",
        "",
        (ROOT / page).read_text(encoding="utf-8"),
        flags=re.DOTALL,
    )
    measured = set(re.findall(r"(?<![\d.])-?\d+\.\d\d+", prose)) | set(
        re.findall(r"(\d+)(?= %)", prose)
    )
    results = "".join(page.read_text(encoding="utf-8") for page in RESULT_PAGES)
    known = set(re.findall(r"-?\d+(?:\.\d+)?", results)) | OF_THE_EXAMPLE
    assert sorted(measured - known) == []

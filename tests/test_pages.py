"""Pages of results are what their templates and the committed tables give, and a template states no number itself."""

import re

import pytest

from experiments.pages.rendering import (
    PAGES,
    README,
    filled,
    path_of,
    rendered,
    template,
    written,
)
from experiments.pages.tables import Interval, Span, supported
from tests.support.committed_tables import DOCS, RESULT_PAGES, ROOT

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
    r"95 % interval|0\.5 is chance|\d+ px|Gauss-Radau \d|\d cores|PyTorch [\d.]+|in 25 steps|Student's of 95 %|"
    r"Over the first 33 models.*?No rule|first 33 models|[Ss]eeds 0 and 4|at least 0\.0001|arXiv [\d.]+"
)
"""Numbers of a page that were set, not measured, and what was once published."""
COUNTED_WORDS = re.compile(
    r"(more|less|as much) in (?=\{)|needs more:|errs by more|largest scores|are significant after"
)
"""Words of comparison that say what is counted: the count beside them is computed."""
HIDDEN = re.compile(
    rf"`[^`]*`|\[[^]]*\?\](?=\()|\]\([^)]*\)|!\[[^]]*\]|{SETTING.pattern}|{COUNTED_WORDS.pattern}"
)
"""Code, titles that are linked, links and pictures, settings, and words that say what is counted."""
NOT_SENTENCES = re.compile(
    r"^```.*?^```|^#[^\n]*$|^\|[^\n]*\|\n(?=\|[-|: ]+\|$)", re.DOTALL | re.MULTILINE
)
"""Blocks of code, titles, and heads of tables."""
PLACE = re.compile(r"\{[^{}]*\}")


def in_one_line(text: str) -> str:
    """Return a text with single spaces, and hyphens for minus signs."""
    return re.sub(r"\s+", " ", text.replace("\N{MINUS SIGN}", "-"))


def not_computed(text: str, *patterns: re.Pattern[str]) -> list[str]:
    """Return what of a template is like a pattern and no place computes, each with what stands before it."""
    sentences = in_one_line(NOT_SENTENCES.sub("", text))
    shown = PLACE.sub(" ", HIDDEN.sub(" ", sentences))
    matches = [match for pattern in patterns for match in pattern.finditer(shown)]
    return [shown[: match.end()][-60:] for match in matches]


@pytest.mark.parametrize("page", [*PAGES, README])
def test_a_page_is_what_its_template_and_the_tables_give(page: str) -> None:
    text = written(page)
    assert path_of(page).read_text(encoding="utf-8") == text, (
        "write the pages again: python -m experiments.pages"
    )
    assert not re.search(r"\bnan\b", text), "a number is unknown"


def test_each_page_of_results_has_a_template() -> None:
    assert {page.stem for page in RESULT_PAGES} == set(PAGES)


@pytest.mark.parametrize("page", PAGES)
def test_numbers_and_comparative_words_of_results_are_computed(page: str) -> None:
    assert not_computed(template(page), NUMBER, FURTHER) == []


def test_numbers_and_comparative_words_of_the_five_results_are_computed() -> None:
    assert not_computed(template(README), NUMBER, COMPARATIVES) == []


def test_a_number_or_a_comparison_in_a_template_is_seen() -> None:
    sentence = "Masks recover {masks:.2f}, which is more; rounds 0.87."
    assert len(not_computed(sentence, NUMBER, FURTHER)) == 2


@pytest.mark.parametrize("sentence", rendered("quoted").strip().split("\n\n"))
def test_other_pages_say_what_the_tables_give(sentence: str) -> None:
    assert sentence in in_one_line(DOCS)


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
    known = set(re.findall(r"-?\d+(?:\.\d+)?", results))
    assert sorted(measured - known) == []


@pytest.mark.parametrize(
    ("spec", "value", "expected"),
    [
        (".2f", -0.001, "0.00"),
        ("+.2f", 0.001, "0.00"),
        (".2f", Span(0.2, 0.921), "0.20 to 0.92"),
        (".0%", Span(0.2, 0.285), "20 to 28 %"),
        ("+.1f", Interval(1, -0.5, 2.5), "+1.0 [-0.5, +2.5]"),
        (".1f", [1.0, 2.0], "1.0, 2.0"),
        ("", "the same part", "the same part"),
    ],
)
def test_how_numbers_are_written(spec: str, value: object, expected: str) -> None:
    assert filled(f"{{:{spec}}}", value) == expected


def test_words_that_the_tables_do_not_bear_out_are_refused() -> None:
    assert supported("more", True) == "more"
    with pytest.raises(AssertionError, match="the tables do not say: more"):
        supported("more", False)

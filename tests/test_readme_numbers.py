"""Numbers in README, documentation and experiments/RESULTS.md are what their committed tables give, rounded as there.

The modules of `tests.claims` hold phrases with a place for each number and comparative word, and where these come from.
"""

import importlib
import pkgutil
import re
from collections.abc import Iterable

import pytest

from tests import claims
from tests.support.committed_tables import DOCS, RESULTS_PAGE, ROOT, Numbers

CLAIMS: dict[str, Numbers] = {
    phrase: numbers
    for module in pkgutil.iter_modules(claims.__path__)
    for phrase, numbers in importlib.import_module(f"{claims.__name__}.{module.name}").CLAIMS.items()
}
OF_THE_EXAMPLE = {"2"}
"""Percentages of README's example, which its own test runs."""
COMPARATIVES = re.compile(
    r"\b(significant(ly)?|above|below|at (least|most)|least|most|farthest|lowest|highest|largest|smallest|best|leads?|"
    r"falls|not find|none of|(?<!node )overlap)\b"
)


def in_one_line(text: str) -> str:
    """Return a text with single spaces, and hyphens for minus signs."""
    return re.sub(r"\s+", " ", text.replace("\N{MINUS SIGN}", "-"))


SAID = in_one_line(DOCS)


def said_in(phrase: str, numbers: Iterable[object]) -> str:
    """Return a phrase with its numbers, without minus zero."""
    return re.sub(r"-(0\.0+)(?!\d)", r"\1", phrase.format(*numbers))


def not_computed(text: str) -> list[str]:
    """Return the comparative words of a text that no claim computes, each with what stands before it."""
    computed: set[int] = set()
    for phrase, numbers in CLAIMS.items():
        if not all(words in text for words in re.split(r"{[^}]*}", phrase)):
            continue
        values = list(numbers())
        if (start := text.find(said_in(phrase, values))) >= 0:
            marked = said_in(phrase, [f"\0{value}\0" if isinstance(value, str) else value for value in values])
            for i, piece in enumerate(marked.split("\0")):
                computed |= set(range(start, start + len(piece))) if i % 2 else set()
                start += len(piece)
    return [text[: m.end()][-60:] for m in COMPARATIVES.finditer(text) if m.start() not in computed]


def test_comparative_words_of_the_five_results_are_computed() -> None:
    readme = in_one_line((ROOT / "README.md").read_text(encoding="utf-8"))
    assert not_computed(readme.partition("## Five results")[2].partition("## Documentation")[0]) == []


@pytest.mark.parametrize("phrase", CLAIMS)
def test_readme_says_what_the_tables_give(phrase: str) -> None:
    said = said_in(phrase, CLAIMS[phrase]())
    assert said in SAID, f"neither README nor RESULTS says: {said}"


@pytest.mark.parametrize("page", ["README.md", "docs/limits.md"])
def test_pages_quote_numbers_that_the_results_have(page: str) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    measured = set(re.findall(r"(?<![\d.])-?\d+\.\d\d+", prose)) | set(re.findall(r"(\d+)(?= %)", prose))
    known = set(re.findall(r"-?\d+(?:\.\d+)?", RESULTS_PAGE)) | OF_THE_EXAMPLE
    assert sorted(measured - known) == []

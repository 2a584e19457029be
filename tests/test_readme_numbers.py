"""Numbers in README, documentation and experiments/RESULTS.md are what their committed tables give, rounded as there.

The modules of `tests.claims` hold phrases of the text with a place for each number, and how the numbers come from the
tables. Where a phrase or a table changes alone, the text lacks what the table makes. To change a phrase, change it
there, too.
"""

import importlib
import pkgutil
import re

import pytest

from tests import claims
from tests.support.committed_tables import DOCS, RESULTS_PAGE, ROOT, Numbers

CLAIMS: list[tuple[str, Numbers]] = [
    claim
    for module in pkgutil.iter_modules(claims.__path__)
    for claim in importlib.import_module(f"{claims.__name__}.{module.name}").CLAIMS
]
OF_THE_EXAMPLE = {"40"}
"""Percentages of README's example, which its own test runs."""


def in_one_line(text: str) -> str:
    """Return a text with single spaces, and hyphens for minus signs."""
    return re.sub(r"\s+", " ", text.replace("\N{MINUS SIGN}", "-"))


@pytest.mark.parametrize(("phrase", "numbers"), CLAIMS, ids=[phrase for phrase, _ in CLAIMS])
def test_readme_says_what_the_tables_give(phrase: str, numbers: Numbers) -> None:
    said = re.sub(r"-(0\.0+)(?!\d)", r"\1", phrase.format(*numbers()))  # no minus zero
    assert said in in_one_line(DOCS), f"neither README nor RESULTS says: {said}"


@pytest.mark.parametrize("page", ["README.md", "docs/limits.md"])
def test_pages_quote_numbers_that_the_results_have(page: str) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`|\]\([^)]*\)", "", (ROOT / page).read_text(encoding="utf-8"), flags=re.DOTALL)
    measured = set(re.findall(r"(?<![\d.])-?\d+\.\d\d+", prose)) | set(re.findall(r"(\d+)(?= %)", prose))
    known = set(re.findall(r"-?\d+(?:\.\d+)?", RESULTS_PAGE)) | OF_THE_EXAMPLE
    assert sorted(measured - known) == []

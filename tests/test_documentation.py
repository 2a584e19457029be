"""Pages of the documentation fit the package: rooms have pages, and examples call what exists."""

import ast
import re
from pathlib import Path

import pytest

import circuitry
from tests.support.committed_tables import PAGES, ROOT
from tests.test_docstrings import misfits

ROOMS = sorted(path.parent.name for path in Path(circuitry.__file__).parent.glob("*/__init__.pyi"))


def blocks(page: Path) -> list[str]:
    return re.findall(
        r"^```(?:python|\{code-cell\})\n(.*?)^```", page.read_text(encoding="utf-8"), re.DOTALL | re.MULTILINE
    )


def test_every_room_has_a_page() -> None:
    pages = [path.stem for path in (ROOT / "docs" / "api").glob("*.md") if path.stem != "index"]
    assert sorted(pages) == ROOMS


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem)
def test_examples_of_a_page_call_what_exists_by_public_names(page: Path) -> None:
    assert [wrong for block in blocks(page) for wrong in misfits(block)] == []
    for node in (node for block in blocks(page) for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith("circuitry"):
            assert str(node.module).count(".") <= 1 or node.module == "circuitry.data.drawn", "import from rooms"


def test_no_line_of_a_page_is_a_comment_by_mistake() -> None:
    """A line that begins with a percent sign is not shown."""
    assert [path.name for path in PAGES if re.search(r"^\s*%", path.read_text(encoding="utf-8"), re.MULTILINE)] == []

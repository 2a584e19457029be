"""Pages of the documentation fit the package: rooms have pages, and examples call what exists."""

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import circuitry
from tests.support.committed_tables import PAGES, ROOT
from tests.test_docstrings import misfits

ROOMS = sorted(
    path.parent.name for path in Path(circuitry.__file__).parent.glob("*/__init__.pyi")
)


def blocks(page: Path) -> list[str]:
    return re.findall(
        r"^```(?:python|\{code-cell\})\n(.*?)^```",
        page.read_text(encoding="utf-8"),
        re.DOTALL | re.MULTILINE,
    )


def test_every_room_has_a_page() -> None:
    pages = [
        path.stem
        for path in (ROOT / "docs" / "api").glob("*.md")
        if path.stem != "index"
    ]
    assert sorted(pages) == ROOMS


@pytest.mark.parametrize(
    "page", [page for page in PAGES if blocks(page)], ids=lambda page: page.stem
)
def test_examples_of_a_page_call_what_exists_by_public_names(page: Path) -> None:
    assert [wrong for block in blocks(page) for wrong in misfits(block)] == []
    for node in (node for block in blocks(page) for node in ast.walk(ast.parse(block))):
        if isinstance(node, ast.ImportFrom) and str(node.module).startswith(
            "circuitry"
        ):
            assert str(node.module).count(".") <= 1, "import from rooms"


def test_no_line_of_a_page_is_a_comment_by_mistake() -> None:
    """A line that begins with a percent sign is not shown."""
    assert [
        path.name
        for path in PAGES
        if re.search(r"^\s*%", path.read_text(encoding="utf-8"), re.MULTILINE)
    ] == []


def test_ci_calls_the_line_that_the_readme_gives_for_the_tests() -> None:
    """It reads the line from the README; the page for contributors has the same one."""
    readme, contributing, ci = (
        (ROOT / name).read_text(encoding="utf-8")
        for name in ("README.md", "CONTRIBUTING.md", ".ci/run")
    )
    (line,) = (line for line in readme.splitlines() if " -m pytest " in line)
    assert line in contributing.splitlines()
    assert "line=$(grep -m 1 -- ' -m pytest ' README.md)" in ci
    assert "-m pytest" not in ci.replace("-- ' -m pytest '", "")


def test_nobody_is_told_to_install_the_package_by_a_name_that_is_not_published() -> (
    None
):
    """It is installed from its sources, so an extra is one of a checkout."""
    texts = [
        *PAGES,
        *(ROOT / "circuitry").rglob("*.py"),
        *(ROOT / "experiments").rglob("*.py"),
    ]
    assert [
        path.name
        for path in texts
        if "clip-circuitry[" in path.read_text(encoding="utf-8")
    ] == []


def test_every_package_has_one_lower_bound() -> None:
    """`.ci/lowest.py` installs it, and refuses requirements of another form."""
    done = subprocess.run(
        [sys.executable, "-c", "import lowest; print(*lowest.lowest_versions())"],
        cwd=ROOT / ".ci",
        capture_output=True,
        text=True,
        check=True,
    )
    pins = done.stdout.split()
    bounds = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))[
        "project"
    ]["dependencies"]
    assert pins[: len(bounds)] == [
        re.sub(r"(\[\w+\])?>=", "==", bound) for bound in bounds
    ]

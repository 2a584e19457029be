"""Sizes of today: whoever raises one says in the commit what for; whoever adds removes, see CONTRIBUTING."""

import ast
import io
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import circuitry
from tests.support.committed_tables import ROOT

PACKAGE = Path(circuitry.__file__).parent
CEILINGS = {
    "tokens of the package": 277_916,
    "classes": 193,
    "classes of settings": 34,
    "modules that attribute loads": 71,
    "names at the top": 38,
    "tokens of experiments": 83_963,
    "tokens of tests": 385_333,
}


NO_CODE = {
    tokenize.COMMENT,
    tokenize.NL,
    tokenize.NEWLINE,
    tokenize.INDENT,
    tokenize.DEDENT,
    tokenize.ENCODING,
    tokenize.ENDMARKER,
}


def lines_of_docstrings(tree: ast.Module) -> set[int]:
    found = set[int]()
    for node in ast.walk(tree):
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def count_tokens(text: str) -> int:
    """Tokens of code: comments, docstrings, line breaks and indentation are free, so nothing is gained by packing."""
    left_out = lines_of_docstrings(ast.parse(text))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return sum(token.type not in NO_CODE and token.start[0] not in left_out for token in tokens)


def tokens_of(folder: Path) -> int:
    return sum(count_tokens(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py"))


def classes() -> list[str]:
    trees = [ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")]
    return [node.name for tree in trees for node in ast.walk(tree) if isinstance(node, ast.ClassDef)]


def loaded_by_attribute() -> int:
    code = "import sys\nfrom circuitry.circuits.attribution import attribute\nprint(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    return sum(name.startswith("circuitry.") for name in done.stdout.split())


def found() -> dict[str, int]:
    of_settings = ("Settings", "Options", "Config", "Training", "Work", "General", "QuickstartModel")
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    tops = [node for node in stub.body if isinstance(node, ast.ImportFrom) and node.module]
    return {
        "tokens of the package": tokens_of(PACKAGE),
        "classes": len(classes()),
        "classes of settings": sum(name.endswith(of_settings) and name != "FolderWork" for name in classes()),
        "modules that attribute loads": loaded_by_attribute(),
        "names at the top": sum(len(node.names) for node in tops),
        "tokens of experiments": tokens_of(ROOT / "experiments"),
        "tokens of tests": tokens_of(ROOT / "tests"),
    }


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    return found()


@pytest.mark.parametrize("name", CEILINGS)
def test_nothing_is_larger_than_it_was(sizes: dict[str, int], name: str) -> None:
    assert sizes[name] <= CEILINGS[name], "remove as much as you add, or raise the ceiling and say why in the commit"


def test_layout_costs_no_tokens() -> None:
    packed = "a, b = 1, 2\n"
    spread = '"""What this is."""\n\n# The first two numbers.\na, b = (\n    1,\n    2\n)\n'
    assert count_tokens(packed) == 7
    assert count_tokens(spread) == 9  # the two brackets

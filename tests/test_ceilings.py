"""Sizes of today: whoever raises one says in the commit what for; whoever adds removes, see CONTRIBUTING."""

import ast
import io
import subprocess
import sys
import tokenize
from collections import Counter
from pathlib import Path

import pytest

import circuitry
from tests.support.committed_tables import ROOT

PACKAGE = Path(circuitry.__file__).parent
CEILINGS = {
    "tokens of the package": 295_100,
    "tokens a line of code": 8.51,
    "comprehensions in 1,000 lines": 27.9,
    "assignments to tuples in 1,000 lines": 9.6,
    "conditional expressions in 1,000 lines": 13.8,
    "classes": 231,
    "classes of settings": 36,
    "modules that attribute loads": 90,
    "names at the top": 39,
    "tokens of experiments": 158_400,
    "tokens of tests": 451_500,
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
        if (
            isinstance(node, ast.Expr)
            and isinstance(node.value, ast.Constant)
            and isinstance(node.value.value, str)
        ):
            found.update(range(node.lineno, (node.end_lineno or node.lineno) + 1))
    return found


def code_of(text: str) -> list[tokenize.TokenInfo]:
    """Tokens of code: comments, docstrings, line breaks and indentation are free, so nothing is gained by packing."""
    left_out = lines_of_docstrings(ast.parse(text))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    return [
        token
        for token in tokens
        if token.type not in NO_CODE and token.start[0] not in left_out
    ]


def count_tokens(text: str) -> int:
    return len(code_of(text))


def tokens_of(folder: Path) -> int:
    return sum(
        count_tokens(path.read_text(encoding="utf-8")) for path in folder.rglob("*.py")
    )


def densities(texts: list[str]) -> dict[str, float]:
    """Tokens a line of code, and in 1,000 such lines three kinds of expressions that a reader unpacks."""
    tokens = 0
    lines = 0
    kinds = Counter[str]()
    for text in texts:
        code = code_of(text)
        tokens += len(code)
        with_code = set[int]()
        for token in code:
            with_code.update(range(token.start[0], token.end[0] + 1))
        lines += len(with_code)
        kinds.update(kind_of(node) for node in ast.walk(ast.parse(text)))
    return {
        "tokens a line of code": tokens / lines,
        "comprehensions in 1,000 lines": 1000 * kinds["comprehension"] / lines,
        "assignments to tuples in 1,000 lines": 1000 * kinds["tuple"] / lines,
        "conditional expressions in 1,000 lines": 1000 * kinds["conditional"] / lines,
    }


def kind_of(node: ast.AST) -> str:
    if isinstance(node, ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp):
        return "comprehension"
    if isinstance(node, ast.IfExp):
        return "conditional"
    if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Tuple):
        return "tuple"
    return "other"


def classes() -> list[str]:
    trees = [
        ast.parse(path.read_text(encoding="utf-8")) for path in PACKAGE.rglob("*.py")
    ]
    return [
        node.name
        for tree in trees
        for node in ast.walk(tree)
        if isinstance(node, ast.ClassDef)
    ]


def loaded_by_attribute() -> int:
    """Modules of the package after a call of `attribute`: its import alone leaves out what a method loads."""
    code = """
import sys
import torch
import circuitry
tower = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
encoder = circuitry.Encoder.from_stages(tower, ["0", ("1", "2")], (8, 8))
metric = circuitry.class_logit(torch.eye(2, 4), 0)
others = torch.rand(2, 3, 8, 8)
circuitry.attribute(encoder, torch.rand(2, 3, 8, 8), metric, others=others, progress=False)
print(*sys.modules)
"""
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return sum(name.startswith("circuitry.") for name in done.stdout.split())


def found() -> dict[str, float]:
    of_settings = (
        "Settings",
        "Options",
        "Config",
        "Training",
        "Work",
        "General",
        "QuickstartModel",
    )
    stub = ast.parse((PACKAGE / "__init__.pyi").read_text(encoding="utf-8"))
    tops = [
        node for node in stub.body if isinstance(node, ast.ImportFrom) and node.module
    ]
    return {
        "tokens of the package": tokens_of(PACKAGE),
        **densities(
            [path.read_text(encoding="utf-8") for path in PACKAGE.rglob("*.py")]
        ),
        "classes": len(classes()),
        "classes of settings": sum(
            name.endswith(of_settings) and name != "FolderWork" for name in classes()
        ),
        "modules that attribute loads": loaded_by_attribute(),
        "names at the top": sum(len(node.names) for node in tops),
        "tokens of experiments": tokens_of(ROOT / "experiments"),
        "tokens of tests": tokens_of(ROOT / "tests"),
    }


@pytest.fixture(scope="module")
def sizes() -> dict[str, float]:
    return found()


@pytest.mark.parametrize("name", CEILINGS)
def test_nothing_is_larger_than_it_was(sizes: dict[str, float], name: str) -> None:
    assert sizes[name] <= CEILINGS[name], (
        "remove as much as you add, or raise the ceiling and say why in the commit"
    )


def test_layout_costs_no_tokens() -> None:
    packed = "a, b = 1, 2\n"
    spread = (
        '"""What this is."""\n\n# The first two numbers.\na, b = (\n    1,\n    2\n)\n'
    )
    assert count_tokens(packed) == 7
    assert count_tokens(spread) == 9  # the two brackets
    assert densities([packed])["tokens a line of code"] == 7
    assert densities([spread])["tokens a line of code"] == 9 / 4


def test_what_a_reader_unpacks_is_counted() -> None:
    text = "a, b = (x for x in y)\nc = 1 if a else 2\nd = [x for x in {z for z in b}]\ne = 3\n"
    assert densities([text]) == {
        "tokens a line of code": 9,
        "comprehensions in 1,000 lines": 750,
        "assignments to tuples in 1,000 lines": 250,
        "conditional expressions in 1,000 lines": 250,
    }

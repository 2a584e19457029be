"""Sizes of today: whoever raises one says in the commit what for; whoever adds removes, see CONTRIBUTING."""

import ast
import subprocess
import sys
from pathlib import Path

import pytest

import circuitry
from tests.support.committed_tables import ROOT

PACKAGE = Path(circuitry.__file__).parent
CEILINGS = {
    "lines of the package": 35_771,
    "lines of a module": 368,
    "classes": 189,
    "classes of settings": 34,
    "modules that attribute loads": 69,
    "names at the top": 36,
    "lines of experiments": 9_705,
    "lines of tests": 32_804,
}


def lines(folder: Path) -> dict[Path, int]:
    return {path: len(path.read_text(encoding="utf-8").splitlines()) for path in folder.rglob("*.py")}


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
        "lines of the package": sum(lines(PACKAGE).values()),
        "lines of a module": max(lines(PACKAGE).values()),
        "classes": len(classes()),
        "classes of settings": sum(name.endswith(of_settings) and name != "FolderWork" for name in classes()),
        "modules that attribute loads": loaded_by_attribute(),
        "names at the top": sum(len(node.names) for node in tops),
        "lines of experiments": sum(lines(ROOT / "experiments").values()),
        "lines of tests": sum(lines(ROOT / "tests").values()),
    }


@pytest.fixture(scope="module")
def sizes() -> dict[str, int]:
    return found()


@pytest.mark.parametrize("name", CEILINGS)
def test_nothing_is_larger_than_it_was(sizes: dict[str, int], name: str) -> None:
    assert sizes[name] <= CEILINGS[name], "remove as much as you add, or raise the ceiling and say why in the commit"

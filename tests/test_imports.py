"""What importing loads, the public names, and the direction of imports between the rooms of the house."""

import ast
import importlib
import inspect
import json
import re
import subprocess
import sys
import time
from functools import cache
from itertools import permutations
from pathlib import Path
from types import ModuleType

import circuitry

PACKAGE = Path(circuitry.__file__).parent
STUBS = {
    ".".join(path.relative_to(PACKAGE.parent).parent.parts): path
    for path in PACKAGE.rglob("__init__.pyi")
}
"""The tables of contents: of the package, and of each of its rooms."""


def listed(package: str) -> list[str]:
    body = ast.parse(STUBS[package].read_text()).body
    return [
        str(alias.asname)
        for node in body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    ]


PUBLIC = [(package, name) for package in sorted(STUBS) for name in listed(package)]

ROOMS = (
    "runs",
    "comparison",
    "data",
    "encoder",
    "bases",
    "gates",
    "models",
    "training",
    "circuits",
    "interventions",
    "reports",
    "questions",
    "cards",
    "explorer",
    "analysis",
    "commands",
)
"""The rooms; one imports only from itself and from those before it."""

STRANGERS = ("training", "circuits")

LIGHT_ROOMS = ("runs", "comparison", "reports")
"""Rooms that work without torch; elsewhere a module whose docstring says "Does not import torch." does."""


@cache
def modules() -> dict[str, Path]:
    found = {
        path: ".".join(path.relative_to(PACKAGE).with_suffix("").parts)
        for path in PACKAGE.rglob("*.py")
    }
    return {
        name.removesuffix(".__init__"): path
        for path, name in found.items()
        if name not in ("__init__", "__main__")
    }


def room(module: str) -> str:
    return module.partition(".")[0]


@cache
def imported(module: str) -> set[str]:
    """Modules of this package that one imports anywhere in it, by the name below the package."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(modules()[module].read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{module} imports relatively"
            names.add(str(node.module))
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    below = {
        name.removeprefix("circuitry.")
        for name in names
        if name.startswith("circuitry.")
    }
    return below & modules().keys()


def says_no_torch(module: str) -> bool:
    text = ast.get_docstring(ast.parse(modules()[module].read_text())) or ""
    # The sentence may break over lines.
    return "Does not import torch." in " ".join(text.split())


def loaded(statement: str) -> tuple[set[str], float]:
    """Top-level modules that a fresh interpreter has after a statement, and the seconds that it took."""
    code = f"import json, sys\n{statement}\n"
    code += (
        "print(json.dumps(sorted({name.partition('.')[0] for name in sys.modules})))"
    )
    started = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True
    )
    return set(json.loads(done.stdout)), time.perf_counter() - started


def test_importing_the_package_is_light() -> None:
    names, seconds = loaded("import circuitry")
    assert not names & {
        "torch",
        "plotly",
        "captum",
        "open_clip",
        "transformer_lens",
        "pandas",
        "timm",
    }
    assert seconds < 5  # the one time that the specification asks for


def test_results_are_studied_without_torch() -> None:
    light = [
        name for name in modules() if room(name) in LIGHT_ROOMS or says_no_torch(name)
    ]
    assert {room(name) for name in light} > set(LIGHT_ROOMS)
    names, _ = loaded("import " + ", ".join(f"circuitry.{module}" for module in light))
    assert {"networkx", "plotly"} <= names
    assert not names & {"torch", "open_clip", "transformer_lens", "captum", "timm"}


def test_stored_circuits_are_compared_without_torch(tmp_path: Path) -> None:
    from tests.circuits.test_graph import small_graph

    small_graph().save(tmp_path / "a")
    small_graph(domain="real").save(tmp_path / "b")
    names, _ = loaded(
        "import circuitry\n"
        f"graphs = [circuitry.AttributionGraph.load({str(tmp_path)!r} + '/' + name) for name in 'ab']\n"
        "assert circuitry.compare(graphs)['value'].tolist() == [1]\n"
        "circuitry.midpoint_rule(3)"
    )
    assert "torch" not in names


def test_public_names_resolve_and_are_described() -> None:
    for package, name in PUBLIC:
        value = getattr(importlib.import_module(package), name)
        if isinstance(value, ModuleType):
            assert value.__name__ == f"{package}.{name}"
            assert name in ROOMS or inspect.getdoc(value)
        elif isinstance(value, type) or inspect.isfunction(value):
            assert value.__name__ == name
            assert value.__module__.startswith("circuitry.")
            assert inspect.getdoc(value), name
            assert not str(value.__doc__).startswith(
                f"{name}("
            )  # what a dataclass without one is given


def test_every_room_has_a_table_of_contents() -> None:
    assert STUBS.keys() >= {f"circuitry.{room}" for room in ROOMS}
    for package in STUBS:
        names = listed(package)
        assert len(names) == len(set(names)) >= 1, package
        assert set(importlib.import_module(package).__all__) == set(names), package


def test_no_module_hides_a_public_name() -> None:
    """A module becomes an attribute of its package when it is imported, in place of a lazy name from elsewhere."""
    for package, stub in STUBS.items():
        nodes = [
            node
            for node in ast.parse(stub.read_text()).body
            if isinstance(node, ast.ImportFrom) and node.module
        ]
        elsewhere = {
            alias.name
            for node in nodes
            for alias in node.names
            if node.module != alias.name
        }
        assert not elsewhere & {path.stem for path in stub.parent.glob("*.py")}, package


def test_a_name_at_the_top_has_its_room_too() -> None:
    names = [name for name in listed("circuitry") if name not in ROOMS]
    below = {name for package, name in PUBLIC if package != "circuitry"}
    assert set(names) <= below


def test_rooms_import_downwards_only() -> None:
    arrows = {
        (room(name), room(other)) for name in modules() for other in imported(name)
    }
    assert len(arrows) > 20
    backwards = {(a, b) for a, b in arrows if ROOMS.index(b) > ROOMS.index(a)}
    assert backwards == set()
    assert arrows & set(permutations(STRANGERS, 2)) == set()


MODULE_PATH = re.compile(r"circuitry\.(\w+)(?:\.\w+)*(?::\w+)?")
"""A text that names a module, or a name in it, for a program to load."""


def texts_of(module: str) -> list[str]:
    """Return the texts of a module that a program reads: docstrings are for readers."""
    tree = ast.parse(modules()[module].read_text())
    prose = {
        id(node.value)
        for node in ast.walk(tree)
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    return [
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
        and isinstance(node.value, str)
        and id(node) not in prose
    ]


def test_no_text_names_a_module_of_a_higher_room() -> None:
    """A module that is loaded by a text is an import that the order of rooms does not see."""
    upwards = {}
    for module in modules():
        for text in texts_of(module):
            named = MODULE_PATH.fullmatch(text)
            if named is None or named[1] not in ROOMS:
                continue
            if ROOMS.index(named[1]) > ROOMS.index(room(module)):
                upwards[module] = text
    assert upwards == {}


def test_no_modules_import_each_other_in_a_circle() -> None:
    left = dict.fromkeys(modules())
    while left:
        ground = [name for name in left if not imported(name) & (left.keys() - {name})]
        assert ground, f"a circle among {', '.join(left)}"
        for name in ground:
            del left[name]


def test_a_module_of_the_package_is_imported_at_the_top() -> None:
    """No import is hidden in a function to break a circle."""
    for name, path in modules().items():
        tree = ast.parse(path.read_text())
        functions = [
            node
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        ]
        inner = [
            n for f in functions for n in ast.walk(f) if isinstance(n, ast.ImportFrom)
        ]
        assert not [n.module for n in inner if str(n.module).startswith("circuitry")], (
            name
        )


def test_the_study_uses_the_package_by_public_names() -> None:
    """From rooms, and only what their tables of contents have."""
    deep = []
    for path in (PACKAGE.parent / "experiments" / "study").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = (
                [alias.name for alias in node.names]
                if isinstance(node, ast.Import | ast.ImportFrom)
                else []
            )
            if (
                isinstance(node, ast.ImportFrom)
                and str(node.module).partition(".")[0] == "circuitry"
            ):
                known = set(listed(str(node.module))) if node.module in STUBS else set()
                deep += [
                    f"{path.name}: {node.module}.{name}"
                    for name in names
                    if name not in known
                ]
            elif isinstance(node, ast.Import):
                deep += [
                    f"{path.name}: {name}"
                    for name in names
                    if name.startswith("circuitry")
                ]
    assert deep == []


def test_no_module_has_the_name_of_what_its_room_takes_from_a_module() -> None:
    """Python binds a loaded module to its room by its name, in place of a function that is loaded lazily."""
    hidden = []
    for package, stub in STUBS.items():
        inside = {path.stem for path in stub.parent.iterdir()}
        lines = [
            line
            for line in ast.parse(stub.read_text()).body
            if isinstance(line, ast.ImportFrom)
        ]
        taken = [alias.name for line in lines if line.module for alias in line.names]
        hidden += [f"{package}.{name}" for name in taken if name in inside]
    assert hidden == []

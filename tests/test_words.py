"""One name for one thing: the glossary, names that a room has once, and phrases that must be read twice."""

import ast
import importlib
import re
from collections import defaultdict
from pathlib import Path

import circuitry

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = Path(circuitry.__file__).parent
TEXTS = [
    *sorted(PACKAGE.rglob("*.py")),
    *sorted((ROOT / "experiments").glob("*.[pm][yd]")),
    *((ROOT / name) for name in ("README.md", "CONTRIBUTING.md")),
    *sorted((ROOT / "docs").rglob("*.md")),
]

AVOIDED = {
    "but for": "except",
    "of which": "whose, or a sentence of its own",
    "told apart": "separated, distinguished",
    "tell apart": "separate",
    "stands in for": "replaces",
    "stand in for": "replace",
    "stands in": "replaces",
    "speaks of": "is about",
    "speak of": "are about",
    "hangs on": "depends on",
    "does the work": "recovers the answer",
    "do the work": "recover the answer",
    "there is not": "unknown",
    "saves it": "skips it",
    "asked for nothing": "not asked",
}
"""Phrases that made readers stop, and what to write."""


def public_names() -> dict[str, list[str]]:
    """Return the modules by public name that is defined at their top; each command has its `Config` and `main`."""
    found: dict[str, list[str]] = defaultdict(list)
    for path in (
        path
        for path in PACKAGE.rglob("*.py")
        if not path.name.endswith(("_command.py", "_work.py"))
    ):
        for node in ast.parse(path.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef | ast.ClassDef):
                names = [node.name]
            elif isinstance(node, ast.Assign | ast.AnnAssign):
                targets = (
                    node.targets if isinstance(node, ast.Assign) else [node.target]
                )
                names = [
                    target.id for target in targets if isinstance(target, ast.Name)
                ]
            else:
                names = []
            for name in names:
                module = path.relative_to(PACKAGE).as_posix()
                # The signatures of an overloaded function are one definition.
                if (
                    not name.startswith("_")
                    and name not in ("log", "T")
                    and module not in found[name]
                ):
                    found[name].append(module)
    return found


def test_no_public_name_is_defined_twice_in_a_room() -> None:
    """Two rooms may use one word: the room says which is meant."""
    twice = {}
    for name, modules in public_names().items():
        rooms = [module.partition("/")[0] for module in modules]
        if len(set(rooms)) < len(rooms):
            twice[name] = modules
    assert twice == {}


def glossary() -> list[tuple[str, list[str]]]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = text[text.index("## Glossary") :].split("\n## ")[0]
    rows = re.findall(r"^\| \*\*(.+?)\*\* \| (.+) \|$", section, re.MULTILINE)
    return [(word, re.findall(r"`([\w.]+)`", meaning)) for word, meaning in rows]


def test_names_in_the_glossary_are_public() -> None:
    rooms = [
        importlib.import_module(f"circuitry.{path.parent.name}")
        for path in PACKAGE.glob("*/__init__.pyi")
    ]
    for word, name in ((word, name) for word, names in glossary() for name in names):
        head, _, field = name.partition(".")
        homes = [
            getattr(place, head) for place in (circuitry, *rooms) if head in dir(place)
        ]
        assert homes, f"{word}: {name} is no public name"
        fields = getattr(homes[0], "__dataclass_fields__", {})
        assert not field or hasattr(homes[0], field) or field in fields, (
            f"{word}: {name}"
        )


def test_sentences_are_plain() -> None:
    found = {}
    for path in TEXTS:
        text = re.sub(r"\s+", " ", path.read_text(encoding="utf-8"))
        for phrase, better in AVOIDED.items():
            if re.search(rf"\b{phrase}\b", text, re.IGNORECASE):
                found[path.relative_to(ROOT).as_posix(), phrase] = better
    assert found == {}


def test_functions_take_at_most_eight_parameters() -> None:
    many = set()
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                names = [
                    a.arg
                    for a in (
                        *node.args.posonlyargs,
                        *node.args.args,
                        *node.args.kwonlyargs,
                    )
                ]
                if len([name for name in names if name not in ("self", "cls")]) > 8:
                    many.add(node.name)
    assert many <= {"attribute", "extract"}

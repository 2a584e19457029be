"""Double precision on a device that has none: nothing makes such a number there."""

import ast
from pathlib import Path

import torch
from torch._subclasses.fake_tensor import FakeTensorMode

import circuitry
from circuitry.encoder.doubles import in_double


def test_in_double_keeps_values_and_places() -> None:
    x = torch.tensor([0.1, 3.0])
    assert in_double(x).tolist() == [float(x[0]), 3.0]
    with FakeTensorMode():
        assert in_double(torch.empty(2, device="mps")).device.type == "cpu"
        assert in_double(torch.empty(2, device="cuda")).device.type == "cuda"


def doubles_made_by_themselves(path: Path) -> list[str]:
    """Return what `.double()` is called on, except on the CPU, and types, except of new tensors there."""
    nodes = list(ast.walk(ast.parse(path.read_text(encoding="utf-8"))))
    calls = [node for node in nodes if isinstance(node, ast.Call)]
    makers = [
        call.func.value
        for call in calls
        if isinstance(call.func, ast.Attribute) and call.func.attr == "double"
    ]
    new = [
        call
        for call in calls
        if ast.unparse(call.func) in ("torch.zeros", "torch.tensor")
    ]
    on_cpu = {
        id(word.value)
        for call in new
        for word in call.keywords
        if "device" not in ast.unparse(call)
    }
    types = [
        node
        for node in nodes
        if ast.unparse(node) == "torch.float64" and id(node) not in on_cpu
    ]
    return [
        text
        for text in map(ast.unparse, (*makers, *types))
        if not text.endswith(".cpu()")
    ]


def test_nobody_else_makes_doubles_on_a_device() -> None:
    made = {
        path.name: doubles_made_by_themselves(path)
        for path in Path(circuitry.__file__).parent.rglob("*.py")
    }
    assert made.pop("doubles.py")
    assert {name: texts for name, texts in made.items() if texts} == {}

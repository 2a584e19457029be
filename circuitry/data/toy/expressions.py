"""The arithmetic of ``shapes.json``: numbers, names, + - * / %, comparisons, ``a if b else c`` and calls. No torch.

An expression is Python's, but for what it may hold: these few kinds alone, and no name that the scope lacks.
"""

import ast
from collections.abc import Mapping
from functools import cache
from types import CodeType
from typing import Any

Scope = Mapping[str, Any]
"""Name -> number, colour, list, or function that expressions may call."""

_KINDS = (
    *(ast.Expression, ast.Constant, ast.Name, ast.Load, ast.BinOp, ast.UnaryOp, ast.Compare, ast.IfExp, ast.Call),
    *(ast.keyword, ast.Add, ast.Sub, ast.Mult, ast.Div, ast.Mod, ast.USub, ast.Lt, ast.LtE, ast.GtE, ast.Eq),
)


def evaluate(value: Any, scope: Scope) -> Any:
    """Return the value of an expression; what is no text stands for itself.

    Example:
        >>> evaluate("-0.5 * rise", {"rise": 0.8})
        -0.4
    """
    return eval(_compiled(value), {"__builtins__": {}}, scope) if isinstance(value, str) else value


@cache
def _compiled(text: str) -> CodeType:
    tree = ast.parse(text, mode="eval")
    for node in ast.walk(tree):
        if not isinstance(node, _KINDS) or (isinstance(node, ast.Compare) and len(node.ops) > 1):
            raise ValueError(f"{ast.unparse(node)} in {text!r} is none of the expressions of shapes")
    return compile(tree, "shapes.json", "eval")

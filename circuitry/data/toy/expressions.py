"""The arithmetic of ``shapes.json``: numbers, names, + - * / %, comparisons, ``a if b else c`` and calls. No torch.

An expression is Python's, of these few kinds, and is translated once into functions of the names it uses.
"""

import ast
import operator
from collections.abc import Callable, Mapping
from functools import cache
from typing import Any

Scope = Mapping[str, Any]
"""Name -> number, colour, list, or function that expressions may call."""
Expression = Callable[[Scope], Any]

_OPERATORS: Mapping[type, Callable[..., Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Mod: operator.mod,
    ast.USub: operator.neg,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.GtE: operator.ge,
    ast.Eq: operator.eq,
}


def evaluate(value: Any, scope: Scope) -> Any:
    """Return the value of an expression; what is no text stands for itself.

    Example:
        >>> evaluate("-0.5 * rise", {"rise": 0.8})
        -0.4
    """
    return _translated(value)(scope) if isinstance(value, str) else value


@cache
def _translated(text: str) -> Expression:
    return _expression(ast.parse(text, mode="eval").body)


def _expression(node: ast.expr) -> Expression:
    """Return the function that works out a node, its parts from left to right."""
    match node:
        case ast.Constant(value=constant):
            return lambda scope: constant
        case ast.Name(id=name):
            return lambda scope: scope[name]
        case ast.BinOp(left=left, op=op, right=right) | ast.Compare(left=left, ops=[op], comparators=[right]):
            apply, first, second = _OPERATORS[type(op)], _expression(left), _expression(right)
            return lambda scope: apply(first(scope), second(scope))
        case ast.UnaryOp(op=op, operand=operand):
            apply, only = _OPERATORS[type(op)], _expression(operand)
            return lambda scope: apply(only(scope))
        case ast.IfExp(test=test, body=body, orelse=orelse):
            choose, yes, no = _expression(test), _expression(body), _expression(orelse)
            return lambda scope: yes(scope) if choose(scope) else no(scope)
        case ast.Call(func=ast.Name(id=name), args=args, keywords=keywords):
            given = [_expression(arg) for arg in args]
            named = {keyword.arg: _expression(keyword.value) for keyword in keywords if keyword.arg}
            return lambda scope: scope[name](
                *(arg(scope) for arg in given), **{key: arg(scope) for key, arg in named.items()}
            )
    raise ValueError(f"{ast.unparse(node)} is none of the expressions of shapes")

"""Arithmetic over other parameters: `d_model // 64`. A small language read with `ast`, and nothing is ever evaluated
as Python."""

from __future__ import annotations

import ast
import math
import operator
from collections.abc import Callable, Mapping
from typing import Any

from lightning_nlp.errors import ConfigError, nearest

BINARY: dict[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.FloorDiv: operator.floordiv,
    ast.Mod: operator.mod,
    ast.Pow: operator.pow,
}
UNARY: dict[type[ast.unaryop], Callable[[Any], Any]] = {ast.USub: operator.neg, ast.UAdd: operator.pos}
FUNCTIONS: dict[str, Callable[..., Any]] = {
    "min": min,
    "max": max,
    "abs": abs,
    "round": round,
    "int": int,
    "float": float,
    "sqrt": math.sqrt,
    "log2": math.log2,
    "log10": math.log10,
    "exp": math.exp,
}
LONGEST, LARGEST_POWER, LARGEST = 200, 64, 10**300
"""Characters of an expression, the largest exponent and whole number: a slip of the pen must not fill the memory."""


class Expression:
    """A checked arithmetic expression.

    Args:
        text: numbers, names, ``+ - * / // % **``, parentheses and ``min max abs round int float sqrt log2 log10 exp``.
        names: what may be named in it.

    Raises:
        ConfigError: anything else stands in it.
    """

    def __init__(self, text: str, names: list[str]) -> None:
        self.text, self._names = text, names
        if len(text) > LONGEST:
            raise ConfigError(f"expression is longer than {LONGEST} characters")
        try:
            self._tree = ast.parse(text.strip(), mode="eval").body
        except (SyntaxError, ValueError, RecursionError) as error:
            raise ConfigError(f"'{text}' is no arithmetic expression") from error
        self._check(self._tree)

    def _check(self, node: ast.expr) -> None:
        if isinstance(node, ast.Constant) and type(node.value) in (int, float):
            return
        if isinstance(node, ast.Name):
            if node.id not in self._names:
                known = ", ".join(self._names) or "none: give them in 'vars'"
                raise ConfigError(f"'{node.id}' is no variable{nearest(node.id, self._names)} (known: {known})")
            return
        if isinstance(node, ast.BinOp) and type(node.op) in BINARY:
            self._check(node.left)
            return self._check(node.right)
        if isinstance(node, ast.UnaryOp) and type(node.op) in UNARY:
            return self._check(node.operand)
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and not node.keywords:
            if node.func.id not in FUNCTIONS:
                hint = nearest(node.func.id, FUNCTIONS)
                raise ConfigError(f"there is no function '{node.func.id}'{hint} (known: {', '.join(FUNCTIONS)})")
            for argument in node.args:
                self._check(argument)
            return None
        raise ConfigError(
            f"'{ast.unparse(node)}' is not allowed: only numbers, variables, + - * / // % ** and functions"
        )

    def __call__(self, values: Mapping[str, Any]) -> int | float:
        """The value, given one for every variable.

        Raises:
            ConfigError: a variable that is no number, a division by zero, a root of a negative number, and so on.
        """
        for name in self._names:
            if type(values[name]) not in (int, float):
                raise ConfigError(f"'{self.text}': {name} is {values[name]!r}, which is no number")
        try:
            result = self._value(self._tree, values)
            finite = type(result) in (int, float) and math.isfinite(result)
        except (ArithmeticError, ValueError, TypeError) as error:
            given = ", ".join(f"{name} = {values[name]}" for name in self._names)
            raise ConfigError(f"'{self.text}' cannot be computed for {given}: {error}") from error
        if not finite:
            raise ConfigError(f"'{self.text}' gives {result!r}, which is no finite number")
        return result

    def _value(self, node: ast.expr, values: Mapping[str, Any]) -> Any:
        if isinstance(node, ast.Constant):
            return node.value
        if isinstance(node, ast.Name):
            return values[node.id]
        if isinstance(node, ast.UnaryOp):
            return UNARY[type(node.op)](self._value(node.operand, values))
        if isinstance(node, ast.BinOp):
            left, right = self._value(node.left, values), self._value(node.right, values)
            if isinstance(node.op, ast.Pow) and abs(right) > LARGEST_POWER:
                raise ValueError(f"exponents go up to {LARGEST_POWER}")
            result = BINARY[type(node.op)](left, right)
            if isinstance(result, int) and abs(result) > LARGEST:
                raise ValueError("a number of more than 300 digits")
            return result
        assert isinstance(node, ast.Call) and isinstance(node.func, ast.Name)
        return FUNCTIONS[node.func.id](*(self._value(argument, values) for argument in node.args))

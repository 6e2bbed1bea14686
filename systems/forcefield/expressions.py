"""The arithmetic of OpenMM's custom forces on NumPy arrays, so that a model can be recognised by value."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable, Mapping

import numpy as np

from systems.forcefield.parameters import Array

Value = float | Array
_TOKEN = re.compile(r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*)|(?P<other>.)")

# Names get a prefix, because a parameter of OpenMM's models is called "or".
_PREFIX = "v_"


def _select(condition: Value, yes: Value, no: Value) -> Value:
    return np.where(np.asarray(condition) != 0, yes, no)


FUNCTIONS: dict[str, Callable[..., Value]] = {
    "sqrt": np.sqrt,
    "exp": np.exp,
    "log": np.log,
    "tanh": np.tanh,
    "abs": np.abs,
    "max": np.maximum,
    "min": np.minimum,
    "step": lambda x: np.where(np.asarray(x) >= 0, 1.0, 0.0),
    "select": _select,
}
_OPERATORS: dict[type[ast.AST], Callable[..., Value]] = {
    ast.Add: np.add,
    ast.Sub: np.subtract,
    ast.Mult: np.multiply,
    ast.Div: np.divide,
    ast.Pow: np.power,
    ast.USub: np.negative,
    ast.UAdd: np.positive,
}


class ExpressionError(ValueError):
    """An expression holds a name, a function or a symbol that is not known here."""


class Expression:
    """An expression with definitions: ``"a*b; a=r^2; b=3"``.

    >>> float(Expression("a*b; a=r^2; b=3").evaluate({"r": 2.0}))
    12.0
    """

    def __init__(self, text: str, functions: Mapping[str, Callable[..., Value]] | None = None) -> None:
        main, *definitions = [part for part in text.split(";") if part.strip()]
        self.main = _parse(main)
        self.definitions: list[tuple[str, ast.expr]] = []
        for definition in definitions:
            name, equals, body = definition.partition("=")
            if not equals:
                raise ExpressionError(f"no '=' in the definition {definition.strip()!r}")
            self.definitions.append((name.strip(), _parse(body)))
        self.functions = {**FUNCTIONS, **(functions or {})}

    def evaluate(self, variables: Mapping[str, Value]) -> Value:
        """Return the value; a definition sees those behind it, which come before variables of the same name.

        Raises:
            ExpressionError: for an unknown name or function.
        """
        known: dict[str, Value | ExpressionError] = dict(variables)
        with np.errstate(all="ignore"):
            for name, body in reversed(self.definitions):
                try:
                    known[name] = self._value(body, known)
                except ExpressionError as error:  # of a definition that perhaps nobody uses
                    known[name] = error
            return self._value(self.main, known)

    def _value(self, node: ast.expr, known: Mapping[str, Value | ExpressionError]) -> Value:
        match node:
            case ast.Constant(value=float() | int() as number):
                return float(number)
            case ast.Name(id=name):
                plain = name.removeprefix(_PREFIX)
                found = known.get(plain, ExpressionError(f"unknown name {plain!r}"))
                if isinstance(found, ExpressionError):
                    raise found
                return found
            case ast.UnaryOp(op=operator, operand=operand) if type(operator) in _OPERATORS:
                return _OPERATORS[type(operator)](self._value(operand, known))
            case ast.BinOp(left=left, op=operator, right=right) if type(operator) in _OPERATORS:
                return _OPERATORS[type(operator)](self._value(left, known), self._value(right, known))
            case ast.Call(func=ast.Name(id=name), args=arguments, keywords=[]):
                plain = name.removeprefix(_PREFIX)
                if plain in self.functions:
                    return self.functions[plain](*(self._value(item, known) for item in arguments))
                raise ExpressionError(f"unknown function {plain!r}")
        raise ExpressionError(f"cannot read {ast.unparse(node)!r}")


def _parse(text: str) -> ast.expr:
    def translate(found: re.Match[str]) -> str:
        if found["name"]:
            return _PREFIX + found["name"]
        return "**" if found[0] == "^" else found[0]

    try:
        return ast.parse(_TOKEN.sub(translate, text.strip()), mode="eval").body
    except SyntaxError as error:
        raise ExpressionError(f"cannot read {text.strip()!r}") from error

"""What OpenMM's custom forces are written in: expressions, global parameters and tables of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import openmm

from systems.forcefield.expressions import Expression, Value
from systems.forcefield.parameters import Array
from systems.forcefield.refusal import refuse


class CustomTerms:
    """The values that the expressions of one custom force have.

    Attributes:
        globals: global parameters, at their defaults.
        tables: tabulated functions, as matrices indexed by their two arguments.
    """

    def __init__(self, index: int, force: Any) -> None:
        self.globals: dict[str, float] = {
            force.getGlobalParameterName(i): force.getGlobalParameterDefaultValue(i)
            for i in range(force.getNumGlobalParameters())
        }
        n_tables = force.getNumTabulatedFunctions() if hasattr(force, "getNumTabulatedFunctions") else 0
        self.tables: dict[str, Array] = dict(_table(index, force, i) for i in range(n_tables))

    def evaluate(self, text: str, variables: Mapping[str, Value]) -> Array:
        """Return the value of an expression.

        Raises:
            ExpressionError: when it cannot be read.
        """
        functions: dict[str, Callable[..., Value]] = {
            name: lambda row, column, table=table: table[np.asarray(row, dtype=int), np.asarray(column, dtype=int)]
            for name, table in self.tables.items()
        }
        return np.asarray(Expression(text, functions).evaluate({**self.globals, **variables}), dtype=float)


def _table(index: int, force: Any, i: int) -> tuple[str, Array]:
    name, function = force.getTabulatedFunctionName(i), force.getTabulatedFunction(i)
    if not isinstance(function, openmm.Discrete2DFunction):
        refuse(index, force, f"has the tabulated function {name!r} of an unknown kind ({type(function).__name__})")
    width, height, values = function.getFunctionParameters()
    return name, np.array(values).reshape(height, width).T

"""Harmonic torsions, as improper ones often are, that come as a CustomTorsionForce; recognised by value."""

from __future__ import annotations

from typing import Any

import numpy as np

from systems.forcefield.custom_terms import CustomTerms
from systems.forcefield.expressions import ExpressionError, Value
from systems.forcefield.parameters import Array, HarmonicTorsionParameters
from systems.forcefield.refusal import refuse

_NEAR, _BEYOND = 0.1, 4.0
"""How far from the minimum [rad] the strength is read off, and the period: more than half way round."""

_PROBES = np.linspace(-3.1, 3.1, 32)
"""Torsions [rad] where the expression and the harmonic are compared."""

_AGREEMENT = 1e-9


def read_custom_torsions(index: int, force: Any) -> HarmonicTorsionParameters:
    """Return the torsions of a CustomTorsionForce ``k (theta - theta0)^2``, round the circle or not.

    Raises:
        UnsupportedSystemError: for another expression, or one without a parameter ``theta0`` of every torsion.
    """
    names = [force.getPerTorsionParameterName(i) for i in range(force.getNumPerTorsionParameters())]
    torsions = [force.getTorsionParameters(torsion) for torsion in range(force.getNumTorsions())]
    atoms = np.array([torsion[:4] for torsion in torsions], dtype=np.int64).reshape(-1, 4)
    if "theta0" not in names:
        refuse(index, force, "has no parameter 'theta0' of each torsion, where its energy would be least")
    values = np.array([torsion[4] for torsion in torsions]).reshape(-1, len(names))
    theta0 = values[:, names.index("theta0")][:, None]
    terms, text = CustomTerms(index, force), force.getEnergyFunction()

    def energy(theta: Array) -> Array:
        variables: dict[str, Value] = {name: values[:, i, None] for i, name in enumerate(names)}
        try:
            found = terms.evaluate(text, {**variables, "theta": theta})
        except ExpressionError as error:
            refuse(index, force, f"has the energy '{text}', which cannot be read ({error})")
        return np.broadcast_to(found, theta.shape)

    strength = energy(theta0 + _NEAR) / _NEAR**2
    beyond = np.sqrt(
        np.divide(energy(theta0 - _BEYOND), strength, out=np.full_like(theta0, _BEYOND**2), where=strength > 0)
    )
    period = np.where(np.isclose(beyond, _BEYOND), 0.0, _BEYOND + beyond)
    theta = np.broadcast_to(_PROBES, (len(atoms), len(_PROBES)))
    away = theta - theta0
    away = away - np.where(np.abs(away) > period / 2, np.sign(away) * period, 0.0)
    if not np.all(np.abs(energy(theta) - strength * away**2) <= _AGREEMENT * strength):
        refuse(index, force, f"has the energy '{text}', and only k (theta - theta0)^2 is computed")
    return HarmonicTorsionParameters(atoms, theta0[:, 0], 2 * strength[:, 0], period[:, 0])

"""Units: reduced (kT, nm, ps, amu) inside; everything else lives at the boundary and is named for its unit."""

from __future__ import annotations

BOLTZMANN_KJ_PER_MOL_KELVIN = 0.00831446261815324
"""Molar gas constant [kJ/mol/K] (CODATA 2018, exact)."""

KJ_PER_KCAL = 4.184


def thermal_energy_kj_per_mol(temperature_kelvin: float) -> float:
    """Return kT [kJ/mol].

    >>> round(thermal_energy_kj_per_mol(300.0), 5)
    2.49434
    """
    return BOLTZMANN_KJ_PER_MOL_KELVIN * temperature_kelvin

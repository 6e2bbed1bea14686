"""Numbers as they are printed: rounded to their uncertainty, never past it, and the same everywhere."""

from __future__ import annotations

import math

from boltzgen_diffclf.units import KJ_PER_KCAL, thermal_energy_kj_per_mol

UNKNOWN = "–"

MOST_DECIMALS = 6
"""An error bar that would need more is written with an exponent."""

SMALLEST_FIXED = 1e-3
"""Below this a number that no error bar rounds is written with an exponent."""


def decimals_for(stderr: float) -> int:
    """Return the decimals that keep two significant digits of an error bar, at least two; three where none is known."""
    if not math.isfinite(stderr) or stderr <= 0:
        return 3
    return max(2, 1 - math.floor(math.log10(stderr)))


def with_error(value: float, stderr: float | None) -> str:
    """Return ``value ± stderr`` with both rounded to two digits of the error; tiny ones have an exponent.

    >>> with_error(-22.40612, 0.00934), with_error(7.0049, 0.12), with_error(1.0, None)
    ('-22.4061 ± 0.0093', '7.00 ± 0.12', '1.000 ± –')
    >>> with_error(2.318e-07, 4.1e-08), with_error(10.0, 2.3e-07)
    ('2.32e-07 ± 4.1e-08', '10.000000 ± 2.3e-07')
    """
    if not math.isfinite(value):
        return UNKNOWN
    if stderr is None or not math.isfinite(stderr):
        return f"{_rounded(value, 0.0)} ± {UNKNOWN}"
    error = f"{stderr:.{decimals_for(stderr)}f}" if decimals_for(stderr) <= MOST_DECIMALS else f"{stderr:.1e}"
    return f"{_rounded(value, stderr)} ± {error}"


def _rounded(value: float, stderr: float) -> str:
    """Return a number to two digits of its error; with an exponent where neither would show among the decimals."""
    decimals = decimals_for(stderr)
    small = 0 < abs(value) < SMALLEST_FIXED
    if small and stderr <= 0:
        return f"{value:.2e}"
    if small and decimals > MOST_DECIMALS:
        return f"{value:.{max(0, decimals + math.floor(math.log10(abs(value))))}e}"
    return f"{value:.{min(decimals, MOST_DECIMALS)}f}"


def in_units(value_kT: float, stderr_kT: float, temperature_kelvin: float) -> dict[str, str]:
    """Return the value with its error in kT, kJ/mol and kcal/mol.

    >>> in_units(-22.406, 0.009, 300.0)["kcal/mol"]
    '-13.3576 ± 0.0054'
    """
    kj = thermal_energy_kj_per_mol(temperature_kelvin)
    scales = {"kT": 1.0, "kJ/mol": kj, "kcal/mol": kj / KJ_PER_KCAL}
    return {unit: with_error(scale * value_kT, scale * stderr_kT) for unit, scale in scales.items()}


def plain(value: float | None, digits: int = 3) -> str:
    """Return a diagnostic with a few significant digits, or a dash where it has no meaning.

    >>> plain(0.03412), plain(25600.0), plain(None)
    ('0.0341', '25,600', '–')
    """
    if value is None or not math.isfinite(value):
        return UNKNOWN
    return f"{value:,.0f}" if abs(value) >= 1000 else f"{value:.{digits}g}"


def count(value: int) -> str:
    """Return a number of evaluations, readable at a glance.

    >>> count(0), count(51200), count(3_200_000)
    ('0', '51,200', '3,200,000')
    """
    return f"{value:,}"

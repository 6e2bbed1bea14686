"""Energies as the data frames that alchemlyb reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from boltzgen_diffclf.errors import InputError

if TYPE_CHECKING:
    import pandas

_LAMBDA = "fep-lambda"


def u_nk_frame(
    u_kn: Float[np.ndarray, "states samples"],
    n_k: Int[np.ndarray, " states"],
    lambdas: Float[np.ndarray, " states"],
    temperature_kelvin: float,
    times_ps: Float[np.ndarray, " samples"] | None = None,
) -> pandas.DataFrame:
    """Return reduced energies as alchemlyb's ``u_nk``: a row a sample, a column a state.

    Args:
        u_kn: reduced energies [kT]; the samples of state 0 come first.
        n_k: samples drawn from each state.
        lambdas: coupling parameter of each state, all different.
        temperature_kelvin: goes into ``attrs``, with the unit ``kT``.
        times_ps: time of each sample [ps]; frame numbers within each state when absent.

    Raises:
        InputError: when the shapes do not fit or two states share a lambda.
    """
    import pandas

    _check_lambdas(lambdas, len(n_k))
    if u_kn.shape != (len(n_k), int(n_k.sum())):
        raise InputError(f"u_kn has shape {u_kn.shape}, but the counts want {(len(n_k), int(n_k.sum()))}")
    index = _index(lambdas, n_k.tolist(), times_ps)
    frame = pandas.DataFrame(u_kn.T, index=index, columns=lambdas.tolist())
    return _with_attributes(frame, temperature_kelvin)


def dhdl_frame(
    samples: Sequence[Float[np.ndarray, " _"]],
    lambdas: Float[np.ndarray, " states"],
    temperature_kelvin: float,
    times_ps: Float[np.ndarray, " samples"] | None = None,
) -> pandas.DataFrame:
    """Return dU/dlambda [kT] as alchemlyb's ``dHdl``: a row a sample, one column.

    Args:
        samples: dU/dlambda of the samples of each state.
        lambdas: coupling parameter of each state, all different.
        temperature_kelvin: goes into ``attrs``, with the unit ``kT``.
        times_ps: time of each sample [ps], states in order; frame numbers within each state when absent.

    Raises:
        InputError: when the shapes do not fit or two states share a lambda.
    """
    import pandas

    _check_lambdas(lambdas, len(samples))
    index = _index(lambdas, [len(values) for values in samples], times_ps)
    frame = pandas.DataFrame({"fep": np.concatenate(list(samples))}, index=index)
    return _with_attributes(frame, temperature_kelvin)


def _check_lambdas(lambdas: Float[np.ndarray, " states"], n_states: int) -> None:
    if len(lambdas) != n_states or len(np.unique(lambdas)) != n_states:
        raise InputError(f"{n_states} states want as many different lambdas, got {lambdas.tolist()}")


def _index(
    lambdas: Float[np.ndarray, " states"], counts: Sequence[int], times_ps: Float[np.ndarray, " samples"] | None
) -> pandas.MultiIndex:
    import pandas

    n_samples = sum(counts)
    if times_ps is None:
        times_ps = np.concatenate([np.arange(count, dtype=np.float64) for count in counts])
    if len(times_ps) != n_samples:
        raise InputError(f"{len(times_ps)} times for {n_samples} samples; give one a sample")
    return pandas.MultiIndex.from_arrays([times_ps, np.repeat(lambdas, counts)], names=["time", _LAMBDA])


def _with_attributes(frame: pandas.DataFrame, temperature_kelvin: float) -> pandas.DataFrame:
    frame.attrs = {"temperature": temperature_kelvin, "energy_unit": "kT"}
    return frame

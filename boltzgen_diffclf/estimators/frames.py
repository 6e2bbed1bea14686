"""Energies as pymbar and alchemlyb read them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Float, Int

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import refuse_nan
from boltzgen_diffclf.files import atomic_path

if TYPE_CHECKING:
    import pandas

_LAMBDA = "fep-lambda"


def generated_u_kn(
    log_w: Float[np.ndarray, " samples"], energy: Float[np.ndarray, " samples"]
) -> tuple[Float[np.ndarray, "2 samples"], Int[np.ndarray, " 2"]]:
    """Return ``u_kn`` and ``n_k`` of a generator (state 0, which drew all samples) and its target (state 1, none).

    MBAR over these two states is the self-normalised importance sampling of the weights.

    Args:
        log_w: unnormalised log weights of the samples, ``u_generator - u_target``.
        energy: ``u`` [kT] of the target at the samples.

    Raises:
        InputError: on NaN.

    References:
        Shirts & Chodera 2008, J. Chem. Phys. 129:124105, eq. 15 (states without samples).
    """
    refuse_nan(log_w, "log_w")
    refuse_nan(energy, "energy")
    generator = log_w.astype(np.float64) + energy
    return np.stack([generator, energy.astype(np.float64)]), np.array([len(energy), 0])


def write_u_kn(
    path: Path,
    u_kn: Float[np.ndarray, "states samples"],
    n_k: Int[np.ndarray, " states"],
    states: Sequence[str],
    temperature_kelvin: float,
    families: Int[np.ndarray, " samples"] | None = None,
) -> None:
    """Write reduced energies as pymbar takes them, ``pymbar.MBAR(file["u_kn"], file["N_k"])`` of ``numpy.load``.

    Args:
        path: the ``.npz`` file.
        u_kn: reduced energies [kT]; the samples of state 0 come first.
        n_k: samples drawn from each state.
        states: names of the states.
        temperature_kelvin: of them all [K].
        families: samples of one number are not independent of each other, which an error bar has to allow for; written
            as ``families``, a number of its own for each where None.

    Raises:
        InputError: when the shapes do not fit.
        RunFailedError: the disk refuses.
    """
    _check_counts(u_kn, n_k)
    families = np.arange(u_kn.shape[1]) if families is None else families
    if len(families) != u_kn.shape[1]:
        raise InputError(f"{len(families)} families for {u_kn.shape[1]} samples; give one a sample")
    if len(states) != len(n_k):
        raise InputError(f"{len(states)} names {list(states)} for {len(n_k)} states; give one a state")
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.savez(
            file,
            u_kn=u_kn,
            N_k=n_k,
            states=np.array(states),
            temperature_kelvin=temperature_kelvin,
            unit="kT",
            families=families,
        )


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
    _check_counts(u_kn, n_k)
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


def _check_counts(u_kn: Float[np.ndarray, "states samples"], n_k: Int[np.ndarray, " states"]) -> None:
    if u_kn.shape != (len(n_k), int(n_k.sum())):
        raise InputError(f"u_kn has shape {u_kn.shape}, but the counts want {(len(n_k), int(n_k.sum()))}")


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

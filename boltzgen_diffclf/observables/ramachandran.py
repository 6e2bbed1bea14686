"""Free energies over one torsion or two, with the error of every bin from the scatter between walkers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.groups import group_index, refuse_nan
from boltzgen_diffclf.estimators.reweighting import sample_weights
from boltzgen_diffclf.observables.torsions import wrap


@dataclass(frozen=True)
class FreeEnergySurface:
    """A surface over two coordinates: (phi, psi) on [-pi, pi)^2, or others between their limits.

    Attributes:
        probability: share of each bin, first coordinate first; what is missing to one lies beyond the limits.
        stderr: standard error [kT] of each bin's free energy, ``inf`` in empty bins.
    """

    probability: Float[np.ndarray, "bins bins"]
    stderr: Float[np.ndarray, "bins bins"]

    @property
    def outside(self) -> float:
        """Share of what lies beyond the limits."""
        return max(0.0, 1.0 - float(self.probability.sum()))

    @property
    def free_energy(self) -> Float[np.ndarray, "bins bins"]:
        """Potential of mean force [kT] above the lowest bin, ``inf`` in empty bins."""
        energy = _minus_log(self.probability)
        lowest = energy.min()
        return energy - lowest if np.isfinite(lowest) else energy


@dataclass(frozen=True)
class FreeEnergyProfile:
    """A profile over one torsion on [-pi, pi).

    Attributes:
        probability: share of each bin; sums to one.
        stderr: standard error [kT] of each bin's free energy, ``inf`` in empty bins.
    """

    probability: Float[np.ndarray, " bins"]
    stderr: Float[np.ndarray, " bins"]

    @property
    def edges(self) -> Float[np.ndarray, " edges"]:
        """Bin edges [rad]."""
        return np.linspace(-np.pi, np.pi, len(self.probability) + 1)

    @property
    def free_energy(self) -> Float[np.ndarray, " bins"]:
        """Potential of mean force [kT] above the lowest bin, ``inf`` in empty bins."""
        energy = _minus_log(self.probability)
        return energy - energy.min()


@dataclass(frozen=True)
class SurfaceDifference:
    """Surface B minus surface A [kT], each normalised, and its standard error; NaN where either is empty."""

    value: Float[np.ndarray, "bins bins"]
    stderr: Float[np.ndarray, "bins bins"]


def free_energy_surface(
    phi: Float[np.ndarray, " samples"],
    psi: Float[np.ndarray, " samples"],
    *,
    groups: Shaped[np.ndarray, " samples"] | None = None,
    log_w: Float[np.ndarray, " samples"] | None = None,
    bins: int = 64,
) -> FreeEnergySurface:
    """Return the (weighted) free-energy surface of two torsions.

    Args:
        phi: [rad].
        psi: [rad].
        groups: walker of every sample; the errors treat a walker as one draw. Without groups every sample is
            independent. A bin that one walker alone has visited shows an error near 1 kT.
        log_w: unnormalised log weights.
        bins: a side; the limits are always [-pi, pi).

    Raises:
        InputError: on NaN.
    """
    probability, stderr = binned_free_energy(torsion_bins(phi, psi, bins), bins * bins, groups, log_w)
    return FreeEnergySurface(probability.reshape(bins, bins), stderr.reshape(bins, bins))


def free_energy_profile(
    angle: Float[np.ndarray, " samples"],
    *,
    groups: Shaped[np.ndarray, " samples"] | None = None,
    log_w: Float[np.ndarray, " samples"] | None = None,
    bins: int = 64,
) -> FreeEnergyProfile:
    """Return the (weighted) free-energy profile of one torsion; see :func:`free_energy_surface`.

    Raises:
        InputError: on NaN.
    """
    refuse_nan(angle, "angle")
    return FreeEnergyProfile(*binned_free_energy(_bin_of(angle, bins), bins, groups, log_w))


def surface_difference(surface_a: FreeEnergySurface, surface_b: FreeEnergySurface) -> SurfaceDifference:
    """Return surface B minus surface A of independent samples, with its standard error.

    Raises:
        InputError: when the grids differ.
    """
    if surface_a.probability.shape != surface_b.probability.shape:
        raise InputError(
            f"surfaces on grids {surface_a.probability.shape} and {surface_b.probability.shape} differ; "
            "use the same number of bins"
        )
    filled = (surface_a.probability > 0) & (surface_b.probability > 0)
    with np.errstate(invalid="ignore"):
        value = _minus_log(surface_b.probability) - _minus_log(surface_a.probability)
    stderr = np.hypot(surface_a.stderr, surface_b.stderr)
    return SurfaceDifference(np.where(filled, value, np.nan), np.where(filled, stderr, np.nan))


@dataclass(frozen=True)
class SurfaceAgreement:
    """How many bins of a surface are those of a reference, of the bins that the reference fills.

    Attributes:
        n_bins: that hold as much of the reference as was asked for.
        within: share of them that differ by two standard errors at most.
        largest: deviation [standard errors]; infinite where the surface is empty.
    """

    n_bins: int
    within: float
    largest: float


def surface_agreement(
    reference: FreeEnergySurface, surface: FreeEnergySurface, least_mass: float = 1e-3
) -> SurfaceAgreement:
    """Return how a surface agrees with an independent reference, bin by bin.

    Args:
        reference: whose bins count.
        surface: on the same grid.
        least_mass: share of the reference that a bin must hold.

    Raises:
        InputError: grids that differ, or no bin that holds so much.
    """
    counted = reference.probability >= least_mass
    if not counted.any():
        raise InputError(f"no bin holds {least_mass:g} of the reference: take fewer bins")
    deviation = np.abs(_deviations(surface_difference(reference, surface)))[counted]
    deviation[surface.probability[counted] == 0] = np.inf
    return SurfaceAgreement(int(counted.sum()), float((deviation <= 2).mean()), float(deviation.max()))


def _deviations(difference: SurfaceDifference) -> Float[np.ndarray, "bins bins"]:
    """Return the difference in units of its standard error; zero where it has none and there is no difference."""
    with np.errstate(divide="ignore", invalid="ignore"):
        ratio = difference.value / difference.stderr
    return np.where(difference.value == 0, 0.0, ratio)


def unvisited_share(
    sample: Float[np.ndarray, "samples 2"], reference: Float[np.ndarray, "references 2"], bins: int = 12
) -> float:
    """Return the share of a reference of (phi, psi) [rad] that lies where no sample is: what no weight can make good.

    Args:
        sample: those that have weight.
        reference: frames of the target.
        bins: a side; wide ones, so that samples that are few still reach all of a conformer that they know.
    """
    known = np.zeros(bins * bins, dtype=np.bool_)
    known[torsion_bins(sample[:, 0], sample[:, 1], bins)] = True
    return float((~known[torsion_bins(reference[:, 0], reference[:, 1], bins)]).mean())


def torsion_bins(
    phi: Float[np.ndarray, " samples"], psi: Float[np.ndarray, " samples"], bins: int
) -> Shaped[np.ndarray, " samples"]:
    """Return the flat bin ``phi_bin * bins + psi_bin`` of every sample on [-pi, pi)^2; angles wrap.

    Raises:
        InputError: on NaN.
    """
    refuse_nan(phi, "phi")
    refuse_nan(psi, "psi")
    return _bin_of(phi, bins) * bins + _bin_of(psi, bins)


def _bin_of(angle: Float[np.ndarray, " samples"], bins: int) -> Int[np.ndarray, " samples"]:
    along = ((wrap(angle) + np.pi) * (bins / (2 * np.pi))).astype(np.int64)
    # Rounding can put an angle just below pi on the upper edge.
    return np.minimum(along, bins - 1)


def binned_free_energy(
    cell: Int[np.ndarray, " samples"],
    n_cells: int,
    groups: Shaped[np.ndarray, " samples"] | None,
    log_w: Float[np.ndarray, " samples"] | None,
) -> tuple[Float[np.ndarray, " cells"], Float[np.ndarray, " cells"]]:
    """Return the share of each cell and the standard error [kT] of minus its logarithm.

    Args:
        cell: of every sample, 0 to ``n_cells - 1``.
        n_cells: how many there are.
        groups: walker of every sample; see :func:`free_energy_surface`.
        log_w: unnormalised log weights.
    """
    index, n_groups = group_index(groups, len(cell))
    weights = sample_weights(log_w, len(cell))
    probability = np.bincount(cell, weights, minlength=n_cells)
    if groups is None:
        square = np.bincount(cell, weights**2, minlength=n_cells)
        spread = square * (1 - 2 * probability) + probability**2 * np.sum(weights**2)
    else:
        # sum_g (w_gc - w_g p_c)^2, expanded: most groups visit few of the cells.
        visited, place = np.unique(index * n_cells + cell, return_inverse=True)
        by_group = np.bincount(place, weights)
        group_weight = np.bincount(index, weights, minlength=n_groups)
        square = np.bincount(visited % n_cells, by_group**2, minlength=n_cells)
        shared = np.bincount(visited % n_cells, by_group * group_weight[visited // n_cells], minlength=n_cells)
        spread = square - 2 * probability * shared + probability**2 * np.sum(group_weight**2)
    with np.errstate(divide="ignore", invalid="ignore"):
        stderr = np.sqrt(np.maximum(spread, 0) * n_groups / (n_groups - 1)) / probability
    stderr[probability == 0] = np.inf
    return probability, stderr


def _minus_log(probability: Float[np.ndarray, "*bins"]) -> Float[np.ndarray, "*bins"]:
    with np.errstate(divide="ignore"):
        return -np.log(probability)

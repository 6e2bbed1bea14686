"""MBAR over a family of states of which only some were sampled: the others are reached by reweighting."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Int, Shaped
from scipy.special import logsumexp

from boltzgen_diffclf.errors import InputError
from boltzgen_diffclf.estimators.estimate import Estimate
from boltzgen_diffclf.estimators.groups import correlated_size
from boltzgen_diffclf.estimators.mbar import mbar, mbar_influence, replicate_shift, resample_groups
from boltzgen_diffclf.estimators.overlap import equal_overlap


@dataclass(frozen=True, eq=False)
class Family:
    """Free energies of all states of a family and what pairs of them share.

    Attributes:
        free_energies: of every state [kT], the first sampled one zero.
        replicates: the same of every bootstrap replicate.
        weights: of every sample in every state, each row summing to one.
        influence: change of every free energy by every sample [kT].
        overlap_matrix: :func:`~boltzgen_diffclf.estimators.overlap.equal_overlap` of each pair of states.
    """

    free_energies: Float[np.ndarray, " states"]
    replicates: Float[np.ndarray, "bootstrap states"]
    weights: Float[np.ndarray, "states samples"]
    influence: Float[np.ndarray, "states samples"]
    overlap_matrix: Float[np.ndarray, "states states"]

    def between(self, a: int, b: int) -> Estimate:
        """Return ``F_b - F_a`` with the scatter of the bootstrap.

        ``n_effective`` is the smaller effective sample size of the two states' weights (Kish), divided by how much
        larger the variance is than that of independent samples. Where nothing joins the sampled states the error is
        infinite.
        """
        values = self.replicates[:, b] - self.replicates[:, a]
        stderr = float(values.std(ddof=1)) if np.isfinite(values).all() else float("inf")
        size = float(1 / np.square(self.weights[[a, b]]).sum(axis=1).max())
        independent = float(np.linalg.norm(self.influence[b] - self.influence[a]))
        return Estimate(
            float(self.free_energies[b] - self.free_energies[a]),
            stderr,
            float(self.overlap_matrix[a, b]),
            correlated_size(size, independent, stderr),
            "MBAR",
        )


def mbar_family(
    u_kn: Float[np.ndarray, "states samples"],
    n_k: Int[np.ndarray, " states"],
    groups: Shaped[np.ndarray, " samples"],
    generator: np.random.Generator,
    n_bootstrap: int = 200,
) -> Family:
    """Return MBAR's free energies of every state, sampled or not, walkers bootstrapped whole.

    With a single sampled state this is exponential averaging from it.

    Args:
        u_kn: reduced energy [kT] in state k of sample n, samples ordered by the state that drew them.
        n_k: samples drawn from each state; zero where a state was not sampled.
        groups: walker of every sample.
        generator: for the bootstrap.
        n_bootstrap: number of replicates.

    Raises:
        InputError: no samples, NaN, or counts that do not fit.

    References:
        Shirts & Chodera 2008, J. Chem. Phys. 129:124105, eq. 11 and 15 (states without samples).
    """
    sampled = n_k > 0
    if not sampled.any() or u_kn.shape[1] != n_k.sum() or np.isnan(u_kn).any():
        raise InputError(
            f"counts {n_k.tolist()} do not describe {u_kn.shape[1]} samples without NaN; check the ensembles"
        )
    counts = n_k[sampled].astype(np.float64)
    solved = mbar(u_kn[sampled], n_k[sampled]) if len(counts) > 1 else None
    own = np.zeros(1) if solved is None else solved.free_energies
    log_mixture = logsumexp((np.log(counts) + own)[:, None] - u_kn[sampled], axis=0)
    log_ratio = -u_kn - log_mixture
    free_energies = -logsumexp(log_ratio, axis=1)
    density = np.exp(log_ratio + free_energies[:, None])
    origin = np.repeat(np.arange(int(sampled.sum())), n_k[sampled])
    replicates = []
    for weight in resample_groups(groups, origin, generator, n_bootstrap):
        shift = replicate_shift(density[sampled], origin, weight) if len(counts) > 1 else np.zeros(1)
        scale = np.bincount(origin, weight, minlength=len(counts)) * np.exp(shift)
        reached = density @ (weight / (scale @ density[sampled]))
        replicates.append(free_energies - np.log(reached))
    overlap = np.array([[equal_overlap(one, other) for other in density] for one in density])
    # States that nothing joins have infinite errors, whatever each sample does.
    joined = solved is not None and bool(np.isfinite(solved.covariance).all())
    influence = _influence(density, density[sampled] * counts[:, None] * joined, origin, counts)
    return Family(free_energies, np.array(replicates), density, influence, overlap)


def _influence(
    density: Float[np.ndarray, "states samples"],
    posterior: Float[np.ndarray, "sampled samples"],
    origin: Int[np.ndarray, " samples"],
    counts: Float[np.ndarray, " sampled"],
) -> Float[np.ndarray, "states samples"]:
    """Return the change of every free energy by every sample: its own weight, and what it moves the sampled states."""
    means = np.stack([np.bincount(origin, row, minlength=len(counts)) for row in density]) / counts
    direct = means[:, origin] - density
    if not posterior.any():
        return direct
    return direct + density @ posterior.T @ mbar_influence(posterior, origin, counts).T

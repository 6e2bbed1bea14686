"""What the metrics of the suites are, each in a sentence with its unit and its convention."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

_VARIATION = "Total variation, half the sum over the {parts} of |weight − exact weight|,"
_MODES, _REGIONS = _VARIATION.format(parts="modes"), _VARIATION.format(parts="five regions")
_SLICED = (
    "root of the mean over 128 random directions of the squared 2-Wasserstein distance between the projections [unit "
    "of x], so that a shift by v scores about |v| / √d"
)
_IN_ENERGY = "exp(−U) at the least noise, if any, from exact samples of the density p weighted by w = exp(−U) / p"
_PARTICLES = "the particles of sequential Monte Carlo down the noise"

DEFINITIONS: Mapping[str, str] = {
    # Free energies.
    "delta_f": "F(B) − F(A) [kT], F = −log Z, by the estimator of the row; of an interpolant by thermodynamic "
    "integration of the learned energies over exact samples.",
    "delta_f_exact_ends": "F(B) − F(A) [kT] where the classification loss of the frozen energies is least, the true "
    "states as first and last class: MBAR over every fourth level, or BAR between neighbours for the network of wells; "
    "over all seeds, the errors of this and of delta_f hold the distance between the two.",
    "delta_f_classifier": "F(B) − F(A) [kT] as training left it: the level free energy of the last level less that of "
    "the first.",
    "overlap": "Smaller off-diagonal element of the overlap matrix of the two ends, from the works that BAR was given: "
    "0 where they share nothing, 1/2 where they are the same.",
    "asymptotic_stderr": "Standard error of BAR [kT] by its asymptotic formula, infinite without overlap; that of "
    "delta_f is a bootstrap.",
    "n_effective": "Number of independent samples, or works, that would give the standard error of delta_f; for the "
    "network of wells the smaller Kish size (Σw)² / Σw² of the weights w from learned to true energies at the ends.",
    "log_normaliser": "log Z = −F [nats] of the composed energy: log of the mean Z of eight populations, whose scatter "
    "is the error.",
    # Classification among levels.
    "classification": "Cross-entropy [nats] of naming which of all levels drew an exact sample, with the level free "
    "energies of the model: fitted to the training data after training, or as learned in an interpolant.",
    "excess_classification.profiled_f": "That cross-entropy less the one of the exact densities on the same samples "
    "[nats], with level free energies fitted to other exact samples.",
    "excess_classification.model_f": "The same excess [nats] with the model's level free energies, fitted to the "
    "training data after training.",
    "excess_classification.learned_f": "The same excess [nats] with the level free energies as training left them.",
    "free_energy_rms.learned_f": "Standard deviation over the levels [kT], one constant being free, of the level free "
    "energies as training left them less those that the same energies have on exact samples.",
    "free_energy_rms.model_f": "The same [kT] of the model's level free energies, fitted to the training data.",
    "cross_entropy": "Cross-entropy [nats] of naming which of all levels, data and pure noise included, drew an exact "
    "sample.",
    "excess_cross_entropy": "That cross-entropy less the one of the exact posterior on the same samples [nats].",
    # Scores.
    "fisher": "Fisher divergence E|s_model − s|² / d at the least noise, if any, over exact samples: a coordinate, "
    "without a factor 1/2 [1 / unit of x squared]; fisher@t is that of level t.",
    "fisher.mean": "Mean of fisher@t over eight levels, spread evenly from the first to the last; of an interpolant "
    "both ends are left out.",
    "excess_denoising": "excess_denoising@t is E|e_model − e|² / d at level t, e = E[noise | y], the noise of unit "
    "variance: the squared error of the denoiser, a coordinate, above the least possible one.",
    "excess_denoising.mean": "Mean of excess_denoising@t over all levels with both data and noise.",
    "excess_denoising.high_noise": "Mean of excess_denoising@t over those with t ≥ 0.75, noise being t = 1.",
    # Weights of modes in the learned energy.
    "energy_mode_total_variation": f"{_MODES} of {_IN_ENERGY}; a sample is shared among modes by responsibility.",
    "energy_modes_forgotten": f"Number of modes with less than 5 % of the smallest exact weight in {_IN_ENERGY}.",
    "energy_mode_effective": "Kish's effective size (Σw)² / Σw² of these w, in samples.",
    "effective_fraction": "Kish's effective size as a share of the samples, (Σw)² / (n Σw²), w = exp(−U) / p on exact "
    "samples of p at the least noise, if any; effective_fraction@t is that of level t.",
    "mode_weight_error": f"{_MODES} of exp(−U), by quadrature over the plane.",
    "mode_weight": "mode_weight@k is the weight of mode k in exp(−U), by quadrature over the plane.",
    "left_weight": "Mass of exp(−U) / Z left of the middle between the modes, by quadrature.",
    "left_weight_relative_error": "|left_weight / exact − 1|.",
    "pool_left_weight": "Share of the training samples left of the middle between the modes.",
    "smc_mode_total_variation": f"{_MODES} of {_PARTICLES}: begun at exact samples of the most noise, moved by the "
    "learned scores, weighted by the learned energies.",
    "smc_least_effective_fraction": f"Least over the levels of (Σw)² / (n Σw²) of {_PARTICLES}, on arrival and before "
    "resampling; it does not see common descent.",
    # Learned densities.
    "kullback_leibler": "KL(exact ‖ model) = E[log p − log p_model] [nats] over the exact density; the model is "
    "normalised by quadrature in suite classifier, elsewhere by the log Z it learned, and may then score below zero.",
    "kullback_leibler.model_f": "KL(exact ‖ model) [nats] at the least noise, log p_model = F − U with the model's F, "
    "fitted to the training data: below zero where F is off by more.",
    "kullback_leibler.normalised": "KL(exact ‖ model) [nats], model normalised and mean taken by quadrature over the "
    "plane.",
    "log_likelihood": "Mean log p_model [nats] of exact samples not learned from, normalised by quadrature; in suite "
    "classifier as the network gives it, with the error of its distance to the exact one.",
    "log_likelihood.lower": "The same [nats] with the upper bound of log Z, by annealing from the model to a Gaussian.",
    "log_likelihood.upper": "The same [nats] with the lower bound of log Z, by annealing from a Gaussian to the model.",
    "log_z_error.learned": "log Z of the model less that by quadrature [nats]; of a noised energy log Z is −F at the "
    "least noise, F fitted to the training data.",
    "log_z_error.lower": "Lower bound of log Z, by annealing from a Gaussian to the model, less log Z by quadrature "
    "[nats]: below zero on average.",
    "log_z_error.upper": "Upper bound of log Z, by annealing from the model to a Gaussian, less log Z by quadrature "
    "[nats]: above zero on average.",
    "log_density_rms": "Root mean square of log p_model − log p [nats] over exact samples, no constant being free.",
    "integral": "Integral of the density as the network gives it, by quadrature.",
    "density": "Density at the place behind its @, beside the exact one: exp(−U) / Z by quadrature in suite "
    "mixture-1d, as the network gives it in classifier, of the weighted particles by cells in composition.",
    "reverse_density": "Density of the samples of the reverse process at the place behind its @, by cells.",
    # Samples of the reverse process.
    "reverse_mode_total_variation": f"{_MODES} of samples of the reverse process, which follows the learned scores.",
    "reverse_modes_forgotten": "Number of modes with less than 5 % of the smallest exact weight in these samples.",
    "reverse_mmd_squared": "Squared maximum mean discrepancy to exact samples, unbiased and so below zero at times, of "
    "the kernel Σ_b exp(−|x − y|² / (2b²)): a sum, not a mean, over b = 1/4, 1/2, 1, 2 and 4 times the median distance "
    "of the exact samples.",
    "reverse_mmd": "Root of reverse_mmd_squared, zero where that is negative.",
    "reverse_sliced_w2": f"Sliced distance to exact samples: {_SLICED}.",
    "reverse_w1": "1-Wasserstein distance, cost |x − y|, of at most 1024 samples to as many exact ones, by exact "
    "transport [unit of x].",
    "reverse_w2": "2-Wasserstein distance of the same samples: root of the mean cost |x − y|² [unit of x].",
    "reverse_sliced_ks": "Mean over 128 random directions of the largest difference, 0 to 1, between the empirical "
    "distribution functions of the projections of samples and exact samples.",
    "sampled_mode_total_variation": f"{_MODES} of samples of the denoiser, one step a level from pure noise.",
    "sampled_sliced_w2": f"Sliced distance of these samples to exact ones: {_SLICED}.",
    # Composed energies.
    "smc_region_total_variation": f"{_REGIONS} of {_PARTICLES}, moved by exact (MALA) steps in the composed energy and "
    "weighted by it.",
    "smc_region_weight": "smc_region_weight@k is the weight in these particles of region k, of the points nearest to "
    "one of five.",
    "smc_sliced_w2": f"Sliced distance of these particles, resampled, to exact samples: {_SLICED}.",
    "least_effective_fraction": "Least over the levels and the populations of (Σw)² / (n Σw²) of these particles.",
    "reverse_region_total_variation": f"{_REGIONS} of samples of the reverse process along the composed scores.",
    "reverse_region_weight": "reverse_region_weight@k is the weight of region k in samples of the reverse process.",
    # Training and costs.
    "diverged": "1 where the training left the finite numbers and nothing else was measured, else 0.",
    "gradient_norm.": "gradient_norm.NAME is the median over the training, its first record left out, of the norm of "
    "the network's gradient by the loss of that name times its weight.",
    "gradient_burst.": "gradient_burst.NAME is the largest of these norms over their median.",
    "held_out_denoising": "Denoising loss of samples not learned from, after the last step: |γ ∇U − z|² / d for y = "
    "mean + γ z, with less weight where the end energies clash.",
    "held_out_classification": "Cross-entropy [nats] of naming the level within a group of levels, on samples not "
    "learned from, after the last step.",
    "recommended_group_size": "Number N of levels a group that is as good as the best in the most dimensions.",
    "as_good_as_the_best": "1 where two standard errors do not tell excess_classification.profiled_f from that of the "
    "best N of this dimension, else 0.",
    "energy_evaluations": "Configurations evaluated with a true energy; a learned path counts both ends at every "
    "configuration of its pools, needed or not.",
    "network_evaluations": "Evaluations of the network in the steps of its training, energies and gradients alike; "
    "none of measuring.",
    "training_seconds": "Wall time [s] of the steps of the training, all its starts together.",
    "seconds": "Wall time [s] of the row, its training and all that is measured, all its starts together; the first of "
    "several rows trains what they compose.",
}
"""By the name of the metric, of a curve before its ``@``; one that ends with a dot is of all names that begin so."""


def definitions(metrics: Iterable[str]) -> dict[str, str]:
    """Return the definitions of these metrics in the order of :data:`DEFINITIONS`; what it lacks is left out.

    >>> list(definitions(["gradient_norm.denoising", "fisher@0.5", "fisher@1", "fisher.unheard_of"]))
    ['fisher', 'gradient_norm.']
    """
    names = {metric.partition("@")[0] for metric in metrics}
    keys = {name if name in DEFINITIONS else f"{name.partition('.')[0]}." for name in names}
    return {key: about for key, about in DEFINITIONS.items() if key in keys}

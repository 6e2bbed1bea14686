"""The probability flow: densities of analytic mixtures, exactly and by probes, and samples that know their own."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from boltzgen_diffclf.paths import Edm, VarianceExploding, VariancePreserving
from boltzgen_diffclf.samplers import ExactDivergence, Hutchinson, ProbabilityFlow
from boltzgen_diffclf.samplers.probability_flow import Score
from boltzgen_diffclf.streams import named_generator
from systems.analytic import GaussianMixture, MixtureMarginals

PATHS = {
    "preserving": VariancePreserving(t_min=1e-3),
    "exploding": VarianceExploding(0.02, 30.0),
    "edm": Edm(0.02, 30.0),
}
MIXTURE = GaussianMixture(
    torch.tensor([0.3, 0.7], dtype=torch.float64),
    torch.tensor([[-2.0, 0.5, 0.0], [1.0, 0.0, 1.0]], dtype=torch.float64),
    torch.tensor([0.3, 0.5], dtype=torch.float64),
)


def score_of(marginals: MixtureMarginals) -> Score:
    return lambda y, t: -marginals.gradient(y, t)


@pytest.mark.parametrize("path", PATHS.values(), ids=PATHS.keys())
def test_the_density_of_a_mixture_is_found_at_samples_and_away_from_them(path) -> None:
    marginals, stream = MixtureMarginals(MIXTURE, path), named_generator(0, "x")
    first, last = marginals.at(path.t_min), marginals.at(path.t_max)
    x = torch.cat([first.sample(20, stream), 2 * torch.randn(20, 3, generator=stream, dtype=torch.float64)])
    found = ProbabilityFlow(path).log_likelihood(score_of(marginals), x, last.log_density, stream)
    torch.testing.assert_close(found.log_density, first.log_density(x), atol=5e-3, rtol=1e-4)
    assert float(found.stderr.abs().max()) == 0


def test_probes_are_right_within_their_errors() -> None:
    path = PATHS["exploding"]
    marginals, stream = MixtureMarginals(MIXTURE, path), named_generator(1, "x")
    first, last = marginals.at(path.t_min), marginals.at(path.t_max)
    x = first.sample(60, stream)
    found = ProbabilityFlow(path, Hutchinson(24)).log_likelihood(score_of(marginals), x, last.log_density, stream)
    score = (found.log_density - first.log_density(x)) / found.stderr
    assert float(found.stderr.min()) > 1e-3
    assert 0.6 < float(score.std()) < 1.4
    assert abs(float(score.mean())) < 4 * 60**-0.5


@pytest.mark.parametrize("divergence", [ExactDivergence(), Hutchinson(32)], ids=["exact", "probes"])
def test_samples_carry_their_own_densities(divergence) -> None:
    path = PATHS["preserving"]
    marginals, stream = MixtureMarginals(MIXTURE, path), named_generator(2, "x")
    first, last = marginals.at(path.t_min), marginals.at(path.t_max)
    start = last.sample(60, stream)
    flow = ProbabilityFlow(path, divergence)
    samples = flow.sample(score_of(marginals), start, last.log_density(start), stream)
    error = samples.log_density - first.log_density(samples.position)
    assert bool((error.abs() < 5 * samples.stderr + 5e-3).all())


def test_the_flow_between_inner_times_is_that_of_their_marginals() -> None:
    path = PATHS["preserving"]
    marginals, stream = MixtureMarginals(MIXTURE, path), named_generator(3, "x")
    first, last = marginals.at(0.2), marginals.at(0.6)
    x = first.sample(20, stream)
    flow = ProbabilityFlow(path, t_first=0.2, t_last=0.6)
    found = flow.log_likelihood(score_of(marginals), x, last.log_density, stream)
    torch.testing.assert_close(found.log_density, first.log_density(x), atol=1e-3, rtol=1e-4)


def test_single_precision_stays_so() -> None:
    path = PATHS["exploding"]
    marginals, stream = MixtureMarginals(MIXTURE.to(dtype=torch.float32), path), named_generator(4, "x")
    x = marginals.at(path.t_min).sample(10, stream)
    flow = ProbabilityFlow(path, Hutchinson(2), tolerance=1e-3)
    last = marginals.at(path.t_max)
    found = flow.log_likelihood(score_of(marginals), x, last.log_density, stream)
    samples = flow.sample(score_of(marginals), last.sample(10, stream), torch.zeros(10), stream)
    assert found.log_density.dtype == found.stderr.dtype == samples.position.dtype == torch.float32


def test_a_first_time_without_noise_and_a_single_probe_are_refused() -> None:
    def score(y: Tensor, t: Tensor) -> Tensor:
        return -y

    flow = ProbabilityFlow(VariancePreserving(), t_first=0.0)
    with pytest.raises(ValueError, match="no noise at t_first = 0"):
        flow.sample(score, torch.zeros(1, 2), torch.zeros(1), named_generator(5, "x"))
    with pytest.raises(ValueError, match="two probes"):
        Hutchinson(1)

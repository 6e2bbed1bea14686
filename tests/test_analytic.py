"""The oracles themselves: normalisers by brute force, samplers by their moments."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch

from boltzgen_diffclf.streams import named_generator
from systems.analytic import DoubleWell, GaussianMixture, TiltedHarmonic, TiltedHarmonicPair


def two_modes(dtype: torch.dtype = torch.float64, log_normaliser: float = 0.7) -> GaussianMixture:
    return GaussianMixture(
        torch.tensor([1.0, 3.0], dtype=dtype),
        torch.tensor([[-2.0, 0.0], [2.0, 1.0]], dtype=dtype),
        torch.tensor([0.5, 1.0], dtype=dtype),
        log_normaliser,
    )


def plane(half_width: float, n: int = 801) -> tuple[torch.Tensor, float]:
    """Return a square grid of points of the plane, and the area of a cell."""
    axis = torch.linspace(-half_width, half_width, n, dtype=torch.float64)
    return torch.cartesian_prod(axis, axis), float(axis[1] - axis[0]) ** 2


@pytest.mark.parametrize(
    "target",
    [two_modes(), DoubleWell(barrier=3.0, tilt=0.4), TiltedHarmonic(2.0, [1.0, -0.5])],
    ids=["mixture", "double well", "tilted harmonic"],
)
def test_log_normaliser_is_the_integral(target: GaussianMixture | DoubleWell | TiltedHarmonic) -> None:
    points, cell = plane(9.0)
    log_z = float((-target.energy(points)).logsumexp(0)) + math.log(cell)
    assert log_z == pytest.approx(target.log_normaliser, abs=1e-8)


@pytest.mark.parametrize(
    "target",
    [two_modes(), DoubleWell(barrier=3.0, tilt=0.4), TiltedHarmonic(2.0, [1.0, -0.5])],
    ids=["mixture", "double well", "tilted harmonic"],
)
def test_samples_have_the_moments_of_the_density(target: GaussianMixture | DoubleWell | TiltedHarmonic) -> None:
    points, _ = plane(9.0)
    probability = torch.softmax(-target.energy(points), 0)
    x = target.sample(40_000, named_generator(2, "samples"))
    for function in (lambda y: y, torch.square, lambda y: (y > 0.3).double()):
        values, exact = function(x), probability @ function(points)
        # A cell of the grid is the resolution of the step function's exact mean.
        assert ((values.mean(0) - exact).abs() < 4 * values.std(0) / math.sqrt(len(x)) + 2e-3).all()


def test_mixture_density_is_normalised_apart_from_the_offset() -> None:
    mixture = two_modes(log_normaliser=0.7)
    x = mixture.sample(5, named_generator(3, "points"))
    torch.testing.assert_close(mixture.log_density(x), -mixture.energy(x) - 0.7)


def test_mixture_weights_are_found_again_in_the_samples() -> None:
    mixture = two_modes()
    in_second = mixture.responsibilities(mixture.sample(20_000, named_generator(4, "weights")))[:, 1]
    assert float(in_second.mean()) == pytest.approx(0.75, abs=4 * float(in_second.std()) / math.sqrt(20_000))


def test_mixture_keeps_its_dtype() -> None:
    mixture = two_modes(torch.float32)
    x = mixture.sample(3, named_generator(5, "dtype"))
    energy, force = mixture.energy_and_force(x)
    assert x.dtype == energy.dtype == force.dtype == mixture.dtype == torch.float32


def test_tilt_deepens_the_left_well() -> None:
    left = DoubleWell(barrier=6.0, tilt=0.5).expectation(lambda x: (x < 0).astype(np.float64))
    assert math.log(left / (1 - left)) == pytest.approx(1.0, abs=0.1)
    assert DoubleWell(tilt=0.0).expectation(lambda x: x) == pytest.approx(0.0, abs=1e-12)


def test_line_between_tilted_harmonics_is_harmonic_with_known_free_energy() -> None:
    pair = TiltedHarmonicPair(TiltedHarmonic(1.0, [0.0, 0.0]), TiltedHarmonic(4.0, [2.0, 1.0]))
    middle = pair.at(0.3)
    x = middle.sample(4, named_generator(6, "line"))
    torch.testing.assert_close(middle.energy(x), 0.7 * pair.state_a.energy(x) + 0.3 * pair.state_b.energy(x))
    assert pair.delta_f == pytest.approx(pair.at(0.0).log_normaliser - pair.at(1.0).log_normaliser)
    assert pair.delta_f == pytest.approx(math.log(4.0) - 5.0 / 8.0)


@pytest.mark.parametrize(
    "build",
    [
        lambda: GaussianMixture(torch.tensor([1.0, 0.0]), torch.zeros(2, 1), torch.ones(2)),
        lambda: GaussianMixture(torch.ones(2), torch.zeros(2, 1), torch.tensor([1.0, -1.0])),
        lambda: DoubleWell(barrier=0.0),
        lambda: TiltedHarmonic(0.0, [1.0]),
    ],
)
def test_impossible_parameters_are_refused(build: object) -> None:
    with pytest.raises(ValueError, match=r"positive|needs"):
        build()  # type: ignore[operator]

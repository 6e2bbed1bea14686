"""Generalised Born forces of OpenMM, recognised by value and read into :class:`BornParameters`.

A CustomGBForce is a set of expressions. Each model that the kernels compute is evaluated beside them at many points
and is accepted where all values agree; spelling, order of definitions and global parameters do not matter.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch
from openmm import unit

from systems.forcefield.born import Born
from systems.forcefield.expressions import Expression, ExpressionError, Value
from systems.forcefield.pairs import Distances
from systems.forcefield.parameters import Array, BornParameters, NeckParameters
from systems.forcefield.refusal import refuse

# 1 / (4 pi epsilon_0) [kJ/mol nm/e^2], CODATA 2018, as OpenMM's own forces have it.
COULOMB_CONSTANT = 138.93545764438198
# The value that OpenMM writes into the expressions of its CustomGBForce models.
CUSTOM_COULOMB_CONSTANT = 138.935485
# ACE surface term of OpenMM: 4 pi 2.25936 kJ/mol/nm^2, and the radius of a water molecule [nm].
ACE_STRENGTH = 28.3919551
PROBE_RADIUS = 0.14


@dataclass(frozen=True)
class Model:
    """What tells one generalised Born model from another.

    References:
        HCT: doi:10.1021/jp961710n; OBC1, OBC2: doi:10.1002/prot.20033, models I and II;
        GBn: doi:10.1021/ct600085e; GBn2: doi:10.1021/ct3010485.
    """

    name: str
    offset: float
    rescaling: tuple[float, float, float] | None
    neck_scale: float = 0.0
    is_atomic: bool = False


MODELS = (
    Model("HCT", 0.009, None),
    Model("OBC1", 0.009, (0.8, 0.0, 2.909125)),
    Model("OBC2", 0.009, (1.0, 0.8, 4.85)),
    Model("GBn", 0.009, (1.09511284, 1.907992938, 2.50798245), neck_scale=0.361825),
    Model("GBn2", 0.0195141, (0.0, 0.0, 0.0), neck_scale=0.826836, is_atomic=True),
)
NECK_CUT = 0.68


@dataclass(frozen=True)
class Medium:
    """Dielectric constants and screening [1/nm]."""

    solute: float
    solvent: float
    kappa: float


class CustomGB:
    """The contents of one CustomGBForce."""

    def __init__(self, index: int, force: Any) -> None:
        self.index, self.force = index, force
        if force.getNonbondedMethod() != openmm.CustomGBForce.NoCutoff:
            refuse(index, force, "has a cutoff, and only NoCutoff is computed")
        n_parameters = force.getNumPerParticleParameters()
        names = [force.getPerParticleParameterName(i) for i in range(n_parameters)]
        rows = np.array([force.getParticleParameters(i) for i in range(force.getNumParticles())])
        self.particles: dict[str, Array] = dict(zip(names, rows.T, strict=True))
        self.globals = {
            force.getGlobalParameterName(i): force.getGlobalParameterDefaultValue(i)
            for i in range(force.getNumGlobalParameters())
        }
        self.tables = dict(self._table(i) for i in range(force.getNumTabulatedFunctions()))
        values = [force.getComputedValueParameters(i) for i in range(force.getNumComputedValues())]
        self.computed = {name: (text, kind) for name, text, kind in values}
        self.energies = [tuple(force.getEnergyTermParameters(i)) for i in range(force.getNumEnergyTerms())]

    def _table(self, i: int) -> tuple[str, Array]:
        function = self.force.getTabulatedFunction(i)
        name = self.force.getTabulatedFunctionName(i)
        if not isinstance(function, openmm.Discrete2DFunction):
            self.refuse(f"has the tabulated function {name!r} of the kind {type(function).__name__}")
        width, height, values = function.getFunctionParameters()
        # The first argument runs fastest.
        return name, np.array(values).reshape(height, width).T

    def refuse(self, reason: str) -> None:
        """Raise the error that names this force."""
        refuse(self.index, self.force, reason)

    def evaluate(self, text: str, variables: dict[str, Value]) -> Array:
        """Return the value of an expression of this force."""
        functions: dict[str, Callable[..., Value]] = {
            name: lambda x, y, table=table: table[np.asarray(x, dtype=int), np.asarray(y, dtype=int)]
            for name, table in self.tables.items()
        }
        return np.asarray(Expression(text, functions).evaluate({**self.globals, **variables}), dtype=float)

    def medium(self) -> Medium:
        """Return the dielectric constants and the screening, from definitions or global parameters."""
        found: dict[str, float] = {}
        for name, fallback in (("soluteDielectric", None), ("solventDielectric", None), ("kappa", 0.0)):
            values = set()
            for text, _ in self.energies:
                try:
                    _, *definitions = text.split(";", 1)
                    values.add(float(self.evaluate(";".join([name, *definitions]), {})))
                except ExpressionError:
                    continue
            if not values and fallback is not None:
                values = {fallback}
            if len(values) != 1:
                self.refuse(f"does not define one {name} in its energy terms (found {sorted(values)})")
            found[name] = values.pop()
        return Medium(found["soluteDielectric"], found["solventDielectric"], found["kappa"])


def build(model: Model, medium: Medium, particles: dict[str, Array], tables: dict[str, Array], ace: bool) -> BornParameters:
    """Return the model with the parameters of given atoms."""
    offset_radius = particles["or"]
    radius = offset_radius + model.offset
    n_atoms = len(radius)
    if model.is_atomic:
        rescaling = np.stack([particles[name] for name in ("alpha", "beta", "gamma")], axis=1)
    else:
        rescaling = np.tile(model.rescaling or (0.0, 0.0, 0.0), (n_atoms, 1))
    neck = None
    if model.neck_scale:
        kind = particles["radindex"].astype(int)
        square = np.ix_(kind, kind)
        neck = NeckParameters(
            distance=tables["getd0"][square],
            depth=model.neck_scale * tables["getm0"][square],
            cutoff=radius[:, None] + radius + NECK_CUT,
        )
    return BornParameters(
        charge=particles["charge"],
        offset_radius=offset_radius,
        scaled_radius=particles["sr"],
        radius=radius,
        rescaling=rescaling,
        rescaled=model.rescaling is not None,
        engulfing=False,
        prefactor=CUSTOM_COULOMB_CONSTANT,
        solute_dielectric=medium.solute,
        solvent_dielectric=medium.solvent,
        kappa=medium.kappa,
        surface=ACE_STRENGTH * (radius + PROBE_RADIUS) ** 2 * float(ace),
        neck=neck,
    )


class Probe:
    """Random atoms and distances at which expressions and kernels are compared."""

    def __init__(self, source: CustomGB) -> None:
        self.source = source
        generator = np.random.default_rng(0)
        self.n_atoms = 48
        ranges = {"charge": (-1, 1), "or": (0.05, 0.2), "sr": (-0.1, 0.3), "alpha": (0.3, 1), "beta": (0.2, 1)}
        self.particles = {
            name: generator.uniform(*ranges.get(name, (0.1, 0.5)), size=self.n_atoms) for name in source.particles
        }
        if "radindex" in self.particles:
            kinds = min((len(table) for table in source.tables.values()), default=1)
            self.particles["radindex"] = generator.integers(0, kinds, size=self.n_atoms).astype(float)
        self.first, self.second = np.triu_indices(self.n_atoms, k=1)
        self.r = generator.uniform(0.01, 1.5, size=len(self.first))
        self.integral = generator.uniform(0.0, 4.0, size=self.n_atoms)
        self.b = generator.uniform(0.05, 0.5, size=self.n_atoms)

    def agrees(self, text: str, variables: dict[str, Value], kernel: torch.Tensor) -> bool:
        """Return whether an expression has the values that the kernel gives."""
        try:
            expected = self.source.evaluate(text, variables)
        except (ExpressionError, IndexError):
            return False
        return bool(np.allclose(np.broadcast_to(expected, (kernel.numel(),)), kernel.flatten(), rtol=1e-9, atol=1e-10))

    def of_pairs(self, swap: bool = False) -> dict[str, Value]:
        """Return the variables of pair expressions."""
        one, two = (self.second, self.first) if swap else (self.first, self.second)
        variables: dict[str, Value] = {"r": self.r, "B1": self.b[one], "B2": self.b[two]}
        for name, values in self.particles.items():
            variables |= {f"{name}1": values[one], f"{name}2": values[two]}
        return variables

    def kernel(self, born: BornParameters) -> Born:
        """Return the kernels for the random atoms."""
        return Born(born, self.first, self.second, torch.float64)

    def distances(self) -> Distances:
        """Return the random distances as the kernels take them."""
        r = torch.as_tensor(self.r)[None, :, None]
        return Distances(r.square(), r, torch.reciprocal(r))

    def matches_descreening(self, kernel: Born, text: str) -> bool:
        """Return whether an expression is the descreening integral of a model, in both orders."""
        distances = self.distances()
        return self.agrees(text, self.of_pairs(), kernel.of_first(distances).value) and self.agrees(
            text, self.of_pairs(swap=True), kernel.of_second(distances).value
        )

    def matches_radius(self, kernel: Born, text: str) -> bool:
        """Return whether an expression is the Born radius of a model."""
        per_b, _ = kernel.inverse_radii(torch.as_tensor(self.integral)[None, :, None])
        return self.agrees(text, {**self.particles, "I": self.integral}, 1 / per_b)

    def matches_single(self, kernel: Born, texts: list[str]) -> bool:
        """Return whether expressions sum to the energy of single atoms."""
        energy, _ = kernel.single(1 / torch.as_tensor(self.b)[None, :, None])
        return self.agrees_sum(texts, {**self.particles, "B": self.b}, energy)

    def matches_polar(self, kernel: Born, texts: list[str]) -> bool:
        """Return whether expressions sum to the polar energy of pairs."""
        b = torch.as_tensor(self.b)[None, :, None]
        energy, _, _ = kernel.polar(self.distances().square, b, 1 / b)
        return self.agrees_sum(texts, self.of_pairs(), energy)

    def agrees_sum(self, texts: list[str], variables: dict[str, Value], kernel: torch.Tensor) -> bool:
        """Return whether the sum of expressions has the values that the kernel gives."""
        try:
            expected = sum((self.source.evaluate(text, variables) for text in texts), np.zeros(1))
        except (ExpressionError, IndexError):
            return False
        return bool(np.allclose(np.broadcast_to(expected, (kernel.numel(),)), kernel.flatten(), rtol=1e-9, atol=1e-10))


def read_custom_gb(index: int, force: Any) -> BornParameters:
    """Return the parameters of a CustomGBForce that is one of the known models.

    Raises:
        UnsupportedSystemError: naming the expression that no model has.
    """
    source = CustomGB(index, force)
    if set(source.computed) != {"I", "B"}:
        source.refuse(f"computes the values {sorted(source.computed)}, where the known models compute B and I")
    medium, probe = source.medium(), Probe(source)
    fitting = [model for model in MODELS if names_of(model) <= set(source.particles)]
    (integral, _), (radius, _) = source.computed["I"], source.computed["B"]
    pair = [text for text, kind in source.energies if kind != openmm.CustomGBForce.SingleParticle]
    single = [text for text, kind in source.energies if kind == openmm.CustomGBForce.SingleParticle]
    for model in fitting:
        for ace in (True, False):
            kernel = probe.kernel(build(model, medium, probe.particles, source.tables, ace))
            if (
                probe.matches_descreening(kernel, integral)
                and probe.matches_radius(kernel, radius)
                and probe.matches_single(kernel, single)
                and probe.matches_polar(kernel, pair)
            ):
                return build(model, medium, source.particles, source.tables, ace)
    source.refuse("is not understood")
    raise AssertionError


def names_of(model: Model) -> set[str]:
    """Return the per-particle parameters that a model needs."""
    names = {"charge", "or", "sr"}
    if model.neck_scale:
        names |= {"radindex"}
    if model.is_atomic:
        names |= {"alpha", "beta", "gamma"}
    return names


def read_gbsa_obc(index: int, force: Any) -> BornParameters:
    """Return the parameters of OpenMM's built-in OBC model (OBC2 with the engulfed-atom correction)."""
    if force.getNonbondedMethod() != openmm.GBSAOBCForce.NoCutoff:
        refuse(index, force, "has a cutoff, and only NoCutoff is computed")
    rows = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge, radius, factor = np.array(
        [[q.value_in_unit(unit.elementary_charge), r.value_in_unit(unit.nanometer), s] for q, r, s in rows]
    ).T
    offset_radius = radius - 0.009
    surface = force.getSurfaceAreaEnergy().value_in_unit(unit.kilojoule_per_mole / unit.nanometer**2)
    return BornParameters(
        charge=charge,
        offset_radius=offset_radius,
        scaled_radius=factor * offset_radius,
        radius=radius,
        rescaling=np.tile((1.0, 0.8, 4.85), (len(radius), 1)),
        rescaled=True,
        engulfing=True,
        prefactor=COULOMB_CONSTANT,
        solute_dielectric=force.getSoluteDielectric(),
        solvent_dielectric=force.getSolventDielectric(),
        kappa=0.0,
        surface=4 * np.pi * surface * (radius + PROBE_RADIUS) ** 2,
    )

"""Recognising a CustomGBForce by value.

Such a force is a set of expressions. The kernels of each known model are evaluated beside them at random points,
and a model is accepted where all values agree, so spelling, order and global parameters do not matter.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NoReturn

import numpy as np
import openmm
import torch
from torch import Tensor

from systems.forcefield.born import Born
from systems.forcefield.custom_terms import CustomTerms
from systems.forcefield.expressions import ExpressionError, Value
from systems.forcefield.generalised_born import MODELS, BornModel, Medium, born_parameters
from systems.forcefield.pairs import Distances
from systems.forcefield.parameters import Array, BornParameters, Indices
from systems.forcefield.refusal import refuse


class CustomGB:
    """The contents of one CustomGBForce."""

    def __init__(self, index: int, force: Any) -> None:
        self.index, self.force = index, force
        if force.getNonbondedMethod() != openmm.CustomGBForce.NoCutoff:
            self.refuse("has a cutoff, and only NoCutoff is computed")
        names = [force.getPerParticleParameterName(i) for i in range(force.getNumPerParticleParameters())]
        values = np.array([force.getParticleParameters(i) for i in range(force.getNumParticles())])
        self.particles: dict[str, Array] = dict(zip(names, values.T, strict=True))
        self.terms = CustomTerms(index, force)
        computed = [force.getComputedValueParameters(i) for i in range(force.getNumComputedValues())]
        if [(name, self.is_pair(kind)) for name, _, kind in computed] != [("I", True), ("B", False)]:
            found = ", ".join(f"{name} = '{text}'" for name, text, _ in computed)
            self.refuse(f"computes {found or 'no values'}, where the known models compute I over pairs, then B")
        self.integral, self.radius = (text for _, text, _ in computed)
        terms = [force.getEnergyTermParameters(i) for i in range(force.getNumEnergyTerms())]
        self.pair_terms = [text for text, kind in terms if self.is_pair(kind)]
        self.single_terms = [text for text, kind in terms if not self.is_pair(kind)]

    def refuse(self, reason: str) -> NoReturn:
        """Raise the error that names this force."""
        refuse(self.index, self.force, reason)

    def is_pair(self, kind: int) -> bool:
        """Return whether an expression runs over pairs; pairs that leave out exclusions are refused."""
        if kind == openmm.CustomGBForce.ParticlePair and self.force.getNumExclusions():
            self.refuse("leaves out excluded pairs, where the known models take all pairs")
        return bool(kind != openmm.CustomGBForce.SingleParticle)

    def medium(self) -> Medium:
        """Return dielectric constants and screening, from definitions in the energy terms or global parameters."""
        solute, solvent = self.constant("soluteDielectric", None), self.constant("solventDielectric", None)
        return Medium(solute, solvent, self.constant("kappa", 0.0))

    def constant(self, name: str, missing: float | None) -> float:
        """Return the one value that all energy terms give to a name.

        Raises:
            UnsupportedSystemError: when there is none, or more than one.
        """
        values = set()
        for text in (*self.single_terms, *self.pair_terms):
            definitions = text.partition(";")[2]
            try:
                values.add(float(self.terms.evaluate(f"{name};{definitions}", {})))
            except ExpressionError:
                # A term that does not use the name has no value for it.
                continue
        if not values and missing is not None:
            return missing
        if len(values) != 1:
            self.refuse(f"gives {sorted(values) or 'no value'} for {name} in its energy terms, where one is needed")
        return values.pop()


class Probe:
    """Random atoms and distances at which expressions and kernels are compared."""

    N_ATOMS = 48

    def __init__(self, source: CustomGB) -> None:
        self.source = source
        generator = np.random.default_rng(0)
        ranges = {"charge": (-1.0, 1.0), "or": (0.05, 0.2), "sr": (-0.1, 0.3), "gamma": (0.1, 5.0)}
        self.particles = {
            name: generator.uniform(*ranges.get(name, (0.2, 1.0)), size=self.N_ATOMS) for name in source.particles
        }
        if "radindex" in self.particles:
            kinds = min((min(table.shape) for table in source.terms.tables.values()), default=1)
            self.particles["radindex"] = generator.integers(kinds, size=self.N_ATOMS).astype(float)
        self.first, self.second = np.triu_indices(self.N_ATOMS, k=1)
        # From atoms inside one another to pairs beyond the reach of a neck.
        self.r = generator.uniform(0.01, 1.5, size=len(self.first))
        self.integral = generator.uniform(0.0, 4.0, size=self.N_ATOMS)
        self.b = generator.uniform(0.05, 0.5, size=self.N_ATOMS)
        r = torch.as_tensor(self.r)[None, :, None]
        self.distances = Distances(r.square(), r, torch.reciprocal(r))

    def kernel(self, model: BornModel, medium: Medium, surface: bool) -> Born:
        """Return the kernels of a model for the random atoms."""
        born = born_parameters(model, medium, self.particles, self.source.terms.tables, surface)
        return Born(born, self.first, self.second, torch.float64)

    def agrees(self, texts: Sequence[str], variables: Mapping[str, Value], kernel: Tensor) -> bool:
        """Return whether expressions sum to the values that a kernel gives."""
        try:
            expected = sum((self.source.terms.evaluate(text, variables) for text in texts), np.zeros(kernel.numel()))
        except ExpressionError:
            return False
        return bool(np.allclose(expected, kernel.flatten().numpy(), rtol=1e-9, atol=1e-10))

    def pair_variables(self, one: Indices, two: Indices) -> dict[str, Value]:
        """Return the variables of pair expressions for atoms ``one`` and ``two``."""
        variables: dict[str, Value] = {"r": self.r, "B1": self.b[one], "B2": self.b[two]}
        for name, values in self.particles.items():
            variables |= {f"{name}1": values[one], f"{name}2": values[two]}
        return variables

    def matches_integral(self, kernel: Born) -> bool:
        """Return whether the descreening integral is the kernel's, in both orders of a pair."""
        forward, backward = kernel.of_first(self.distances).value, kernel.of_second(self.distances).value
        texts = [self.source.integral]
        return self.agrees(texts, self.pair_variables(self.first, self.second), forward) and self.agrees(
            texts, self.pair_variables(self.second, self.first), backward
        )

    def matches_radius(self, kernel: Born) -> bool:
        """Return whether the Born radius is the kernel's."""
        per_b, _ = kernel.inverse_radii(torch.as_tensor(self.integral)[None, :, None])
        return self.agrees([self.source.radius], {**self.particles, "I": self.integral}, torch.reciprocal(per_b))

    def matches_single(self, kernel: Born) -> bool:
        """Return whether the energies of single atoms sum to the kernel's."""
        energy, _ = kernel.single(torch.reciprocal(torch.as_tensor(self.b))[None, :, None])
        return self.agrees(self.source.single_terms, {**self.particles, "B": self.b}, energy)

    def matches_pair(self, kernel: Born) -> bool:
        """Return whether the energies of pairs sum to the kernel's."""
        b = torch.as_tensor(self.b)[None, :, None]
        energy, _, _ = kernel.polar(self.distances.square, b, torch.reciprocal(b))
        return self.agrees(self.source.pair_terms, self.pair_variables(self.first, self.second), energy)


def read_custom_gb(index: int, force: Any) -> BornParameters:
    """Return the parameters of a CustomGBForce that is one of the known models.

    Raises:
        UnsupportedSystemError: naming the first expression that is in no known model.
    """
    source = CustomGB(index, force)
    medium, probe = source.medium(), Probe(source)
    kernels = {
        (model, surface): probe.kernel(model, medium, surface)
        for model in MODELS
        if model.particle_names <= set(source.particles) and model.table_names <= set(source.terms.tables)
        for surface in (False, True)
    }
    checks: list[tuple[Callable[[Born], bool], str, Sequence[str]]] = [
        (probe.matches_integral, "the descreening integral", [source.integral]),
        (probe.matches_radius, "the Born radius", [source.radius]),
        (probe.matches_single, "the energy of single atoms", source.single_terms),
        (probe.matches_pair, "the energy of pairs", source.pair_terms),
    ]
    for matches, what, texts in checks:
        kernels = {key: kernel for key, kernel in kernels.items() if matches(kernel)}
        if not kernels:
            known = ", ".join(model.name for model in MODELS)
            source.refuse(f"has {what} {' + '.join(map(repr, texts)) or '0'}, which is in no known model ({known})")
    model, surface = next(iter(kernels))
    return born_parameters(model, medium, source.particles, source.terms.tables, surface)

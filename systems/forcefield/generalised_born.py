"""The generalised Born models that OpenMM builds, as parameters of the kernels."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
from openmm import unit

from systems.forcefield.parameters import Array, BornParameters, NeckParameters
from systems.forcefield.refusal import refuse

COULOMB_CONSTANT = 138.93545764438198
"""1 / (4 pi epsilon_0) [kJ/mol nm/e^2], CODATA 2018, as OpenMM's own forces have it."""

EXPRESSION_COULOMB_CONSTANT = 138.935485
"""The rounded value inside the expressions of OpenMM's CustomGBForce models."""

ACE_STRENGTH = 28.3919551
"""4 pi times the surface tension 2.25936 [kJ/mol/nm^2], as in those expressions."""

PROBE_RADIUS = 0.14
"""Radius of a water molecule [nm]."""

NECK_REACH = 0.68
"""A neck forms up to the sum of both radii plus this [nm]."""


@dataclass(frozen=True)
class BornModel:
    """What tells one generalised Born model from another.

    Attributes:
        offset: intrinsic radius less offset radius [nm].
        rescaling: ``(a, b, c)`` of the Born radius, or None for the plain inverse of HCT.
        neck_scale: weight of the neck integral; 0 without one.
        is_atomic: whether every atom has a rescaling of its own.

    References:
        HCT: doi:10.1021/jp961710n; OBC1 and OBC2: doi:10.1002/prot.20033, models I and II;
        GBn: doi:10.1021/ct600085e; GBn2: doi:10.1021/ct3010485.
    """

    name: str
    offset: float
    rescaling: tuple[float, float, float] | None
    neck_scale: float = 0.0
    is_atomic: bool = False

    @property
    def particle_names(self) -> set[str]:
        """Names of the per-particle parameters that the model reads."""
        names = {"charge", "or", "sr"}
        if self.neck_scale:
            names.add("radindex")
        return names | {"alpha", "beta", "gamma"} if self.is_atomic else names

    @property
    def table_names(self) -> set[str]:
        """Names of the tabulated functions that the model reads."""
        return {"getd0", "getm0"} if self.neck_scale else set()


MODELS = (
    BornModel("HCT", 0.009, None),
    BornModel("OBC1", 0.009, (0.8, 0.0, 2.909125)),
    BornModel("OBC2", 0.009, (1.0, 0.8, 4.85)),
    BornModel("GBn", 0.009, (1.09511284, 1.907992938, 2.50798245), neck_scale=0.361825),
    BornModel("GBn2", 0.0195141, (0.0, 0.0, 0.0), neck_scale=0.826836, is_atomic=True),
)


@dataclass(frozen=True)
class Medium:
    """Dielectric constants and inverse screening length [1/nm]."""

    solute: float
    solvent: float
    kappa: float


def born_parameters(
    model: BornModel, medium: Medium, particles: Mapping[str, Array], tables: Mapping[str, Array], surface: bool
) -> BornParameters:
    """Return a model with the parameters of given atoms; ``surface`` adds the ACE term."""
    offset_radius = particles["or"]
    radius = offset_radius + model.offset
    rescaling = np.tile(model.rescaling or (0.0, 0.0, 0.0), (len(radius), 1))
    if model.is_atomic:
        rescaling = np.stack([particles[name] for name in ("alpha", "beta", "gamma")], axis=1)
    neck = None
    if model.neck_scale:
        kind = particles["radindex"].astype(np.int64)
        neck = NeckParameters(
            distance=tables["getd0"][np.ix_(kind, kind)],
            depth=model.neck_scale * tables["getm0"][np.ix_(kind, kind)],
            cutoff=radius[:, None] + radius + NECK_REACH,
        )
    return BornParameters(
        charge=particles["charge"],
        offset_radius=offset_radius,
        scaled_radius=particles["sr"],
        radius=radius,
        rescaling=rescaling,
        rescaled=model.rescaling is not None,
        engulfing=False,
        prefactor=EXPRESSION_COULOMB_CONSTANT,
        solute_dielectric=medium.solute,
        solvent_dielectric=medium.solvent,
        kappa=medium.kappa,
        surface=ACE_STRENGTH * (radius + PROBE_RADIUS) ** 2 * float(surface),
        neck=neck,
    )


def read_gbsa_obc(index: int, force: Any) -> BornParameters:
    """Return the parameters of OpenMM's built-in OBC model: OBC2 that also corrects for engulfed atoms.

    Raises:
        UnsupportedSystemError: when the force has a cutoff.
    """
    if force.getNonbondedMethod() != openmm.GBSAOBCForce.NoCutoff:
        refuse(index, force, "has a cutoff, and only NoCutoff is computed")
    particles = [force.getParticleParameters(i) for i in range(force.getNumParticles())]
    charge = np.array([q.value_in_unit(unit.elementary_charge) for q, _, _ in particles])
    radius = np.array([r.value_in_unit(unit.nanometer) for _, r, _ in particles])
    offset_radius = radius - 0.009
    tension = force.getSurfaceAreaEnergy().value_in_unit(unit.kilojoule_per_mole / unit.nanometer**2)
    return BornParameters(
        charge=charge,
        offset_radius=offset_radius,
        scaled_radius=np.array([factor for _, _, factor in particles]) * offset_radius,
        radius=radius,
        rescaling=np.tile((1.0, 0.8, 4.85), (len(radius), 1)),
        rescaled=True,
        engulfing=True,
        prefactor=COULOMB_CONSTANT,
        solute_dielectric=force.getSoluteDielectric(),
        solvent_dielectric=force.getSolventDielectric(),
        kappa=0.0,
        surface=4 * np.pi * tension * (radius + PROBE_RADIUS) ** 2,
    )

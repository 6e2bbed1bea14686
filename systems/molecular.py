"""A molecular system: one topology, several named thermodynamic states, and the legs between them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import openmm
import torch
from jaxtyping import Float
from openmm import unit
from openmm.app import Topology
from torch import Tensor

from boltzgen_diffclf.confinement import Region
from boltzgen_diffclf.errors import InputError, nearest_name
from boltzgen_diffclf.target import Target
from systems.fingerprints import hands_of, hash_system, hash_topology
from systems.legs import Basin, Leg, Quadruple

if TYPE_CHECKING:
    from systems.derived_states import DerivedState
    from systems.forcefield import OpenMMWorkerTarget


@dataclass(frozen=True)
class Fold:
    """What counts as folded: near the configuration that the system is given with, its native one.

    Attributes:
        atoms: that are laid on it, the CA of every residue.
        folded_nm: root-mean-square deviation of these atoms below which a configuration is folded [nm].
    """

    atoms: tuple[int, ...]
    folded_nm: float


@dataclass(frozen=True, eq=False)
class MolecularSystem:
    """A molecule with its named thermodynamic states.

    Attributes:
        name: as it appears in files and reports.
        topology: atoms, residues and bonds, in the order of every array.
        positions: one valid configuration [nm].
        openmm_systems: the OpenMM System of each state.
        torsions: atom indices of the torsions worth watching, e.g. ``phi`` and ``psi``.
        legs: the named differences between states.
        basins: arcs of torsions whose populations are watched.
        fold: what counts as folded; None for a molecule that has no native configuration.
        other_starts: further configurations [nm] where walkers begin, in turn with the first; None where there is one.
        reweighted: states whose ensemble is that of another state, named here, reweighted: the two overlap well.
        derived: states made of the energies of others, by name.
        solvent: name of the solvent model of ``implicit``, where :mod:`systems.force_fields` has it.
        side_torsions: of side chains, about which walkers have to agree as well.

    Raises:
        InputError: states, positions and topology do not describe the same atoms.
    """

    name: str
    topology: Topology
    positions: Float[Tensor, "atoms 3"]
    openmm_systems: Mapping[str, openmm.System]
    torsions: Mapping[str, Quadruple] = field(default_factory=dict)
    legs: Mapping[str, Leg] = field(default_factory=dict)
    basins: Mapping[str, Basin] = field(default_factory=dict)
    reweighted: Mapping[str, str] = field(default_factory=dict)
    fold: Fold | None = None
    other_starts: Float[Tensor, "starts atoms 3"] | None = None
    derived: Mapping[str, DerivedState] = field(default_factory=dict)
    solvent: str | None = None
    side_torsions: Mapping[str, Quadruple] = field(default_factory=dict)
    _targets: dict[tuple[str, float, torch.dtype, str], Target] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        atoms = self.topology.getNumAtoms()
        counts = {state: system.getNumParticles() for state, system in self.openmm_systems.items()}
        wrong = [f"state '{state}' has {count} particles" for state, count in counts.items() if count != atoms]
        if len(self.positions) != atoms:
            wrong.append(f"the positions have {len(self.positions)} atoms")
        wrong += [
            f"torsion '{name}' names atom {max(quadruple)}"
            for name, quadruple in self.torsions.items()
            if not 0 <= min(quadruple) <= max(quadruple) < atoms
        ]
        wrong += [
            f"basin '{name}' names torsion '{basin.torsion}'"
            for name, basin in self.basins.items()
            if basin.torsion not in self.torsions
        ]
        if self.fold is not None and not 0 <= min(self.fold.atoms) <= max(self.fold.atoms) < atoms:
            wrong.append(f"the fold names atom {max(self.fold.atoms)}")
        if wrong:
            raise InputError(
                f"system '{self.name}' has a topology of {atoms} atoms, but {'; '.join(wrong)}: "
                "give all of them for the same atoms in the same order"
            )
        for leg in self.legs.values():
            self.require_state(leg.state_a)
            self.require_state(leg.state_b)
        for state, source in self.reweighted.items():
            self.require_state(state)
            self.require_state(source)
        for made in self.derived.values():
            for source in made.sources:
                self.require_state(source)
        for basin in self.basins.values():
            for state in basin.published:
                self.require_state(state)

    @property
    def states(self) -> tuple[str, ...]:
        """Names of the thermodynamic states."""
        return (*self.openmm_systems, *self.derived)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.positions)

    @cached_property
    def elements(self) -> tuple[str, ...]:
        """Element symbol of each atom (``"X"`` for a particle that is no element)."""
        return tuple(atom.element.symbol if atom.element else "X" for atom in self.topology.atoms())

    @cached_property
    def bonds(self) -> tuple[tuple[int, int], ...]:
        """Index pairs of bonded atoms, each in ascending order."""
        pairs = ((bond[0].index, bond[1].index) for bond in self.topology.bonds())
        return tuple(sorted((min(pair), max(pair)) for pair in pairs))

    @cached_property
    def masses(self) -> Float[Tensor, " atoms"]:
        """Masses of the first state [amu]."""
        system = next(iter(self.openmm_systems.values()))
        masses = [system.getParticleMass(index).value_in_unit(unit.amu) for index in range(self.n_atoms)]
        return torch.tensor(masses, dtype=torch.float64)

    def require_state(self, state: str) -> None:
        """Raise an InputError that lists the valid states unless ``state`` is one of them."""
        if state not in self.states:
            raise InputError(
                f"system '{self.name}' has no state '{state}': choose one of "
                f"{', '.join(self.states)}{nearest_name(state, list(self.states))}"
            )

    def require_leg(self, name: str) -> Leg:
        """Return the leg of this name, or raise an InputError that lists the valid ones."""
        if name not in self.legs:
            raise InputError(
                f"system '{self.name}' has no leg '{name}': choose one of "
                f"{', '.join(self.legs)}{nearest_name(name, list(self.legs))}"
            )
        return self.legs[name]

    def require_basin(self, name: str) -> Basin:
        """Return the basin of this name, or raise an InputError that lists the valid ones."""
        if name not in self.basins:
            raise InputError(
                f"system '{self.name}' has no basin '{name}': choose one of "
                f"{', '.join(self.basins)}{nearest_name(name, list(self.basins))}"
            )
        return self.basins[name]

    def openmm_system(self, state: str) -> openmm.System:
        """Return a copy of the OpenMM System of ``state``, which is no derived one."""
        self._require_openmm(state)
        return openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(self.openmm_systems[state]))

    def _require_openmm(self, state: str) -> None:
        self.require_state(state)
        if state in self.derived:
            raise InputError(
                f"state '{state}' of '{self.name}' is made of the energies of {', '.join(self.derived[state].sources)} "
                "and has no OpenMM System: use the compiled engine"
            )

    def start(self, state: str) -> Float[Tensor, "atoms 3"]:
        """Return a valid configuration of ``state`` [nm]."""
        self.require_state(state)
        made = self.derived.get(state)
        return self.positions if made is None or made.start is None else made.start

    def starts(self, state: str) -> Float[Tensor, "starts atoms 3"]:
        """Return the configurations of ``state`` [nm] where its walkers begin in turn; a part of a state has but one.

        Give every share of the walkers, such as those that are learned from, as many as there are starts at least.
        """
        first, made = self.start(state)[None], self.derived.get(state)
        has_own = made is not None and made.start is not None
        return first if self.other_starts is None or has_own else torch.cat([first, self.other_starts])

    def region(self, state: str) -> Region | None:
        """Return what ``state`` is confined to; None where it is everywhere."""
        self.require_state(state)
        return self.derived[state].region if state in self.derived else None

    def unconfined(self, state: str) -> str:
        """Return the state that ``state`` is part of, itself where it is confined to nothing."""
        return state if self.region(state) is None else self.derived[state].sources[0]

    def with_derived(self, name: str, state: DerivedState) -> MolecularSystem:
        """Return a molecule that has one more state, and shares what was compiled for the others."""
        return self._changed(derived={**self.derived, name: state})

    def with_legs(self, legs: Mapping[str, Leg]) -> MolecularSystem:
        """Return the same with other legs; it shares what was compiled."""
        return self._changed(legs=legs)

    def _changed(self, **changes: Any) -> MolecularSystem:
        changed = replace(self, **changes)
        changed._targets.update(self._targets)
        return changed

    def target(
        self,
        state: str,
        temperature_kelvin: float = 300.0,
        dtype: torch.dtype = torch.float64,
        device: torch.device | str = "cpu",
    ) -> Target:
        """Return the reduced energy of ``state`` as a batched, differentiable target (built once, then kept).

        Args:
            state: one of :attr:`states`.
            temperature_kelvin: [K].
            dtype: of positions and energies.
            device: where it computes.

        Raises:
            InputError: unknown state or impossible temperature.
            UnsupportedSystemError: the System holds something that is not compiled: see :meth:`worker_target`.
        """
        from systems.forcefield import compile_system

        self.require_state(state)
        temperature = require_temperature(temperature_kelvin)
        key = (state, temperature, dtype, str(device))
        if key not in self._targets and state in self.derived:
            made = self.derived[state]
            sources = [self.target(source, temperature, dtype, device) for source in made.sources]
            self._targets[key] = made.target(sources)
        elif key not in self._targets:
            self._targets[key] = compile_system(
                self.openmm_systems[state], temperature_kelvin=temperature, dtype=dtype, device=device
            )
        return self._targets[key]

    def worker_target(
        self, state: str, temperature_kelvin: float = 300.0, workers: int | None = None
    ) -> OpenMMWorkerTarget:
        """Return the reduced energy of ``state`` through OpenMM in worker processes, for what is not compiled.

        Use it as a context manager: it ends its processes.

        Args:
            state: one of :attr:`states`.
            temperature_kelvin: [K].
            workers: processes; one for each core unless given.

        Raises:
            InputError: unknown state or impossible temperature.
        """
        from systems.forcefield import OpenMMWorkerTarget

        self._require_openmm(state)
        temperature = require_temperature(temperature_kelvin)
        return OpenMMWorkerTarget(self.openmm_systems[state], temperature_kelvin=temperature, workers=workers)

    def system_hash(self, state: str) -> str:
        """Return a fingerprint of everything in ``state`` that changes energies or masses."""
        self.require_state(state)
        if state in self.derived:
            made = self.derived[state]
            parts = [made.fingerprint, *(self.system_hash(source) for source in made.sources)]
            return hashlib.sha256("\n".join(parts).encode()).hexdigest()
        return hash_system(self.openmm_systems[state])

    def identity(self, state: str) -> dict[str, object]:
        """Return what tells this molecule from others in ``state``: :meth:`system_hash`, names and bonds, and hands.

        Atoms of other names, and a mirror image, have the same energies.
        """
        return {
            "system_hash": self.system_hash(state),
            "topology_hash": hash_topology(self.topology, self.elements, self.bonds),
            "hands": hands_of(self.positions.numpy(), self.elements, self.bonds),
        }


def require_temperature(temperature_kelvin: float) -> float:
    """Return the temperature [K], or raise an InputError where no molecule can have it.

    >>> require_temperature(300.0)
    300.0
    """
    if not (math.isfinite(temperature_kelvin) and 1.0 <= temperature_kelvin <= 10_000.0):
        raise InputError(f"temperature {temperature_kelvin} K is not possible: give one between 1 and 10000 K")
    return float(temperature_kelvin)


def positions_from_quantity(positions: unit.Quantity) -> Float[Tensor, "atoms 3"]:
    """Return OpenMM positions as a float64 tensor [nm]."""
    return torch.from_numpy(np.array(positions.value_in_unit(unit.nanometer), dtype=np.float64))

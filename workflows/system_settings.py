"""Which molecule a workflow is about: the options that all of them share; nothing heavy is imported here."""

from __future__ import annotations

import dataclasses
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import AfterValidator, ConfigDict, Field, model_validator
from pydantic.dataclasses import dataclass
from pydantic_core import ArgsKwargs

from boltzgen_diffclf.errors import InputError, nearest_name
from systems.loading import FORCE_FIELD, SOLVENT, SystemSource
from systems.registry import names

if TYPE_CHECKING:
    from systems.molecular import MolecularSystem
    from workflows.run_folder import RunFolder

DEFAULT_SYSTEM = "aldp"
"""Where no molecule is given."""

_MOLECULES = ("system", "peptide", "pdb", "openmm_system")


def known_system(system: str | None) -> str | None:
    """Return the name of a system as it is; refuse one that is not registered, with the nearest."""
    if system is not None and system not in names():
        raise ValueError(f"unknown system (valid: {', '.join(names())}){nearest_name(system, list(names()))}")
    return system


@dataclass(frozen=True, kw_only=True, config=ConfigDict(extra="forbid", allow_inf_nan=False))
class SystemSettings:
    """A molecule: by name, by sequence, from a PDB file, or an OpenMM System."""

    system: Annotated[
        str | None,
        AfterValidator(known_system),
        Field(description=f"Molecule, by name: {', '.join(names())} ({DEFAULT_SYSTEM} where none is given)."),
    ] = None
    peptide: Annotated[
        str | None,
        Field(description="Peptide of this sequence: ACE-ALA-ALA-NME, or one-letter codes; ends without caps charged."),
    ] = None
    torsions: Annotated[
        tuple[str, ...],
        Field(description="Where the peptide begins [degrees]: phi:2=-60 psi:2=-45 ..., residues counted from 1."),
    ] = ()
    pdb: Annotated[Path | None, Field(description="Peptide or protein of this PDB file.")] = None
    forcefield: Annotated[
        str | None,
        Field(
            description=f"Of --peptide or --pdb: amber99sb-ildn, ff14sb, ff96, charmm36 ({FORCE_FIELD} if not given)."
        ),
    ] = None
    solvent: Annotated[
        str | None,
        Field(description=f"Of --peptide or --pdb: obc2, obc1, hct, gbn, gbn2, vacuum ({SOLVENT} where not given)."),
    ] = None
    openmm_system: Annotated[
        Path | None, Field(description="Serialised OpenMM System (XML); --topology names its atoms.")
    ] = None
    topology: Annotated[
        Path | None, Field(description="PDB or mmCIF file with the atoms of --openmm-system, in its order.")
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _some_molecule(cls, given: ArgsKwargs) -> ArgsKwargs:
        named = dict(given.kwargs or {})
        if all(named.get(name) is None for name in _MOLECULES):
            named["system"] = DEFAULT_SYSTEM
        return ArgsKwargs(given.args, named)

    @model_validator(mode="after")
    def _one_molecule(self) -> SystemSettings:
        try:
            self.source.require_one()
        except InputError as error:
            raise ValueError(str(error)) from error
        return self

    @property
    def source(self) -> SystemSource:
        """Where the molecule comes from."""
        values: dict[str, Any] = {
            key: str(value) if isinstance(value, Path) else value for key, value in self.molecule.items()
        }
        return SystemSource(**values)

    @property
    def molecule(self) -> dict[str, Any]:
        """The settings that say which molecule it is."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(SystemSettings)}

    @property
    def system_name(self) -> str:
        """Name of the molecule in files and reports."""
        return self.source.name


def keep_system(folder: RunFolder, system: MolecularSystem) -> None:
    """Keep the fingerprint of the molecule with the run.

    Raises:
        InputError: the run was begun with another one, under the same options.
    """
    identity = system.identity(system.states[0])
    identity["molecule"] = {state: system.system_hash(state) for state in system.states}
    del identity["system_hash"]  # which is that of one state
    if any(folder.remember(key, partial(identity.__getitem__, key)) != identity[key] for key in identity):
        raise InputError(
            f"{folder.path} was begun with another molecule than the {system.name} that is given now (its file has "
            "changed): choose another --out"
        )

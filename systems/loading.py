"""Where a molecule comes from: one description that every workflow reads, files and keeps; nothing heavy is imported.

A molecule is one of four: registered under a name, a peptide by its sequence, a PDB file with a force field, or an
OpenMM System with its topology.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from boltzgen_diffclf.errors import InputError
from systems.registry import load
from systems.sequence import parse_sequence

if TYPE_CHECKING:
    from systems.molecular import MolecularSystem

FORCE_FIELD, SOLVENT = "amber99sb-ildn", "obc2"
"""Where none is named."""

FAVOURED = "-favoured"
"""What the name of a state ends with that has a bias on torsions, see :mod:`systems.favoured`."""

_TORSION = re.compile(r"(phi|psi|omega|chi1|chi2):([0-9]+)=([-+]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][-+]?[0-9]+)?)")


@dataclass(frozen=True, kw_only=True)
class SystemSource:
    """What a molecule is made from, in plain values.

    Attributes:
        system: a registered name.
        peptide: a sequence.
        torsions: of the peptide's first configuration, each ``TORSION:RESIDUE=DEGREES``.
        pdb: path of a PDB file.
        openmm_system: path of a serialised OpenMM System.
        topology: path of a PDB or mmCIF file with the atoms of that System.
        forcefield: of the peptide or PDB file.
        solvent: of the peptide or PDB file.
        favour: basins and arcs that states with a bias make deeper, each with by how much [kT].
    """

    system: str | None = None
    peptide: str | None = None
    torsions: tuple[str, ...] = ()
    pdb: str | None = None
    openmm_system: str | None = None
    topology: str | None = None
    forcefield: str | None = None
    solvent: str | None = None
    favour: tuple[tuple[str, float], ...] = ()

    def require_one(self) -> None:
        """Raise an InputError, in one line, unless exactly one molecule is described, and it alone.

        >>> SystemSource().require_one()  # doctest: +ELLIPSIS
        Traceback (most recent call last):
            ...
        boltzgen_diffclf.errors.InputError: none of them: give exactly one of --system, ...
        """
        molecules = {
            "--system": self.system,
            "--peptide": self.peptide,
            "--pdb": self.pdb,
            "--openmm-system": self.openmm_system,
        }
        given = [option for option, value in molecules.items() if value is not None]
        if len(given) != 1:
            found = " and ".join(f"{option} {molecules[option]}" for option in given) or "none of them"
            raise InputError(f"{found}: give exactly one of {', '.join(molecules)}")
        (chosen,) = given
        details = {
            "--torsions": (self.torsions or None, ("--peptide",)),
            "--topology": (self.topology, ("--openmm-system",)),
            "--forcefield": (self.forcefield, ("--peptide", "--pdb")),
            "--solvent": (self.solvent, ("--peptide", "--pdb")),
        }
        for option, (value, goes_with) in details.items():
            if value is not None and chosen not in goes_with:
                raise InputError(
                    f"{option} goes with {' or '.join(goes_with)}, and the molecule is {chosen} {molecules[chosen]}: "
                    f"give {' or '.join(goes_with)}, or leave {option} out"
                )
        if self.openmm_system is not None and self.topology is None:
            raise InputError(f"--openmm-system {self.openmm_system} needs --topology, a PDB or mmCIF file of its atoms")
        if self.peptide is not None:
            parse_sequence(self.peptide)
            parse_torsions(self.torsions)

    @property
    def name(self) -> str:
        """Name of the molecule in files and reports.

        >>> SystemSource(peptide="ace-A-nme", solvent="gbn2").name, SystemSource(pdb="in/my helix.pdb").name
        ('ACE-ALA-NME-amber99sb-ildn-gbn2', 'my_helix')
        """
        if self.system is not None:
            return self.system
        if self.peptide is not None:
            return peptide_name(self.peptide, *self._energy)
        if self.pdb is not None:
            return _with_energy(_file_name(self.pdb), *self._energy)
        return _file_name(str(self.topology))

    @property
    def _energy(self) -> tuple[str, str]:
        # Written in either case: ff14SB, GBn2.
        forcefield = FORCE_FIELD if self.forcefield is None else self.forcefield
        solvent = SOLVENT if self.solvent is None else self.solvent
        return forcefield.lower(), solvent.lower()

    def load(self) -> MolecularSystem:
        """Return the molecule, with a favoured state beside each of its own where anything is favoured.

        Raises:
            InputError: it cannot be made; the line names the residue, atom, force, file or basin that is wrong.
        """
        self.require_one()
        if not self.favour:
            return self._molecule()
        from systems.favoured import Favour, favoured

        return favoured(self._molecule(), [Favour(*one) for one in self.favour])

    def _molecule(self) -> MolecularSystem:
        if self.system is not None:
            return load(self.system)
        if self.peptide is not None:
            from systems.peptide import peptide

            return peptide(self.peptide, *self._energy, parse_torsions(self.torsions))
        from systems.user_molecule import from_openmm, from_pdb

        if self.pdb is not None:
            return from_pdb(Path(self.pdb), *self._energy, self.name)
        return from_openmm(Path(str(self.openmm_system)), Path(str(self.topology)), self.name)

    def as_plain(self) -> dict[str, object]:
        """Return the description in values that JSON knows; files by their absolute path."""
        files = ("pdb", "openmm_system", "topology")
        found = {key: value for key, value in asdict(self).items() if value not in (None, ())}
        return {key: str(Path(value).resolve()) if key in files else value for key, value in found.items()}

    @classmethod
    def from_plain(cls, values: Mapping[str, object]) -> SystemSource:
        """Return the description that :meth:`as_plain` gave."""
        favour = list(values.get("favour", ()))  # type: ignore[call-overload]
        if favour and isinstance(favour[0], str):  # of a model from when there was one at most
            favour = [favour]
        several = {
            "torsions": tuple(values.get("torsions", ())),  # type: ignore[arg-type]
            "favour": tuple((where, depth) for where, depth in favour),
        }
        return cls(**{**values, **several})  # type: ignore[arg-type]


def peptide_name(sequence: str, forcefield: str = FORCE_FIELD, solvent: str = SOLVENT) -> str:
    """Return the name of a peptide as it appears in files: its residues, and what is not usual about its energy.

    >>> peptide_name("ace-A-NME"), peptide_name("AG", solvent="gbn2")
    ('ACE-ALA-NME', 'ALA-GLY-amber99sb-ildn-gbn2')
    """
    return _with_energy("-".join(parse_sequence(sequence)), forcefield, solvent)


def _with_energy(name: str, forcefield: str, solvent: str) -> str:
    return name if (forcefield, solvent) == (FORCE_FIELD, SOLVENT) else f"{name}-{forcefield}-{solvent}"


def _file_name(path: str) -> str:
    return re.sub(r"[^\w.-]", "_", Path(path).stem)


def parse_torsions(given: tuple[str, ...]) -> dict[str, dict[int, float]]:
    """Return degrees by torsion and residue.

    Args:
        given: each ``TORSION:RESIDUE=DEGREES``, residues counted from 1 with the caps.

    Raises:
        InputError: written otherwise, or twice.

    >>> parse_torsions(("phi:2=-60", "psi:2=-45.5"))
    {'phi': {2: -60.0}, 'psi': {2: -45.5}}
    """
    found: dict[str, dict[int, float]] = {}
    for entry in given:
        match = _TORSION.fullmatch(entry.strip())
        if not match:
            raise InputError(
                f"torsion '{entry}' is not written TORSION:RESIDUE=DEGREES, such as phi:2=-60 (phi, psi, omega, chi1, "
                "chi2; residues counted from 1 with the caps)"
            )
        values = found.setdefault(match[1], {})
        if int(match[2]) in values:
            raise InputError(f"torsion {match[1]} of residue {match[2]} is given twice: give it once")
        values[int(match[2])] = float(match[3])
    return found

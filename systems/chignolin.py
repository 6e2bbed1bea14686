"""Chignolin CLN025, ten residues that fold into a hairpin."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from systems.beads import bead_atoms
from systems.legs import PublishedValue
from systems.molecular import Fold, MolecularSystem
from systems.peptide import peptide

SEQUENCE = "YYDPETGTWY"

# fmt: off
FOLDED: Mapping[str, Mapping[int, float]] = {
    "phi": dict(enumerate((-93.3, -75.6, -71.8, -91.9, -106.3, 70.4, -104.0, -80.6, -136.8), start=2)),
    "psi": dict(enumerate((150.4, 138.4, 133.6, -20.9, -40.8, -17.1, 17.0, 153.3, 133.2), start=1)),
    "omega": dict(enumerate((169.4, 178.6, -174.3, 179.4, -172.9, -179.4, -178.6, -177.9, 174.3), start=1)),
    "chi1": {1: -46.0, 2: -67.3, 3: -174.8, 5: -78.1, 6: 63.1, 8: 55.8, 9: -175.2, 10: 68.6},
    "chi2": {1: 96.2, 2: 99.5, 3: -77.3, 5: -66.9, 9: -98.1, 10: 95.2},
}
"""Torsions of the crystal structure 5AWL [degrees], residues counted from 1 without caps
(Akiba et al. 2015, doi:10.1021/jacs.5b01041)."""
# fmt: on

FOLDED_NM = 0.2
"""Deviation of the CA atoms from the native ones below which the chain is called folded [nm]; a convention."""


POLAR_VALUES = (
    PublishedValue(-320.19, None, "reference", "arXiv:2504.11516"),
    PublishedValue(-320.02, 0.70, "FEAT, one-sided", "arXiv:2504.11516"),
)
"""Of the polar leg of the capped form [kT], in our sign: minus what is printed."""


def chignolin() -> MolecularSystem:
    """Return CLN025 with charged ends, folded, 166 atoms, under Amber ff99SB-ILDN and the OBC2 of ``amber99_obc.xml``.

    A configuration within :data:`FOLDED_NM` of the minimised crystal structure counts as folded. Every second walker
    begins extended, so that it shows whether folding and unfolding have been sampled.

    States: those of :func:`~systems.peptide.peptide`.

    References:
        Honda et al. 2008, doi:10.1021/ja8030533 (CLN025).
    """
    return _with_fold(peptide(SEQUENCE, torsions=FOLDED, name="chignolin"), peptide(SEQUENCE))


def chignolin_capped() -> MolecularSystem:
    """Return CLN025 between an acetyl and an N-methyl amide, folded, 175 atoms, otherwise like :func:`chignolin`."""
    shifted = {name: {number + 1: degrees for number, degrees in values.items()} for name, values in FOLDED.items()}
    capped = f"ACE-{SEQUENCE}-NME"
    system = _with_fold(peptide(capped, torsions=shifted, name="chignolin-capped"), peptide(capped))
    polar = replace(system.legs["polar"], published=POLAR_VALUES)
    return replace(system, legs={**system.legs, "polar": polar})


def _with_fold(system: MolecularSystem, extended: MolecularSystem) -> MolecularSystem:
    fold = Fold(bead_atoms(system, "ca"), FOLDED_NM)
    return replace(system, fold=fold, other_starts=extended.positions[None])

"""Frames of all atoms as the package carries them: beads alone, rounded, with where they come from.

``python -m benchmarks.packaged_frames SYSTEM BEADS FILE OUT COMMAND``, the last in quotes: what sampled FILE.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

import torch

import systems
from systems.beads import bead_atoms, bead_system
from systems.convergence import measure_convergence
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.molecular import MolecularSystem
from systems.packaged import ALL_ATOMS
from systems.store import load_ensemble, write_ensemble

ROUNDED_NM = 1e-4


def packaged(frames: ReferenceEnsemble, system: MolecularSystem, beads: str, command: str) -> ReferenceEnsemble:
    """Return positions of the beads in frames of all atoms, what is known of them still true."""
    made, alone = frames.provenance, bead_system(system, beads)
    whole = {"command": command, ALL_ATOMS: made.system_hash}
    provenance = Provenance(
        alone.name,
        made.state,
        made.temperature_kelvin,
        alone.system_hash(made.state),
        made.seed,
        {**made.settings, **whole},
    )
    positions = frames.positions[:, list(bead_atoms(system, beads))]
    positions = ((positions - positions.mean(1, keepdim=True)) / ROUNDED_NM).round() * ROUNDED_NM
    kept = replace(
        frames, provenance=provenance, positions=positions, energies=torch.zeros_like(frames.energies), diagnostics={}
    )
    travels = ("exchange_acceptance", "round_trips", "groups_without_round_trip")
    known = {key: frames.diagnostics[key] for key in travels if key in frames.diagnostics}
    return kept.with_diagnostics({**known, **measure_convergence(kept, alone)})


def main() -> None:
    if len(sys.argv) != 6:
        sys.exit(__doc__)
    name, beads, file, out, command = sys.argv[1:]
    system = systems.load(name)
    frames = packaged(load_ensemble(Path(file)), system, beads, command)
    write_ensemble(Path(out), frames, bead_system(system, beads).topology)
    print(f"{out}: {len(frames)} frames of {frames.provenance.system}, {Path(out).stat().st_size} bytes")


if __name__ == "__main__":
    main()

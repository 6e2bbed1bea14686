"""All speed figures in one run, as ratios: ``python -m benchmarks.speed`` (``make benchmark``).

Target energies and dynamics against OpenMM, training steps eager against fused; alanine dipeptide (22 atoms) and a
peptide of twelve residues (201 atoms). Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import systems
from benchmarks import sampling, target_energy, training_steps
from benchmarks.peptide import lysozyme_helix
from systems.molecular import MolecularSystem


def show(title: str, figures: dict[str, float]) -> None:
    print(title)
    for key, value in figures.items():
        print(f"  {key:32s} {value:12.2f}", flush=True)


def main() -> None:
    small, large = systems.load("aldp"), lysozyme_helix()
    for system, batch in ((small, 1024), (large, 256)):
        measure_molecule(system, batch)
    show("training steps, aldp", training_steps.measure(small))


def measure_molecule(system: MolecularSystem, batch: int) -> None:
    for state in ("vacuum", "implicit"):
        name = f"{system.name} ({system.n_atoms} atoms), {state}"
        openmm_system = system.openmm_system(state)
        print(target_energy.report(target_energy.measure(name, openmm_system, system.positions.numpy(), batch)))
    show(f"sampling, {system.name}, implicit [walker-steps/s]", sampling.measure(system))


if __name__ == "__main__":
    main()

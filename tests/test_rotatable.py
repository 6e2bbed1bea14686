"""Torsions about rotatable bonds: which there are, and that walkers have to agree about those of side chains."""

from __future__ import annotations

import networkx as nx
import numpy as np
import pytest
import torch
from openmm import app
from scipy.spatial.transform import Rotation

from boltzgen_diffclf.coordinates import InternalCoordinates
from boltzgen_diffclf.observables.torsions import torsion_angles
from boltzgen_diffclf.streams import named_generator
from systems.convergence import measure_convergence
from systems.ensemble import Provenance, ReferenceEnsemble
from systems.molecular import MolecularSystem
from systems.peptide import peptide
from systems.rotatable import rotatable_torsions
from systems.store import read_ensemble, write_ensemble


def turned(molecule: MolecularSystem, quadruple: tuple[int, int, int, int], angles: torch.Tensor) -> ReferenceEnsemble:
    """Return frames of walkers that differ in one torsion alone, whose angles [rad] have a row a walker."""
    _, first, second, _ = quadruple
    graph = nx.Graph(molecule.bonds)
    graph.remove_edge(first, second)
    moving = sorted(nx.node_connected_component(graph, second))
    x = molecule.positions.numpy()
    one = np.array([quadruple])
    begin = float(torsion_angles(x[None], one)[0, 0])
    axis, frames = (x[second] - x[first]) / molecule.positions[[first, second]].diff(dim=0).norm().item(), []
    for angle in angles.T.flatten().tolist():
        frame = x.copy()
        frame[moving] = Rotation.from_rotvec((angle - begin) * axis).apply(x[moving] - x[second]) + x[second]
        frames.append(torch.from_numpy(frame))
    walkers, n = angles.shape
    positions = torch.stack(frames).float()
    torch.testing.assert_close(
        torch.from_numpy(torsion_angles(positions.numpy(), one)[:, 0]).cos().double(),
        angles.T.flatten().cos().double(),
        atol=1e-3,
        rtol=0,
    )
    return ReferenceEnsemble(
        provenance=Provenance(molecule.name, "vacuum", 300.0, molecule.system_hash("vacuum")),
        positions=positions,
        energies=torch.randn(len(frames), generator=named_generator(0, "energies"), dtype=torch.float64),
        group=torch.arange(walkers).repeat(n),
        frame=torch.arange(n).repeat_interleave(walkers),
    )


@pytest.mark.parametrize(
    ("sequence", "expected"),
    [
        ("ACE-ALA-NME", []),
        ("ACE-VAL-NME", ["N-CA-CB-CG1-VAL2"]),
        ("ACE-SER-TYR-NME", ["C-CA-CB-OG-SER2", "CA-CB-OG-HG-SER2", "N-CA-CB-CG-TYR3"]),
        ("ACE-LEU-ASP-NME", ["C-CA-CB-CG-LEU2", "CA-CB-CG-CD1-LEU2", "N-CA-CB-CG-ASP3"]),
    ],
)
def test_side_chains_are_watched_where_what_they_turn_can_be_told(sequence, expected):
    """Neither a phenyl ring nor a carboxylate, whose half turn changes nothing, nor the bonds between residues."""
    assert list(peptide(sequence, "ff14sb", "vacuum").side_torsions) == expected


def test_walkers_that_differ_in_a_side_chain_do_not_agree(tmp_path):
    molecule = peptide("ACE-VAL-NME", "ff14sb", "vacuum")
    ((name, quadruple),) = molecule.side_torsions.items()
    angles = torch.tensor([[-1.1], [3.1]]).repeat(1, 40) + 0.1 * torch.randn(2, 40, generator=named_generator(0, "v"))
    ensemble = turned(molecule, quadruple, angles)
    diagnostics = measure_convergence(ensemble, molecule)
    assert diagnostics["split_r_hat"][f"sin_{name}"] > 1.5
    assert diagnostics["split_r_hat"]["sin_phi"] < 1.1
    assert diagnostics["effective_frames"][f"cos_{name}"] < 10
    # A file of a time when they were not watched is judged by them when it is read.
    unwatched = {key: {"cos_phi": 1.0} for key in ("split_r_hat", "effective_frames")}
    write_ensemble(tmp_path / "old.h5", ensemble.with_diagnostics({**unwatched, "round_trips": 3}), molecule.topology)
    read = read_ensemble(tmp_path / "old.h5", molecule, "vacuum")
    assert read.diagnostics["round_trips"] == 3
    assert read.diagnostics["split_r_hat"][f"sin_{name}"] == diagnostics["split_r_hat"][f"sin_{name}"]


def test_torsions_of_bonds_that_turn_nothing_visible_are_left_out():
    """Benzyl alcohol beside a nitrile: neither the phenyl ring, nor a methyl, nor what is straight."""
    names = ["C1", "C2", "C3", "C4", "C5", "C6", "C7", "O", "HO", "H71", "C8", "N"]
    topology = app.Topology()
    residue = topology.addResidue("BNZ", topology.addChain())
    atoms = [topology.addAtom(name, app.element.Element.getBySymbol(name[0]), residue) for name in names]
    ring = [(k, (k + 1) % 6) for k in range(6)]
    for first, second in [*ring, (0, 6), (6, 7), (7, 8), (6, 9), (6, 10), (10, 11)]:
        topology.addBond(atoms[first], atoms[second])
    positions = torch.randn(12, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    positions[11] = positions[10] + 0.7 * (positions[10] - positions[6])
    assert rotatable_torsions(topology, positions) == {"C1-C7-O-HO": (0, 6, 7, 8)}


def test_every_such_torsion_is_a_coordinate_that_turns_freely():
    """Heptan-4-ol, whose oxygen has a lower number than the chain behind it."""
    topology, positions = app.Topology(), torch.randn(8, 3, generator=torch.Generator().manual_seed(1)).double()
    residue = topology.addResidue("HEP", topology.addChain())
    atoms = [topology.addAtom(name, None, residue) for name in ("C1", "C2", "C3", "C4", "O", "C5", "C6", "C7")]
    bonds = [(0, 1), (1, 2), (2, 3), (3, 4), (3, 5), (5, 6), (6, 7)]
    for first, second in bonds:
        topology.addBond(atoms[first], atoms[second])
    torsions = rotatable_torsions(topology, positions)
    assert [quadruple[1:3] for quadruple in torsions.values()] == [(1, 2), (2, 3), (3, 5), (5, 6)]
    internal = InternalCoordinates.from_bonds(8, bonds, ["X"] * 8, tuple(torsions.values()))
    columns = [internal.torsion_column(quadruple) for quadruple in torsions.values()]
    assert None not in columns
    assert bool(internal.is_soft[columns].all())

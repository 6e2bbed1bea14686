"""Trajectory files: what goes in comes out, mdtraj reads them, and every damage is one clear line."""

import dataclasses
import struct

import h5py
import mdtraj
import numpy as np
import pytest
import torch

import systems
from boltzgen_diffclf.errors import InputError, RunFailedError
from systems.ensemble import Provenance, ReferenceEnsemble, energies_of, resample, reweight
from systems.store import load_ensemble, read_ensemble, write_ensemble
from systems.user_trajectory import _tell_missing_frames, judge_user_trajectory, read_user_trajectory

GROUPS, FRAMES = 4, 10


@pytest.fixture(scope="module", autouse=True)
def eager():
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("BOLTZGEN_EAGER", "1")
        yield


@pytest.fixture(scope="module")
def aldp():
    return systems.load("aldp")


@pytest.fixture(scope="module")
def ensemble(aldp):
    generator = torch.Generator().manual_seed(0)
    noise = torch.randn(GROUPS * FRAMES, 22, 3, generator=generator, dtype=torch.float64)
    positions = (aldp.positions + 0.002 * noise).float()
    return ReferenceEnsemble(
        provenance=Provenance(
            system="aldp",
            state="vacuum",
            temperature_kelvin=300.0,
            system_hash=aldp.system_hash("vacuum"),
            seed=7,
            settings={"timestep_fs": 2.0},
        ),
        positions=positions,
        energies=energies_of(aldp, "vacuum", 300.0, positions),
        group=torch.arange(GROUPS).repeat(FRAMES),
        frame=torch.arange(FRAMES).repeat_interleave(GROUPS),
        frame_interval_ps=0.2,
        diagnostics={"round_trips": 3},
    )


@pytest.fixture
def file(tmp_path, aldp, ensemble):
    path = tmp_path / "vacuum.h5"
    write_ensemble(path, ensemble, aldp.topology)
    return path


def test_what_goes_in_comes_out(aldp, ensemble, file):
    found = read_ensemble(file, aldp, "vacuum", 300.0)
    for name in ("positions", "energies", "group", "frame"):
        assert torch.equal(getattr(found, name), getattr(ensemble, name)), name
        assert getattr(found, name).dtype == getattr(ensemble, name).dtype, name
    assert found.provenance == ensemble.provenance
    assert (found.frame_interval_ps, found.diagnostics) == (0.2, {"round_trips": 3})
    assert not list(file.parent.glob(".*partial"))


def test_stored_energies_are_those_of_the_stored_positions(aldp, ensemble, file):
    stored = read_ensemble(file, aldp, "vacuum", 300.0)
    again = energies_of(aldp, "vacuum", 300.0, stored.positions)
    torch.testing.assert_close(again, stored.energies, rtol=1e-9, atol=0.0)


def test_the_same_ensemble_makes_the_same_bytes(tmp_path, aldp, ensemble, file):
    write_ensemble(str(tmp_path / "again.h5"), ensemble, aldp.topology)
    assert (tmp_path / "again.h5").read_bytes() == file.read_bytes()
    assert torch.equal(load_ensemble(str(file)).positions, ensemble.positions)


def test_mdtraj_reads_the_file(aldp, ensemble, file):
    trajectory = mdtraj.load(str(file))
    assert trajectory.n_frames == len(ensemble)
    assert [atom.name for atom in trajectory.topology.atoms] == [atom.name for atom in aldp.topology.atoms()]
    assert trajectory.topology.n_bonds == 21
    np.testing.assert_array_equal(trajectory.xyz, ensemble.positions.numpy())
    np.testing.assert_allclose(trajectory.time, ensemble.frame.numpy() * 0.2, rtol=1e-6)


def test_a_truncated_file_is_refused(file, aldp):
    content = file.read_bytes()
    for keep in (0, 100, len(content) // 2, len(content) - 1):
        file.write_bytes(content[:keep])
        with pytest.raises(InputError, match=r"truncated, corrupt or no HDF5 file.*repeat") as caught:
            read_ensemble(file, aldp, "vacuum", 300.0)
        assert "\n" not in str(caught.value)


def test_a_flipped_byte_in_the_data_is_found(file, aldp, ensemble):
    content = bytearray(file.read_bytes())
    # The whole array is one chunk here, so its bytes stand in the file in order.
    where = content.find(ensemble.energies.numpy().tobytes()[:64])
    assert where > 0
    content[where + 5] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match="corrupt"):
        read_ensemble(file, aldp, "vacuum", 300.0)


def rewrite(path, aldp, ensemble, **changes):
    provenance = dataclasses.replace(ensemble.provenance, **changes)
    write_ensemble(path, dataclasses.replace(ensemble, provenance=provenance), aldp.topology)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"system": "chignolin"}, "of system 'chignolin', not state 'vacuum' of 'aldp'"),
        ({"state": "implicit"}, "holds state 'implicit'"),
        ({"system_hash": "0" * 64}, "other parameters"),
        ({"temperature_kelvin": 310.0}, "sampled at 310 K, not 300 K"),
    ],
)
def test_a_file_of_something_else_is_refused(tmp_path, aldp, ensemble, changes, words):
    rewrite(tmp_path / "other.h5", aldp, ensemble, **changes)
    with pytest.raises(InputError, match=words):
        read_ensemble(tmp_path / "other.h5", aldp, "vacuum", 300.0)


def test_missing_pieces_are_named(tmp_path, file, aldp, ensemble):
    with pytest.raises(InputError, match="no file"):
        load_ensemble(tmp_path / "absent.h5")
    with h5py.File(file, "a") as handle:
        del handle["reducedEnergy"]
    with pytest.raises(InputError, match=r"has no reducedEnergy: it cannot be reweighted"):
        load_ensemble(file)
    plain = tmp_path / "plain.h5"
    mdtraj.Trajectory(ensemble.positions.numpy(), mdtraj.Topology.from_openmm(aldp.topology)).save_hdf5(str(plain))
    with pytest.raises(InputError, match="without energies or provenance"):
        load_ensemble(plain)


def test_energies_that_are_not_finite_are_refused(tmp_path, aldp, ensemble):
    energies = ensemble.energies.clone()
    energies[3] = torch.nan
    write_ensemble(tmp_path / "nan.h5", dataclasses.replace(ensemble, energies=energies), aldp.topology)
    with pytest.raises(InputError, match="not finite"):
        load_ensemble(tmp_path / "nan.h5")


def test_a_disk_that_refuses_leaves_the_old_file(aldp, ensemble, file, monkeypatch):
    before = file.read_bytes()

    def no_space(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", no_space)
    with pytest.raises(RunFailedError, match="No space left"):
        write_ensemble(file, ensemble, aldp.topology)
    monkeypatch.undo()
    assert file.read_bytes() == before
    assert not list(file.parent.glob(".*partial"))


def test_groups_stay_whole(ensemble):
    sets = ensemble.disjoint_groups(3)
    assert sum(len(part) for part in sets) == len(ensemble)
    labels = [set(part.group.tolist()) for part in sets]
    assert sum(len(part) for part in labels) == len(set.union(*labels)) == GROUPS
    with pytest.raises(ValueError, match="cannot split 4"):
        ensemble.disjoint_groups(5)
    rows = ensemble.by_group(ensemble.energies)
    assert rows.shape == (GROUPS, FRAMES)
    assert torch.equal(rows[2], ensemble.energies[ensemble.group == 2])


def test_weights_to_nonpolar_follow_the_energies(aldp, ensemble):
    log_weights = reweight(ensemble, aldp, "nonpolar")
    assert log_weights.logsumexp(0).item() == pytest.approx(0.0, abs=1e-12)
    ratio = aldp.target("vacuum").energy(ensemble.positions.double()) - aldp.target("nonpolar").energy(
        ensemble.positions.double()
    )
    torch.testing.assert_close(log_weights - log_weights[0], (ratio - ratio[0]).detach(), rtol=0, atol=1e-8)


def test_resampled_frames_are_those_of_the_other_state(aldp, ensemble):
    generator = torch.Generator().manual_seed(1)
    nonpolar = resample(ensemble, aldp, "nonpolar", generator)
    assert nonpolar.provenance.state == "nonpolar"
    assert nonpolar.provenance.system_hash == aldp.system_hash("nonpolar")
    assert len(nonpolar) == len(ensemble)
    torch.testing.assert_close(nonpolar.energies, energies_of(aldp, "nonpolar", 300.0, nonpolar.positions))
    weights = reweight(ensemble, aldp, "nonpolar").exp()
    distances = torch.cdist(nonpolar.positions.flatten(1), ensemble.positions.flatten(1))
    copies = torch.bincount(distances.argmin(1), minlength=len(ensemble))
    assert ((copies - len(ensemble) * weights).abs() <= 1.0).all()
    for group in ensemble.group.unique():
        wanted = len(ensemble) * float(weights[ensemble.group == group].sum())
        assert abs(int((nonpolar.group == group).sum()) - wanted) <= 1.0
    told = ensemble.with_diagnostics({"effective_frames": {"phi": 40.0}, "populations": {}})
    fewer = resample(told, aldp, "nonpolar", generator).diagnostics
    kish = 1 / float(weights.square().sum())
    assert fewer == {"effective_frames": {"phi": pytest.approx(40 * kish / len(ensemble))}, "populations": {}}
    assert kish < len(ensemble)


@pytest.mark.parametrize("suffix", ["dcd", "nc", "h5"])
def test_a_users_own_trajectory_is_taken(tmp_path, aldp, ensemble, suffix):
    path = tmp_path / f"own.{suffix}"
    mdtraj.Trajectory(ensemble.positions.numpy(), mdtraj.Topology.from_openmm(aldp.topology)).save(str(path))
    own = read_user_trajectory(path, aldp, "implicit", 300.0, blocks=4)
    assert judge_user_trajectory(path, aldp, "implicit", 300.0, blocks=4) == 4
    assert own.diagnostics == {} or min(own.diagnostics["effective_frames"].values()) > 0
    assert (len(own), own.n_groups) == (len(ensemble), 4)
    assert own.provenance.seed is None
    torch.testing.assert_close(
        own.energies, energies_of(aldp, "implicit", 300.0, ensemble.positions), atol=5e-3, rtol=0
    )
    torch.testing.assert_close(own.energies, energies_of(aldp, "implicit", 300.0, own.positions), rtol=1e-12, atol=0)


def test_our_own_file_as_a_users_trajectory_keeps_its_groups(aldp, ensemble, file):
    own = read_user_trajectory(file, aldp, "vacuum", 300.0)
    assert torch.equal(own.group, ensemble.group)
    assert judge_user_trajectory(file, aldp, "vacuum", 300.0) == ensemble.n_groups
    with pytest.raises(InputError, match="310 K"):
        read_user_trajectory(file, aldp, "vacuum", 310.0)


def test_samples_and_mirror_images_in_a_file_of_ours_are_no_frames_of_the_state(tmp_path, aldp, ensemble):
    """The energies of a mirror image are the same, and so is all that its file says of the molecule."""
    path, made = tmp_path / "mine.h5", ensemble.provenance
    for settings, words in (
        ({"model_hash": "some"}, "holds samples of a learned energy"),
        ({"weights": "u_kn.npz"}, r"whose weights are in u_kn\.npz"),
    ):
        told = dataclasses.replace(ensemble, provenance=dataclasses.replace(made, settings=settings))
        write_ensemble(path, told, aldp.topology)
        for read in (read_user_trajectory, judge_user_trajectory):
            with pytest.raises(InputError, match=words):
                read(path, aldp, made.state)
    write_ensemble(path, dataclasses.replace(ensemble, positions=-ensemble.positions), aldp.topology)
    with pytest.raises(InputError, match="frame 0: atom 8 has the other chirality than in 'aldp'"):
        read_user_trajectory(path, aldp, made.state)


def test_trajectories_that_cannot_be_used_are_refused(tmp_path, aldp, ensemble):
    topology = mdtraj.Topology.from_openmm(aldp.topology)
    good = mdtraj.Trajectory(ensemble.positions.numpy(), topology)

    def refused(path, words, **options):
        for read in (read_user_trajectory, judge_user_trajectory):
            with pytest.raises(InputError, match=words) as caught:
                read(path, aldp, "vacuum", 300.0, **options)
            assert "\n" not in str(caught.value)

    good.save_xtc(str(tmp_path / "rounded.xtc"))
    refused(tmp_path / "rounded.xtc", "rounded coordinates")
    refused(tmp_path / "absent.dcd", "no trajectory")
    (tmp_path / "strange.abc").touch()
    refused(tmp_path / "strange.abc", "unknown trajectory format")
    (tmp_path / "rubbish.dcd").write_bytes(b"rubbish")
    refused(tmp_path / "rubbish.dcd", "cannot be read")
    good.atom_slice(range(21)).save_dcd(str(tmp_path / "short.dcd"))
    refused(tmp_path / "short.dcd", "22 atoms")
    mirrored = good.xyz.copy()
    mirrored[7, :, 2] *= -1
    mdtraj.Trajectory(mirrored, topology).save_dcd(str(tmp_path / "mirrored.dcd"))
    refused(tmp_path / "mirrored.dcd", "frame 7: atom 8 has the other chirality", blocks=4)
    order = [1, 0, *range(2, 22)]
    renamed = topology.copy()
    renamed.atom(4).name = "CX"
    mdtraj.Trajectory(good.xyz, renamed).save_hdf5(str(tmp_path / "names.h5"))
    refused(tmp_path / "names.h5", "has atom 4 ACE-CX where the system has 4 ACE-C", blocks=4)
    mdtraj.Trajectory(good.xyz[:, order], topology).save_dcd(str(tmp_path / "order.dcd"))
    refused(tmp_path / "order.dcd", "bond of atoms", blocks=4)
    mdtraj.Trajectory(good.xyz * 10, topology).save_dcd(str(tmp_path / "units.dcd"))
    refused(tmp_path / "units.dcd", r"check the units \(nm\)", blocks=4)
    holes = good.xyz.copy()
    holes[7, 3] = np.nan
    mdtraj.Trajectory(holes, topology).save_dcd(str(tmp_path / "holes.dcd"))
    refused(tmp_path / "holes.dcd", "frame 7: positions are not finite", blocks=4)
    good.save_hdf5(str(tmp_path / "cut.h5"))
    content = (tmp_path / "cut.h5").read_bytes()
    (tmp_path / "cut.h5").write_bytes(content[: len(content) // 2])
    refused(tmp_path / "cut.h5", "cannot be read")
    (tmp_path / "folder.h5").mkdir()
    refused(tmp_path / "folder.h5", "cannot be read")
    good.save_dcd(str(tmp_path / "brief.dcd"))
    refused(tmp_path / "brief.dcd", "fewer than the 200", blocks=50)


def test_frames_that_a_file_counts_and_lacks_are_told(tmp_path, aldp, ensemble, caplog):
    topology = mdtraj.Topology.from_openmm(aldp.topology)
    mdtraj.Trajectory(ensemble.positions.numpy(), topology).save_dcd(str(tmp_path / "whole.dcd"))
    read_user_trajectory(tmp_path / "whole.dcd", aldp, "implicit", 300.0, blocks=4)
    assert not caplog.records
    whole = (tmp_path / "whole.dcd").read_bytes()
    (tmp_path / "cut.dcd").write_bytes(whole[: len(whole) // 2])
    cut = read_user_trajectory(tmp_path / "cut.dcd", aldp, "implicit", 300.0, blocks=4)
    assert f"of the {len(ensemble)} frames that it counts" in caplog.text
    assert len(cut) < len(ensemble)


@pytest.mark.parametrize(("order", "marker"), [("<", "i"), (">", "i"), ("<", "q"), (">", "q")])
def test_the_count_of_a_dcd_file_is_found_in_every_layout(tmp_path, caplog, order, marker):
    file = tmp_path / "head.dcd"
    file.write_bytes(struct.pack(order + marker, 84) + b"CORD" + struct.pack(order + "i", 7) + bytes(8))
    _tell_missing_frames(file, 7)
    assert not caplog.records
    _tell_missing_frames(file, 5)
    assert "holds 5 of the 7 frames" in caplog.text


def test_an_ensemble_of_other_atoms_than_the_topology_is_not_written(tmp_path, aldp, ensemble):
    fewer = dataclasses.replace(ensemble, positions=ensemble.positions[:, :10])
    with pytest.raises(ValueError, match="an ensemble of 10 atoms has no topology of 22"):
        write_ensemble(tmp_path / "a.h5", fewer, aldp.topology)

import dataclasses
from collections.abc import Callable
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from mdtraj.formats import HDF5TrajectoryFile
from openmm import app, unit

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_reference, load_rollout
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.sidecar import RolloutSidecar

Maker = Callable[..., Ensemble]
N_FRAMES, N_REPLICAS = 6, 3


@pytest.fixture
def rollout(tmp_path: Path, ethanol: mdtraj.Topology) -> tuple[Path, np.ndarray]:
    """Three replicas of ethanol by OpenMM's own writers, 50 fs between frames."""
    topology = app.Topology()
    for _ in range(N_REPLICAS):
        part = ethanol.to_openmm()
        residue = topology.addResidue("ETH", topology.addChain())
        atoms = [topology.addAtom(a.name, a.element, residue) for a in part.atoms()]
        for bond in part.bonds():
            topology.addBond(atoms[bond[0].index], atoms[bond[1].index])
    x = np.random.default_rng(1).normal(size=(N_FRAMES, 9 * N_REPLICAS, 3))
    with (tmp_path / "run.dcd").open("wb") as handle:
        dcd = app.DCDFile(handle, topology, 0.05 * unit.picosecond)
        for frame in x:
            dcd.writeModel(frame * unit.nanometer)
    with (tmp_path / "run.pdb").open("w") as handle:
        app.PDBFile.writeFile(topology, x[0] * unit.nanometer, handle)
    RolloutSidecar(
        lag_time_fs=10.0,
        frame_interval_fs=50.0,
        num_frames=N_FRAMES,
        num_replicas=N_REPLICAS,
        atoms_per_replica=9,
        model_name="ethanol",
        model_sha256="00",
        temperature_K=500.0,
        friction_per_ps=1.0,
        seed=1,
        sampler="exponential",
        num_sampling_steps=2,
        resamples=0,
    ).write(tmp_path / "run.json")
    return tmp_path / "run.json", x


@pytest.mark.parametrize("suffix", [".json", ".dcd"])
def test_rollout_comes_back_with_its_replicas_and_time_axis(
    rollout: tuple[Path, np.ndarray], suffix: str
):
    path, x = rollout
    ensemble, sidecar = load_rollout(path.with_suffix(suffix))
    assert sidecar.num_replicas == ensemble.n_replicas == N_REPLICAS
    for index, replica in enumerate(ensemble.trajectories()):
        np.testing.assert_allclose(replica.time, [0.05, 0.1, 0.15, 0.2, 0.25, 0.3])
        np.testing.assert_allclose(
            replica.xyz, x[:, 9 * index : 9 * index + 9], atol=1e-6
        )
        assert replica.topology.n_bonds == 8
    assert ensemble.symbols == ["C", "C", "O"] + 6 * ["H"]
    assert ensemble.length == pytest.approx(N_FRAMES * N_REPLICAS * 0.05)


def test_rollout_that_failed_gives_its_good_frames_only(
    rollout: tuple[Path, np.ndarray],
):
    path, _ = rollout
    sidecar = RolloutSidecar.read(path)
    dataclasses.replace(sidecar, num_frames=4, error="broke").write(path)
    ensemble, _ = load_rollout(path)
    assert [len(p) for p in ensemble.positions] == [4, 4, 4]


def test_rollout_with_missing_frames_or_files_is_refused(
    rollout: tuple[Path, np.ndarray],
):
    path, _ = rollout
    sidecar = RolloutSidecar.read(path)
    dataclasses.replace(sidecar, num_frames=9).write(path)
    with pytest.raises(ValueError, match="has 6 frames, expected 9"):
        load_rollout(path)
    dataclasses.replace(sidecar, num_replicas=2).write(path)
    with pytest.raises(ValueError, match="has 27 atoms, expected 18"):
        load_rollout(path)
    path.with_suffix(".pdb").unlink()
    with pytest.raises(FileNotFoundError, match=r"run\.pdb"):
        load_rollout(path)


def test_velocities_come_from_the_hdf5_beside_it(rollout: tuple[Path, np.ndarray]):
    path, x = rollout
    with HDF5TrajectoryFile(str(path.with_suffix(".h5")), "w") as file:
        file.write(coordinates=x.astype("f4"), velocities=(2 * x).astype("f4"))
    ensemble, _ = load_rollout(path)
    assert ensemble.velocities is not None
    np.testing.assert_allclose(ensemble.velocities[1], 2 * x[:, 9:18], rtol=1e-6)


def test_segments_of_a_reference_are_replicas(tmp_path: Path, ethanol: mdtraj.Topology):
    x = np.random.default_rng(2).normal(size=(2, 5, 9, 3))
    masses = np.array([atom.element.mass for atom in ethanol.atoms])
    path = tmp_path / "bursts.h5"
    said = {"friction_per_ps": 0.0}
    with ReferenceWriter(path, ethanol.to_openmm(), masses, said, 10) as writer:
        for segment, frames in enumerate(x):
            for k, p in enumerate(frames):
                writer.write(segment, ReferenceFrame(0.001 * (k + 1), p, 3 * p, p, 0.0))
    found, provenance = load_reference(path)
    assert provenance == said
    assert found.frame_interval == pytest.approx(0.001)
    assert found.velocities is not None
    np.testing.assert_allclose(found.positions, x, rtol=1e-6)
    np.testing.assert_allclose(found.velocities, 3 * x, rtol=1e-6)
    assert found.topology.n_bonds == 8


def test_reference_with_a_gap_in_time_is_refused(tmp_path: Path):
    whole, _ = load_reference("ethanol")
    path = tmp_path / "gap.h5"
    with HDF5TrajectoryFile(str(path), "w") as file:
        file.topology = whole.topology
        file.write(
            coordinates=whole.positions[0][:3],
            time=np.array([0.0, 0.01, 0.05], dtype="f4"),
        )
    with pytest.raises(ValueError, match="unevenly spaced"):
        load_reference(path)


@pytest.mark.parametrize(("n_replicas", "expected"), [(4, [2, 2]), (3, [2, 2])])
def test_halves_share_no_frame_and_lose_none(
    gaussian_ethanol: Maker, n_replicas: int, expected: list[int]
):
    ensemble = gaussian_ethanol(n_replicas, 10, seed=1)
    halves = ensemble.split(2)
    assert [h.n_replicas for h in halves] == expected
    assert [h.n_frames for h in halves] == 2 * [5 * n_replicas]
    together = np.concatenate([np.concatenate(h.positions) for h in halves])
    everything = np.concatenate(ensemble.positions)
    np.testing.assert_array_equal(np.sort(together, 0), np.sort(everything, 0))


def test_halves_of_unequal_replicas_are_equally_long(gaussian_ethanol: Maker):
    # As the bundled reference: runs of 566, 330, 150 and 75 ps.
    whole = gaussian_ethanol(4, 57, seed=1)
    first, second = whole.window([0] * 4, [57, 33, 15, 7]).split(2)
    assert [len(p) for p in first.positions] == [56]
    assert [len(p) for p in second.positions] == [1, 33, 15, 7]


def test_strided_frames_keep_the_time_axis(gaussian_ethanol: Maker):
    ensemble = gaussian_ethanol(2, 10, seed=1)
    found = ensemble.strided(3)
    before, after = ensemble.trajectories()[1], found.trajectories()[1]
    np.testing.assert_allclose(after.time, [0.03, 0.06, 0.09])
    np.testing.assert_array_equal(after.xyz, before.xyz[[2, 5, 8]])
    assert ensemble.velocities is not None
    assert found.velocities is not None
    np.testing.assert_array_equal(
        found.velocities[1], ensemble.velocities[1][[2, 5, 8]]
    )


def test_a_window_keeps_positions_and_velocities_of_the_same_frames(
    gaussian_ethanol: Maker,
):
    ensemble = gaussian_ethanol(3, 10, seed=1)
    found = ensemble.window([4, 9, 0], [7, 9, 2])
    assert ensemble.velocities is not None
    assert found.velocities is not None
    for whole, part in (
        (ensemble.positions, found.positions),
        (ensemble.velocities, found.velocities),
    ):
        assert len(part) == 2
        np.testing.assert_array_equal(part[0], whole[0][4:7])
        np.testing.assert_array_equal(part[1], whole[2][:2])
    with pytest.raises(ValueError, match="found no frame left"):
        ensemble.window([5] * 3, [5] * 3)


def test_frames_that_are_not_finite_are_refused(gaussian_ethanol: Maker):
    good = gaussian_ethanol(2, 3, seed=1)
    good.positions[1][2, 0, 0] = np.nan
    with pytest.raises(ValueError, match=r"not finite in positions\[1\]"):
        dataclasses.replace(good, frame_interval=0.02)


def test_bonds_are_the_same_in_whatever_order_a_file_has_them(
    rollout: tuple[Path, np.ndarray], ethanol: mdtraj.Topology
):
    from_pdb = load_rollout(rollout[0])[0]
    own = Ensemble(ethanol, 0.01, [np.zeros((1, 9, 3))])
    np.testing.assert_array_equal(from_pdb.bonds, own.bonds)
    assert own.bonds.tolist() == sorted(own.bonds.tolist())


def test_topology_without_bonds_is_refused(ethanol: mdtraj.Topology):
    bare = openmm.app.Topology()
    residue = bare.addResidue("ETH", bare.addChain())
    for atom in ethanol.to_openmm().atoms():
        bare.addAtom(atom.name, atom.element, residue)
    with pytest.raises(ValueError, match="topology without bonds"):
        Ensemble(mdtraj.Topology.from_openmm(bare), 0.01, [np.zeros((1, 9, 3))])

"""Bare frames as an ensemble: bonds by distance, the order of time."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest

from openmm_diffmd.analysis.distributions import bonded_terms
from openmm_diffmd.analysis.groups import find_protons, find_rotors
from openmm_diffmd.analysis.loading import load_frames, load_reference
from openmm_diffmd.topologies import make_topology


def test_bonds_are_found_by_mean_distances(tmp_path: Path):
    # Water whose hydrogens meet in one frame of two.
    apart = np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])
    close = np.array([[0.0, 0.0, 0.0], [0.9, 0.0, 0.0], [0.9, 0.5, 0.0]])
    np.savez(
        tmp_path / "water.npz",
        nuclear_charges=np.array([8, 1, 1]),
        coords=np.stack([close, apart]),
        energies=np.zeros(2),
        forces=np.zeros((2, 3, 3)),
        old_indices=np.array([20, 10]),
    )
    ensemble, provenance = load_frames(tmp_path / "water.npz")
    assert provenance["data"] == "rMD17"
    assert ensemble.symbols == ["O", "H", "H"]
    assert ensemble.bonds.tolist() == [[0, 1], [0, 2]]
    # In the order of the old indices, ten frames of 0.5 fs apart.
    assert ensemble.positions[0] == pytest.approx(0.1 * np.stack([apart, close]))
    assert ensemble.frame_interval == pytest.approx(0.005)
    assert ensemble.velocities is None


def test_one_frame_is_refused(tmp_path: Path):
    np.savez(
        tmp_path / "one.npz",
        nuclear_charges=np.array([8, 1]),
        coords=np.array([[[0.0, 0.0, 0.0], [0.96, 0.0, 0.0]]]),
        energies=np.zeros(1),
        forces=np.zeros((1, 2, 3)),
        old_indices=np.array([1]),
    )
    with pytest.raises(ValueError, match=r"found 1 frame in .*, expected two"):
        load_frames(tmp_path / "one.npz")


@pytest.mark.parametrize(
    ("molecule", "bonds", "rotors", "protons"),
    [
        ("ethanol", 8, ["methyl", "hydroxyl"], 0),
        ("malonaldehyde", 8, ["formyl", "formyl"], 0),
        ("salicylic", 16, ["hydroxyl", "hydroxyl"], 1),
        ("toluene", 15, ["methyl"], 0),
        ("aspirin", 21, ["methyl", "hydroxyl"], 1),
        ("benzene", 12, [], 0),
    ],
)
def test_real_molecules_are_what_chemistry_says(
    shared_data: Path, molecule: str, bonds: int, rotors: list[str], protons: int
):
    ensemble, _ = load_frames(shared_data / "rmd17" / f"rmd17_{molecule}.npz")
    assert len(ensemble.bonds) == bonds
    assert sorted(r.kind for r in find_rotors(ensemble.topology)) == sorted(rotors)
    assert len(find_protons(ensemble.topology)) == protons
    assert "C-H" in bonded_terms(ensemble.topology)["bonds"]


def test_md17_at_another_interval_than_its_forces_say_is_refused(
    shared_data: Path, tmp_path: Path
):
    with np.load(shared_data / "md17" / "md17_ethanol_first2000.npz") as file:
        every_second = {k: file[k] if k == "z" else file[k][::2] for k in "zREF"}
    np.savez(tmp_path / "md17_slow.npz", **every_second)
    with pytest.raises(ValueError, match=r"are 0\.99 fs apart, not 0\.5: give frame_i"):
        load_reference(tmp_path / "md17_slow.npz")
    ensemble, _ = load_reference(tmp_path / "md17_slow.npz", frame_interval_fs=1.0)
    assert ensemble.frame_interval == 0.001


def test_original_md17_is_a_reference_with_velocities(shared_data: Path):
    path = shared_data / "md17" / "md17_ethanol_first2000.npz"
    ensemble, provenance = load_reference(path)
    assert (ensemble.frame_interval, ensemble.n_frames) == (0.0005, 1999)
    assert provenance["data"] == "MD17"
    assert ensemble.velocities is not None
    # A sample of the same run: no two frames follow each other.
    rmd17 = shared_data / "rmd17" / "rmd17_ethanol.npz"
    with pytest.raises(ValueError, match=r"unevenly spaced in time.*real_md17\.py"):
        load_reference(rmd17)


def test_a_reference_without_bonds_gets_them_by_distance(tmp_path: Path):
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain())
    for symbol in "OHH":
        topology.add_atom(symbol, mdtraj.element.get_by_symbol(symbol), residue)
    x = np.array([[0.0, 0.0, 0.0], [0.096, 0.0, 0.0], [-0.024, 0.093, 0.0]])
    frames = mdtraj.Trajectory(np.stack([x, x, x]), topology, time=[0.0, 0.01, 0.02])
    frames.save_hdf5(str(tmp_path / "water.h5"))
    ensemble, _ = load_reference(tmp_path / "water.h5")
    assert ensemble.bonds.tolist() == [[0, 1], [0, 2]]


def test_frames_that_mdtraj_numbered_need_an_interval(tmp_path: Path):
    topology = make_topology("OH", [[0, 1]])
    x = np.array([[0.0, 0.0, 0.0], [0.096, 0.0, 0.0]])
    mdtraj.Trajectory(np.stack([x, x, x]), topology).save_dcd(str(tmp_path / "a.dcd"))
    converted = tmp_path / "a.h5"
    mdtraj.load(str(tmp_path / "a.dcd"), top=topology).save_hdf5(str(converted))
    with pytest.raises(ValueError, match=r"no times in .* frame_interval_fs"):
        load_reference(converted)
    ensemble, _ = load_reference(converted, frame_interval_fs=20.0)
    assert ensemble.frame_interval == 0.02
    with pytest.raises(ValueError, match="the file has its own times"):
        load_reference("ethanol", frame_interval_fs=20.0)


@pytest.mark.parametrize("name", ["ethnol", "benzene"])
def test_references_that_are_not_bundled_are_named(name: str):
    with pytest.raises(FileNotFoundError, match=rf"'{name}', .* name \(ethanol\)"):
        load_reference(name)

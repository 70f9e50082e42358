"""References as an ensemble: bonds by distance, times that are told."""

from pathlib import Path

import mdtraj
import numpy as np
import pytest

from openmm_diffmd.analysis.distributions import bonded_terms
from openmm_diffmd.analysis.groups import find_protons, find_rotors
from openmm_diffmd.analysis.loading import load_reference, topology_of
from openmm_diffmd.data.readers import read_trajectory
from openmm_diffmd.topologies import make_topology


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
    frames = read_trajectory(shared_data / "rmd17" / f"rmd17_{molecule}.npz")
    topology = topology_of(frames)
    assert topology.n_bonds == bonds
    assert sorted(r.kind for r in find_rotors(topology)) == sorted(rotors)
    assert len(find_protons(topology)) == protons
    assert "C-H" in bonded_terms(topology)["bonds"]


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

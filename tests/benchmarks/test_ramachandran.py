"""Maps of backbone torsions: which atoms they are of, and numbers that are known."""

import json
from pathlib import Path

import mdtraj
import numpy as np
import pytest
import ramachandran as maps
from mdtraj.formats import HDF5TrajectoryFile

from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.sidecar import RolloutSidecar

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture(scope="module")
def minimum():
    topology, positions = load_molecule("alanine_dipeptide")
    return mdtraj.Topology.from_openmm(topology), positions._value


@pytest.fixture
def write_run():
    def write(topology, positions, folder):
        generator = np.random.default_rng(1)

        def frames():
            return positions + generator.normal(scale=0.001, size=(50, 22, 3))

        references = [folder / "a.h5", folder / "b.h5"]
        for path in references:
            with HDF5TrajectoryFile(str(path), "w") as file:
                file.topology = topology
                file.write(frames(), time=0.01 * np.arange(1, 51))
        run = mdtraj.Trajectory(frames(), topology)
        run.save_dcd(str(folder / "run.dcd"))
        run[0].save_pdb(str(folder / "run.pdb"))
        RolloutSidecar(
            lag_time_fs=10.0,
            frame_interval_fs=10.0,
            num_frames=50,
            num_replicas=1,
            atoms_per_replica=22,
            model_name="ala",
            model_sha256="ab" * 32,
            temperature_K=500.0,
            friction_per_ps=1.0,
            seed=4,
            sampler="exponential",
            num_sampling_steps=2,
            resamples=0,
        ).write(folder / "run.json")
        return folder / "run.json", references

    return write


def test_minimum_of_alanine_dipeptide_is_c7eq(minimum):
    topology, positions = minimum
    ((phi, psi),) = maps.backbone(topology)
    assert [topology.atom(i).element.symbol for i in phi] == ["C", "N", "C", "C"]
    assert [topology.atom(i).element.symbol for i in psi] == ["N", "C", "C", "N"]
    ensemble = maps.Ensemble(topology, 0.01, [positions[None]])
    torsions = maps.measure_torsions(ensemble)
    # C7eq of the literature: about -83 and 75 degrees.
    np.testing.assert_allclose(torsions.replicas[0][0, 0], [-83, 75], atol=10)
    assert torsions.shares()["C7eq"][0] == 1.0


def test_molecule_without_peptide_bonds_is_refused():
    topology, _ = load_molecule(BENCHMARKS / "n_methylacetamide.xyz")
    with pytest.raises(ValueError, match="found no residue between two peptide bonds"):
        maps.backbone(mdtraj.Topology.from_openmm(topology))


def test_divergence_tells_samples_of_one_map_from_those_of_two(minimum, monkeypatch):
    generator = np.random.default_rng(5)

    def sample(center):
        """Frames whose first atom says phi and psi."""
        positions = np.zeros((8, 4000, 22, 3))
        positions[:, :, 0, :2] = generator.normal(center, 12.0, size=(8, 4000, 2))
        return maps.Ensemble(minimum[0], 0.01, list(positions))

    def said(ensemble):
        return maps.Torsions([x[:, :1, :2] for x in ensemble.positions])

    monkeypatch.setattr(maps, "measure_torsions", said)

    # Maps p of one bin and q of that and another, m between them.
    sure, open_ = np.zeros((2, 3, 3))
    sure[0, 0], open_[0, 0], open_[1, 1] = 1.0, 0.5, 0.5
    # KL(p|m) = log2(1/0.75), KL(q|m) = log2(0.5/0.75)/2 + log2(0.5/0.25)/2
    exact = 0.5 * np.log2(4 / 3) + 0.5 * (0.5 * np.log2(2 / 3) + 0.5)
    assert maps.divergence(sure, open_) == pytest.approx(exact)

    one, again, other = sample([-80, 70]), sample([-80, 70]), sample([-77, 70])
    same, shifted = maps.compare(again, one), maps.compare(other, one)
    floors = maps.floor_of(again), maps.floor_of(one)
    assert same["by_sampling"] == pytest.approx(0.25 * sum(floors))
    assert 0.3 < same["divergence"] / same["by_sampling"] < 2.0
    assert shifted["divergence"] > 3.0 * shifted["by_sampling"]
    # A Gaussian of 12 degrees about the middle of what the region holds of phi and psi.
    share, error = same["shares"]["C7eq"]
    assert error < 0.005
    assert share == pytest.approx(0.998 * 0.99994, abs=4 * error + 1e-3)


def test_command_compares_runs_with_references(minimum, tmp_path, write_run):
    rollout, references = write_run(*minimum, tmp_path)
    maps.main(
        [
            *("--rollouts", str(rollout), "--references", *map(str, references)),
            *("--equilibration-ps", "0.1", "--output", str(tmp_path / "out")),
        ]
    )
    found = json.loads((tmp_path / "out" / "ramachandran.json").read_text())
    assert found["reference_ps"] == pytest.approx(1.0)
    assert found["rows"]["run"]["shares"]["C7eq"][0] == 1.0
    assert (tmp_path / "out" / "ramachandran.png").is_file()
    with (
        HDF5TrajectoryFile(str(references[1])) as file,
        HDF5TrajectoryFile(str(tmp_path / "slow.h5"), "w") as slow,
    ):
        slow.topology = minimum[0]
        slow.write(file.read().coordinates, time=0.1 * np.arange(1, 51))
    with pytest.raises(SystemExit, match=r"frames each 0.1 ps in .*slow.h5, expected"):
        maps.main(
            [
                *("--rollouts", str(rollout), "--references", str(references[0])),
                *(str(tmp_path / "slow.h5"), "--output", str(tmp_path / "none")),
            ]
        )
    with pytest.raises(SystemExit, match=r"equilibration_ps 0.5, expected less"):
        maps.main(
            [
                *("--rollouts", str(rollout), "--references", *map(str, references)),
                *("--equilibration-ps", "0.5", "--output", str(tmp_path / "none")),
            ]
        )

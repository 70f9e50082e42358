"""The verb: files to a report, at an interval that all have."""

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mdtraj.formats import HDF5TrajectoryFile

from openmm_diffmd.analysis.analyze import analyze, common_interval
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.sidecar import RolloutSidecar

Maker = Callable[..., Ensemble]


def write_rollout(ensemble: Ensemble, path: Path, interval_fs: float) -> Path:
    """One replica, without velocities."""
    path.parent.mkdir(exist_ok=True)
    frames = ensemble.frames()
    frames.save_dcd(str(path.with_suffix(".dcd")))
    frames[0].save_pdb(str(path.with_suffix(".pdb")))
    RolloutSidecar(
        lag_time_fs=interval_fs,
        frame_interval_fs=interval_fs,
        num_frames=frames.n_frames,
        num_replicas=1,
        atoms_per_replica=frames.n_atoms,
        model_name="ethanol",
        model_sha256="ab" * 32,
        temperature_K=500.0,
        friction_per_ps=1.0,
        seed=4,
        sampler="exponential",
        num_sampling_steps=2,
        resamples=0,
    ).write(path)
    return path


@pytest.fixture
def reference(gaussian_ethanol: Maker, tmp_path: Path) -> Path:
    ensemble = gaussian_ethanol(1, 600, seed=1)
    assert ensemble.velocities is not None
    path = tmp_path / "reference.h5"
    with HDF5TrajectoryFile(str(path), "w") as file:
        file.topology = ensemble.topology
        file.write(
            ensemble.positions[0],
            time=0.01 * np.arange(1, 601),
            velocities=ensemble.velocities[0],
        )
    return path


def test_bonds_are_watched_between_the_frames_that_are_compared(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    ensemble = gaussian_ethanol(1, 100, seed=2)
    ensemble.positions[0][51] *= 3.0
    # The same name in two folders: each has its own verdict.
    broken = write_rollout(ensemble, tmp_path / "a" / "diffmd.json", 8.0)
    whole = write_rollout(
        gaussian_ethanol(1, 100, seed=3), tmp_path / "b" / "diffmd.json", 8.0
    )
    result = analyze([broken, whole], reference, tmp_path / "out")
    report = json.loads(result.read_text())
    assert report["frame_interval_ps"] == 0.04
    text = result.with_suffix(".txt").read_text()
    assert text.startswith("ethanol, 500 K, compared each 40 fs\n")
    first, second = report["rollouts"]["a/diffmd"], report["rollouts"]["b/diffmd"]
    assert first["figures"]["n_broken"] == 1
    assert first["figures"]["first_break_ps"] == pytest.approx(52 * 0.008)
    # Frames 5, 10 .. 50 of the 51 good ones.
    assert first["figures"]["analyzed_ps"] == pytest.approx(10 * 0.04)
    assert [r["goals"][0]["passed"] for r in (first, second)] == [False, True]
    for name in ("T(H)", "kinetic", "velocity spectra"):
        line = next(x for x in text.splitlines() if x.startswith("undecided  " + name))
        assert line.endswith("no velocities: run with --velocities true")
    assert "MISSED     T(" not in text


def test_intervals_that_hardly_differ_have_a_long_one_in_common(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    assert common_interval(0.01, 0.0099) == 0.99
    ensemble = dataclasses.replace(gaussian_ethanol(1, 300, seed=2), velocities=None)
    rollout = write_rollout(ensemble, tmp_path / "run.json", 9.9)
    result = analyze(rollout, reference, tmp_path / "out")
    assert json.loads(result.read_text())["frame_interval_ps"] == 0.99
    assert "compared each 990 fs" in result.with_suffix(".txt").read_text()


def test_a_hot_start_needs_time_to_equilibrate(
    gaussian_ethanol: Maker, reference: Path, tmp_path: Path
):
    path = write_rollout(gaussian_ethanol(1, 100, seed=2), tmp_path / "hot.json", 10.0)
    sidecar = RolloutSidecar.read(path)
    dataclasses.replace(sidecar, start_temperature_K=1000.0).write(path)
    with pytest.raises(
        ValueError, match=r"found equilibration_ps 0 for hot, .* 1000 K in a heat bath"
    ):
        analyze(path, reference, tmp_path / "out")
    assert analyze(path, reference, tmp_path / "out", equilibration_ps=0.2).is_file()

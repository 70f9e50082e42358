from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from mdtraj.formats import HDF5TrajectoryFile

from openmm_diffmd.analysis.loading import load_rollout
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator.rollout import RolloutSettings, roll_out
from openmm_diffmd.integrator.rollout_reporter import RolloutReporter
from openmm_diffmd.integrator.run import run
from openmm_diffmd.sidecar import RolloutSidecar


@pytest.mark.filterwarnings("ignore:found sampler heun of 3 steps")
def test_run_writes_what_the_dcd_cannot_say(stub: Path, tmp_path: Path):
    path = run(
        str(stub),
        tmp_path / "new" / "a",
        replicas=3,
        length_ps=0.6,
        frame_interval_fs=20.0,
        seed=5,
        sampler="heun",
        num_sampling_steps=3,
        friction_per_ps=2.0,
        velocities=True,
        progress=False,
    )
    assert sorted(p.name for p in path.parent.iterdir()) == [
        "a.dcd",
        "a.h5",
        "a.json",
        "a.pdb",
    ]
    model = load_model(stub)
    found = RolloutSidecar.read(path)
    assert found.versions["openmm"] == openmm.__version__
    assert (found.num_frames, found.num_lags, found.error) == (30, 60, None)
    assert (found.num_replicas, found.atoms_per_replica) == (3, 9)
    assert (found.lag_time_fs, found.frame_interval_fs) == (10.0, 20.0)
    assert (found.temperature_K, found.friction_per_ps) == (300.0, 2.0)
    assert (found.sampler, found.num_sampling_steps, found.seed) == ("heun", 3, 5)
    assert found.model_sha256 == model.sha256
    with HDF5TrajectoryFile(str(path.with_suffix(".h5"))) as file:
        data = file.read()
    np.testing.assert_allclose(data.time, 0.02 * np.arange(1, 31), rtol=1e-6)
    frames = mdtraj.load_dcd(
        str(path.with_suffix(".dcd")), str(path.with_suffix(".pdb"))
    )
    np.testing.assert_allclose(frames.xyz, data.coordinates, atol=1e-6)
    assert frames.topology.n_bonds == 3 * 8


def test_bonds_of_a_residue_with_a_standard_name_are_read_back(
    stub: Path, tmp_path: Path
):
    # A PDB file leaves out the bonds of an ALA, and these are no atoms of one.
    model = load_model(stub)
    topology, _ = model.example()
    next(topology.residues()).name = "ALA"
    settings = RolloutSettings(length_ps=0.1, progress=False)
    for replicas in (1, 2):
        path = tmp_path / f"named_{replicas}"
        starts = np.zeros((replicas, 9, 3))
        made = roll_out(model, topology, starts, path, settings)
        assert len(load_rollout(made.path)[0].bonds) == 8


def test_a_dcd_of_each_replica_is_the_dcd_of_all_in_parts(stub: Path, tmp_path: Path):
    folder = tmp_path / "{braces}"
    arguments = {"replicas": 3, "length_ps": 0.2, "seed": 5, "progress": False}
    whole = run(str(stub), folder / "whole", **arguments)
    path = run(str(stub), folder / "each", dcd_per_replica=True, **arguments)
    files = RolloutSidecar.read(path).dcd_files(path)
    assert [file.name for file in files] == ["each_0.dcd", "each_1.dcd", "each_2.dcd"]
    assert sorted(file.name for file in folder.iterdir() if "each" in file.name) == [
        "each.json",
        "each.pdb",
        *(file.name for file in files),
    ]
    expected, found = load_rollout(whole)[0], load_rollout(path)[0]
    np.testing.assert_array_equal(found.positions, expected.positions)
    assert found.topology.n_bonds == expected.topology.n_bonds == 8
    one = mdtraj.load_dcd(str(files[1]), top=str(path.with_suffix(".pdb")))
    np.testing.assert_array_equal(one.xyz, expected.positions[1])
    files[2].unlink()
    with pytest.raises(FileNotFoundError, match=r"each_2\.dcd; a rollout is"):
        load_rollout(path)


@pytest.mark.parametrize("suffix", [".dcd", ".pdb", ".json", ".h5"])
def test_an_output_that_is_no_name_of_a_run_is_refused(
    stub: Path, tmp_path: Path, suffix: str
):
    with pytest.raises(ValueError, match=r"with a suffix, .*: give .*/my\.run$"):
        run(str(stub), tmp_path / f"my.run{suffix}", progress=False)
    with pytest.raises(IsADirectoryError, match=r"found the folder .*: give .*/run"):
        run(str(stub), tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


def test_an_earlier_runs_velocities_are_not_left_beside_new_frames(
    stub: Path, tmp_path: Path
):
    arguments = {"length_ps": 0.1, "seed": 1, "progress": False}
    run(str(stub), tmp_path / "a", velocities=True, **arguments)
    with pytest.raises(FileExistsError, match=r"found a run in .*a.json; choose"):
        run(str(stub), tmp_path / "a", **arguments)
    assert load_rollout(tmp_path / "a.json")[0].velocities is not None
    path = run(str(stub), tmp_path / "a", overwrite=True, **arguments)
    assert load_rollout(path)[0].velocities is None


@pytest.mark.parametrize(
    ("earlier", "later", "expected"),
    [
        ((3, False), (2, True), ["a_0.dcd", "a_1.dcd"]),
        ((3, True), (2, True), ["a_0.dcd", "a_1.dcd"]),
        ((2, True), (3, False), ["a.dcd"]),
    ],
)
def test_an_earlier_runs_frames_are_not_left_beside_the_new_ones(
    stub: Path,
    tmp_path: Path,
    earlier: tuple[int, bool],
    later: tuple[int, bool],
    expected: list[str],
):
    mine = tmp_path / "a_9.dcd"
    mine.touch()
    arguments = {"length_ps": 0.1, "seed": 1, "progress": False, "overwrite": True}
    for replicas, each in (earlier, later):
        path = run(
            str(stub),
            tmp_path / "a",
            replicas=replicas,
            dcd_per_replica=each,
            **arguments,
        )
    assert sorted(p.name for p in tmp_path.glob("*.dcd")) == [*expected, mine.name]
    load_rollout(path)
    # Refused late: nothing of the run that was there is gone.
    with pytest.raises(ValueError, match="found length_ps of 15 fs"):
        run(str(stub), tmp_path / "a", **(arguments | {"length_ps": 0.015}))
    load_rollout(path)


def test_json_that_is_of_no_run_is_not_overwritten(stub: Path, tmp_path: Path):
    (tmp_path / "a.json").write_text('{"mine": 1}')
    with pytest.raises(ValueError, match="is no rollout sidecar"):
        run(str(stub), tmp_path / "a", overwrite=True, progress=False)
    assert [file.read_text() for file in tmp_path.iterdir()] == ['{"mine": 1}']


def test_overwriting_a_run_leaves_what_is_not_its_own(stub: Path, tmp_path: Path):
    arguments = {"length_ps": 0.1, "overwrite": True, "progress": False}
    run(str(stub), tmp_path / "a", **arguments)
    other = tmp_path / "a_0.dcd"
    other.write_text("mine")
    with pytest.raises(FileExistsError, match=r"found .*a_0.dcd, which is of"):
        run(str(stub), tmp_path / "a", dcd_per_replica=True, **arguments)
    assert other.read_text() == "mine"
    load_rollout(tmp_path / "a.json")


def test_a_killed_run_is_no_finished_one(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # A signal 9 closes nothing.
    monkeypatch.setattr(RolloutReporter, "close", lambda self, error=None: None)
    run(str(stub), tmp_path / "a", length_ps=0.1, progress=False)
    found = RolloutSidecar.read(tmp_path / "a.json")
    assert found.error == "killed, or still running: 10 frames were asked"


@pytest.mark.parametrize("suffix", [".pdb", ".h5", ".dcd", "_1.dcd"])
@pytest.mark.parametrize("overwrite", [False, True])
def test_a_file_that_is_of_no_run_is_left_alone(
    stub: Path, tmp_path: Path, suffix: str, overwrite: bool
):
    other = tmp_path / f"a{suffix}"
    other.write_text("mine")
    with pytest.raises(FileExistsError, match=f"found .*a{suffix}, which is of no run"):
        run(
            str(stub),
            tmp_path / "a",
            replicas=2,
            length_ps=0.1,
            dcd_per_replica=suffix == "_1.dcd",
            overwrite=overwrite,
            progress=False,
        )
    assert [file.read_text() for file in tmp_path.iterdir()] == ["mine"]


def test_the_sidecar_tells_the_temperature_of_the_start(stub: Path, tmp_path: Path):
    arguments = {"length_ps": 0.1, "temperature_K": 250.0, "progress": False}
    for name, given, expected in (("a", None, 250.0), ("b", 400.0, 400.0)):
        path = run(str(stub), tmp_path / name, start_temperature_K=given, **arguments)
        assert load_rollout(path)[1].start_temperature_K == expected

from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest
from mdtraj.formats import HDF5TrajectoryFile
from openmm import unit

from openmm_diffmd import cli
from openmm_diffmd.analysis.loading import load_rollout
from openmm_diffmd.analysis.temperature import element_temperatures
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.rollout import RolloutSettings, roll_out
from openmm_diffmd.integrator.rollout_reporter import RolloutReporter
from openmm_diffmd.integrator.run import run
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.testing import FaultyModel, HarmonicModel, save_stub_model


@pytest.fixture(scope="module")
def stub(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_stub_model(tmp_path_factory.mktemp("stub") / "harmonic.pt")


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


def test_same_seed_gives_the_same_trajectory_and_another_does_not(
    stub: Path, tmp_path: Path
):
    paths = [
        run(str(stub), tmp_path / name, length_ps=0.2, seed=seed, progress=False)
        for name, seed in (("a", 1), ("b", 1), ("c", 2))
    ]
    a, b, c = (load_rollout(path)[0].positions[0] for path in paths)
    np.testing.assert_array_equal(a, b)
    assert not np.allclose(a, c)


@pytest.mark.filterwarnings("ignore:found friction 0/ps")
def test_first_velocities_are_of_the_seed_and_of_their_temperature(
    stub: Path, tmp_path: Path
):
    def first_frame(name: str, seed: int, temperature: float) -> np.ndarray:
        path = run(
            str(stub),
            tmp_path / name,
            length_ps=0.01,
            start_temperature_K=temperature,
            friction_per_ps=0.0,
            num_sampling_steps=0,
            seed=seed,
            progress=False,
        )
        return load_rollout(path)[0].positions[0][0]

    # Frictionless, and the mean of a linear flow: a displacement is linear in v.
    at_rest = first_frame("rest", 1, 0.0)
    cold, hot = (first_frame(f"{t}", 1, t) - at_rest for t in (100.0, 400.0))
    np.testing.assert_allclose(hot, 2 * cold, atol=1e-6)
    assert np.abs(cold).max() > 1e-3
    other = first_frame("other", 2, 100.0) - at_rest
    assert not np.allclose(other, cold, atol=1e-3)


def test_seed_zero_is_replaced_by_one_that_is_written_down(stub: Path, tmp_path: Path):
    first = run(str(stub), tmp_path / "a", length_ps=0.1, progress=False)
    seed = RolloutSidecar.read(first).seed
    assert seed > 0
    again = run(str(stub), tmp_path / "b", length_ps=0.1, seed=seed, progress=False)
    np.testing.assert_array_equal(
        load_rollout(first)[0].positions, load_rollout(again)[0].positions
    )


def test_velocities_in_the_file_move_the_harmonic_molecule(
    tmp_path: Path,
):
    # Frictionless: x(t + tau) = cos(w tau) x + sin(w tau) / w v, about the centre.
    stub = save_stub_model(tmp_path / "m.pt", HarmonicModel(angular_frequency=60.0))
    path = run(
        str(stub),
        tmp_path / "a",
        length_ps=0.3,
        seed=1,
        friction_per_ps=0.0,
        velocities=True,
        progress=False,
    )
    ensemble, _ = load_rollout(path)
    weights = ensemble.masses / ensemble.masses.sum()
    x = ensemble.positions[0].astype(np.float64)
    x = x - np.einsum("a,tad->td", weights, x)[:, None]
    v = ensemble.relative_velocities()[0]
    exact = np.cos(0.6) * x[:-1] + np.sin(0.6) / 60.0 * v[:-1]
    np.testing.assert_allclose(x[1:], exact, atol=2e-6)


MOLECULES = (
    "aspirin",
    "benzene",
    "ethanol",
    "malonaldehyde",
    "naphthalene",
    "salicylic",
    "toluene",
    "uracil",
)


@pytest.mark.parametrize(
    ("model", "molecule", "lag_fs"),
    [
        *((molecule, molecule, 10) for molecule in MOLECULES),
        *(("md17", molecule, 10) for molecule in MOLECULES),
        ("ethanol_5fs", "ethanol", 5),
        ("ethanol_15fs", "ethanol", 15),
        ("ethanol_20fs", "ethanol", 20),
        ("alanine_dipeptide", "alanine_dipeptide", 10),
        ("ethanol_pbe", "ethanol", 10),
        ("malonaldehyde_pbe", "malonaldehyde", 10),
        ("naphthalene_pbe", "naphthalene", 10),
        ("uracil_pbe", "uracil", 10),
        ("toluene_pbe", "toluene", 10),
    ],
)
def test_bundled_models_run_each_molecule_that_they_know(
    model: str, molecule: str, lag_fs: int, tmp_path: Path
):
    path = run(
        model,
        tmp_path / "a",
        molecule=molecule,
        replicas=2,
        length_ps=30 * lag_fs / 1000,
        seed=1,
        threads=1,
        progress=False,
    )
    found = RolloutSidecar.read(path)
    assert (found.num_lags, found.resamples, found.error) == (30, 0, None)
    frames = mdtraj.load_dcd(
        str(path.with_suffix(".dcd")), str(path.with_suffix(".pdb"))
    )
    topology = frames.topology
    bonds = [(one.index, two.index) for one, two in topology.bonds]
    lengths = mdtraj.compute_distances(frames, bonds)
    # From the minimum with velocities of 500 K: each bond moves, none is stretched far.
    assert np.ptp(lengths, axis=0).min() > 0.001
    assert np.abs(lengths - lengths.mean(0)).max() < 0.03


def test_a_model_of_several_molecules_needs_the_name_of_one(tmp_path: Path):
    told = r"found no molecule, .* 'md17' knows several \(.*C9H8O4"
    with pytest.raises(ValueError, match=told):
        run("md17", tmp_path / "a", length_ps=0.1, progress=False)


@pytest.mark.statistical
def test_a_bundled_model_has_its_temperature(tmp_path: Path):
    # stochastic; a network 0.3 % too strong is tens of per cent too warm.
    path = run(
        output=tmp_path / "a",
        replicas=16,
        length_ps=12.0,
        velocities=True,
        seed=1,
        threads=1,
        progress=False,
    )
    ensemble, _ = load_rollout(path)
    late = ensemble.window([500] * 16, [1200] * 16)
    for symbol, found in element_temperatures(late, 500.0).items():
        assert abs(found.value - found.expected) < 4 * found.error, symbol
        # 112 ps of a bath of 1/ps know an element's to some per cent.
        assert found.error < 0.1 * found.expected


def test_a_run_goes_on_with_the_reference_force_where_the_guards_would_end_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    # Every draw is spoilt: all lags are GFN2-xTB's.
    broken = save_stub_model(tmp_path / "m.pt", FaultyModel("nan", below_level=2.0))
    words = ["run", "--model", str(broken), "--molecule", "ethanol", "--replicas", "2"]
    words += ["--length_ps", "0.03", "--seed", "4", "--progress", "false"]
    words += ["--velocities", "true", "--output", str(tmp_path / "a")]
    assert cli.main([*words, "--rescue", "GFN2-xTB"]) == 0
    assert "60 drawn again, 6 run with the reference force" in capsys.readouterr().out
    ensemble, found = load_rollout(tmp_path / "a.json")
    assert (found.resamples, found.rescues, found.error) == (60, 6, None)
    # From the minimum, by a force that holds bonds.
    i, j = ensemble.bonds.T
    lengths = np.linalg.norm(
        ensemble.positions[1][:, i] - ensemble.positions[1][:, j], axis=-1
    )
    assert 0.09 < lengths.min() < lengths.max() < 0.16


def test_a_rescue_by_another_force_than_was_learned_is_refused(tmp_path: Path):
    with pytest.raises(ValueError, match=r"force GFN1-xTB .* expected GFN2-xTB, which"):
        run(output=tmp_path / "a", rescue="GFN1-xTB", length_ps=0.01, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_rescue_by_another_trained_force_is_refused(tmp_path: Path):
    # Trained forces have one name.
    other = tmp_path / "force.pt"
    other.write_bytes(b"another")
    told = (
        r"force .*force\.pt for the rescue, expected force\.pt of SHA-256 [0-9a-f]{64},"
    )
    with pytest.raises(ValueError, match=told):
        run("ethanol_pbe", tmp_path / "a", rescue=str(other), length_ps=0.01)
    assert list(tmp_path.iterdir()) == [other]


def test_run_that_the_guards_end_keeps_its_frames(tmp_path: Path):
    # Hydrogen moves by 0.026 nm in each direction; one 0.11 nm away is spoilt.
    model = FaultyModel(
        fault="nan", below_level=2.0, min_displacement=0.11, angular_frequency=60.0
    )
    stub = load_model(save_stub_model(tmp_path / "m.pt", model))
    topology, _ = stub.example()
    settings = RolloutSettings(
        length_ps=50.0, seed=3, keep_velocities=True, progress=False
    )
    with pytest.raises(openmm.OpenMMException, match="lag"):
        roll_out(stub, topology, np.zeros((2, 9, 3)), tmp_path / "a", settings)
    ensemble, sidecar = load_rollout(tmp_path / "a.json")
    assert 10 < sidecar.num_frames < 5000
    assert sidecar.error is not None
    assert sidecar.error.startswith("OpenMMException: DiffusionIntegrator: lag ")
    assert sidecar.resamples >= 10
    assert [len(p) for p in ensemble.positions] == 2 * [sidecar.num_frames]
    assert ensemble.velocities is not None
    frames = mdtraj.load_dcd(str(tmp_path / "a.dcd"), str(tmp_path / "a.pdb"))
    assert len(frames) == sidecar.num_frames


def test_run_that_ends_in_its_first_lag_says_why_when_read(tmp_path: Path):
    model = FaultyModel(fault="nan", below_level=2.0)
    stub = load_model(save_stub_model(tmp_path / "m.pt", model))
    topology, _ = stub.example()
    settings = RolloutSettings(length_ps=1.0, seed=3, progress=False)
    with pytest.raises(openmm.OpenMMException, match="lag 0"):
        roll_out(stub, topology, np.zeros((1, 9, 3)), tmp_path / "a", settings)
    with pytest.raises(ValueError, match=r"no good frame.*OpenMMException: Diff"):
        load_rollout(tmp_path / "a.json")
    assert RolloutSidecar.read(tmp_path / "a.json").resamples == 10


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"replicas": 0}, "found replicas 0, expected at least 1"),
        (
            {"length_ps": 0.015},
            "found length_ps of 15 fs, expected a positive multiple",
        ),
        ({"frame_interval_fs": 15.0}, "found frame_interval_fs of 15 fs, expected a"),
        ({"threads": 0}, "found threads 0, expected at least 1"),
        ({"seed": 2**31}, "found seed 2147483648, expected 0 to 2147483647"),
        ({"start_temperature_K": -1.0}, "found start_temperature_K -1, expected at l"),
    ],
)
def test_run_refuses_what_does_not_fit(
    stub: Path, tmp_path: Path, changes: dict[str, float], message: str
):
    with pytest.raises(ValueError, match=message):
        run(str(stub), tmp_path / "a", progress=False, **changes)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".dcd", ".pdb", ".json", ".h5"])
def test_an_output_that_is_no_name_of_a_run_is_refused(
    stub: Path, tmp_path: Path, suffix: str
):
    with pytest.raises(ValueError, match=r"with a suffix, .*: give .*/my\.run$"):
        run(str(stub), tmp_path / f"my.run{suffix}", progress=False)
    with pytest.raises(IsADirectoryError, match=r"found the folder .*: give .*/run"):
        run(str(stub), tmp_path, progress=False)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(("lag_fs", "expected"), [(10.0, 2000), (15.0, 1333)])
def test_the_length_that_none_asked_for_is_of_whole_frames(
    tmp_path: Path, lag_fs: float, expected: int
):
    path = save_stub_model(tmp_path / "stub.pt", HarmonicModel(lag_time=lag_fs / 1000))
    run(str(path), tmp_path / "a", seed=1, progress=False)
    assert RolloutSidecar.read(tmp_path / "a.json").num_frames == expected


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


def test_an_interval_of_nothing_is_refused(stub: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="found frame_interval_fs 0, expected more"):
        run(str(stub), tmp_path / "a", frame_interval_fs=0, progress=False)
    assert not any(tmp_path.iterdir())


def test_a_killed_run_is_no_finished_one(
    stub: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    # A signal 9 closes nothing.
    monkeypatch.setattr(RolloutReporter, "close", lambda self, error=None: None)
    run(str(stub), tmp_path / "a", length_ps=0.1, progress=False)
    found = RolloutSidecar.read(tmp_path / "a.json")
    assert found.error == "killed, or still running: 10 frames were asked"


def test_a_bath_far_below_the_models_is_told(stub: Path, tmp_path: Path):
    options = {"length_ps": 0.1, "progress": False}
    with pytest.warns(
        UserWarning, match=r"temperature 150 K, expected some 300 K, which"
    ):
        run(str(stub), tmp_path / "a", temperature_K=150, **options)


def test_a_bath_of_300_K_is_not_told_of_a_model_of_500_K():
    model = load_model("ethanol")
    # Warnings are errors here.
    integrator = DiffusionIntegrator(model, model.example()[0], temperature=300.0)
    assert integrator.getTemperature() == 300.0 * unit.kelvin
    with pytest.warns(UserWarning, match=r"temperature 1000 K, expected some 500 K"):
        integrator.setTemperature(1000.0)


@pytest.mark.parametrize(("inside", "outside"), [(300.0, 299.0), (625.0, 626.0)])
def test_baths_from_300_to_625_K_are_near_enough_for_500(inside, outside):
    model = load_model("ethanol")
    # Warnings are errors here.
    integrator = DiffusionIntegrator(model, model.example()[0], temperature=inside)
    with pytest.warns(UserWarning, match=rf"temperature {outside:g} K, expected some"):
        integrator.setTemperature(outside)


def test_a_bath_far_above_the_models_is_told_though_data_were_hotter():
    model = load_model("ethanol")
    assert model.metadata.max_temperature_K > 1000.0
    with pytest.warns(UserWarning, match=r"temperature 1000 K, expected some 500 K"):
        DiffusionIntegrator(model, model.example()[0], temperature=1000.0)


def test_a_weaker_bath_than_the_models_is_told():
    model = load_model("ethanol_5fs")
    with pytest.warns(UserWarning, match=r"friction 1/ps, expected at least 2/ps"):
        integrator = DiffusionIntegrator(model, model.example()[0], friction=1.0)
    # Warnings are errors here.
    integrator.setFriction(2.0)
    with pytest.warns(UserWarning, match=r"friction 0/ps, expected at least 2/ps"):
        integrator.setFriction(0 / unit.picosecond)


def test_a_sampler_that_the_noise_is_not_calibrated_for_is_told():
    model = load_model("ethanol")
    topology, _ = model.example()
    told = r"found sampler heun of 2 steps, expected exponential of 2, for which"
    with pytest.warns(UserWarning, match=told):
        integrator = DiffusionIntegrator(model, topology, sampler="heun")
    with pytest.warns(UserWarning, match="found sampler heun of 4 steps"):
        integrator.setNumSamplingSteps(4)
    integrator.setNumSamplingSteps(0)
    integrator.setSampler("exponential")
    integrator.setNumSamplingSteps(8)
    with pytest.warns(UserWarning, match="found sampler euler of 8 steps"):
        integrator.setSampler("euler")


def test_numbers_of_numpy_are_taken(stub: Path, tmp_path: Path):
    path = run(
        str(stub),
        tmp_path / "a",
        replicas=np.int64(2),
        length_ps=np.float32(0.1),
        temperature_K=np.float32(250),
        seed=np.int64(4),
        num_sampling_steps=np.int64(2),
        velocities=np.bool_(True),
        dcd_per_replica=np.bool_(True),
        threads=np.int64(1),
        progress=False,
    )
    found = RolloutSidecar.read(path)
    assert (found.seed, found.num_replicas, found.num_sampling_steps) == (4, 2, 2)
    assert (found.num_frames, found.temperature_K) == (10, 250.0)
    assert load_rollout(path)[0].velocities is not None


def test_length_has_one_default(stub: Path):
    # In whole frames of the model; 20 ps are not with every lag.
    with pytest.raises(TypeError, match="length_ps"):
        RolloutSettings()


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

from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest

from openmm_diffmd import cli
from openmm_diffmd.analysis.loading import load_rollout
from openmm_diffmd.analysis.temperature import element_temperatures
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator.rollout import RolloutSettings, roll_out
from openmm_diffmd.integrator.run import run
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.testing import FaultyModel, HarmonicModel, save_stub_model


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


@pytest.mark.parametrize(("lag_fs", "expected"), [(10.0, 2000), (15.0, 1333)])
def test_the_length_that_none_asked_for_is_of_whole_frames(
    tmp_path: Path, lag_fs: float, expected: int
):
    path = save_stub_model(tmp_path / "stub.pt", HarmonicModel(lag_time=lag_fs / 1000))
    run(str(path), tmp_path / "a", seed=1, progress=False)
    assert RolloutSidecar.read(tmp_path / "a.json").num_frames == expected


def test_an_interval_of_nothing_is_refused(stub: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="found frame_interval_fs 0, expected more"):
        run(str(stub), tmp_path / "a", frame_interval_fs=0, progress=False)
    assert not any(tmp_path.iterdir())


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

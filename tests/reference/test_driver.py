import sys
from pathlib import Path

import mdtraj
import numpy as np
import openmm
import pytest

from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.reference.driver import make_reference
from openmm_diffmd.reference.dynamics import DynamicsError
from openmm_diffmd.units import BOLTZMANN

SHORT = {
    "equilibration_ps": 0.05,
    "length_ps": 0.2,
    "num_bursts": 4,
    "burst_length_ps": 0.02,
    "progress": False,
}


def total_energy(trajectory):
    velocities = trajectory.velocities.astype(np.float64)
    kinetic = 0.5 * np.einsum("i,fia->f", trajectory.masses, velocities**2)
    return trajectory.potential_energies + kinetic


def standard_error(samples, num_blocks=20):
    """Standard error of the mean of a correlated series, from blocks of it."""
    blocks = samples[: len(samples) // num_blocks * num_blocks].reshape(num_blocks, -1)
    return blocks.mean(axis=1).std(ddof=1) / np.sqrt(num_blocks)


def test_bursts_start_from_evenly_spaced_frames(tmp_path, harmonic):
    run, bursts = make_reference(**harmonic, output=tmp_path / "out", **SHORT)
    thermostatted, flow = read_reference(run), read_reference(bursts)
    assert thermostatted.n_frames == 20
    np.testing.assert_allclose(thermostatted.times, 0.01 * np.arange(1, 21))
    np.testing.assert_array_equal(flow.segments, np.repeat(np.arange(4), 20))
    np.testing.assert_allclose(flow.times, np.tile(0.001 * np.arange(1, 21), 4))
    # Frames 0, 5, 10, 15, moved on by 1 fs.
    starts = thermostatted.positions[::5]
    accelerations = thermostatted.forces[::5] / thermostatted.masses[:, None]
    moved = (
        starts + 0.001 * thermostatted.velocities[::5] + 0.5 * 0.001**2 * accelerations
    )
    np.testing.assert_allclose(flow.positions[::20], moved, atol=2e-5)
    assert np.abs(flow.positions[::20] - starts).max() > 2e-4


def test_bursts_conserve_energy(tmp_path, harmonic):
    run, bursts = make_reference(**harmonic, output=tmp_path, **SHORT)
    flow = read_reference(bursts)
    energies = total_energy(flow).reshape(4, 20)
    starts = total_energy(read_reference(run))[::5]
    # Verlet's oscillation: (h w)^2 / 4 of the energy, w of the hydrogen.
    bound = (0.0005**2 * 2.0e4 / 1.007947) * starts
    assert (np.abs(energies - starts[:, None]) < bound[:, None]).all()
    assert np.ptp(starts) > 10 * bound.max()


def chain(tmp_path, harmonic, **changes):
    options = SHORT | {"chained": True, "length_ps": 0.2} | changes
    paths = make_reference(**harmonic, output=tmp_path, **options)
    return [read_reference(path) for path in paths]


def test_chained_bursts_are_the_run_too(tmp_path, harmonic):
    run, flow = chain(tmp_path, harmonic)
    np.testing.assert_array_equal(flow.segments, np.repeat(np.arange(10), 20))
    np.testing.assert_allclose(run.times, 0.01 * np.arange(1, 21))
    assert (run.segments == 0).all()
    np.testing.assert_array_equal(run.positions, flow.positions[9::10])
    np.testing.assert_array_equal(run.velocities, flow.velocities[9::10])
    # Energy is kept within a burst, and changes between them.
    energies = total_energy(flow).reshape(10, 20)
    assert np.ptp(energies, axis=1).max() < 0.1 * np.ptp(energies[:, 0])
    # Positions go on from burst to burst.
    steps = np.linalg.norm(np.diff(flow.positions, axis=0), axis=-1).max(1)
    assert steps[19::20].max() < 2 * steps.max()


@pytest.mark.statistical
def test_chained_bursts_have_the_temperature(tmp_path, harmonic):
    run, _ = chain(tmp_path, harmonic, length_ps=60.0, friction_per_ps=10.0)
    velocities = run.velocities.astype(np.float64)
    kinetic = 0.5 * np.einsum("i,fia->f", run.masses, velocities**2)
    temperature = 2 * kinetic / (3 * len(run.masses) * BOLTZMANN)
    expected = harmonic.get("temperature_K", 500.0)
    assert abs(temperature.mean() - expected) < 4 * standard_error(temperature)


def test_chain_of_parts_of_a_burst_is_refused(tmp_path, harmonic):
    with pytest.raises(ValueError, match="found length_ps of 210 fs"):
        chain(tmp_path, harmonic, length_ps=0.21)


def test_without_bursts_only_the_run_is_named(tmp_path, harmonic):
    options = SHORT | {"num_bursts": 0}
    assert make_reference(**harmonic, output=tmp_path, **options) == (
        tmp_path / "thermostatted.h5",
    )


@pytest.mark.statistical
def test_harmonic_molecule_has_its_temperature(tmp_path, harmonic):
    temperature, spring = 400.0, 2.0e4
    (path,) = make_reference(
        **harmonic,
        output=tmp_path,
        temperature_K=temperature,
        friction_per_ps=5.0,
        equilibration_ps=5,
        length_ps=200,
        num_bursts=0,
        seed=7,
        progress=False,
    )
    trajectory = read_reference(path)
    kT = BOLTZMANN * temperature
    sites = np.array([[0.0, 0.0, 0.0], [0.11, 0.0, 0.0]])
    kinetic = trajectory.masses[:, None] * trajectory.velocities**2
    potential = spring * (trajectory.positions - sites) ** 2
    for atom in range(2):
        for name, doubled in (("kinetic", kinetic), ("potential", potential)):
            samples = doubled[:, atom].mean(axis=1) / kT
            error = standard_error(samples)
            assert error < 0.05, f"{name} of atom {atom}: too few samples to tell"
            assert abs(samples.mean() - 1.0) < 4 * error, (
                f"{name} energy of atom {atom} is {samples.mean():.3f} +- {error:.3f} "
                "of kT/2 a degree of freedom (a stochastic test: it may fail once in "
                "10^4 seeds)"
            )


def test_provenance_says_what_made_the_file(tmp_path, harmonic):
    run, bursts = make_reference(**harmonic, output=tmp_path, **SHORT, seed=3)
    made = read_reference(run).provenance
    assert made["kind"] == "thermostatted"
    assert (made["molecule"], made["potential"]) == ("ch.xyz", "ch.xml")
    assert set(made["sha256"]) == {"ch.xyz", "ch.xml"}
    assert (made["temperature_K"], made["friction_per_ps"]) == (500.0, 1.0)
    assert (made["step_size_fs"], made["seed"]) == (0.5, 3)
    assert made["masses_Da"] == [12.01078, 1.007947]
    assert {"openmm", "openmmml", "mdtraj"} <= made["versions"].keys()
    assert read_reference(bursts).provenance["friction_per_ps"] == 0.0
    assert read_reference(bursts).provenance["kind"] == "bursts"


def test_a_second_run_with_the_seed_is_the_same(tmp_path, harmonic):
    paths = [
        make_reference(**harmonic, output=tmp_path / name, **SHORT)[1]
        for name in ("first", "second")
    ]
    first, second = (read_reference(path) for path in paths)
    np.testing.assert_array_equal(first.positions, second.positions)


def test_progress_bars_are_shown_in_a_terminal(tmp_path, harmonic, capsys, monkeypatch):
    shows = SHORT | {"progress": True}
    make_reference(**harmonic, output=tmp_path / "log", **shows)
    assert "100%" not in capsys.readouterr().err
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    make_reference(**harmonic, output=tmp_path, **shows)
    shown = capsys.readouterr().err
    for name in ("equilibration", "thermostatted", "bursts"):
        assert f"{name}: 100%" in shown


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"seed": 0}, "seed 0, expected a whole number from 1 to"),
        ({"seed": 2**31}, "seed 2147483648, expected a whole number from 1 to"),
        ({"temperature_K": -1.0}, "temperature_K -1, expected at least 0"),
        ({"friction_per_ps": -1.0}, "friction_per_ps -1, expected at least 0"),
        ({"equilibration_ps": -1.0}, "equilibration_ps -1, expected at least 0"),
        ({"length_ps": 0.005}, "length_ps of 5 fs, expected a positive multiple of 10"),
        ({"frame_interval_fs": 0.4}, "frame_interval_fs of 0.4 fs, .* multiple of 0.5"),
        ({"burst_length_ps": 0}, "burst_length_ps of 0 fs, expected a positive"),
        ({"num_bursts": 21}, "21 bursts, expected 0 to 20, the frames they start from"),
    ],
)
def test_wrong_numbers_are_refused_first(tmp_path, harmonic, change, message):
    with pytest.raises(ValueError, match=message):
        make_reference(**harmonic, output=tmp_path / "out", **(SHORT | change))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["thermostatted.h5", "bursts.h5"])
def test_existing_files_are_refused_first(tmp_path, harmonic, name):
    (tmp_path / name).touch()
    with pytest.raises(FileExistsError, match=f"{name} exists; expected a new file"):
        make_reference(**harmonic, output=tmp_path, **SHORT)


CALCULATOR = """
from ase.calculators.lj import LennardJones


class Failing(LennardJones):
    calls = 0

    def __init__(self, after):
        super().__init__(sigma=0.9, rc=20.0)
        self.after = after

    def calculate(self, *arguments, **options):
        Failing.calls += 1
        if Failing.calls > self.after:
            raise RuntimeError("SCF not converged in 250 cycles")
        super().calculate(*arguments, **options)
"""


def test_failing_force_keeps_what_was_written(tmp_path, harmonic, monkeypatch):
    (tmp_path / "diffmd_failing.py").write_text(CALCULATOR)
    monkeypatch.syspath_prepend(tmp_path)
    short = SHORT | {"equilibration_ps": 0, "num_bursts": 0, "temperature_K": 10.0}
    with pytest.raises(
        DynamicsError,
        match=r"after frame 7, 0.07 ps: .*SCF not converged in 250 cycles; use a "
        r"smaller step size.* The 7 frames before it are kept in .*thermostatted.h5",
    ):
        make_reference(
            harmonic["molecule"],
            tmp_path,
            potential="diffmd_failing.Failing",
            potential_options={"after": 150},
            **short,
        )
    assert read_reference(tmp_path / "thermostatted.h5").n_frames == 7
    assert mdtraj.load(tmp_path / "thermostatted.h5").n_frames == 7


def test_a_force_that_lets_the_molecule_fall_apart_is_told(tmp_path, harmonic):
    # None at all: free flight, some nm in a picosecond.
    system = openmm.XmlSerializer.deserialize(Path(harmonic["potential"]).read_text())
    while system.getNumForces():
        system.removeForce(0)
    (tmp_path / "free.xml").write_text(openmm.XmlSerializer.serialize(system))
    short = SHORT | {"equilibration_ps": 0.5, "length_ps": 0.05, "num_bursts": 0}
    told = r"bond between atoms \d and \d of .* nm after the equil.* falls apart by"
    with pytest.warns(UserWarning, match=told):
        make_reference(
            harmonic["molecule"],
            tmp_path,
            potential=str(tmp_path / "free.xml"),
            **short,
        )


def test_isotopes_are_refused_before_the_run(tmp_path):
    lines = [
        f"HETATM    {i}  {e}{i}  HOH A   1    {x:8.3f}   0.000   0.000{e:>24}"
        for i, (e, x) in enumerate(zip("DOD", (-0.96, 0.0, 0.96), strict=True), 1)
    ]
    (tmp_path / "d2o.pdb").write_text("\n".join([*lines, "END", ""]))
    with pytest.raises(
        ValueError, match=r"mass 2.01.* of atom 0 in .*d2o.pdb, .* such as H for D"
    ):
        make_reference(str(tmp_path / "d2o.pdb"), tmp_path / "out", **SHORT)
    assert not (tmp_path / "out").exists()


def test_paths_and_numbers_of_numpy_are_taken(tmp_path, harmonic):
    paths = {name: Path(value) for name, value in harmonic.items()}
    numbers = {
        name: np.float32(SHORT[name])
        for name in ("equilibration_ps", "length_ps", "burst_length_ps")
    } | {
        "temperature_K": np.float32(400),
        "friction_per_ps": np.float32(2),
        "step_size_fs": np.float32(0.5),
        "frame_interval_fs": np.float32(10),
        "burst_frame_interval_fs": np.float32(1),
        "num_bursts": np.int64(2),
        "seed": np.int64(3),
    }
    run, bursts = make_reference(**paths, output=tmp_path / "out", **(SHORT | numbers))
    made = read_reference(run).provenance
    assert (made["temperature_K"], made["friction_per_ps"]) == (400.0, 2.0)
    assert (made["potential"], made["seed"]) == ("ch.xml", 3)
    assert read_reference(bursts).n_frames == 40


def test_options_of_numpy_are_written(tmp_path, harmonic):
    (path,) = make_reference(
        harmonic["molecule"],
        tmp_path,
        potential="ase.calculators.lj.LennardJones",
        potential_options={"sigma": np.float64(0.9), "rc": np.float32(20)},
        **(SHORT | {"num_bursts": 0, "temperature_K": 10.0}),
    )
    options = read_reference(path).provenance["potential_options"]
    assert options == {"sigma": 0.9, "rc": 20.0}


def test_a_potential_that_is_not_there_is_named(tmp_path, harmonic):
    with pytest.raises(FileNotFoundError, match=r"found no file .*none\.xml, expected"):
        make_reference(
            harmonic["molecule"], tmp_path, Path(tmp_path / "none.xml"), **SHORT
        )

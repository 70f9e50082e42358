"""The energy of the hottest bond, as a run goes."""

import io
import json
import math
import warnings
from pathlib import Path

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator import DiffusionIntegrator, DiffusionReporter
from openmm_diffmd.integrator.bond_watch import (
    SETTLING_PS,
    WARNING_ENERGY_KT,
    BondWatch,
    StretchEnergies,
    kinds_of_bonds,
)
from openmm_diffmd.integrator.rollout import RolloutSettings, roll_out
from openmm_diffmd.integrator.systems import create_system, replicate
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.testing import HarmonicModel, save_stub_model
from openmm_diffmd.units import BOLTZMANN

TAU = 0.01
OMEGA = 2 * math.pi / 0.2
"""A period is the window: the mean over it is the energy."""
HOT = "found .* kT in the stretch of the bond between atoms 10 and 15, molecule 1"


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    path = tmp_path_factory.mktemp("stub") / "harmonic.pt"
    return load_model(save_stub_model(path, HarmonicModel(OMEGA)))


def stretched(omega, energy, phase):
    """Three atoms, the first bond an oscillator, the second of one length."""
    masses = np.array([15.99943, 1.007947, 12.01078])
    reduced = masses[0] * masses[1] / (masses[0] + masses[1])
    amplitude = math.sqrt(2 * energy / reduced) / omega
    along = np.array([0.6, 0.0, 0.8])
    length = 0.1 + amplitude * math.cos(phase)
    speed = -amplitude * omega * math.sin(phase)
    shares = np.array([-reduced / masses[0], reduced / masses[1], 0.0])[:, None]
    # The third atom keeps to the second, whatever the molecule's velocity.
    shares[2] = shares[1]
    x = shares * length * along + np.array([[0, 0, 0], [0, 0, 0], [0.1, 0, 0]])
    return masses, x, shares * speed * along + np.array([3.0, -2.0, 1.0])


# In 20 frames whole periods, and stretches of the lag's period and of twice that, whose
# kinetic energy stays what it is for picoseconds, off by a beat of 1.3 ps.
@pytest.mark.parametrize("periods", [17, 20 + 0.15, 10 - 0.15])
def test_the_energy_of_an_oscillator_is_the_exact_one(periods):
    omega, energy = 2 * math.pi * periods / (20 * TAU), 30.0
    masses, *_ = stretched(omega, energy, 0.0)
    bonds = np.array([[0, 1], [1, 2]])
    energies = StretchEnergies(masses, bonds, np.arange(2), TAU)
    assert energies.size == 20
    frames = [stretched(omega, energy, omega * TAU * k)[1:] for k in range(1330)]
    x, v = (np.array(of_all) for of_all in zip(*frames, strict=True))
    # However many come together.
    first = 0
    for last in (*range(1, 250), 257, 290, 1000, 1329):
        found = energies.add(x[first:last], v[first:last])
        assert found.shape == (last - first, 2)
        # Of 200 frames and 20.
        assert np.isnan(found).all() == (last < SETTLING_PS / TAU)
        first = last
    np.testing.assert_allclose(found, [[energy, 0.0]] * 329, rtol=0.1)
    energies.forget(slice(0, 1))
    np.testing.assert_allclose(
        energies.add(x[-1:], v[-1:]), [[math.nan, 0.0]], atol=1e-9
    )


def test_bonds_of_a_kind_know_their_stiffness_together():
    # Eight copies of half a beat, of other phases and energies: all phases are seen.
    omega = 2 * math.pi / TAU * 1.005
    copies = 8
    masses, *_ = stretched(omega, 1.0, 0.0)
    bonds = np.concatenate([[[3 * c, 3 * c + 1]] for c in range(copies)])
    molecules = np.repeat(np.arange(copies), 3)
    kinds = kinds_of_bonds(bonds, np.tile([1, 0, 2], copies), molecules)
    assert kinds.tolist() == [0] * copies
    energies = StretchEnergies(np.tile(masses, copies), bonds, kinds, TAU)
    of_each = 10.0 + np.arange(copies)
    for frame in range(60):
        frames = [
            stretched(omega, of_each[c], omega * TAU * frame + 2 * math.pi * c / copies)
            for c in range(copies)
        ]
        x, v = (np.concatenate([f[k] for f in frames])[None] for k in (1, 2))
        found = energies.add(x, v)
    np.testing.assert_allclose(found[0], of_each, rtol=0.15)


def test_kinds_tell_molecules_and_bonds_apart():
    bonds = np.array([[0, 1], [1, 2], [4, 3], [5, 6], [6, 7]])
    species = np.array([1, 0, 0, 0, 1, 1, 0, 0])
    molecules = np.array([0, 0, 0, 1, 1, 2, 2, 2])
    assert kinds_of_bonds(bonds, species, molecules).tolist() == [0, 1, 2, 0, 1]


def make_simulation(model: DiffusionModel, energy_kT: float) -> app.Simulation:
    """Two molecules in rest but for the stretch of a C-H bond of the second."""
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, 2)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules, friction=0.0
    )
    integrator.setRandomNumberSeed(3)
    simulation = app.Simulation(
        replicas.topology,
        replicas.system,
        integrator,
        openmm.Platform.getPlatform("Reference"),
    )
    simulation.context.setPositions(replicas.positions)
    velocities = np.zeros((18, 3))
    x = np.array(replicas.positions.value_in_unit(unit.nanometer))
    along = x[15] - x[10]
    kinetic = energy_kT * BOLTZMANN * 300.0
    masses = np.array([12.01078, 1.007947])
    reduced = masses.prod() / masses.sum()
    speed = math.sqrt(2 * kinetic / reduced)
    shares = np.array([-reduced / masses[0], reduced / masses[1]])
    velocities[[10, 15]] = shares[:, None] * speed * along / np.linalg.norm(along)
    simulation.context.setVelocities(velocities)
    return simulation


def test_a_hot_bond_is_told_once_before_the_report(model: DiffusionModel):
    simulation = make_simulation(model, 30.0)
    stream = io.StringIO()
    simulation.reporters.append(DiffusionReporter(stream, 50))
    with pytest.warns(UserWarning, match=HOT) as told:
        simulation.step(150)
    assert len(told) == 1
    # After 1 ps two molecules have been seen for 2 ps; the last ten lags are looked at
    # together.
    assert "at 0.91 ps" in str(told[0].message)
    rows = stream.getvalue().splitlines()
    assert len(rows) == 4
    columns = [name.strip('"') for name in rows[0].lstrip("#").split(",")]
    row = dict(zip(columns, rows[-1].split(","), strict=True))
    assert row["Hottest Bond"] == "10-15"
    assert float(row["Hottest Bond Energy (kT)"]) > WARNING_ENERGY_KT


@pytest.mark.parametrize(("energy_kT", "is_told"), [(17.5, False), (18.5, True)])
def test_bonds_of_more_than_18_kT_are_told(
    model: DiffusionModel, energy_kT: float, is_told: bool
):
    watch = BondWatch(make_simulation(model, 0.0).integrator)
    _, positions = model.example()
    rest = np.tile(positions.value_in_unit(unit.nanometer), (2, 1))
    # One C-H of the second molecule swings, ten lags a period.
    omega = 2 * math.pi / (10 * TAU)
    masses = np.array([12.01078, 1.007947])
    reduced = masses.prod() / masses.sum()
    amplitude = math.sqrt(2 * energy_kT * BOLTZMANN * 300.0 / reduced) / omega
    along = rest[15] - rest[10]
    along /= np.linalg.norm(along)
    shares = np.array([-reduced / masses[0], reduced / masses[1]])[:, None] * along
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        for step in range(1, 201):
            x, v = rest.copy(), np.zeros((18, 3))
            x[[10, 15]] += amplitude * math.cos(omega * step * TAU) * shares
            v[[10, 15]] -= omega * amplitude * math.sin(omega * step * TAU) * shares
            watch.look(step * TAU, x, v)
        assert watch.hottest is not None
    assert watch.hottest.energy_kT == pytest.approx(energy_kT, rel=0.01)
    assert len(told) == is_told


def test_a_bond_as_warm_as_others_is_not_told(model: DiffusionModel):
    simulation = make_simulation(model, 4.0)
    watch = BondWatch(simulation.integrator)
    for step in range(1, 201):
        simulation.step(1)
        state = simulation.context.getState(positions=True, velocities=True)
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            watch.look(
                step * TAU,
                state.getPositions(asNumpy=True)._value,
                state.getVelocities(asNumpy=True)._value,
            )
        assert (watch.now is None) == (step < 100)
    assert watch.hottest is not None
    assert watch.hottest.atoms == (10, 15)
    assert watch.hottest.molecule == 1
    # That of 4 kT and of a harmonic bond whose length at rest is 0.
    _, positions = model.example()
    x = positions.value_in_unit(unit.nanometer)
    masses = np.array([12.01078, 1.007947])
    stiffness = masses.prod() / masses.sum() * OMEGA**2
    stretched = 0.5 * stiffness * np.sum((x[6] - x[1]) ** 2) / (BOLTZMANN * 300.0)
    # (Its length is the absolute value of a cosine, not the cosine.)
    assert watch.hottest.energy_kT == pytest.approx(4.0 + stretched, rel=0.1)


def test_the_window_begins_anew_where_a_lag_was_not_seen(model: DiffusionModel):
    watch = BondWatch(make_simulation(model, 4.0).integrator)
    x = np.arange(54.0).reshape(18, 3)
    v = np.ones((18, 3))
    # Each lag until 2 ps have been seen, of two molecules.
    for step in range(1, 101):
        assert watch.steps_to_look(step - 1, 1000) == 1
        assert watch.now is None
        watch.look(step * TAU, x, v)
    assert watch.now is not None
    for step in range(1, 20):
        watch.look((100 + 0.05 * step) * TAU, x, v)
    watch.look(101 * TAU, x, v)
    assert watch.now is not None
    watch.look(103 * TAU, x, v)
    assert watch.now is None
    assert watch.steps_to_look(122, 100) == 100 - 22 - 19
    assert watch.steps_to_look(181, 100) == 1
    assert watch.steps_to_look(180, 100) == 1
    assert watch.steps_to_look(200, 5) == 1


@pytest.mark.filterwarnings("ignore:found temperature 30 K")
def test_a_rollout_tells_and_keeps_the_hottest_bond(
    model: DiffusionModel, tmp_path: Path
):
    topology, positions = model.example()
    x = np.repeat(positions.value_in_unit(unit.nanometer)[None], 2, axis=0)
    settings = RolloutSettings(
        length_ps=2.0,
        frame_interval_fs=500.0,
        # Bonds have 20 kT of the bath.
        start_temperature_K=600.0,
        temperature_K=30.0,
        friction_per_ps=0.0,
        seed=7,
        progress=False,
    )
    with pytest.warns(UserWarning, match="kT in the stretch of the bond") as told:
        made = roll_out(model, topology, x, tmp_path / "hot", settings)
    assert sum("kT in the stretch of the bond" in str(t.message) for t in told) == 1
    found = RolloutSidecar.read(made.path)
    assert found.num_frames == 4
    assert found.hottest_bond is not None
    assert found.hottest_bond["energy_kT"] > WARNING_ENERGY_KT
    first, second = found.hottest_bond["atoms"]
    assert first // 9 == second // 9 == found.hottest_bond["molecule"]
    # Lags of the 0.2 ps before a frame are looked at, and no others after the first.
    time = found.hottest_bond["time_ps"]
    assert min(abs(time - 1.0), abs(time - 1.5), abs(time - 2.0)) < 1e-6
    assert json.loads(made.path.read_text())["hottest_bond"] == found.hottest_bond

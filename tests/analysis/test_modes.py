"""Kinetic energy of bonds and of rotation, and what velocities leave of steps."""

import dataclasses
from collections.abc import Callable

import mdtraj
import numpy as np
import pytest

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.modes import (
    mode_temperatures,
    step_residual,
    vibrational_temperature,
)
from openmm_diffmd.units import BOLTZMANN

Maker = Callable[..., Ensemble]
MODES = ["rotation", "C-C", "C-H", "C-O", "H-O"]


@pytest.mark.statistical
def test_every_mode_of_maxwell_boltzmann_velocities_has_their_temperature(
    gaussian_ethanol: Maker,
):
    # stochastic; five temperatures, each beyond 4 standard errors once in 16 000.
    found = mode_temperatures(gaussian_ethanol(3, 2000, seed=4), 500.0)
    assert list(found) == MODES
    for t in found.values():
        assert abs(t.value - 500.0) < 4.0 * t.error < 40.0
        assert t.expected == 500.0


def test_a_hot_stretch_shows_where_its_elements_do_not(gaussian_ethanol: Maker):
    ensemble = gaussian_ethanol(1, 500, seed=5)
    before = mode_temperatures(ensemble, 500.0)
    (x,), (v,) = ensemble.positions, [np.array(ensemble.velocities[0])]
    oxygen, hydrogen = 2, 8
    assert [ensemble.symbols[i] for i in (oxygen, hydrogen)] == ["O", "H"]
    along = x[:, hydrogen] - x[:, oxygen]
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    # Half of the stretch's velocity again, at the hydrogen, that of the pair as it was.
    masses = ensemble.masses[[oxygen, hydrogen]]
    speed = np.einsum("td,td->t", v[:, hydrogen] - v[:, oxygen], along)
    for atom, share in ((hydrogen, masses[0]), (oxygen, -masses[1])):
        v[:, atom] += (0.5 * speed * share / masses.sum())[:, None] * along
    after = mode_temperatures(dataclasses.replace(ensemble, velocities=[v]), 500.0)
    assert after["H-O"].value == pytest.approx(2.25 * before["H-O"].value)
    assert after["C-H"].value == pytest.approx(before["C-H"].value, rel=1e-12)


def test_rotation_of_a_rigid_molecule_is_all_in_rotation(gaussian_ethanol: Maker):
    ensemble = gaussian_ethanol(1, 4, seed=6)
    masses, omega = ensemble.masses, np.array([3.0, -1.0, 2.0])
    x = ensemble.positions[0]
    x = x - np.einsum("a,tad->td", masses / masses.sum(), x)[:, None]
    drift = np.array([0.4, 0.1, -0.3])
    turning = dataclasses.replace(ensemble, velocities=[np.cross(omega, x) + drift])
    found = mode_temperatures(turning, 500.0)
    energy = np.einsum("a,tad->t", masses, np.cross(omega, x) ** 2).mean()
    assert found["rotation"].value == pytest.approx(energy / (3.0 * BOLTZMANN))
    assert all(found[kind].value < 1e-20 for kind in MODES[1:])
    assert abs(vibrational_temperature(turning)[0]) < 1e-9


@pytest.mark.statistical
def test_vibrations_are_what_neither_moves_nor_turns(gaussian_ethanol: Maker):
    # stochastic; 21 degrees of freedom in 6000 frames: an error of 2 K.
    ensemble = gaussian_ethanol(3, 2000, seed=8)
    found = vibrational_temperature(ensemble)
    assert abs(found[0] - 500.0) < 4.0 * found[1] < 12.0
    # Also of a molecule that moves and turns besides.
    omega = np.array([30.0, -10.0, 20.0])
    moved = [
        v + np.cross(omega, x) + np.array([4.0, 1.0, -3.0])
        for x, v in zip(ensemble.positions, ensemble.velocities, strict=True)
    ]
    turning = dataclasses.replace(ensemble, velocities=moved)
    assert vibrational_temperature(turning) == pytest.approx(found)


def test_two_atoms_turn_about_two_axes_and_vibrate_along_one(diatomic: mdtraj.Topology):
    x = np.array([[[0.0, 0.0, 0.0], [0.11, 0.0, 0.0]]])
    v = np.array([[[0.0, 0.0, 0.0], [2.0, 5.0, 0.0]]])
    ensemble = Ensemble(diatomic, 0.01, [x], [v])
    found = mode_temperatures(ensemble, 300.0)
    reduced = ensemble.masses.prod() / ensemble.masses.sum()
    rotation, stretch = found.values()
    assert rotation.value == pytest.approx(reduced * 25.0 / (2 * BOLTZMANN))
    assert stretch.value == pytest.approx(reduced * 4.0 / BOLTZMANN)
    vibrations, _ = vibrational_temperature(ensemble)
    assert vibrations == pytest.approx(stretch.value)


@pytest.mark.statistical
@pytest.mark.parametrize("bend", [1e-5, 3e-3, 0.02])
def test_a_straight_molecule_turns_about_three_axes(
    bend: float, triatomic: mdtraj.Topology
):
    # stochastic; three degrees of freedom in 4000 frames: errors of some 7 K.
    rng = np.random.default_rng(4)
    x = np.zeros((4000, 3, 3)) + np.array([[-0.116, 0, 0], [0.0, 0, 0], [0.116, 0, 0]])
    x[..., 1:] += bend * rng.standard_normal((4000, 3, 2))
    x = x.astype(np.float32).astype(np.float64)  # as files hold them
    masses = Ensemble(triatomic, 0.01, [x]).masses
    v = rng.standard_normal(x.shape) * np.sqrt(BOLTZMANN * 500.0 / masses)[:, None]
    ensemble = Ensemble(triatomic, 0.01, [x], [v])
    rotation = mode_temperatures(ensemble, 500.0)["rotation"]
    assert abs(rotation.value - 500.0) < 4.0 * rotation.error < 40.0
    vibrations, error = vibrational_temperature(ensemble)
    assert abs(vibrations - 500.0) < 4.0 * error < 40.0


def test_one_straight_frame_leaves_the_rotation(gaussian_ethanol: Maker):
    ensemble = gaussian_ethanol(1, 5, seed=6)
    x = np.array(ensemble.positions[0])
    x[2, :, 1:] = 0.0
    found = mode_temperatures(dataclasses.replace(ensemble, positions=[x]), 500.0)
    assert 0.0 < found["rotation"].value < 5000.0


def oscillating(topology: mdtraj.Topology, omega: float, shift: int = 0) -> Ensemble:
    """Two atoms along x, as two oscillators in opposite phase."""
    tau, times = 0.01, 0.01 * np.arange(2000)
    masses = Ensemble(topology, tau, [np.zeros((1, 2, 3))]).masses
    share = np.array([-1.0 / masses[0], 1.0 / masses[1]])[:, None] * [0.01, 0.0, 0.0]
    x = np.cos(omega * times)[:, None, None] * share
    v = np.roll(-omega * np.sin(omega * times), shift)[:, None, None] * share
    return Ensemble(topology, tau, [x], [v])


@pytest.mark.parametrize("omega", [20.0, 200.0, 550.0])
def test_residual_of_an_oscillator_is_the_exact_one(
    diatomic: mdtraj.Topology, omega: float
):
    a = 0.5 * omega * 0.01
    step, expected = np.sin(a), a * np.cos(a)
    exact = (step - expected) ** 2 / (step**2 + expected**2)
    found = step_residual(oscillating(diatomic, omega))
    assert found.value == pytest.approx(exact, rel=1e-6)


def test_velocities_of_other_frames_leave_all_and_opposite_ones_twice(
    gaussian_ethanol: Maker, diatomic: mdtraj.Topology
):
    unrelated = step_residual(gaussian_ethanol(2, 3000, seed=7))
    assert unrelated.value == pytest.approx(1.0, abs=4.0 * unrelated.error)
    assert unrelated.error < 0.01
    ensemble = oscillating(diatomic, 20.0)
    assert ensemble.velocities is not None
    backwards = dataclasses.replace(ensemble, velocities=[-ensemble.velocities[0]])
    assert step_residual(backwards).value == pytest.approx(2.0, abs=1e-3)


@pytest.mark.statistical
def test_error_of_what_steps_leave_is_the_scatter_of_repeats(gaussian_ethanol: Maker):
    # stochastic; the scatter of 60 values is known to 1/sqrt(118) = 9 %. Velocities
    # unrelated to positions leave as much as they have, so that numerator and
    # denominator vary together: the error of the numerator alone is four times larger.
    found = [step_residual(gaussian_ethanol(1, 300, seed=s)) for s in range(60)]
    scatter = np.std([one.value for one in found], ddof=1)
    said = np.sqrt(np.mean([one.error**2 for one in found]))
    assert said == pytest.approx(scatter, rel=0.35)


def test_one_frame_has_no_step(gaussian_ethanol: Maker):
    assert step_residual(gaussian_ethanol(2, 1, seed=8)) is None

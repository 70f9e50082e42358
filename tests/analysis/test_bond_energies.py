"""The bond that has the most energy, beside what chance gives one."""

import dataclasses
import math
from collections.abc import Callable

import mdtraj
import numpy as np
import pytest

from openmm_diffmd.analysis.bond_energies import RARE, hottest_bond
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.units import BOLTZMANN

Maker = Callable[..., Ensemble]
TEMPERATURE, TAU = 500.0, 0.01


def test_energy_of_an_oscillator_is_the_exact_one(diatomic: mdtraj.Topology):
    """Constant, whatever the phase at which frames see it; the second is the hotter."""
    omega, mean = 550.0, 0.11
    masses = Ensemble(diatomic, TAU, [np.zeros((1, 2, 3))]).masses
    reduced = masses.prod() / masses.sum()
    variance = BOLTZMANN * TEMPERATURE / (reduced * omega**2)
    share = np.array([-reduced / masses[0], reduced / masses[1]])[:, None] * [1, 0, 0]
    times = TAU * np.arange(100)
    positions, velocities = [], []
    for energy in (3.0, 7.0):
        amplitude = math.sqrt(2.0 * energy * variance)
        length = mean + amplitude * np.cos(omega * times)
        speed = -amplitude * omega * np.sin(omega * times)
        positions.append(length[:, None, None] * share)
        velocities.append(speed[:, None, None] * share)
    ensemble = Ensemble(diatomic, TAU, positions, velocities)
    found = hottest_bond(ensemble, np.array([mean]), np.array([variance]), TEMPERATURE)
    assert found is not None
    assert found.energy == pytest.approx(7.0)
    assert found.replica == 1
    # Of one bond, in two replicas of 100 frames, each window 20 long.
    assert found.likely == pytest.approx(math.log(10 / RARE))


def test_a_bond_that_gathers_energy_is_found(gaussian_ethanol: Maker):
    reference, ensemble = (gaussian_ethanol(2, 1000, seed=s) for s in (1, 2))
    first, second = reference.bonds.T
    x = np.concatenate(reference.positions)
    lengths = np.linalg.norm(x[:, second] - x[:, first], axis=-1)
    spread = lengths.mean(axis=0), lengths.var(axis=0)
    found = hottest_bond(ensemble, *spread, TEMPERATURE)
    assert found is not None
    assert found.energy < found.likely
    moved = np.array(ensemble.positions[1])
    oxygen, hydrogen = 2, 8
    bond = ensemble.bonds.tolist().index([oxygen, hydrogen])
    along = moved[300:330, hydrogen] - moved[300:330, oxygen]
    along /= np.linalg.norm(along, axis=-1, keepdims=True)
    moved[300:330, hydrogen] += 8.0 * math.sqrt(spread[1][bond]) * along
    hot = dataclasses.replace(ensemble, positions=[ensemble.positions[0], moved])
    found = hottest_bond(hot, *spread, TEMPERATURE)
    assert found is not None
    assert found.energy > found.likely
    assert (found.replica, found.atoms) == (1, "O3-H9")
    assert 3.0 < found.time < 3.31


def test_what_is_shorter_than_the_window_has_none(gaussian_ethanol: Maker):
    ensemble = gaussian_ethanol(2, 19, seed=1)
    ones = np.ones(len(ensemble.bonds))
    assert hottest_bond(ensemble, ones, ones, TEMPERATURE) is None
    assert hottest_bond(ensemble, ones, 0.0 * ones, TEMPERATURE) is None

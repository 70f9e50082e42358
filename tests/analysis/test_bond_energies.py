"""The bond that has the most energy, beside what chance gives one."""

import dataclasses
import math
from collections.abc import Callable

import mdtraj
import numpy as np
import pytest
from numpy.typing import NDArray

from openmm_diffmd.analysis.bond_energies import ANHARMONICITY, RARE, hottest_bond
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
    rare = math.log(10 / RARE)
    assert found.likely == pytest.approx(rare * (1 + ANHARMONICITY * rare))


def test_a_morse_bond_looks_hotter_than_it_is_as_said():
    """Against the mean of the harmonic energy over orbits of a Morse oscillator."""
    stiffness = 0.083  # a sigma: in units of kT and of the mass.
    x = np.linspace(-5.0, 6.0, 100_001)

    def potential(x: NDArray[np.float64]) -> NDArray[np.float64]:
        return 0.5 * ((1.0 - np.exp(-stiffness * x)) / stiffness) ** 2

    weights = np.exp(-potential(x))
    mean = np.average(x, weights=weights)
    variance = np.average((x - mean) ** 2, weights=weights)
    skewness = np.average((x - mean) ** 3, weights=weights) / variance**1.5
    assert skewness == pytest.approx(0.26, abs=0.01)
    for energy, looks in ((10.0, 10.8), (14.0, 15.8), (18.0, 21.4)):
        u = math.sqrt(2.0 * energy) * stiffness
        ends = -np.log(1.0 + u) / stiffness, -np.log(1.0 - u) / stiffness
        # Chebyshev nodes: the time at each is its share of the period.
        theta = (np.arange(2000) + 0.5) * np.pi / 2000
        at = 0.5 * (ends[0] + ends[1]) - 0.5 * (ends[1] - ends[0]) * np.cos(theta)
        kinetic = energy - potential(at)
        time = np.sin(theta) / np.sqrt(kinetic)
        apparent = kinetic + 0.5 * (at - mean) ** 2 / variance
        found = np.average(apparent, weights=time)
        assert found == pytest.approx(looks, abs=0.1)
        assert found == pytest.approx(energy * (1 + ANHARMONICITY * energy), rel=0.03)


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

from collections.abc import Callable

import numpy as np
import pytest
from scipy.signal import lfilter

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.temperature import (
    element_temperatures,
    kinetic_energies,
    kinetic_energy_test,
    thin,
)
from openmm_diffmd.units import BOLTZMANN

Maker = Callable[..., Ensemble]


@pytest.mark.statistical
def test_maxwell_velocities_have_the_equipartition_temperature(gaussian_ethanol: Maker):
    # stochastic; 4 standard errors, which themselves are chi-square's.
    found = element_temperatures(gaussian_ethanol(4, 5000, seed=1), 500.0)
    assert set(found) == {"H", "C", "O"}
    for symbol, atoms, mass in (("H", 6, 1.008), ("C", 2, 12.011), ("O", 1, 15.999)):
        t = found[symbol]
        assert t.expected == pytest.approx(500 * (1 - mass / 46.069), rel=1e-4)
        assert abs(t.value - t.expected) < 4 * t.error
        exact = t.expected * np.sqrt(2 / (3 * atoms * 20_000))
        assert t.error == pytest.approx(exact, rel=0.1)


def test_a_moving_centre_of_mass_changes_no_temperature(gaussian_ethanol: Maker):
    still = gaussian_ethanol(1, 50, seed=2)
    assert still.velocities is not None
    moving = Ensemble(
        still.topology, 0.01, still.positions, [v + 7.0 for v in still.velocities]
    )
    a, b = (element_temperatures(e, 500.0) for e in (still, moving))
    assert {s: t.value for s, t in a.items()} == pytest.approx(
        {s: t.value for s, t in b.items()}, rel=1e-10
    )


def test_kinetic_energy_of_one_moving_atom_is_the_closed_form(gaussian_ethanol: Maker):
    still = gaussian_ethanol(1, 1, seed=3)
    v = np.zeros((1, 9, 3))
    v[0, 2, 0] = 2.0
    m, total = still.masses[2], still.masses.sum()
    found = kinetic_energies(Ensemble(still.topology, 0.01, still.positions, [v]))
    # Less the energy of the centre of mass, (m v)^2 / 2 M.
    assert found[0][0] == pytest.approx(0.5 * m * 4.0 * (1 - m / total))


@pytest.mark.statistical
def test_kinetic_energy_test_accepts_maxwell_and_refuses_five_percent(
    gaussian_ethanol: Maker,
):
    # stochastic; 5 % of 24 degrees of freedom and 4000 samples is 11 standard errors, 8
    # where every second one is left out: the inefficiency found is 1 to 1.5.
    ensemble = gaussian_ethanol(4, 1000, seed=4)
    right = kinetic_energy_test(ensemble, 500.0)
    wrong = kinetic_energy_test(ensemble, 525.0)
    assert right is not None
    assert wrong is not None
    assert right.n_samples > 1300
    assert right.mean_deviation < 4
    assert right.width_deviation < 4
    assert right.p_value > 1e-3
    assert wrong.mean_deviation > 4
    assert wrong.p_value < 1e-4


def test_kinetic_energy_test_leaves_the_global_generator_alone(
    gaussian_ethanol: Maker,
):
    before = np.random.get_state()[1].copy()  # noqa: NPY002
    kinetic_energy_test(gaussian_ethanol(1, 100, seed=5), 500.0)
    np.testing.assert_array_equal(before, np.random.get_state()[1])  # noqa: NPY002


@pytest.mark.statistical
def test_thinned_energies_are_independent():
    # stochastic; 3000 samples give a correlation to 0.018. Half of the variance forgets
    # within a frame, half in 50: of what is left, one in two inefficiencies keeps
    # exp(-2)/2 = 0.07, one in one 0.18.
    generator = np.random.default_rng(7)
    phi, noise = np.exp(-1 / 50), generator.normal(size=(2, 300_000))
    slow = lfilter([np.sqrt(1 - phi**2)], [1, -phi], noise[0])
    samples = thin([slow + noise[1]])
    assert len(samples) > 2000
    assert np.corrcoef(samples[1:], samples[:-1])[0, 1] < 0.12


def test_few_samples_test_nothing(gaussian_ethanol: Maker):
    assert kinetic_energy_test(gaussian_ethanol(1, 10, seed=6), 500.0) is None


@pytest.mark.statistical
def test_frames_that_repeat_count_once(gaussian_ethanol: Maker):
    # stochastic; every frame ten times over: ten frames to an independent one, and
    # every second of those is tested.
    once = gaussian_ethanol(4, 200, seed=7)
    assert once.velocities is not None
    repeated = Ensemble(
        once.topology,
        0.01,
        [np.repeat(p, 10, axis=0) for p in once.positions],
        [np.repeat(v, 10, axis=0) for v in once.velocities],
    )
    found = kinetic_energy_test(repeated, 500.0)
    assert found is not None
    assert found.n_samples == pytest.approx(400, rel=0.2)
    assert found.p_value > 1e-3


@pytest.mark.statistical
def test_deviations_of_right_samples_are_in_their_standard_errors(
    gaussian_ethanol: Maker, monkeypatch: pytest.MonkeyPatch
):
    # stochastic; root mean squares of 1600 standard normal numbers are 1 within
    # 1/sqrt(3200) = 1.8 %, here within four times that; an error of the width that
    # forgets the kurtosis of a gamma distribution would make it 1.12.
    monkeypatch.setattr(
        "physical_validation.kinetic_energy.distribution", lambda *_, **__: 0.5
    )
    found = [
        kinetic_energy_test(gaussian_ethanol(1, 200, seed=seed), 500.0)
        for seed in range(100, 1700)
    ]
    for name in ("mean_deviation", "width_deviation"):
        deviations = np.array([getattr(one, name) for one in found])
        assert np.sqrt(np.mean(deviations**2)) == pytest.approx(1.0, abs=0.07)


@pytest.mark.statistical
def test_width_is_tested_apart_from_the_mean(gaussian_ethanol: Maker):
    # stochastic; each frame has the mean kinetic energy of 24 degrees of freedom.
    ensemble = gaussian_ethanol(1, 400, seed=8)
    expected = 0.5 * 24 * BOLTZMANN * 500.0
    factors = np.sqrt(
        expected * np.linspace(0.98, 1.02, 400) / kinetic_energies(ensemble)[0]
    )
    shuffled = np.random.default_rng(9).permutation(400)
    v = np.array(ensemble.relative_velocities()[0]) * factors[:, None, None]
    found = kinetic_energy_test(
        Ensemble(ensemble.topology, 0.01, ensemble.positions, [v[shuffled]]), 500.0
    )
    assert found is not None
    assert found.mean_deviation < 4
    assert found.width_deviation > 10

import mdtraj
import numpy as np
import pytest

from openmm_diffmd.analysis.dynamics import (
    WAVENUMBER_PER_TERAHERTZ,
    Spectrum,
    spectrum_overlap,
    velocity_spectrum,
)
from openmm_diffmd.analysis.ensemble import Ensemble

DT = 0.01
GAMMA = 4.0  # 1/ps
OMEGA = 2 * np.pi * 12.0  # 12 THz, 400 1/cm


def damped_oscillators(n_series: int, n_frames: int, seed: int) -> np.ndarray:
    """Real parts of z' = exp((i omega - gamma) dt) z + noise: C = e^-gt cos wt."""
    generator = np.random.default_rng(seed)
    factor = np.exp((1j * OMEGA - GAMMA) * DT)
    noise = generator.normal(size=(n_frames, n_series, 2)) @ np.array([1, 1j])
    z = np.empty((n_frames, n_series), dtype=complex)
    z[0] = noise[0]
    for t in range(1, n_frames):
        z[t] = factor * z[t - 1] + np.sqrt(1 - abs(factor) ** 2) * noise[t]
    return z.real


def diatomic_ensemble(
    topology: mdtraj.Topology, series: np.ndarray, n_replicas: int
) -> Ensemble:
    """Opposite velocities of equal momentum: the centre of mass rests."""
    n_frames = len(series)
    v = series.reshape(n_frames, n_replicas, 1, 3).swapaxes(0, 1)
    masses = np.array([atom.element.mass for atom in topology.atoms])
    velocities = np.concatenate([v, -v], axis=2) / masses[:, None]
    return Ensemble(
        topology, DT, [np.zeros((n_frames, 2, 3))] * n_replicas, list(velocities)
    )


@pytest.mark.statistical
def test_spectrum_of_damped_oscillators_is_the_lorentzian(diatomic: mdtraj.Topology):
    # stochastic; ~60 windows of 48 components: 2 % a point, and the window's own
    # width of 0.6 THz broadens a line of 1.3 THz full width.
    n_replicas = 16
    ensemble = diatomic_ensemble(
        diatomic, damped_oscillators(3 * n_replicas, 8000, seed=2), n_replicas
    )
    found = velocity_spectrum(ensemble)
    assert found is not None
    f = found.wavenumbers / WAVENUMBER_PER_TERAHERTZ
    # Transform of the sampled autocorrelation: a geometric series in each exponent.
    phase = np.exp(-2j * np.pi * f * DT)
    exact = np.zeros_like(f)
    for sign in (1, -1):
        q = np.exp((sign * 1j * OMEGA - GAMMA) * DT) * phase
        exact += np.real((1 + q) / (1 - q))
    exact /= exact.sum() * found.wavenumbers[1]
    assert found.density.sum() * found.wavenumbers[1] == pytest.approx(1.0)
    assert found.wavenumbers[np.argmax(found.density)] == pytest.approx(400, abs=14)
    overlap = spectrum_overlap(found, Spectrum(found.wavenumbers, exact))
    assert overlap > 0.93


def test_spectrum_is_the_share_of_the_kinetic_energy(
    hydrogen_peroxide: mdtraj.Topology,
):
    window = 256
    t = np.arange(4 * window)
    opposite = np.array([1.0, -1.0])
    v = np.zeros((len(t), 4, 3))
    v[:, [0, 3], 0] = opposite * np.cos(2 * np.pi * t[:, None] * 20 / window)
    # Between two points, where the ends of a window without taper would show.
    v[:, [1, 2], 1] = opposite * np.cos(2 * np.pi * t[:, None] * 60.5 / window)
    v[:, [1, 2], 2] = opposite
    x = np.zeros_like(v)
    found = velocity_spectrum(Ensemble(hydrogen_peroxide, DT, [x], [v]))
    assert found is not None
    share = found.density * found.wavenumbers[1]
    hydrogen, oxygen = 1.007947, 15.99943
    whole = 0.5 * hydrogen + 0.5 * oxygen + oxygen
    for middle, energy in ((0, oxygen), (20, 0.5 * hydrogen), (60, 0.5 * oxygen)):
        near = share[max(0, middle - 5) : middle + 6].sum()
        assert near == pytest.approx(energy / whole, rel=1e-3)
    assert share[35:50].max() < 1e-7


def test_spectrum_weighs_replicas_by_their_length(diatomic: mdtraj.Topology):
    window, masses = 256, np.array([12.0107, 15.99943])
    series = []
    for length, point in ((window, 20), (3 * window, 60)):
        v = np.zeros((length, 2, 3))
        v[:, :, 0] = np.cos(2 * np.pi * np.arange(length) * point / window)[:, None]
        series.append(v * np.array([1.0, -1.0])[:, None] / masses[:, None])
    positions = [np.zeros_like(v) for v in series]
    found = velocity_spectrum(Ensemble(diatomic, DT, positions, series))
    assert found is not None
    share = found.density * found.wavenumbers[1]
    assert share[15:26].sum() == pytest.approx(0.25, rel=1e-3)
    assert share[55:66].sum() == pytest.approx(0.75, rel=1e-3)


def test_overlap_is_the_common_area():
    nu = np.linspace(0, 30, 4)
    a = Spectrum(nu, np.array([0.05, 0.05, 0.0, 0.0]))
    b = Spectrum(nu, np.array([0.0, 0.05, 0.05, 0.0]))
    c = Spectrum(nu, np.array([0.0, 0.0, 0.0, 0.1]))
    assert spectrum_overlap(a, a) == pytest.approx(1.0)
    assert spectrum_overlap(a, b) == pytest.approx(0.5)
    assert spectrum_overlap(a, c) == 0.0
    with pytest.raises(ValueError, match="different wavenumbers"):
        spectrum_overlap(a, Spectrum(2 * nu, a.density))


def test_spectrum_of_short_trajectories_is_none(diatomic: mdtraj.Topology):
    ensemble = diatomic_ensemble(diatomic, damped_oscillators(3, 100, seed=3), 1)
    assert velocity_spectrum(ensemble) is None


@pytest.mark.parametrize("frames", [0.4, 1.0])
def test_window_of_less_than_two_frames_is_refused(
    diatomic: mdtraj.Topology, frames: float
):
    ensemble = diatomic_ensemble(diatomic, damped_oscillators(3, 100, seed=3), 1)
    message = rf"window_ps {frames * DT:g} for frames each 0.01 ps, .* longer window_ps"
    with pytest.raises(ValueError, match=message):
        velocity_spectrum(ensemble, frames * DT)
    found = velocity_spectrum(ensemble, 2 * DT)
    assert found is not None
    assert len(found.wavenumbers) == 2

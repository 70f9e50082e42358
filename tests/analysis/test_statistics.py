import numpy as np
import pytest

from openmm_diffmd.analysis.statistics import (
    autocovariance,
    mean_and_error,
    statistical_inefficiency,
)


def autoregressive(phi: float, shape: tuple[int, int], seed: int) -> np.ndarray:
    """Stationary x' = phi x + sqrt(1 - phi^2) noise, unit variance."""
    generator = np.random.default_rng(seed)
    noise = generator.normal(size=shape)
    x = np.empty(shape)
    x[:, 0] = noise[:, 0]
    for t in range(1, shape[1]):
        x[:, t] = phi * x[:, t - 1] + np.sqrt(1 - phi**2) * noise[:, t]
    return x


def test_autocovariance_equals_the_direct_sum():
    series = [np.array([1.0, 2.0, 4.0]), np.array([0.0, 3.0])]
    mean = 2.0
    a, b = series[0] - mean, series[1] - mean
    expected = [
        (a @ a + b @ b) / 5,
        (a[:2] @ a[1:] + b[0] * b[1]) / 3,
        a[0] * a[2] / 1,
    ]
    np.testing.assert_allclose(autocovariance(series), expected, rtol=1e-12)


@pytest.mark.statistical
@pytest.mark.parametrize("phi", [0.0, 0.5, 0.9])
def test_inefficiency_of_an_autoregressive_series_is_the_closed_form(phi: float):
    # stochastic; the relative error of g is about 2 sqrt((2 W + 1)/n) (Sokal),
    # with W about 5 tau.
    n = 40_000
    g = (1 + phi) / (1 - phi)
    found = statistical_inefficiency(list(autoregressive(phi, (4, n // 4), seed=1)))
    assert found == pytest.approx(g, rel=4 * 2 * np.sqrt((5 * g + 1) / n))


def test_inefficiency_of_a_constant_is_one():
    assert statistical_inefficiency([np.full(10, 3.0)]) == 1.0


@pytest.mark.statistical
def test_error_is_the_scatter_of_repeated_means():
    # stochastic; 400 repeats give the scatter to 1/sqrt(800) = 3.5 %.
    x = autoregressive(0.8, (400, 2000), seed=2)
    scatter = x.mean(axis=1).std()
    errors = [mean_and_error([row])[1] for row in x[:100]]
    assert np.mean(errors) == pytest.approx(scatter, rel=0.15)


@pytest.mark.statistical
@pytest.mark.parametrize("n_frames", [2000, 10_000])
def test_error_sees_a_slow_tail_below_quick_motion(n_frames: int):
    # stochastic; 300 repeats give the root mean square of z to 4 %. Nine tenths of the
    # variance forget within a frame, one tenth in 50: as the temperature of an element.
    shape = 300, n_frames
    slow = autoregressive(np.exp(-1 / 50), shape, seed=3)
    quick = autoregressive(0.0, shape, seed=4)
    x = np.sqrt(0.1) * slow + np.sqrt(0.9) * quick
    z = [mean / error for mean, error in (mean_and_error([row]) for row in x)]
    assert np.sqrt(np.mean(np.square(z))) == pytest.approx(1.0, abs=0.25)

import numpy as np
import pytest
from reliability_curve import measure_reliability


def spreads_and_errors(n: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Gaussian errors of a spread that varies by a factor of ten and more."""
    generator = np.random.default_rng(seed)
    spreads = np.exp(generator.normal(0.0, 0.6, n))
    return spreads, spreads[:, None] * generator.normal(size=(n, 3))


@pytest.mark.statistical
def test_calibrated_gaussians_are_found_calibrated():
    # stochastic; 3000 numbers a bin: 1.3 % of a root mean square.
    spreads, errors = spreads_and_errors(10000, seed=1)
    r = measure_reliability(spreads, errors)
    assert r.n_samples == 10000
    assert r.predicted.shape == r.found.shape == (10,)
    assert (np.abs(r.found - r.predicted) < 4 * r.found_error).all()
    # The outermost bins are wide, their squares scatter more.
    assert (r.found_error / r.found)[1:-1] == pytest.approx(6000**-0.5, rel=0.2)
    assert r.ratio == pytest.approx(1.0, abs=0.04)
    assert r.slope == pytest.approx(1.0, abs=0.04)
    assert r.calibration_error < 0.03
    assert r.correlation == pytest.approx(r.best_correlation, abs=0.03)
    assert 0.5 < r.best_correlation < 0.95


@pytest.mark.statistical
def test_model_that_is_too_sure_is_found_so():
    # stochastic; as above.
    spreads, errors = spreads_and_errors(10000, seed=2)
    r = measure_reliability(spreads / 2, errors)
    assert r.ratio == pytest.approx(2.0, abs=0.08)
    assert r.calibration_error == pytest.approx(1.0, abs=0.04)
    assert r.slope == pytest.approx(1.0, abs=0.04)


@pytest.mark.statistical
def test_spread_that_knows_nothing_has_no_slope():
    # stochastic; right on average, and dealt out at random.
    spreads, errors = spreads_and_errors(10000, seed=3)
    shuffled = np.random.default_rng(4).permutation(spreads)
    r = measure_reliability(shuffled, errors)
    assert r.ratio == pytest.approx(1.0, abs=0.04)
    assert abs(r.slope) < 0.1
    assert abs(r.correlation) < 0.05
    assert r.calibration_error > 0.4


def test_curve_is_in_order_and_has_all_atoms():
    spreads = np.arange(1.0, 21.0)
    errors = np.ones((20, 3)) * spreads[:, None] * 3.0
    r = measure_reliability(spreads, errors, n_bins=2)
    expected = np.sqrt((spreads.reshape(2, 10) ** 2).mean(axis=1))
    assert r.predicted == pytest.approx(expected)
    assert r.found == pytest.approx(3.0 * r.predicted)
    assert r.slope == pytest.approx(1.0)
    assert r.correlation == 1.0


@pytest.mark.parametrize(
    ("spreads", "errors", "message"),
    [
        (np.ones(20), np.ones((20, 2)), r"expected \(n,\) and \(n, 3\)"),
        (np.ones(5), np.ones((5, 3)), "found 5 atoms, expected at least 20"),
        (np.zeros(20), np.ones((20, 3)), "expected positive spreads"),
    ],
)
def test_what_does_not_fit_is_refused(
    spreads: np.ndarray, errors: np.ndarray, message: str
):
    with pytest.raises(ValueError, match=message):
        measure_reliability(spreads, errors)

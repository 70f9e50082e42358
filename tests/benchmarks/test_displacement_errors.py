import numpy as np
import pytest
from displacement_errors import PUBLISHED, displacement_errors


def test_errors_of_a_drift_are_the_closed_form():
    truth = np.random.default_rng(1).normal(size=(3, 20, 9, 3))
    drift = np.zeros((20, 1, 3))
    drift[:, 0, 0] = 0.3 * np.arange(1, 21)
    drift[:, 0, 1] = 0.4 * np.arange(1, 21)
    samples = np.stack([truth + drift, truth + 2 * drift], axis=1)
    found = displacement_errors(samples, truth)
    # |drift| = 0.5 k: 0.5 * 10.5 on average, 0.5 * 20 at last; samples 1 and 2 fold.
    assert found.ade == pytest.approx(1.5 * 0.5 * 10.5)
    assert found.fde == pytest.approx(1.5 * 0.5 * 20)
    assert found.min_ade == pytest.approx(0.5 * 10.5)
    assert found.min_fde == pytest.approx(0.5 * 20)


@pytest.mark.statistical
def test_error_of_gaussian_samples_is_the_chi_mean():
    # stochastic; |d| of 3 Gaussians has mean sqrt(8/pi) s, standard deviation
    # sqrt(3 - 8/pi) s.
    samples = 0.1 * np.random.default_rng(2).normal(size=(10, 5, 20, 9, 3))
    found = displacement_errors(samples, np.zeros((10, 20, 9, 3)))
    error = 0.1 * np.sqrt((3 - 8 / np.pi) / (10 * 5 * 20 * 9))
    assert found.ade == pytest.approx(0.1 * np.sqrt(8 / np.pi), abs=4 * error)


def test_error_of_the_mean_is_that_of_the_cases():
    # Cases off by 1 and by 3, each in all frames and samples.
    samples = np.zeros((2, 5, 20, 9, 3))
    truth = np.zeros((2, 20, 9, 3))
    truth[0, ..., 0], truth[1, ..., 0] = 1.0, 3.0
    found = displacement_errors(samples, truth)
    assert found.ade == found.fde == 2.0
    assert found.ade_error == found.fde_error == pytest.approx(1.0)
    assert np.isnan(displacement_errors(samples[:1], truth[:1]).ade_error)


@pytest.mark.statistical
def test_error_of_cases_that_overlap_is_the_scatter_of_their_mean():
    # stochastic; windows of 20 frames of white noise, a new one each 5 frames, over 200
    # frames: as much as 10 that do not overlap. 400 repeats know a scatter to 3.5 %.
    noise = np.random.default_rng(3).normal(size=(400, 200))
    windows = np.lib.stride_tricks.sliding_window_view(noise, 20, axis=1)[:, ::5]
    means, errors = [], []
    for each in windows.mean(axis=2):
        # Distances are not below 0.
        samples = np.zeros((len(each), 1, 1, 1, 3))
        samples[:, 0, 0, 0, 0] = 3.0 + each
        found = displacement_errors(samples, np.zeros((len(each), 1, 1, 3)), 10.0)
        means.append(found.ade)
        errors.append(found.ade_error)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.14)
    one = displacement_errors(samples, np.zeros((len(samples), 1, 1, 3)), 1.5)
    assert np.isnan(one.ade_error)


def test_published_rows_are_of_eight_molecules():
    assert {len(table) for table in PUBLISHED.values()} == {8}
    for table in PUBLISHED.values():
        assert all(ade < fde for ade, fde in table.values())
    assert PUBLISHED["GeoTDM"]["ethanol"] == (0.115, 0.209)


def test_shapes_that_do_not_fit_are_refused():
    with pytest.raises(ValueError, match="found samples"):
        displacement_errors(np.zeros((2, 5, 20, 9, 3)), np.zeros((2, 10, 9, 3)))

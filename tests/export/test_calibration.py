"""After calibration the drawn residuals have the covariance of the true errors."""

import pytest
import torch

from openmm_diffmd.data.pairs import PairBatch
from openmm_diffmd.export.calibration import (
    calibrate_spread,
    mean_errors,
    one_lag_figures,
)
from openmm_diffmd.models import TransitionModel

N_PAIRS = 400
LEVELS = {"sigma_min": 0.05, "sigma_max": 2.0, "rho": 7.0}


@pytest.fixture
def model():
    torch.manual_seed(3)
    # An untrained denoiser is that of a unit Gaussian: draws have unit variance.
    return TransitionModel(
        2, 0.01, channels=8, n_heads=2, edge_channels=8, n_layers=1, head_channels=8
    ).eval()


@pytest.fixture
def batch(model):
    generator = torch.Generator().manual_seed(4)
    positions = 0.1 * torch.randn((N_PAIRS, 3, 3), generator=generator)
    velocities = torch.randn((N_PAIRS, 3, 3), generator=generator)
    species = torch.tensor([[0, 1, 1]]).expand(N_PAIRS, -1)
    # Errors with a spread of 2 in positions, 0.5 in velocities, correlated.
    noise = torch.randn((N_PAIRS, 3, 2, 3), generator=generator)
    noise = torch.tensor([[2.0, 0.0], [0.3, 0.4]]) @ noise
    state = (
        positions,
        velocities,
        torch.zeros(N_PAIRS, 3, 3),
        torch.zeros(N_PAIRS, dtype=torch.bool),
        species,
        torch.tensor([[12.0, 1.0, 1.0]]).expand(N_PAIRS, -1).contiguous(),
    )
    with torch.no_grad():
        condition = model.encode(*state, torch.zeros(N_PAIRS))
        mean = condition["prior"] + condition["unit"] * condition["mean"]
    following = mean + noise
    return PairBatch(*state, following=following, later=following[:, None][:, 1:])


def test_draws_get_the_covariance_of_the_errors(model, batch):
    before = calibrate_spread(model, batch, "exponential", 2, LEVELS)
    # Drawn over true: 1/2 for positions, 1/0.5 for velocities; the standard error of
    # a spread from 1200 numbers and more is 2 %.
    torch.testing.assert_close(
        before, torch.tensor([[0.5, 2.0]]).expand(2, -1), rtol=0.08, atol=0
    )
    expected = torch.tensor([[2.0, 0.0], [0.3, 0.4]])
    for factor in model.residual_cholesky[:2]:
        torch.testing.assert_close(factor, expected, rtol=0.1, atol=0.1)
    after = calibrate_spread(model, batch, "exponential", 2, LEVELS)
    torch.testing.assert_close(after, torch.ones(2, 2), rtol=1e-4, atol=0)


def test_factor_comes_out_the_same_from_any_before(model, batch):
    model.residual_cholesky[:2] = torch.tensor([[1.5, 0.0], [-1.0, 0.7]])
    calibrate_spread(model, batch, "exponential", 2, LEVELS)
    expected = torch.tensor([[2.0, 0.0], [0.3, 0.4]])
    for factor in model.residual_cholesky[:2]:
        torch.testing.assert_close(factor, expected, rtol=0.1, atol=0.1)


def test_no_steps_leave_the_model_as_it_was(model, batch):
    spread = calibrate_spread(model, batch, "exponential", 0, LEVELS)
    assert torch.equal(model.residual_cholesky[0], torch.eye(2))
    error = mean_errors(model, batch)
    figures = one_lag_figures(model, batch, ["C", "H"], error, spread)
    assert figures["C"]["drawn_over_true_spread"] is None
    assert figures["H"]["position_relative"] == pytest.approx(2.0, rel=0.05)


def test_draws_go_through_the_levels_of_the_model_file(model, batch, monkeypatch):
    asked = []
    denoise = model.denoise

    def record(residual, sigma, condition):
        asked.append(sigma[0].item())
        return denoise(residual, sigma, condition)

    monkeypatch.setattr(model, "denoise", record)
    levels = {"sigma_min": 0.5, "sigma_max": 2.0, "rho": 1.0}
    calibrate_spread(model, batch, "exponential", 4, levels)
    assert asked == pytest.approx([2.0, 1.5, 1.0, 0.5])


def test_figures_are_root_mean_squares_in_the_units_of_their_scales(model, batch):
    model.set_scales(
        torch.tensor([0.01, 0.02]), torch.tensor([3.0, 5.0]), torch.ones(2)
    )
    # Carbon is off by 2 and 0.5 of its scale, hydrogen by 1 and by 3 or 5.
    error = torch.ones(N_PAIRS, 3, 2, 3)
    error[:, 0, 0], error[:, 0, 1] = 2.0, -0.5
    error[:, 1, 1], error[:, 2, 1] = 3.0, 5.0
    spread = torch.tensor([[0.5, 2.0], [1.0, 1.5]])
    found = one_lag_figures(model, batch, ["C", "H"], error, spread)
    assert found["n_pairs"] == N_PAIRS
    assert found["C"].pop("drawn_over_true_spread") == [0.5, 2.0]
    assert found["C"] == pytest.approx(
        {
            "position_relative": 2.0,
            "velocity_relative": 0.5,
            "position_nm": 0.02,
            "velocity_nm_per_ps": 1.5,
        }
    )
    assert found["H"]["velocity_relative"] == pytest.approx(17.0**0.5)
    assert found["H"]["position_nm"] == pytest.approx(0.02)
    assert found["H"]["velocity_nm_per_ps"] == pytest.approx(5.0 * 17.0**0.5)

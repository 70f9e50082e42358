"""After calibration the drawn residuals have the covariance of the true errors."""

import pytest
import torch

from openmm_diffmd.data.pairs import PairBatch
from openmm_diffmd.export.calibration import calibrate_spread, one_lag_figures
from openmm_diffmd.models import TransitionModel

N_PAIRS = 400


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
    return PairBatch(*state, following=mean + noise)


def test_draws_get_the_covariance_of_the_errors(model, batch):
    before = calibrate_spread(model, batch, "exponential", 2, 0.05, 2.0)
    # Drawn over true: 1/2 for positions, 1/0.5 for velocities; the standard error of
    # a spread from 1200 numbers and more is 2 %.
    torch.testing.assert_close(
        before["spread"], torch.tensor([[0.5, 2.0]]).expand(2, -1), rtol=0.08, atol=0
    )
    expected = torch.tensor([[2.0, 0.0], [0.3, 0.4]])
    for factor in model.residual_cholesky[:2]:
        torch.testing.assert_close(factor, expected, rtol=0.1, atol=0.1)
    after = calibrate_spread(model, batch, "exponential", 2, 0.05, 2.0)
    torch.testing.assert_close(after["spread"], torch.ones(2, 2), rtol=1e-4, atol=0)


def test_no_steps_leave_the_model_as_it_was(model, batch):
    found = calibrate_spread(model, batch, "exponential", 0, 0.05, 2.0)
    assert torch.equal(model.residual_cholesky[0], torch.eye(2))
    figures = one_lag_figures(model, batch, ["C", "H"], found)
    assert figures["C"]["drawn_over_true_spread"] is None
    assert figures["H"]["position_relative"] == pytest.approx(2.0, rel=0.05)

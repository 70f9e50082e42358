import math

import pytest
import torch

from openmm_diffmd.diffusion.residuals import (
    GAUSSIAN_MEAN_NORM,
    OUTLIER_LIMIT,
    limit_outliers,
    residual_covariance,
    spread_loss,
)


def test_outliers_are_shortened_to_the_limit_and_the_rest_kept():
    generator = torch.Generator().manual_seed(1)
    direction = torch.randn(4, 2, 3, generator=generator, dtype=torch.float64)
    direction /= direction.square().mean((-2, -1), keepdim=True).sqrt()
    size = OUTLIER_LIMIT * torch.tensor([0.0, 0.999, 1.001, 1e6])[:, None, None]
    found = limit_outliers(size * direction)
    expected = size.clamp(max=OUTLIER_LIMIT) * direction
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=0)


def test_covariance_is_the_mean_over_atoms_and_axes_unwhitened():
    # Two atoms: positions 1, velocities 2 along each axis; then 3 and -1.
    residual = torch.tensor([[1.0, 2.0], [3.0, -1.0]])[..., None].expand(2, 2, 3)
    found = residual_covariance(residual, torch.eye(2))
    expected = torch.tensor([[5.0, -0.5], [-0.5, 2.5]])
    torch.testing.assert_close(found, expected)
    factor = torch.tensor([[2.0, 0.0], [-1.0, 0.5]])
    found = residual_covariance(residual, factor)
    torch.testing.assert_close(found, factor @ expected @ factor.T)


def test_one_wild_atom_does_not_rule_the_covariance():
    residual = torch.ones(1000, 2, 3)
    residual[7] = 1e4
    found = residual_covariance(residual, torch.eye(2))
    assert found.max().item() == pytest.approx(
        (999 + OUTLIER_LIMIT**2) / 1000, rel=1e-4
    )


def test_mean_norm_is_that_of_six_unit_gaussians():
    # The mean of a chi variable of six degrees of freedom, over sqrt(6).
    exact = math.sqrt(2 / 6) * math.gamma(3.5) / math.gamma(3.0)
    assert pytest.approx(exact, abs=5e-5) == GAUSSIAN_MEAN_NORM


@pytest.mark.statistical
def test_spread_loss_is_least_at_the_spread_of_gaussians():
    generator = torch.Generator().manual_seed(2)
    count = 40000
    spread = 0.3
    residual = spread * torch.randn(count, 2, 3, generator=generator)
    log_spread = torch.tensor(0.0, requires_grad=True)
    # d/d log s = 1 - |r|/(0.9594 s): 0 at s = <|r|>/0.9594.
    loss = spread_loss(residual, log_spread.expand(count)).mean()
    (slope,) = torch.autograd.grad(loss, log_spread)
    # Stochastic: |r| of six Gaussians scatters by sqrt(1 - 0.9594^2) = 0.28.
    error = 4 * 0.3 / math.sqrt(count)
    assert 1.0 - slope.item() == pytest.approx(spread, rel=error + 1e-4)

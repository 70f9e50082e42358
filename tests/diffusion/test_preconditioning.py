import math

import pytest
import torch

from openmm_diffmd.diffusion.preconditioning import (
    denoising_loss_weight,
    preconditioning,
    score,
)

SIGMA = torch.tensor([0.01, 0.1, 1.0, 3.0], dtype=torch.float64)


def test_scalings_are_those_of_the_table_for_unit_data():
    c_skip, c_out, c_in, c_noise = preconditioning(SIGMA)
    for index, sigma in enumerate(SIGMA.tolist()):
        variance = sigma**2 + 1
        assert c_skip[index].item() == pytest.approx(1 / variance, rel=1e-14)
        assert c_out[index].item() == pytest.approx(sigma / math.sqrt(variance))
        assert c_in[index].item() == pytest.approx(1 / math.sqrt(variance))
        assert c_noise[index].item() == pytest.approx(math.log(sigma) / 4)


def test_network_target_has_unit_variance_and_weight_undoes_c_out():
    c_skip, c_out, c_in, _ = preconditioning(SIGMA)
    # Var[(y - c_skip (y + sigma n))/c_out] for unit y and n.
    target = ((1 - c_skip) ** 2 + (c_skip * SIGMA) ** 2) / c_out**2
    one = torch.ones_like(SIGMA)
    torch.testing.assert_close(target, one, rtol=1e-12, atol=0)
    torch.testing.assert_close(c_in**2 * (1 + SIGMA**2), one, rtol=1e-12, atol=0)
    weight = denoising_loss_weight(SIGMA)
    torch.testing.assert_close(weight * c_out**2, one, rtol=1e-12, atol=0)


def test_score_of_a_gaussian_denoiser_is_the_gradient_of_its_log_density(gaussian):
    denoiser = gaussian(mean=0.4, deviation=0.7)
    u = torch.linspace(-2, 2, 9, dtype=torch.float64)
    for sigma in SIGMA:
        expected = -(u - 0.4) / (0.49 + sigma**2)
        found = score(denoiser(u, sigma.item()), u, sigma)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-11)


def test_score_of_a_mixture_is_the_gradient_of_its_log_density(mixture):
    u = torch.linspace(-2, 2, 41, dtype=torch.float64, requires_grad=True)
    for sigma in SIGMA.tolist():
        variance = mixture.variance + sigma**2
        exponent = mixture.weights.log() - (u[:, None] - mixture.means) ** 2 / (
            2 * variance
        )
        expected = torch.autograd.grad(exponent.logsumexp(1).sum(), u)[0]
        found = score(mixture(u, sigma), u, torch.tensor(sigma, dtype=torch.float64))
        torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-9)

import pytest
import torch
from rollout_cost import num_evaluations

from openmm_diffmd.diffusion.noise_schedule import karras_noise_levels
from openmm_diffmd.diffusion.samplers import SAMPLERS, num_extra_draws, sample


@pytest.mark.parametrize("num_steps", [1, 2, 3, 8])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_evaluations_of_a_sample_are_counted(sampler, num_steps):
    levels = []

    def denoiser(u, sigma):
        levels.append(sigma)
        return u / (1.0 + sigma**2)

    noise = torch.ones(1 + num_extra_draws(sampler, num_steps), 1, 2, 2, 3)
    sample(sampler, denoiser, noise, karras_noise_levels(num_steps, 0.002, 40.0))
    assert len(levels) == num_evaluations(sampler, num_steps)


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_a_mean_needs_no_evaluation_of_the_denoiser(sampler):
    assert num_evaluations(sampler, 0) == 0

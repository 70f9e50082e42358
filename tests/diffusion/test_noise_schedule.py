import math
from itertools import pairwise

import pytest
import torch

from openmm_diffmd.diffusion.noise_schedule import (
    karras_noise_levels,
    log_uniform_noise_levels,
)


def test_karras_levels_follow_the_formula():
    levels = karras_noise_levels(5, 0.02, 3.0, rho=7.0)
    assert len(levels) == 6
    assert levels[0] == pytest.approx(3.0, rel=1e-14)
    assert levels[4] == pytest.approx(0.02, rel=1e-13)
    assert levels[5] == 0.0
    roots = [level ** (1 / 7) for level in levels[:5]]
    steps = [low - high for high, low in pairwise(roots)]
    assert steps == pytest.approx([(0.02 ** (1 / 7) - 3.0 ** (1 / 7)) / 4] * 4)


def test_karras_levels_of_rho_one_are_evenly_spaced():
    assert karras_noise_levels(3, 1.0, 3.0, rho=1.0) == [3.0, 2.0, 1.0, 0.0]


def test_one_step_goes_from_the_highest_level_to_zero():
    assert karras_noise_levels(1, 0.02, 3.0) == [3.0, 0.0]


@pytest.mark.parametrize("num_steps", [0, -1])
def test_no_steps_are_refused(num_steps):
    with pytest.raises(ValueError, match=f"found num_steps {num_steps}, expected at"):
        karras_noise_levels(num_steps, 0.02, 3.0)


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (2.0, 1.0)])
def test_levels_out_of_order_are_refused(low, high):
    with pytest.raises(ValueError, match="expected 0 < sigma_min <= sigma_max"):
        karras_noise_levels(4, low, high)


@pytest.mark.statistical
def test_training_levels_are_uniform_in_their_logarithm():
    generator = torch.Generator().manual_seed(5)
    count = 20000
    levels = log_uniform_noise_levels((count,), 0.05, 3.0, generator)
    assert levels.min() >= 0.05
    assert levels.max() <= 3.0
    share = (levels / 0.05).log() / math.log(60)
    # Stochastic: mean 1/2 and variance 1/12 of a uniform number, 4 standard errors.
    assert share.mean().item() == pytest.approx(0.5, abs=4 / math.sqrt(12 * count))
    error = math.sqrt((1 / 80 - 1 / 144) / count)
    assert share.var().item() == pytest.approx(1 / 12, abs=4 * error)


def test_training_levels_come_from_the_generator():
    first = log_uniform_noise_levels((4,), 0.1, 1.0, torch.Generator().manual_seed(1))
    again = log_uniform_noise_levels((4,), 0.1, 1.0, torch.Generator().manual_seed(1))
    other = log_uniform_noise_levels((4,), 0.1, 1.0, torch.Generator().manual_seed(2))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)

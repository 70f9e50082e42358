import math

import pytest
import torch
from torch import Tensor


class Gaussian:
    """Denoiser of N(mean, deviation^2), the same for each component."""

    def __init__(self, mean: float, deviation: float):
        self.mean = mean
        self.variance = deviation**2
        self.levels: list[float] = []

    def __call__(self, u: Tensor, sigma: float) -> Tensor:
        self.levels.append(sigma)
        share = self.variance / (self.variance + sigma * sigma)
        return self.mean + share * (u - self.mean)

    def flow(self, u: Tensor, start: float) -> Tensor:
        """Carry `u` from level `start` to 0 along the probability flow, exactly."""
        deviation = math.sqrt(self.variance)
        shrink = deviation / math.sqrt(self.variance + start * start)
        return self.mean + shrink * (u - self.mean)


class Mixture:
    """Denoiser of a mixture of two Gaussians, component by component."""

    def __init__(self, weight: float, means: tuple[float, float], deviation: float):
        self.weights = torch.tensor([weight, 1 - weight], dtype=torch.float64)
        self.means = torch.tensor(means, dtype=torch.float64)
        self.variance = deviation**2

    def __call__(self, u: Tensor, sigma: float) -> Tensor:
        variance = self.variance + sigma * sigma
        low, high = self.means
        # Log odds of the upper component.
        odds = (self.weights[1] / self.weights[0]).log()
        odds = odds + ((u - low) ** 2 - (u - high) ** 2) / (2 * variance)
        mean = low + (high - low) * odds.sigmoid()
        return mean + self.variance / variance * (u - mean)


@pytest.fixture
def gaussian():
    return Gaussian


@pytest.fixture
def mixture():
    # Apart by six deviations: the two sides of 0 tell the components.
    return Mixture(0.3, (-1.2, 0.6), 0.3)


@pytest.fixture
def draw():
    """Draw noise of float64 for `count` molecules."""

    def make(draws: int, count: int, seed: int, atoms: int = 2) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return torch.randn(
            draws, count, atoms, 2, 3, generator=generator, dtype=torch.float64
        )

    return make

"""From noise to a sample of unit-variance residuals: one sampler a file."""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
from torch import Tensor

from openmm_diffmd.checks import one_of
from openmm_diffmd.diffusion.samplers.euler import sample_euler
from openmm_diffmd.diffusion.samplers.exponential import sample_exponential
from openmm_diffmd.diffusion.samplers.heun import sample_heun
from openmm_diffmd.diffusion.samplers.predictor_corrector import (
    sample_predictor_corrector,
)

Denoiser = Callable[[Tensor, float], Tensor]
SamplerName = Literal["exponential", "euler", "heun", "predictor_corrector"]

SAMPLERS: dict[str, Callable[[Denoiser, Tensor, Sequence[float]], Tensor]] = {
    "exponential": sample_exponential,
    "euler": sample_euler,
    "heun": sample_heun,
    "predictor_corrector": sample_predictor_corrector,
}
"""Samplers by name."""


def num_extra_draws(sampler: str, num_steps: int) -> int:
    """
    Count the noise draws a sampler needs beyond the initial one.

    Parameters
    ----------
    sampler : str
        Name of the sampler.
    num_steps : int
        Denoising steps K.

    Returns
    -------
    int
        Draws of the shape of the residual.
    """
    stochastic = sampler == "predictor_corrector"
    return 2 * max(num_steps - 1, 0) if stochastic else 0


def sample(
    sampler: str, denoiser: Denoiser, noise: Tensor, noise_levels: Sequence[float]
) -> Tensor:
    """
    Draw residuals by denoising.

    Parameters
    ----------
    sampler : str
        One of `SAMPLERS`.
    denoiser : callable
        D(u, sigma) for u of shape (n_molecules, n_atoms, 2, 3) and a float sigma.
    noise : Tensor, shape (1 + num_extra_draws, n_molecules, n_atoms, 2, 3)
        Unit Gaussian numbers, 0 on padding: the initial draw, then the sampler's.
    noise_levels : sequence of float
        Descending levels that end with 0.

    Returns
    -------
    Tensor, shape (n_molecules, n_atoms, 2, 3)
        Residuals.

    Raises
    ------
    ValueError
        If the sampler is unknown or the number of draws is not what it needs.
    """
    one_of(tuple(SAMPLERS), sampler=sampler)
    expected = 1 + num_extra_draws(sampler, len(noise_levels) - 1)
    if len(noise) != expected:
        raise ValueError(f"found {len(noise)} noise draws, expected {expected}")
    # Data of unit variance plus noise of variance sigma_max^2.
    start = math.sqrt(noise_levels[0] ** 2 + 1.0) * noise[:1]
    return SAMPLERS[sampler](denoiser, torch.cat([start, noise[1:]]), noise_levels)


def draw(
    sampler: str,
    denoise: Callable[[Tensor, Tensor], Tensor],
    species: Tensor,
    noise_levels: Sequence[float],
    generator: torch.Generator,
) -> Tensor:
    """
    Draw the noise of a batch, and residuals from it.

    Parameters
    ----------
    sampler : str
        One of `SAMPLERS`.
    denoise : callable
        D(u, sigma) for u of shape (B, A, 2, 3) and sigma of shape (B,).
    species : Tensor of int, shape (B, A)
        Index of each atom's element, -1 for padding.
    noise_levels : sequence of float
        Descending levels that end with 0.
    generator : torch.Generator
        Source of the noise, on the CPU.

    Returns
    -------
    Tensor, shape (B, A, 2, 3)
        Residuals.

    Raises
    ------
    ValueError
        If the sampler is unknown.
    """
    rows = 1 + num_extra_draws(sampler, len(noise_levels) - 1)
    noise = torch.randn((rows, *species.shape, 2, 3), generator=generator)
    real = (species >= 0)[:, :, None, None]

    def denoiser(u: Tensor, sigma: float) -> Tensor:
        return denoise(u, torch.full((len(species),), sigma))

    return sample(sampler, denoiser, real * noise, noise_levels)

"""Noise levels of sampling and of training."""

import torch
from torch import Tensor


def karras_noise_levels(
    num_steps: int, sigma_min: float, sigma_max: float, rho: float = 7.0
) -> list[float]:
    """
    Noise levels of the sampler, from `sigma_max` down to 0.

    Parameters
    ----------
    num_steps : int
        Denoising steps K.
    sigma_min, sigma_max : float
        Lowest positive and highest level.
    rho : float
        Exponent: larger puts more steps at low noise.

    Returns
    -------
    list of float, length num_steps + 1
        Descending levels; the last is 0. With one step it is [sigma_max, 0].

    Raises
    ------
    ValueError
        If `num_steps` is below 1 or the levels are not 0 < min <= max.

    Notes
    -----
    Karras et al., arXiv 2206.00364, eq. 5.
    """
    if num_steps < 1:
        raise ValueError(f"found num_steps {num_steps}, expected at least 1")
    if not 0.0 < sigma_min <= sigma_max:
        raise ValueError(
            f"found sigma_min {sigma_min}, sigma_max {sigma_max}; "
            "expected 0 < sigma_min <= sigma_max"
        )
    if num_steps == 1:
        return [sigma_max, 0.0]
    low, high = sigma_min ** (1 / rho), sigma_max ** (1 / rho)
    levels = [
        (high + index / (num_steps - 1) * (low - high)) ** rho
        for index in range(num_steps)
    ]
    return [*levels, 0.0]


def log_uniform_noise_levels(
    shape: tuple[int, ...],
    sigma_min: float,
    sigma_max: float,
    generator: torch.Generator | None = None,
) -> Tensor:
    """
    Draw noise levels for training, uniform in their logarithm.

    Parameters
    ----------
    shape : tuple of int
        Shape of the result.
    sigma_min, sigma_max : float
        Range of the levels.
    generator : torch.Generator, optional
        Source of random numbers.

    Returns
    -------
    Tensor, shape `shape`
        Noise levels.
    """
    uniform = torch.rand(shape, generator=generator)
    return sigma_min * (sigma_max / sigma_min) ** uniform

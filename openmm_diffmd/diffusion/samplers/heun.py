"""Heun sampler of the probability flow."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor


def sample_heun(
    denoiser: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    noise_levels: Sequence[float],
) -> Tensor:
    """
    Integrate the probability flow to second order; the last step is Euler's.

    Parameters
    ----------
    denoiser : callable
        D(u, sigma).
    noise : Tensor, shape (1, ...)
        The start, scaled to variance 1 + sigma_max^2.
    noise_levels : sequence of float
        Descending levels that end with 0.

    Returns
    -------
    Tensor
        The sample.

    Notes
    -----
    Karras et al., arXiv 2206.00364, algorithm 1. 2 K - 1 evaluations.
    """
    u = noise[0]
    for s, t in pairwise(noise_levels):
        slope = (u - denoiser(u, s)) / s
        following = u + (t - s) * slope
        if t > 0.0:
            slope = 0.5 * (slope + (following - denoiser(following, t)) / t)
            following = u + (t - s) * slope
        u = following
    return u

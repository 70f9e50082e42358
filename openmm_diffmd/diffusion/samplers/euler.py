"""Euler sampler of the probability flow."""

from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor


def sample_euler(
    denoiser: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    noise_levels: Sequence[float],
) -> Tensor:
    """
    Integrate the probability flow to first order: u <- u + (t - s)(u - D)/s.

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
    Karras et al., arXiv 2206.00364, eq. 1 with sigma(t) = t.
    """
    u = noise[0]
    for s, t in pairwise(noise_levels):
        u = u + (t - s) / s * (u - denoiser(u, s))
    return u

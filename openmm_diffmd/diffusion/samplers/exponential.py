"""Exponential sampler: exact where the conditional is a unit Gaussian about a mean."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor


def sample_exponential(
    denoiser: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    noise_levels: Sequence[float],
) -> Tensor:
    """
    Integrate the probability flow, exactly for N(mu, 1) where mu is constant.

    From level s to t: mu = ((1 + s^2) D - u)/s^2,
    u <- mu + (u - mu) sqrt((1 + t^2)/(1 + s^2)). One evaluation a step.

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
    Ours; for c = 1 the solution of Karras et al., arXiv 2206.00364, eq. 1 with
    sigma(t) = t and the Gaussian denoiser inserted.
    """
    u = noise[0]
    for s, t in pairwise(noise_levels):
        mean = ((1.0 + s * s) * denoiser(u, s) - u) / (s * s)
        u = mean + math.sqrt((1.0 + t * t) / (1.0 + s * s)) * (u - mean)
    return u

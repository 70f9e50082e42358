"""Predictor-corrector sampler: reverse diffusion and Langevin steps."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

from torch import Tensor

SIGNAL_TO_NOISE = 0.16


def sample_predictor_corrector(
    denoiser: Callable[[Tensor, float], Tensor],
    noise: Tensor,
    noise_levels: Sequence[float],
) -> Tensor:
    """
    Reverse-diffusion predictor, then one Langevin corrector at each level above 0.

    Parameters
    ----------
    denoiser : callable
        D(u, sigma).
    noise : Tensor, shape (2 K - 1, n_molecules, n_atoms, 2, 3)
        The start, scaled to variance 1 + sigma_max^2, then for each level above 0
        the predictor's and the corrector's unit Gaussian draws.
    noise_levels : sequence of float
        Descending levels that end with 0, K + 1 of them.

    Returns
    -------
    Tensor, shape (n_molecules, n_atoms, 2, 3)
        The sample.

    Notes
    -----
    Song et al., arXiv 2011.13456, algorithms 2 and 4 (variance exploding). They take
    the norms' mean over a batch; here each molecule has its own, so that a batch
    does not mix. The step then follows the state, which widens samples of d numbers
    a molecule: a Gaussian's variance by about (1 + 2/d)^2, 8 % for nine atoms.
    """
    u = noise[0]
    draw = 1
    for s, t in pairwise(noise_levels):
        drop = s * s - t * t
        u = u + drop / (s * s) * (denoiser(u, s) - u)
        if t > 0.0:
            u = u + math.sqrt(drop) * noise[draw]
            score = (denoiser(u, t) - u) / (t * t)
            z = noise[draw + 1]
            ratio = z.flatten(1).norm(dim=1) / score.flatten(1).norm(dim=1)
            step = 2.0 * (SIGNAL_TO_NOISE * ratio) ** 2
            step = step[:, None, None, None]
            u = u + step * score + (2.0 * step).sqrt() * z
            draw += 2
    return u

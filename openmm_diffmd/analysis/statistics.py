"""Standard errors of means of correlated series."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

WINDOW_FACTOR = 5.0
"""Correlation times after which the sum is cut (Sokal's automatic window)."""
MIN_BLOCKS = 64
"""Fewer blocks than this say nothing of what blocks have in common."""
MIN_SAMPLES = 20
"""Fewer independent samples than this do not know how far their mean is off."""


def autocovariance(series: Sequence[ArrayLike]) -> NDArray[np.float64]:
    """
    Autocovariance of several series about their common mean.

    Parameters
    ----------
    series : sequence of array_like, shape (n_frames,)
        Independent series of one observable; lengths may differ.

    Returns
    -------
    ndarray, shape (n_longest,)
        Mean over all pairs of frames `k` apart.
    """
    arrays = [np.asarray(s, dtype=np.float64) for s in series]
    longest = max(len(a) for a in arrays)
    mean = np.concatenate(arrays).mean()
    total, count = np.zeros(longest), np.zeros(longest)
    for a in arrays:
        n = len(a)
        spectrum = np.fft.rfft(a - mean, 2 * len(a))
        total[:n] += np.fft.irfft(np.abs(spectrum) ** 2, 2 * len(a))[:n]
        count[:n] += len(a) - np.arange(n)
    return total / count


def statistical_inefficiency(series: Sequence[ArrayLike]) -> float:
    r"""
    Frames per independent sample: n times the variance of the mean over the variance.

    For one time scale it is :math:`g = 1 + 2 \sum_k \rho_k`, the sum ending at the
    first lag W with W >= 5 tau(W), tau = g / 2. Where a quick oscillation hides a slow
    tail, as that of the energy of a vibration in its velocities, such a sum ends before
    the tail. It is therefore taken of the means of blocks of 1, 2, 4, ... frames too,
    as long as there are `MIN_BLOCKS` of them, and the largest is returned.

    Parameters
    ----------
    series : sequence of array_like, shape (n_frames,)
        Independent series of one observable.

    Returns
    -------
    float
        Between 1 and the number of frames.

    Notes
    -----
    Window: Madras and Sokal, J. Stat. Phys. 50, 109 (1988), appendix C. Bias of the
    sum, since the mean is the series' own: Wolff, Comput. Phys. Commun. 156, 143
    (2004), eq. 49. Blocks: Flyvbjerg and Petersen, J. Chem. Phys. 91, 461 (1989).
    """
    arrays = [np.asarray(s, dtype=np.float64) for s in series]
    n_frames = sum(map(len, arrays))
    variance = np.concatenate(arrays).var()
    if variance <= 0.0:
        return 1.0
    found, size = 1.0, 1
    blocks = arrays
    while size == 1 or sum(map(len, blocks)) >= MIN_BLOCKS:
        spread = np.concatenate(blocks).var() / variance
        found = max(found, size * spread * _windowed_sum(blocks))
        size *= 2
        blocks = [_block_means(a, size) for a in arrays if len(a) >= size]
    return float(min(found, n_frames))


def _block_means(values: NDArray[np.float64], size: int) -> NDArray[np.float64]:
    means: NDArray[np.float64] = (
        values[: len(values) // size * size].reshape(-1, size).mean(axis=1)
    )
    return means


def _windowed_sum(series: Sequence[NDArray[np.float64]]) -> float:
    c = autocovariance(series)
    if c[0] <= 0.0:
        return 0.0
    g = 2.0 * np.cumsum(c / c[0]) - 1.0
    enough = np.flatnonzero(np.arange(len(g)) >= WINDOW_FACTOR * 0.5 * g)
    window = int(enough[0]) if len(enough) else len(g) - 1
    return float(g[window] * (1.0 + (2 * window + 1) / sum(map(len, series))))


def mean_and_error(series: Sequence[ArrayLike]) -> tuple[float, float]:
    """
    Mean of correlated series and its standard error.

    Parameters
    ----------
    series : sequence of array_like, shape (n_frames,)
        Independent series of one observable.

    Returns
    -------
    mean, error : float
        The error is the standard deviation over the root of the number of
        independent samples, n / g; nan where these are fewer than `MIN_SAMPLES`.

    Notes
    -----
    Of series that keep means of their own (runs without a heat bath) it is up to a
    root of two too wide.
    """
    values = np.concatenate([np.asarray(s, dtype=np.float64) for s in series])
    samples = len(values) / statistical_inefficiency(series)
    error = values.std() / np.sqrt(samples) if samples >= MIN_SAMPLES else np.nan
    return float(values.mean()), float(error)

"""Standard errors of means of correlated series."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import ArrayLike, NDArray

WINDOW_FACTOR = 5.0
"""Correlation times after which the sum is cut (Sokal's automatic window)."""


def autocorrelation(
    series: Sequence[ArrayLike], max_lag: int | None = None
) -> NDArray[np.float64]:
    """
    Autocovariance of several series about their common mean.

    Parameters
    ----------
    series : sequence of array_like, shape (n_frames,)
        Independent series of one observable; lengths may differ.
    max_lag : int, optional
        Largest lag; the longest series less one unless given.

    Returns
    -------
    ndarray, shape (max_lag + 1,)
        Mean over all pairs of frames `k` apart.
    """
    arrays = [np.asarray(s, dtype=np.float64) for s in series]
    longest = max(len(a) for a in arrays)
    max_lag = longest - 1 if max_lag is None else min(max_lag, longest - 1)
    mean = np.concatenate(arrays).mean()
    total, count = np.zeros(max_lag + 1), np.zeros(max_lag + 1)
    for a in arrays:
        n = min(len(a), max_lag + 1)
        spectrum = np.fft.rfft(a - mean, 2 * len(a))
        total[:n] += np.fft.irfft(np.abs(spectrum) ** 2, 2 * len(a))[:n]
        count[:n] += len(a) - np.arange(n)
    return total / count


def statistical_inefficiency(series: Sequence[ArrayLike]) -> float:
    r"""
    Frames per independent sample: :math:`g = 1 + 2 \sum_k \rho_k`.

    Parameters
    ----------
    series : sequence of array_like, shape (n_frames,)
        Independent series of one observable.

    Returns
    -------
    float
        Between 1 and the length of the longest series.

    Notes
    -----
    The sum ends at the first lag W with W >= 5 tau(W), tau = g / 2 (Madras and
    Sokal, J. Stat. Phys. 50, 109 (1988), appendix C).
    """
    c = autocorrelation(series)
    if c[0] <= 0.0:
        return 1.0
    g = 2.0 * np.cumsum(c / c[0]) - 1.0
    enough = np.flatnonzero(np.arange(len(g)) >= WINDOW_FACTOR * 0.5 * g)
    return float(np.clip(g[enough[0] if len(enough) else -1], 1.0, len(c)))


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
        independent samples, n / g.
    """
    values = np.concatenate([np.asarray(s, dtype=np.float64) for s in series])
    g = statistical_inefficiency(series)
    return float(values.mean()), float(values.std() * np.sqrt(g / len(values)))

"""Power spectrum of the velocities."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.constants import speed_of_light
from scipy.signal import welch

from openmm_diffmd.analysis.ensemble import Ensemble

WAVENUMBER_PER_TERAHERTZ = 1e12 / speed_of_light / 100.0
"""1/cm per THz."""

SPECTRUM_WINDOW_PS = 2.56
"""Length of the spectrum's segments: 13 1/cm between its points."""


@dataclass(frozen=True)
class Spectrum:
    """
    Mass-weighted power spectrum of the velocities, of unit area.

    Attributes
    ----------
    wavenumbers : ndarray, shape (n,), 1/cm
        From 0 to the Nyquist limit; what lies above is folded below it.
    density : ndarray, shape (n,), cm
        Share of the kinetic energy per wavenumber.
    """

    wavenumbers: NDArray[np.float64]
    density: NDArray[np.float64]


def velocity_spectrum(
    ensemble: Ensemble, window: float = SPECTRUM_WINDOW_PS
) -> Spectrum | None:
    """
    Power spectrum of the velocities relative to the centre of mass.

    Welch's average over half-overlapping Hann windows of all replicas: the Fourier
    transform of the velocity autocorrelation.

    Parameters
    ----------
    ensemble : Ensemble
        Frames with velocities.
    window : float
        Length of a window, ps.

    Returns
    -------
    Spectrum or None
        None where no replica is as long as the window.

    Raises
    ------
    ValueError
        If the window is shorter than two frames.

    Notes
    -----
    Frames dt apart show wavenumbers up to 1/(2 c dt), 1668 1/cm for 10 fs;
    stretches above fold back. Compare spectra of one frame interval only.
    """
    n_window = round(window / ensemble.frame_interval)
    if n_window < 2:
        raise ValueError(
            f"found window_ps {window:g} for frames each {ensemble.frame_interval:g} "
            "ps, expected a window of two frames at least: give a longer window_ps"
        )
    total, weight = np.zeros(n_window // 2 + 1), 0
    frequencies = np.zeros_like(total)
    for v in ensemble.relative_velocities():
        if len(v) < n_window:
            continue
        frequencies, power = welch(
            v,
            fs=1.0 / ensemble.frame_interval,
            window="hann",
            nperseg=n_window,
            detrend=False,
            axis=0,
        )
        total += len(v) * np.einsum("a,fad->f", ensemble.masses, power)
        weight += len(v)
    if weight == 0:
        return None
    wavenumbers = WAVENUMBER_PER_TERAHERTZ * frequencies
    return Spectrum(wavenumbers, total / (total.sum() * wavenumbers[1]))


def spectrum_overlap(a: Spectrum, b: Spectrum) -> float:
    r"""
    Integrate the smaller of two spectra: :math:`\int \min(a, b) d\nu`.

    Parameters
    ----------
    a, b : Spectrum
        Spectra of one frame interval and window.

    Returns
    -------
    float
        1 is equal, 0 is disjoint.

    Raises
    ------
    ValueError
        If their wavenumbers differ.
    """
    if a.wavenumbers.shape != b.wavenumbers.shape or not np.allclose(
        a.wavenumbers, b.wavenumbers
    ):
        raise ValueError(
            "found spectra at different wavenumbers, expected one frame interval and "
            "one window"
        )
    return float(np.minimum(a.density, b.density).sum() * a.wavenumbers[1])

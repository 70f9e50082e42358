"""Errors of predicted frames: ADE and FDE of GeoTDM's protocol."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class DisplacementErrors:
    """
    Average and final displacement error of K sampled futures.

    Attributes
    ----------
    ade : float
        Mean over samples, atoms and frames of the distance to the true position.
    fde : float
        The same for the last frame alone.
    min_ade, min_fde : float
        The same for the best of the K samples of each case.
    """

    ade: float
    fde: float
    min_ade: float
    min_fde: float


def displacement_errors(
    samples: NDArray[np.floating], truth: NDArray[np.floating]
) -> DisplacementErrors:
    r"""
    ADE and FDE of predicted trajectories.

    :math:`ADE = < |x_{ti} - y_{ti}| >_{t,i}`, :math:`FDE = < |x_{Ti} - y_{Ti}| >_i`,
    both averaged over cases and samples.

    Parameters
    ----------
    samples : ndarray, shape (n_cases, n_samples, n_frames, n_atoms, 3)
        Predicted positions, in any unit.
    truth : ndarray, shape (n_cases, n_frames, n_atoms, 3)
        True positions, in the same unit.

    Returns
    -------
    DisplacementErrors
        In the unit of the positions.

    Raises
    ------
    ValueError
        If the shapes do not fit.

    Notes
    -----
    Han et al., Geometric Trajectory Diffusion Models, NeurIPS 2024, arXiv
    2410.13027: 10 frames in, 20 out, 5 fs apart, 5 samples, Angstrom.
    """
    if samples.ndim != 5 or (samples.shape[0], *samples.shape[2:]) != truth.shape:
        raise ValueError(
            f"found samples {samples.shape} and truth {truth.shape}, expected "
            "(n_cases, n_samples, n_frames, n_atoms, 3) and the same without n_samples"
        )
    distances = np.linalg.norm(
        samples.astype(np.float64) - truth[:, None], axis=-1
    ).mean(axis=-1)
    average, final = distances.mean(axis=-1), distances[..., -1]
    return DisplacementErrors(
        ade=float(average.mean()),
        fde=float(final.mean()),
        min_ade=float(average.min(axis=1).mean()),
        min_fde=float(final.min(axis=1).mean()),
    )

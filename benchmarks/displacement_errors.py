"""Errors of predicted frames: ADE and FDE of GeoTDM's protocol."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

PUBLISHED: Mapping[str, Mapping[str, tuple[float, float]]] = {
    "EGNN": {
        "aspirin": (0.267, 0.564),
        "benzene": (0.024, 0.042),
        "ethanol": (0.268, 0.401),
        "malonaldehyde": (0.393, 0.958),
        "naphthalene": (0.095, 0.133),
        "salicylic": (0.159, 0.348),
        "toluene": (0.207, 0.294),
        "uracil": (0.154, 0.282),
    },
    "EqMotion": {
        "aspirin": (0.185, 0.246),
        "benzene": (0.029, 0.043),
        "ethanol": (0.152, 0.247),
        "malonaldehyde": (0.155, 0.249),
        "naphthalene": (0.073, 0.092),
        "salicylic": (0.110, 0.151),
        "toluene": (0.097, 0.129),
        "uracil": (0.088, 0.116),
    },
    "GeoTDM": {
        "aspirin": (0.107, 0.193),
        "benzene": (0.023, 0.039),
        "ethanol": (0.115, 0.209),
        "malonaldehyde": (0.107, 0.176),
        "naphthalene": (0.064, 0.087),
        "salicylic": (0.083, 0.120),
        "toluene": (0.083, 0.121),
        "uracil": (0.074, 0.099),
    },
}
"""ADE and FDE on original MD17, Angstrom (GeoTDM's table 3): for no other data."""


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
    ade_error, fde_error : float
        Standard errors of `ade` and `fde`; nan for fewer than two independent cases.
    """

    ade: float
    fde: float
    min_ade: float
    min_fde: float
    ade_error: float
    fde_error: float


def displacement_errors(
    samples: NDArray[np.floating],
    truth: NDArray[np.floating],
    num_independent: float | None = None,
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
    num_independent : float, optional
        How many cases that do not overlap cover as much of the trajectory as these do,
        whose scatter decides the errors; the number of cases unless given.

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
    if num_independent is None:
        num_independent = len(samples)
    return DisplacementErrors(
        ade=float(average.mean()),
        fde=float(final.mean()),
        min_ade=float(average.min(axis=1).mean()),
        min_fde=float(final.min(axis=1).mean()),
        ade_error=_standard_error(average.mean(axis=1), num_independent),
        fde_error=_standard_error(final.mean(axis=1), num_independent),
    )


def _standard_error(values: NDArray[np.float64], num_independent: float) -> float:
    if num_independent < 2:
        return float("nan")
    return float(values.std(ddof=1) / np.sqrt(num_independent))

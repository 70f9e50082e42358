"""Controls that need no model: what any rollout has to beat."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.analysis.ensemble import Ensemble

FloatArray = NDArray[np.float64]


def starting_positions(ensemble: Ensemble, n_replicas: int) -> FloatArray:
    """
    Pick evenly spaced positions, the centre of mass at the origin.

    Parameters
    ----------
    ensemble : Ensemble
        The frames.
    n_replicas : int
        Frames to pick.

    Returns
    -------
    ndarray, shape (n_replicas, n_atoms, 3), nm
        The positions.

    Raises
    ------
    ValueError
        If `n_replicas` is less than 1.
    """
    return _evenly(ensemble.relative_positions(), n_replicas)


def starting_frames(
    ensemble: Ensemble, n_replicas: int
) -> tuple[FloatArray, FloatArray]:
    """
    Pick evenly spaced frames, the centre of mass at rest at the origin.

    Parameters
    ----------
    ensemble : Ensemble
        The reference, with velocities.
    n_replicas : int
        Frames to pick.

    Returns
    -------
    positions, velocities : ndarray, shape (n_replicas, n_atoms, 3), nm and nm/ps
        The frames.

    Raises
    ------
    ValueError
        If `n_replicas` is less than 1, or there are no velocities.
    """
    return (
        starting_positions(ensemble, n_replicas),
        _evenly(ensemble.relative_velocities(), n_replicas),
    )


def _evenly(parts: Sequence[FloatArray], n: int) -> FloatArray:
    if n < 1:
        raise ValueError(f"found {n} replicas, expected 1 or more")
    frames = np.concatenate(parts)
    return frames[np.linspace(0, len(frames) - 1, n).astype(int)]


def make_controls(
    ensemble: Ensemble, positions: FloatArray, velocities: FloatArray, n_frames: int
) -> dict[str, Ensemble]:
    """
    Continue starting frames without a model.

    Parameters
    ----------
    ensemble : Ensemble
        The reference, for topology and frame interval.
    positions, velocities : ndarray, shape (n_replicas, n_atoms, 3), nm and nm/ps
        Starting frames.
    n_frames : int
        Frames of each replica.

    Returns
    -------
    dict
        ``last frame``: positions and velocities stay as they are. ``constant
        velocity``: every atom goes straight on.
    """
    kept = list(np.repeat(velocities[:, None], n_frames, axis=1))
    times = ensemble.frame_interval * np.arange(1, n_frames + 1)[:, None, None]
    frozen = list(np.repeat(positions[:, None], n_frames, axis=1))
    moving = [x + times * v for x, v in zip(positions, velocities, strict=True)]
    return {
        "last frame": replace(ensemble, positions=frozen, velocities=kept),
        "constant velocity": replace(ensemble, positions=moving, velocities=kept),
    }

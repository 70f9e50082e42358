"""Whether velocities of a file from elsewhere belong to its positions and times."""

from pathlib import Path

import numpy as np

from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.units import FEMTOSECONDS_PER_PICOSECOND

SLOPES = ((2.0, 0.8, 1.25), (10.0, 0.5, 1.5), (np.inf, -np.inf, 1.5))
"""Frames at most so many fs apart, and least and largest slope of steps on velocities.
Runs of GFN2-xTB at 500 K have 1.01 to 1.04 up to 2 fs and 0.65 to 1.11 up to 10;
farther apart vibrations lose the relation, 0.0 to 0.7 from 20 fs on."""
NUM_FRAMES = 10_000
"""Frames from the start on that are looked at."""


def check_velocities(path: str | Path, trajectory: Trajectory) -> None:
    r"""
    Refuse velocities of another unit, or of other times, than the positions are.

    The slope of the steps between frames on what velocities let expect of them,
    :math:`\sum m \Delta x \cdot u / \sum m u^2` with :math:`u = \tau (v + v')/2`, is 1
    where frames are close.

    Parameters
    ----------
    path : path-like
        Where the frames are from, for the message.
    trajectory : Trajectory
        Frames; what has no velocities, or no two frames of one segment, passes.

    Raises
    ------
    ValueError
        If the slope is far from 1.
    """
    together = np.diff(trajectory.segments[:NUM_FRAMES]) == 0
    if trajectory.velocities is None or not together.any():
        return
    positions = trajectory.positions[:NUM_FRAMES].astype(np.float64)
    velocities = trajectory.velocities[:NUM_FRAMES].astype(np.float64)
    tau = np.diff(trajectory.times[:NUM_FRAMES].astype(np.float64))[together]
    steps = np.diff(positions, axis=0)[together]
    expected = 0.5 * (velocities[1:] + velocities[:-1])[together] * tau[:, None, None]
    square = np.einsum("a,tad->", trajectory.masses, expected**2)
    if square == 0:
        raise ValueError(
            f"found velocities of 0 in {path}, expected those of the frames: leave "
            "them out where they are not known"
        )
    slope = np.einsum("a,tad,tad->", trajectory.masses, steps, expected) / square
    interval = FEMTOSECONDS_PER_PICOSECOND * float(np.median(tau))
    least, most = next(limits for end, *limits in SLOPES if interval <= end * 1.001)
    if not least <= slope <= most:
        raise ValueError(
            f"found steps between frames of {path}, {interval:.4g} fs apart, that are "
            f"{slope:.3g} times what its velocities let expect, expected about 1: are "
            "velocities in the file's units (extxyz: momenta, in ASE's), of the same "
            "times as the positions, and is the time between frames right?"
        )

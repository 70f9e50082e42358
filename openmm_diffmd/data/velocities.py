"""Whether velocities of a file from elsewhere belong to its positions and times."""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.units import BOLTZMANN, FS_PER_PS

SLOPES = ((2.0, 0.8, 1.4), (5.0, 0.5, 1.5), (np.inf, -np.inf, 1.5))
"""Frames at most so many fs apart, and least and largest slope of steps on velocities.
Runs of GFN2-xTB at 500 K have 1.01 to 1.04 up to 2 fs and 1.01 to 1.11 up to 5; farther
apart stretches lose the relation: at 10 fs methane has 0.43, ethanol 0.66."""
TEMPERATURES_K = (10.0, 1e4)
"""Of velocities in any unit that a molecule may have in this one."""
ASK = "are velocities in the file's units (extxyz: momenta, in ASE's),"
NUM_FRAMES = 10_000
"""Frames from the start on that are looked at."""


def check_velocities(path: str | Path, trajectory: Trajectory) -> None:
    r"""
    Refuse velocities of another unit, or of other times, than the positions are.

    The slope of the steps between frames on what velocities let expect of them,
    :math:`\sum m \Delta x \cdot u / \sum m u^2` with :math:`u = \tau (v + v')/2`, is 1
    where frames are close. And the kinetic temperature about the centre of mass is that
    of a molecule.

    Parameters
    ----------
    path : path-like
        Where the frames are from, for the message.
    trajectory : Trajectory
        Frames; what has no velocities passes.

    Raises
    ------
    ValueError
        If the slope is far from 1, or no molecule is as hot or cold.
    """
    if trajectory.velocities is None:
        return
    masses = trajectory.masses.astype(np.float64)
    velocities = trajectory.velocities[:NUM_FRAMES].astype(np.float64)
    _check_temperature(path, masses, velocities)
    together = np.diff(trajectory.segments[:NUM_FRAMES]) == 0
    if not together.any():
        return
    positions = trajectory.positions[:NUM_FRAMES].astype(np.float64)
    tau = np.diff(trajectory.times[:NUM_FRAMES].astype(np.float64))[together]
    steps = np.diff(positions, axis=0)[together]
    expected = 0.5 * (velocities[1:] + velocities[:-1])[together] * tau[:, None, None]
    square = np.einsum("a,tad->", masses, expected**2)
    slope = np.einsum("a,tad,tad->", masses, steps, expected) / square
    interval = FS_PER_PS * float(np.median(tau))
    least, most = next(limits for end, *limits in SLOPES if interval <= end * 1.001)
    if not least <= slope <= most:
        raise ValueError(
            f"found steps between frames of {path}, {interval:.4g} fs apart, that are "
            f"{slope:.3g} times what its velocities let expect, expected about 1: "
            f"{ASK} of the same times as the positions, and is the time between frames "
            "right?"
        )


def _check_temperature(
    path: str | Path, masses: NDArray[np.float64], velocities: NDArray[np.float64]
) -> None:
    shares = masses / masses.sum()
    velocities = velocities - np.einsum("a,tad->td", shares, velocities)[:, None]
    twice = np.einsum("a,tad->t", masses, velocities**2).mean()
    temperature = twice / (3 * max(len(masses) - 1, 1) * BOLTZMANN)
    if not TEMPERATURES_K[0] <= temperature <= TEMPERATURES_K[1]:
        raise ValueError(
            f"found velocities of {temperature:.3g} K in {path}, expected "
            f"{TEMPERATURES_K[0]:g} to {TEMPERATURES_K[1]:g} K: {ASK} not left at 0?"
        )

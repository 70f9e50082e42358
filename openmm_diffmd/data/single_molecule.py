"""Frames of outside files, checked to be one molecule in one piece."""

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.elements import (
    bonds_from_radii,
    contact_distances,
    element_masses,
)

BROKEN = 1.8
"""A bond longer than this times the sum of covalent radii is not one."""


def single_molecule(
    path: str | Path,
    *,
    positions: NDArray[np.floating[Any]],
    atomic_numbers: NDArray[np.integer[Any]],
    **fields: Any,
) -> Trajectory:
    """
    Make a Trajectory with masses and bonds by element and distance.

    Parameters
    ----------
    path : path-like
        Where the frames are from, for messages.
    positions : ndarray, shape (n_frames, n_atoms, 3), nm
        Positions.
    atomic_numbers : ndarray of int, shape (n_atoms,)
        Atomic numbers.
    **fields
        The other fields of `Trajectory`.

    Returns
    -------
    Trajectory
        The frames.

    Raises
    ------
    ValueError
        If shapes disagree, a number is not finite, or the frames are of different
        molecules: a bond of most frames is far apart in one.
    """
    try:
        masses = element_masses(atomic_numbers)
        trajectory = Trajectory(
            positions=positions,
            atomic_numbers=atomic_numbers,
            masses=masses,
            bonds=bonds_from_radii(atomic_numbers, positions),
            **fields,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    first, second = trajectory.bonds.T
    lengths = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
    stretch = lengths / contact_distances(atomic_numbers, first, second)
    if (stretch > BROKEN).any():
        frame, bond = np.argwhere(stretch > BROKEN)[0]
        raise ValueError(
            f"{path}: atoms {first[bond]} and {second[bond]} are bonded in most frames "
            f"and {lengths[frame, bond]:.3f} nm apart in frame {frame}; expected "
            "frames of one molecule: split the file"
        )
    return trajectory

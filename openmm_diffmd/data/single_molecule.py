"""Frames of outside files, checked to be one molecule in one piece."""

from pathlib import Path
from typing import Any

import numpy as np
from ase.data import chemical_symbols
from numpy.typing import NDArray

from openmm_diffmd.bond_graphs import bond_graph, pieces
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.elements import (
    bonds_from_radii,
    contact_distances,
    element_masses,
)
from openmm_diffmd.units import ANGSTROM

BROKEN = 1.8
"""A bond longer than this times the sum of covalent radii is not one."""
SHORTEST = 0.05
"""Shorter distances, nm, are of no molecule: that of H2 is 0.074."""


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
        If shapes disagree, a number is not finite, atoms are too close or not all
        bonded to each other, as where positions have another unit, or the frames are of
        different molecules: a bond of most frames is far apart in one.
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
    check_positions(path, trajectory.positions[0])
    symbols = [chemical_symbols[number] for number in atomic_numbers]
    parts = pieces(bond_graph(symbols, trajectory.bonds.tolist()))
    if len(parts) > 1:
        raise ValueError(
            f"found {path} in {len(parts)} pieces, the smallest of atoms "
            f"{min(parts, key=len)}, expected one molecule, bonds by covalent radii: "
            "split the file, or convert positions that are not in Angstrom"
        )
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


def check_positions(path: str | Path, positions: NDArray[np.floating[Any]]) -> None:
    """
    Refuse positions that are not finite, or of atoms inside of each other.

    Parameters
    ----------
    path : path-like
        Where they are from.
    positions : ndarray, shape (n_atoms, 3), nm
        Of one frame.

    Raises
    ------
    ValueError
        If one is not finite, or two are closer than atoms ever are.
    """
    bad = np.flatnonzero(~np.isfinite(positions).all(axis=1))
    if len(bad):
        raise ValueError(
            f"{path} has atoms {bad.tolist()} at positions that are not finite, "
            "expected numbers"
        )
    distances = np.linalg.norm(positions[:, None] - positions, axis=-1)
    np.fill_diagonal(distances, np.inf)
    if distances.min() < SHORTEST:
        i, j = np.unravel_index(distances.argmin(), distances.shape)
        raise ValueError(
            f"{path} has atoms {i} and {j} {distances.min() / ANGSTROM:.3g} Angstrom "
            f"apart, expected at least {SHORTEST / ANGSTROM:g}: are the positions in "
            "Angstrom?"
        )

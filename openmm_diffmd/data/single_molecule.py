"""Frames of outside files, checked to be one molecule in one piece."""

from dataclasses import replace
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

FIRST_FRAMES = 20
"""From which bonds are taken where those of most frames leave pieces: of a run whose
molecule broke."""
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
    Make a Trajectory with masses by element, and bonds by element and distance.

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
        If shapes disagree, a number is not finite, or `as_molecule` refuses the frames.
    """
    try:
        trajectory = Trajectory(
            positions=positions,
            atomic_numbers=atomic_numbers,
            masses=element_masses(atomic_numbers),
            bonds=np.empty((0, 2), dtype=np.int64),
            **fields,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    return as_molecule(path, trajectory)


def as_molecule(path: str | Path, trajectory: Trajectory) -> Trajectory:
    """
    See that frames are of one molecule, and give them bonds where theirs do not do.

    Parameters
    ----------
    path : path-like
        Where the frames are from, for messages.
    trajectory : Trajectory
        The frames.

    Returns
    -------
    Trajectory
        The same, with bonds by distance unless its own leave no piece apart.

    Raises
    ------
    ValueError
        If atoms are too close or not all bonded to each other, as where positions have
        another unit.
    """
    check_positions(path, trajectory.positions[0])
    numbers, positions = trajectory.atomic_numbers, trajectory.positions
    symbols = [chemical_symbols[number] for number in numbers]
    for bonds in (
        trajectory.bonds,
        bonds_from_radii(numbers, positions),
        bonds_from_radii(numbers, positions[:FIRST_FRAMES]),
    ):
        parts = pieces(bond_graph(symbols, bonds.tolist()))
        lengths, contact = _lengths(positions[:1], numbers, bonds)
        if len(parts) == 1 and (lengths <= BROKEN * contact).all():
            return replace(trajectory, bonds=bonds)
    if len(parts) == 1:
        # `check_whole` says which bond it is.
        return replace(trajectory, bonds=bonds)
    raise ValueError(
        f"found {path} in {len(parts)} pieces, the smallest of atoms "
        f"{min(parts, key=len)}, expected one molecule, bonds by covalent radii: split "
        "the file, or convert positions that are not in Angstrom (HDF5, nanometers); "
        "the PDB beside a DCD has to have its atoms in its order"
    )


def check_whole(
    path: str | Path, trajectory: Trajectory, n_frames: int | None = None
) -> None:
    """
    Refuse frames in which a bond is far apart: of other molecules, or wrapped in a box.

    Parameters
    ----------
    path : path-like
        Where they are from, for the message.
    trajectory : Trajectory
        The frames.
    n_frames : int, optional
        How many of them, from the first on, are looked at; all unless given.

    Raises
    ------
    ValueError
        If there is such a frame.
    """
    numbers, positions = trajectory.atomic_numbers, trajectory.positions[:n_frames]
    first, second = trajectory.bonds.T
    lengths, contact = _lengths(positions, numbers, trajectory.bonds)
    apart = lengths > BROKEN * contact
    for frame in np.flatnonzero(apart.any(axis=1)):
        # A proton that went over is bonded still.
        if _is_connected(positions[frame], numbers):
            continue
        bond = np.flatnonzero(apart[frame])[0]
        raise ValueError(
            f"{path}: atoms {first[bond]} and {second[bond]} have a bond and are "
            f"{lengths[frame, bond]:.3f} nm apart in frame {frame}; expected frames of "
            "one molecule in one piece: split the file, or unwrap it"
        )


def _is_connected(
    positions: NDArray[np.floating[Any]], atomic_numbers: NDArray[np.integer[Any]]
) -> bool:
    """Whether no atom or group of atoms lies apart from the others."""
    pairs = np.stack(np.triu_indices(len(positions), k=1), axis=1)
    distances, contact = _lengths(positions[None], atomic_numbers, pairs)
    near = pairs[distances[0] < BROKEN * contact]
    symbols = [chemical_symbols[number] for number in atomic_numbers]
    return len(pieces(bond_graph(symbols, near.tolist()))) == 1


def _lengths(
    positions: NDArray[np.floating[Any]],
    atomic_numbers: NDArray[np.integer[Any]],
    pairs: NDArray[np.integer[Any]],
) -> tuple[NDArray[np.floating[Any]], NDArray[np.float64]]:
    """Distances of pairs in frames, and sums of their covalent radii, nm."""
    first, second = pairs.T
    lengths = np.linalg.norm(positions[:, first] - positions[:, second], axis=-1)
    return lengths, contact_distances(atomic_numbers, first, second)


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

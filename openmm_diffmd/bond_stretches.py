"""How fast bonds grow, and the mass that their stretch moves."""

import numpy as np
from numpy.typing import NDArray

STRETCH_WINDOW_PS = 0.2
"""Over which the energy of a stretch is averaged, ps: some twenty lags."""


def bond_stretches(
    positions: NDArray[np.float64],
    velocities: NDArray[np.float64],
    bonds: NDArray[np.int64],
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Lengths of bonds, and how fast they grow.

    Parameters
    ----------
    positions, velocities : ndarray, shape (n_frames, n_atoms, 3), nm and nm/ps
        Frames.
    bonds : ndarray of int, shape (n_bonds, 2)
        Atoms of each bond.

    Returns
    -------
    lengths, speeds : ndarray, shape (n_frames, n_bonds), nm and nm/ps
        Of each bond; a bond of no length has no speed.
    """
    first, second = bonds.T
    along = positions[:, second] - positions[:, first]
    lengths = np.linalg.norm(along, axis=-1)
    apart = velocities[:, second] - velocities[:, first]
    projected = np.einsum("tbd,tbd->tb", apart, along)
    speeds = np.divide(
        projected, lengths, out=np.zeros_like(lengths), where=lengths > 0
    )
    return lengths, speeds


def reduced_masses(
    masses: NDArray[np.float64], bonds: NDArray[np.int64]
) -> NDArray[np.float64]:
    """
    Reduced masses of the two atoms of bonds.

    Parameters
    ----------
    masses : ndarray, shape (n_atoms,), Da
        Masses.
    bonds : ndarray of int, shape (n_bonds, 2)
        Atoms of each bond.

    Returns
    -------
    ndarray, shape (n_bonds,), Da
        Of each bond.
    """
    first, second = masses[bonds].T
    return np.asarray(first * second / (first + second))

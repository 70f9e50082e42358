"""What follows from the elements of a molecule: masses, and bonds by distance."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase.data import covalent_radii
from ase.formula import Formula
from mdtraj.core.element import Element
from numpy.typing import NDArray

from openmm_diffmd.units import ANGSTROM

BOND_TOLERANCE = 1.15
"""Atoms closer than this times the sum of their covalent radii are bonded."""
LONGEST_BOND = 1.5
"""Times the sum of its covalent radii: longer ones are of no molecule at rest."""
PROTON_ACCEPTORS = frozenset({"N", "O", "F", "S", "Cl"})
"""Elements that may come as close to the hydrogen of another one as their own."""
APPROACH = 0.03
"""nm below a reference's closest atoms that chance does not reach: closest atoms of
runs of up to 19 ns are at most 0.02 below those of references of 100 ps and more."""
BREAK_DEVIATION = 0.05
"""A bond this far from its mean is broken, nm (MDsim: 0.5 Angstrom)."""

HEAVIEST = 111
"""Highest atomic number that OpenMM has a mass and today's symbol for."""
MASS_TOLERANCE = 5e-3
"""Of an element's mass; the integrator's is the same."""


def formula_of(symbols: Sequence[str]) -> str:
    """
    Write a molecule as its formula.

    Parameters
    ----------
    symbols : sequence of str
        Its atoms.

    Returns
    -------
    str
        In the order of Hill, such as ``C2H6O``.
    """
    return str(Formula.from_list(list(symbols)).format("hill"))


def pair_name(first: str, second: str) -> str:
    """
    Name two elements, whatever their order, as model files and tables do.

    Parameters
    ----------
    first, second : str
        Symbols.

    Returns
    -------
    str
        Such as ``C-H``.
    """
    return "-".join(sorted((first, second)))


def element_masses(atomic_numbers: Iterable[int]) -> NDArray[np.float64]:
    """
    Look up masses, the same as in OpenMM's element table.

    Parameters
    ----------
    atomic_numbers : iterable of int
        Atomic numbers.

    Returns
    -------
    ndarray, shape (n_atoms,), Da
        Masses.

    Raises
    ------
    ValueError
        If a number is not an element's.
    """
    numbers = [int(number) for number in atomic_numbers]
    for number in numbers:
        if not 1 <= number <= HEAVIEST:
            raise ValueError(
                f"found atomic number {number}, expected an element's, 1 to {HEAVIEST}"
            )
    return np.array([Element.getByAtomicNumber(number).mass for number in numbers])


def check_element_masses(
    source: str | Path,
    atomic_numbers: NDArray[np.integer[Any]],
    masses: NDArray[np.floating[Any]],
    advice: str = "make the System without hydrogen mass repartitioning or isotopes",
) -> None:
    """
    Refuse masses that are not the elements'.

    Parameters
    ----------
    source : str or path-like
        Where they are from, for the message.
    atomic_numbers : ndarray of int, shape (n_atoms,)
        Atomic numbers.
    masses : ndarray, shape (n_atoms,), Da
        Masses.
    advice : str
        What to do about it, for the message.

    Raises
    ------
    ValueError
        If one is off by more than `MASS_TOLERANCE` of it.
    """
    expected = element_masses(atomic_numbers)
    wrong = np.flatnonzero(np.abs(masses - expected) > MASS_TOLERANCE * expected)
    if len(wrong):
        first = wrong[0]
        raise ValueError(
            f"found mass {masses[first]:g} Da of atom {first} in {source}, expected "
            f"{expected[first]:g} Da as its element has, which models are run and "
            f"rollouts are measured with: {advice}"
        )


def bonds_from_radii(
    atomic_numbers: NDArray[np.integer[Any]], positions: NDArray[np.floating[Any]]
) -> NDArray[np.int64]:
    """
    Find the bonds of a molecule from the typical distances of its atoms.

    Parameters
    ----------
    atomic_numbers : ndarray of int, shape (n_atoms,)
        Atomic numbers.
    positions : ndarray, shape (n_frames, n_atoms, 3), nm
        Frames; the median distance over some 200 of them counts, so that a
        stretched bond in one frame is still a bond.

    Returns
    -------
    ndarray of int, shape (n_bonds, 2)
        Bonded pairs, lower index first, in order.
    """
    first, second = np.triu_indices(len(atomic_numbers), k=1)
    some = positions[:: max(1, len(positions) // 200)]
    distances = np.linalg.norm(some[:, first] - some[:, second], axis=-1)
    bonded = np.median(distances, axis=0) < BOND_TOLERANCE * contact_distances(
        atomic_numbers, first, second
    )
    return np.stack([first[bonded], second[bonded]], axis=1)


def contact_distances(
    atomic_numbers: NDArray[np.integer[Any]],
    first: NDArray[np.integer[Any]],
    second: NDArray[np.integer[Any]],
) -> NDArray[np.float64]:
    """
    Add up the covalent radii of pairs of atoms.

    Parameters
    ----------
    atomic_numbers : ndarray of int, shape (n_atoms,)
        Atomic numbers.
    first, second : ndarray of int, shape (n_pairs,)
        The pairs.

    Returns
    -------
    ndarray, shape (n_pairs,), nm
        Sums of radii (Cordero et al. 2008, as in ASE).
    """
    radii = ANGSTROM * covalent_radii[np.asarray(atomic_numbers)]
    return np.asarray(radii[first] + radii[second])

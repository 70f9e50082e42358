"""What a drawn frame must not be."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.integrator.molecules import MoleculeSet


@dataclass(frozen=True)
class Refusal:
    """
    What the guards found in a draw that they refused.

    Attributes
    ----------
    lag : int
        Lags done before it.
    molecule : int
        Index of the molecule.
    quantity : {"finite", "bond_length", "contact_distance", "kinetic_energy"}
        What was looked at.
    atoms : tuple of int
        The particle that is not finite, the two of the bond or that are too close, or
        all of the molecule.
    values : tuple of float
        Position (nm) and velocity (nm/ps) of the particle, 6 numbers; length of the
        bond, or distance (nm); or kinetic energy (kJ/mol).
    expected : tuple of float
        Least and largest value expected, in its unit; both 0 for ``finite``, the
        second infinite for ``contact_distance``.
    message : str
        All of it in words.
    """

    lag: int
    molecule: int
    quantity: str
    atoms: tuple[int, ...]
    values: tuple[float, ...]
    expected: tuple[float, float]
    message: str


class LagRefusedError(RuntimeError):
    """
    A lag of which every draw was refused.

    Parameters
    ----------
    lag : int
        Number of the lag.
    molecule : int
        Index of the molecule.
    fault : str
        What is wrong with the last draw.
    num_draws : int
        Draws refused.

    Attributes
    ----------
    lag, molecule : int
        The same.
    """

    def __init__(self, lag: int, molecule: int, fault: str, num_draws: int) -> None:
        self.lag, self.molecule = lag, molecule
        advice = (
            "start from a relaxed geometry, lower the temperature, or use a model "
            "trained on such states"
        )
        if lag == 0:
            advice = (
                "check the start: positions in nm of the topology's atoms, in its "
                "order, of a relaxed geometry, and velocities in nm/ps"
            )
        super().__init__(
            f"lag {lag}, molecule {molecule}: {fault}, after {num_draws} draws; "
            f"{advice}"
        )


def find_fault(
    molecules: MoleculeSet,
    molecule: int,
    positions: NDArray[np.float64],
    velocities: NDArray[np.float64],
    max_kT: float,
) -> str:
    """
    Say what is wrong with a drawn frame of one molecule.

    Parameters
    ----------
    molecules : MoleculeSet
        All molecules.
    molecule : int
        The one to look at.
    positions : ndarray, shape (n_particles, 3), nm
        Positions of all particles.
    velocities : ndarray, shape (n_particles, 3), nm/ps
        Velocities of all particles.
    max_kT : float
        kT of the hotter of the heat bath and the training data, kJ/mol.

    Returns
    -------
    str
        What was found and expected; empty if nothing is wrong.
    """
    atoms = np.flatnonzero(molecules.molecules == molecule)
    finite = np.isfinite(positions[atoms]) & np.isfinite(velocities[atoms])
    for atom in atoms[~finite.all(1)]:
        return (
            f"atom {atom} has position {positions[atom]} nm and velocity "
            f"{velocities[atom]} nm/ps, expected finite numbers"
        )
    inside = molecules.molecules[molecules.bonds[:, 0]] == molecule
    bonds, ranges = molecules.bonds[inside], molecules.bond_ranges[inside]
    difference = positions[bonds[:, 0]] - positions[bonds[:, 1]]
    lengths = np.linalg.norm(difference, axis=1)
    for (i, j), length, (low, high) in zip(bonds, lengths, ranges, strict=True):
        if not low <= length <= high:
            return (
                f"the bond between atoms {i} and {j} is {length:.6g} nm long, expected "
                f"{low:g} to {high:g} nm"
            )
    first, second = (atoms[of_pair] for of_pair in np.triu_indices(len(atoms), k=1))
    apart = np.linalg.norm(positions[first] - positions[second], axis=1)
    limits = molecules.contact_limits[
        molecules.species[first], molecules.species[second]
    ]
    bonded = {frozenset(bond) for bond in bonds.tolist()}
    # Without bonds no atoms are known to have none.
    for pair in np.flatnonzero((apart < limits) & (len(bonds) > 0)):
        i, j = int(first[pair]), int(second[pair])
        if frozenset((i, j)) not in bonded:
            return (
                f"atoms {i} and {j}, which have no bond, are {apart[pair]:.6g} nm "
                f"apart, expected at least {limits[pair]:g} nm"
            )
    squared = (velocities[atoms] ** 2).sum(1)
    kinetic_energy = 0.5 * float(molecules.masses[atoms] @ squared)
    bound = 0.5 * max_kT * float(molecules.kinetic_energy_quantiles[molecule])
    if kinetic_energy > bound:
        return (
            f"the kinetic energy of atoms {atoms[0]} to {atoms[-1]} is "
            f"{kinetic_energy:.6g} kJ/mol, expected at most {bound:.6g} kJ/mol"
        )
    return ""

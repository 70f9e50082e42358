"""From a topology to what the model and its guards must know about the molecules."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from openmm import app, unit
from scipy import stats

from openmm_diffmd.export.metadata import ModelMetadata

KINETIC_ENERGY_TAIL = 1e-12
"""Probability of a kinetic energy beyond its bound, in equilibrium."""


@dataclass(frozen=True)
class MoleculeSet:
    """
    Particles, and the molecules they form.

    Attributes
    ----------
    species : ndarray of int, shape (n_particles,)
        Index of each particle's element in the model.
    masses : ndarray, shape (n_particles,), Da
        Mass of each particle's element.
    molecules : ndarray of int, shape (n_particles,)
        Index of each particle's molecule, in order of first appearance.
    bonds : ndarray of int, shape (n_bonds, 2)
        Particles of each bond.
    bond_ranges : ndarray, shape (n_bonds, 2), nm
        Lengths each bond may have.
    kinetic_energy_quantiles : ndarray, shape (n_molecules,)
        Largest kinetic energy of each molecule, in units of kT/2.
    """

    species: NDArray[np.int64]
    masses: NDArray[np.float64]
    molecules: NDArray[np.int64]
    bonds: NDArray[np.int64]
    bond_ranges: NDArray[np.float64]
    kinetic_energy_quantiles: NDArray[np.float64]

    @property
    def num_molecules(self) -> int:
        """Number of molecules."""
        return len(self.kinetic_energy_quantiles)


def check_topology(topology: app.Topology) -> None:
    """
    Refuse what is given in place of a topology.

    Parameters
    ----------
    topology : openmm.app.Topology
        The topology.

    Raises
    ------
    TypeError
        If it is something else: positions, say, or a Modeller.
    """
    if not isinstance(topology, app.Topology):
        raise TypeError(
            f"found a {type(topology).__name__} as the topology, expected an "
            "openmm.app.Topology: of a PDBFile, Modeller or Simulation give its "
            ".topology; model.example() gives topology, positions"
        )


def describe_molecules(
    topology: app.Topology,
    metadata: ModelMetadata,
    molecules: Sequence[int] | NDArray[np.int64] | None = None,
) -> MoleculeSet:
    """
    Describe a topology in the model's terms.

    Parameters
    ----------
    topology : openmm.app.Topology
        Atoms and bonds.
    metadata : ModelMetadata
        What the model knows.
    molecules : sequence of int, shape (n_atoms,), optional
        Molecule id of each atom; atoms of different ids do not see each other. By
        default all atoms form one molecule.

    Returns
    -------
    MoleculeSet
        The description.

    Warns
    -----
    UserWarning
        If molecules of several atoms have no bond.

    Raises
    ------
    ValueError
        If the model does not know an element or a bond, the number of ids is not the
        number of atoms, a bond joins two molecules, or there are no ids for several
        chains of the same atoms.
    """
    check_topology(topology)
    atoms = list(topology.atoms())
    if not atoms:
        raise ValueError("found a topology without atoms, expected at least one")
    symbols = [atom.element.symbol if atom.element else "none" for atom in atoms]
    unknown = sorted(set(symbols) - set(metadata.elements))
    if unknown:
        raise ValueError(
            f"found element {', '.join(unknown)}, expected one of "
            f"{', '.join(metadata.elements)}, which model {metadata.name!r} was "
            "trained on; use a model trained on these elements"
        )
    ids = np.zeros(len(atoms), np.int64) if molecules is None else np.array(molecules)
    if ids.shape != (len(atoms),):
        raise ValueError(
            f"found molecule ids of shape {ids.shape}, expected ({len(atoms)},): "
            "one for each atom of the topology"
        )
    if molecules is None:
        _check_one_molecule(topology)
    _, first, inverse = np.unique(ids, return_index=True, return_inverse=True)
    order = np.argsort(np.argsort(first))
    indices = order[inverse].astype(np.int64)
    bonds = np.array(
        [(bond.atom1.index, bond.atom2.index) for bond in topology.bonds()], np.int64
    ).reshape(-1, 2)
    for i, j in bonds:
        if indices[i] != indices[j]:
            raise ValueError(
                f"found a bond between atoms {i} and {j} of molecules {ids[i]} and "
                f"{ids[j]}, expected one molecule; give bonded atoms the same id"
            )
    if len(bonds) == 0 and len(atoms) > indices.max() + 1:
        warnings.warn(
            f"found {len(atoms)} atoms and no bond, expected the bonds that the guards "
            "are to watch: they now see kinetic energies only; give a topology with "
            "bonds, of a PDB file with CONECT records say",
            stacklevel=3,
        )
    ranges = [metadata.bond_range(symbols[i], symbols[j]) for i, j in bonds]
    sizes = np.bincount(indices)
    # One quantile for each size: replicas are many, sizes few.
    quantile = {
        size: stats.chi2.isf(KINETIC_ENERGY_TAIL, 3 * size) for size in np.unique(sizes)
    }
    return MoleculeSet(
        species=np.array([metadata.elements.index(s) for s in symbols], np.int64),
        masses=np.array([a.element.mass.value_in_unit(unit.dalton) for a in atoms]),
        molecules=indices,
        bonds=bonds,
        bond_ranges=np.array(ranges, np.float64).reshape(-1, 2),
        kinetic_energy_quantiles=np.array([quantile[size] for size in sizes]),
    )


def _check_one_molecule(topology: app.Topology) -> None:
    """Refuse replicas that would pass for one molecule, atoms on top of each other."""
    chains = [[atom.element for atom in chain.atoms()] for chain in topology.chains()]
    if len(chains) > 1 and all(chain == chains[0] for chain in chains):
        raise ValueError(
            f"found {len(chains)} chains of the same atoms without molecule ids, "
            "expected an id for each atom: give molecules=replicas.molecules of "
            "replicate, or the same id to all that are one molecule"
        )

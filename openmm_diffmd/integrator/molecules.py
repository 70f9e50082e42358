"""From a topology to what the model and its guards must know about the molecules."""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import networkx as nx
import numpy as np
from numpy.typing import NDArray
from openmm import app, unit
from scipy import stats

from openmm_diffmd.bond_graphs import bond_graph, is_same_molecule
from openmm_diffmd.elements import formula_of
from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.reference.molecules import load_molecule, molecule_names

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
    contact_limits : ndarray, shape (n_elements, n_elements), nm
        What atoms of two of the model's elements keep that are not bonded; 0 if they
        may come as close as they like. Not of a molecule without any bond: its bonds
        are then unknown.
    kinetic_energy_quantiles : ndarray, shape (n_molecules,)
        Largest kinetic energy of each molecule, in units of kT/2.
    """

    species: NDArray[np.int64]
    masses: NDArray[np.float64]
    molecules: NDArray[np.int64]
    bonds: NDArray[np.int64]
    bond_ranges: NDArray[np.float64]
    contact_limits: NDArray[np.float64]
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
        If molecules of several atoms have no bond, or one has other bonds than all
        that the model was trained on.

    Raises
    ------
    ValueError
        If the model does not know an element or a bond, the number of ids is not the
        number of atoms, a bond joins two molecules, or there are no ids for several
        pieces without bonds between them.
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
    ranges = [metadata.bond_range(symbols[i], symbols[j]) for i, j in bonds]
    graph = bond_graph(symbols, bonds.tolist())
    unseen, known = _unseen_molecules(graph, indices, metadata)
    if unseen and molecules is None:
        _check_one_molecule(graph, topology.getNumChains())
    sizes = np.bincount(indices)
    has_bonds = np.isin(np.arange(len(sizes)), indices[bonds])
    unwatched = int(np.sum((sizes > 1) & ~has_bonds))
    if unwatched:
        warnings.warn(
            f"found {unwatched} of {len(sizes)} molecules without a bond, expected "
            "the bonds that the guards are to watch: there they now see kinetic "
            "energies only; give a topology with bonds, as "
            "openmm_diffmd.load_molecule makes of an xyz or pdb file",
            stacklevel=3,
        )
    formulas = {formulas_of([one]) for one in known}
    # Of those without a bond that was told.
    unseen = [
        one
        for one in unseen
        if one.number_of_edges() or formulas_of([one]) not in formulas
    ]
    if unseen and known:
        warnings.warn(
            f"found {formulas_of(unseen)}, bonded as no molecule that model "
            f"{metadata.name!r} was trained on ({formulas_of(known)}), expected one of "
            "them: what it draws of another is extrapolated and may be wrong without a "
            "redraw; use a model trained on this molecule",
            stacklevel=3,
        )
    contact_limits = np.array(
        [
            [metadata.contact_limit(a, b) for a in metadata.elements]
            for b in metadata.elements
        ]
    )
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
        contact_limits=contact_limits,
        kinetic_energy_quantiles=np.array([quantile[size] for size in sizes]),
    )


def _check_one_molecule(graph: nx.Graph, n_chains: int) -> None:
    """Refuse several molecules that would pass for one: they would see each other."""
    bonded = graph.number_of_edges() > 0
    n_pieces = nx.number_connected_components(graph) if bonded else n_chains
    if n_pieces > 1:
        raise ValueError(
            f"found {n_pieces} pieces without bonds between them and without molecule "
            "ids, expected an id for each atom: add the bond that the topology lacks, "
            "or give molecules=replicas.molecules of replicate, or the same id to all "
            "that are one molecule"
        )


def _unseen_molecules(
    graph: nx.Graph, indices: NDArray[np.int64], metadata: ModelMetadata
) -> tuple[list[nx.Graph], list[nx.Graph]]:
    """List the molecules that a model was not trained on, and those that it was."""
    known = trained_molecules(metadata)
    return [
        found
        for found in _distinct_molecules(graph, indices)
        if not any(is_same_molecule(found, other) for other in known)
    ], known


def _distinct_molecules(graph: nx.Graph, indices: NDArray[np.int64]) -> list[nx.Graph]:
    """List the molecules of a System, replicas once."""
    ends = np.cumsum(np.bincount(indices))
    found = {}
    for atoms in np.split(np.argsort(indices, kind="stable"), ends[:-1]):
        one = nx.convert_node_labels_to_integers(graph.subgraph(atoms), 0, "sorted")
        symbols = tuple(symbol for _, symbol in sorted(one.nodes(data="element")))
        found[symbols, frozenset(map(frozenset, one.edges))] = one
    return list(found.values())


def trained_molecules(metadata: ModelMetadata) -> list[nx.Graph]:
    """
    List the molecules that a model was trained on.

    Parameters
    ----------
    metadata : ModelMetadata
        What the model says about itself.

    Returns
    -------
    list of networkx.Graph
        Of `bond_graph`; none where it does not say.
    """
    graphs = []
    for file in metadata.reference.get("data", []):
        # Files of before say the name only.
        name = Path(str(file.get("provenance", {}).get("molecule", ""))).stem
        if "bonds" in file:
            graphs.append(bond_graph(file["elements"], file["bonds"]))
        elif name.lower() in molecule_names():
            topology, _ = load_molecule(name)
            symbols = [atom.element.symbol for atom in topology.atoms()]
            bonds = ((a.index, b.index) for a, b in topology.bonds())
            graphs.append(bond_graph(symbols, bonds))
        else:
            return []
    if metadata.example:
        graphs.append(
            bond_graph(metadata.example["elements"], metadata.example["bonds"])
        )
    distinct: list[nx.Graph] = []
    for graph in graphs:
        if not any(is_same_molecule(graph, other) for other in distinct):
            distinct.append(graph)
    return distinct


def formulas_of(graphs: list[nx.Graph]) -> str:
    """
    List the formulas of molecules, isomers once.

    Parameters
    ----------
    graphs : list of networkx.Graph
        Of `bond_graph`.

    Returns
    -------
    str
        Formulas, with commas between.
    """
    formulas = (formula_of([s for _, s in g.nodes(data="element")]) for g in graphs)
    return ", ".join(dict.fromkeys(formulas))

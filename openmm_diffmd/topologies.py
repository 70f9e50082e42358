"""The topology of one molecule of known elements and bonds."""

from collections.abc import Iterable, Sequence

import mdtraj


def make_topology(
    symbols: Sequence[str], bonds: Iterable[Sequence[int]]
) -> mdtraj.Topology:
    """
    Make the topology of one molecule.

    Parameters
    ----------
    symbols : sequence of str
        Element of each atom.
    bonds : iterable of (int, int)
        Pairs of bonded atoms.

    Returns
    -------
    mdtraj.Topology
        One chain, one residue, ``MOL``, number 1: by the first letters of its own name
        aspirin would be ASP, an amino acid, whose bonds PDB files leave out. Atoms are
        called by element and number, from 1. `to_openmm` makes OpenMM's of it.

    Raises
    ------
    KeyError
        If there is no such element.
    """
    topology = mdtraj.Topology()
    residue = topology.add_residue("MOL", topology.add_chain(), resSeq=1)
    for index, symbol in enumerate(symbols):
        element = mdtraj.element.Element.getBySymbol(symbol)
        topology.add_atom(f"{symbol}{index + 1}", element, residue)
    for first, second in bonds:
        topology.add_bond(topology.atom(int(first)), topology.atom(int(second)))
    return topology

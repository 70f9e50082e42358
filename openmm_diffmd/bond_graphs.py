"""Molecules as graphs: which atoms are bonded, whatever their order."""

from collections.abc import Iterable, Sequence

import networkx as nx


def bond_graph(symbols: Sequence[str], bonds: Iterable[Iterable[int]]) -> nx.Graph:
    """
    Make the graph of a molecule's bonds.

    Parameters
    ----------
    symbols : sequence of str, shape (n_atoms,)
        Element of each atom.
    bonds : iterable of pairs of int
        Atoms of each bond.

    Returns
    -------
    networkx.Graph
        Atoms by their index, with their ``element``.
    """
    graph = nx.Graph()
    for index, symbol in enumerate(symbols):
        graph.add_node(index, element=symbol)
    graph.add_edges_from(tuple(bond) for bond in bonds)
    return graph


def is_same_molecule(first: nx.Graph, second: nx.Graph) -> bool:
    """
    Tell whether two graphs are the same molecule, atoms in any order.

    Parameters
    ----------
    first, second : networkx.Graph
        Of `bond_graph`.

    Returns
    -------
    bool
        True if the atoms of one can be named as those of the other; mirror images
        are the same.
    """
    return bool(
        nx.is_isomorphic(
            first, second, node_match=lambda a, b: a["element"] == b["element"]
        )
    )


def match_atoms(first: nx.Graph, second: nx.Graph) -> list[int] | None:
    """
    Find the atoms of one graph in another of the same molecule.

    Parameters
    ----------
    first, second : networkx.Graph
        Of `bond_graph`.

    Returns
    -------
    list of int or None
        For each atom of `second` one of `first`, of the same element and with the same
        bonds, one way of all that symmetry leaves; None if they are no same molecule.
    """
    found = nx.vf2pp_isomorphism(second, first, node_label="element")
    return None if found is None else [found[atom] for atom in range(len(second))]


def pieces(graph: nx.Graph) -> list[list[int]]:
    """
    List the atoms of each piece that no bond joins to the others.

    Parameters
    ----------
    graph : networkx.Graph
        Of bonds.

    Returns
    -------
    list of list of int
        Atoms in order; one list where all hang together.
    """
    return [sorted(piece) for piece in nx.connected_components(graph)]

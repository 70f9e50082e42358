"""Groups of a molecule that turn, and protons that may move over, from its bonds."""

from dataclasses import dataclass

import mdtraj
import networkx as nx
import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.bond_graphs import bond_graph
from openmm_diffmd.units import BOLTZMANN

RING_BONDS = 4
"""Bonds between donor and acceptor whose hydrogen bond closes a ring of six."""


@dataclass(frozen=True)
class Rotor:
    """
    A group that turns about the one bond that holds it.

    Attributes
    ----------
    kind : str
        ``methyl``, ``hydroxyl`` or ``formyl``.
    torsions : ndarray of int, shape (n_torsions, 4)
        The torsion that is watched; the three of a methyl group's hydrogens.
    n_basins : int
        Basins of one turn.
    first_basin : float
        Middle of one of them, rad; the others follow evenly.
    """

    kind: str
    torsions: NDArray[np.int64]
    n_basins: int
    first_basin: float

    def angle(self, frames: mdtraj.Trajectory) -> NDArray[np.float64]:
        """
        Measure how far the group is turned.

        Parameters
        ----------
        frames : mdtraj.Trajectory
            Frames of the molecule.

        Returns
        -------
        ndarray, shape (n_frames,), rad
            The torsion. Of a methyl group the mean of its three, each turned back by
            where it stands in the group: a vibration of one hydrogen is no turn.
        """
        values = mdtraj.compute_dihedrals(frames, self.torsions).astype(np.float64)
        # Hydrogens keep their order about the axis; the first frame tells it.
        order = np.round((values[0] - values[0, 0]) / (2.0 * np.pi / values.shape[1]))
        turned = values - order * (2.0 * np.pi / values.shape[1])
        return np.asarray(np.angle(np.exp(1j * turned).mean(axis=1)))

    def temperature(
        self,
        positions: NDArray[np.floating],
        velocities: NDArray[np.floating],
        masses: NDArray[np.floating],
    ) -> NDArray[np.float64]:
        r"""
        Measure the kinetic energy of the turn.

        :math:`\dot\phi^2 / (k \sum_i |\nabla_i \phi|^2 / m_i)`, with :math:`\phi` the
        mean of the group's torsions. Its mean in equilibrium is T, whatever the
        potential, as velocities do not depend on positions.

        Parameters
        ----------
        positions, velocities : ndarray, shape (n_frames, n_atoms, 3), nm and nm/ps
            Frames of the molecule.
        masses : ndarray, shape (n_atoms,), Da
            Masses.

        Returns
        -------
        ndarray, shape (n_frames,), K
            Of each frame.
        """
        x = np.asarray(positions, dtype=np.float64)
        gradient = np.zeros_like(x)
        for torsion in self.torsions:
            gradient[:, torsion] += torsion_gradient(x[:, torsion]) / len(self.torsions)
        speed = np.einsum("tad,tad->t", gradient, velocities)
        inverse_inertia = np.einsum("tad,tad,a->t", gradient, gradient, 1.0 / masses)
        return np.asarray(speed**2 / (BOLTZMANN * inverse_inertia))


@dataclass(frozen=True)
class Proton:
    """
    A hydrogen between two oxygens of one molecule.

    Attributes
    ----------
    donor, hydrogen, acceptor : int
        Atoms: O-H...O.
    """

    donor: int
    hydrogen: int
    acceptor: int

    def coordinate(self, frames: mdtraj.Trajectory) -> NDArray[np.float64]:
        """
        Measure how far the proton has moved over.

        Parameters
        ----------
        frames : mdtraj.Trajectory
            Frames of the molecule.

        Returns
        -------
        ndarray, shape (n_frames,), nm
            d(donor-H) - d(acceptor-H): 0 in the middle, positive beyond it.
        """
        pairs = [[self.donor, self.hydrogen], [self.acceptor, self.hydrogen]]
        distances = mdtraj.compute_distances(frames, np.array(pairs))
        return np.asarray(distances[:, 0] - distances[:, 1], dtype=np.float64)


def torsion_gradient(positions: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Gradient of a torsion with respect to its four atoms.

    Parameters
    ----------
    positions : ndarray, shape (n_frames, 4, 3), nm
        The atoms along the chain.

    Returns
    -------
    ndarray, shape (n_frames, 4, 3), rad/nm
        The gradient.

    Notes
    -----
    Blondel and Karplus, J. Comput. Chem. 17, 1132 (1996), eq. 27.
    """
    first, second, third, last = positions.transpose(1, 0, 2)
    f, g, h = first - second, second - third, last - third
    a, b = np.cross(f, g), np.cross(h, g)
    length = np.linalg.norm(g, axis=-1, keepdims=True)
    a /= (a**2).sum(-1, keepdims=True)
    b /= (b**2).sum(-1, keepdims=True)
    along = (f * g).sum(-1, keepdims=True) * a - (h * g).sum(-1, keepdims=True) * b
    along /= length
    ends = -length * a, length * b
    return np.stack([ends[0], along - ends[0], -along - ends[1], ends[1]], axis=1)


def find_rotors(topology: mdtraj.Topology) -> list[Rotor]:
    """
    Find methyl, hydroxyl and formyl groups by elements and bonds.

    Parameters
    ----------
    topology : mdtraj.Topology
        The molecule, with bonds.

    Returns
    -------
    list of Rotor
        One a group, in order of its first atom. Basins of a methyl group eclipse a
        bond of a planar atom (to oxygen, if it has one) and are staggered about any
        other; those of O-H are planar on a planar carbon, else staggered; those of
        H-C=O eclipse, and are planar on a planar carbon alike. Planar are carbon with
        three bonds and nitrogen with three beside such a carbon. Left out are groups
        without a torsion to another heavy atom, as in methanol, or about a straight
        line, as in acetonitrile.
    """
    graph, symbols = _graph(topology)
    rotors = []
    for end in sorted(graph):
        heavy = [n for n in graph[end] if symbols[n] != "H"]
        hydrogens = sorted(n for n in graph[end] if symbols[n] == "H")
        oxygens = [n for n in heavy if symbols[n] == "O" and graph.degree(n) == 1]
        atoms, kind = hydrogens, ""
        if symbols[end] == "C" and len(heavy) == 1 and len(hydrogens) == 3:
            kind = "methyl"
        elif symbols[end] == "O" and len(heavy) == 1 and len(hydrogens) == 1:
            kind = "hydroxyl"
        elif (
            symbols[end] == "C"
            and len(heavy) == 2
            and len(hydrogens) == len(oxygens) == 1
        ):
            kind, atoms = "formyl", oxygens
            heavy.remove(oxygens[0])
        if not kind:
            continue
        axis = heavy[0]
        others = [n for n in graph[axis] if n != end and symbols[n] != "H"]
        if not others or (kind != "methyl" and symbols[axis] != "C"):
            continue
        if symbols[axis] == "C" and graph.degree(axis) == 2:
            # The torsion's angle at the axis is straight: it tells of noise.
            continue
        # Terminal atoms first: the oxygen of a carbonyl.
        mark = min(others, key=lambda n: (graph.degree(n), -_number(topology, n), n))
        planar = _is_planar(graph, symbols, axis)
        n_basins = 2 if planar and kind != "methyl" else 3
        staggered = not planar and kind != "formyl"
        torsions = np.array([[atom, end, axis, mark] for atom in atoms])
        rotors.append(Rotor(kind, torsions, n_basins, np.pi / 3 if staggered else 0.0))
    return rotors


def find_protons(topology: mdtraj.Topology) -> list[Proton]:
    """
    Find hydroxyl hydrogens that an oxygen of the same molecule may take.

    Parameters
    ----------
    topology : mdtraj.Topology
        The molecule, with bonds.

    Returns
    -------
    list of Proton
        One a pair O-H...O that closes a ring of six atoms, the acceptor without a
        hydrogen of its own: enols of 1,3-diketones, salicylic acid.
    """
    graph, symbols = _graph(topology)
    protons = []
    for hydrogen in sorted(graph):
        donors = [n for n in graph[hydrogen] if symbols[n] == "O"]
        if symbols[hydrogen] != "H" or not donors:
            continue
        distances = nx.single_source_shortest_path_length(graph, donors[0])
        protons += [
            Proton(donors[0], hydrogen, acceptor)
            for acceptor in sorted(graph)
            if symbols[acceptor] == "O"
            and distances.get(acceptor) == RING_BONDS
            and all(symbols[n] != "H" for n in graph[acceptor])
        ]
    return protons


def _graph(topology: mdtraj.Topology) -> tuple[nx.Graph, list[str]]:
    symbols = [atom.element.symbol for atom in topology.atoms]
    bonds = ((a.index, b.index) for a, b in topology.bonds)
    return bond_graph(symbols, bonds), symbols


def _is_planar(graph: nx.Graph, symbols: list[str], atom: int) -> bool:
    """Tell carbonyls, arenes and amides from amines, sulfoxides and phosphines."""
    if graph.degree(atom) != 3 or symbols[atom] not in "CN":
        return False
    return symbols[atom] == "C" or any(
        symbols[n] == "C" and graph.degree(n) == 3 for n in graph[atom]
    )


def _number(topology: mdtraj.Topology, atom: int) -> int:
    return int(topology.atom(atom).element.atomic_number)

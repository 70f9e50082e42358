"""Which frames of rollouts to look at again: those furthest out."""

import mdtraj
import networkx as nx
import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.analysis.ensemble import Ensemble

SEPARATION_PS = 0.1
"""Time between two frames that are chosen for one distance, ps."""


def near_pairs(topology: mdtraj.Topology) -> NDArray[np.int64]:
    """
    List the pairs of atoms whose distance is a bond or a bend.

    Parameters
    ----------
    topology : mdtraj.Topology
        The molecule, with bonds.

    Returns
    -------
    ndarray of int, shape (n_pairs, 2)
        Atoms that one bond or two part, in ascending order.
    """
    graph = nx.Graph([(a.index, b.index) for a, b in topology.bonds])
    near = nx.all_pairs_shortest_path_length(graph, cutoff=2)
    pairs = sorted((a, b) for a, others in near for b in others if a < b)
    return np.array(pairs, dtype=np.int64).reshape(-1, 2)


def outermost_frames(
    ensemble: Ensemble, pairs: NDArray[np.integer], num_frames: int
) -> NDArray[np.int64]:
    """
    Choose the frames in which a distance is at its shortest or longest.

    Parameters
    ----------
    ensemble : Ensemble
        Replicas of one molecule.
    pairs : ndarray of int, shape (n_pairs, 2)
        Atoms of each distance.
    num_frames : int
        Frames at each end of each distance, `SEPARATION_PS` apart.

    Returns
    -------
    ndarray of int, shape (n_chosen,)
        Which of all frames, replica after replica, in ascending order. A frame may be
        outermost for several distances.
    """
    positions = np.concatenate(ensemble.positions)
    apart = max(1, round(SEPARATION_PS / ensemble.frame_interval))
    chosen: set[int] = set()
    for first, second in pairs:
        distances = np.linalg.norm(positions[:, first] - positions[:, second], axis=1)
        order = np.argsort(distances, kind="stable")
        for outwards in (order, order[::-1]):
            chosen.update(_apart(outwards, num_frames, apart))
    return np.array(sorted(chosen), dtype=np.int64)


def _apart(order: NDArray[np.int64], num_frames: int, apart: int) -> list[int]:
    """Take the first frames of an order, none of them soon before or after another."""
    taken: list[int] = []
    for frame in map(int, order):
        if len(taken) == num_frames:
            break
        if all(abs(frame - other) >= apart for other in taken):
            taken.append(frame)
    return taken

"""Distributions of distances, bonds, angles and dihedrals, and how far they differ."""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import combinations

import mdtraj
import numpy as np
from numpy.typing import NDArray
from scipy.spatial.distance import jensenshannon

from openmm_diffmd.analysis.ensemble import Ensemble

H_R_RANGE = (0.0, 10.0)
H_R_BINS = 500
ANGSTROM_PER_NM = 10.0

TURN_DEG = 100.0
"""More than a torsion swings in its basin, less than from one basin to the next."""

Terms = dict[str, NDArray[np.int64]]


@dataclass(frozen=True)
class Histogram:
    """
    A normalised histogram.

    Attributes
    ----------
    edges : ndarray, shape (n_bins + 1,)
        Bin edges.
    density : ndarray, shape (n_bins,)
        Probability density, in 1 / (unit of `edges`).
    """

    edges: NDArray[np.float64]
    density: NDArray[np.float64]

    @property
    def centers(self) -> NDArray[np.float64]:
        """Middle of each bin."""
        return 0.5 * (self.edges[1:] + self.edges[:-1])


def pair_distances(ensemble: Ensemble) -> Histogram:
    r"""
    Histogram h(r) of the distances of all pairs of atoms.

    Parameters
    ----------
    ensemble : Ensemble
        Frames.

    Returns
    -------
    Histogram
        500 bins from 0 to 10 Angstrom, density in 1/Angstrom. It is divided by the
        number of all distances, those beyond 10 Angstrom too, so that a molecule
        that flies apart loses weight instead of hiding it.

    Notes
    -----
    Fu et al., Forces are not Enough (MDsim), TMLR 2023, arXiv 2210.07237.
    """
    pairs = np.array(list(combinations(range(ensemble.topology.n_atoms), 2)))
    distances = ANGSTROM_PER_NM * mdtraj.compute_distances(ensemble.frames(), pairs)
    counts, edges = np.histogram(distances, H_R_BINS, H_R_RANGE)
    return Histogram(edges, counts / (distances.size * np.diff(edges)))


def h_r_error(h: Histogram, reference: Histogram) -> float:
    r"""
    Distance of two h(r): :math:`\int |h(r) - h_{ref}(r)| dr`.

    It is MDsim's "MAE of h(r)" (the mean over bins of the absolute difference,
    times the range of r). 0 is equal, 2 is disjoint; no unit.

    Parameters
    ----------
    h, reference : Histogram
        From `pair_distances`.

    Returns
    -------
    float
        The error.

    Raises
    ------
    ValueError
        If the bins differ.
    """
    _check_bins(h, reference)
    return float(np.sum(np.abs(h.density - reference.density) * np.diff(h.edges)))


def bonded_terms(topology: mdtraj.Topology) -> dict[str, Terms]:
    """
    List bonds, angles and proper dihedrals, grouped by their elements.

    Parameters
    ----------
    topology : mdtraj.Topology
        The molecule, with bonds.

    Returns
    -------
    dict
        ``bonds``, ``angles``, ``dihedrals``: each a dict from elements along the
        chain (``H-C-C-O``, the alphabetically first of both directions) to an
        index array of shape (n_terms, 2 | 3 | 4). What a symmetry of the molecule
        exchanges shares a group, so that a methyl group may turn.
    """
    symbols = [atom.element.symbol for atom in topology.atoms]
    neighbors: dict[int, set[int]] = defaultdict(set)
    for a, b in topology.bonds:
        neighbors[a.index].add(b.index)
        neighbors[b.index].add(a.index)
    pairs = sorted((i, j) for i in neighbors for j in neighbors[i] if i < j)
    chains: dict[str, list[tuple[int, ...]]] = {
        "bonds": list(pairs),
        "angles": [
            (i, j, k)
            for j in sorted(neighbors)
            for i, k in combinations(sorted(neighbors[j]), 2)
        ],
        "dihedrals": [
            (i, j, k, m)
            for j, k in pairs
            for i in sorted(neighbors[j] - {k})
            for m in sorted(neighbors[k] - {j, i})
        ],
    }
    result: dict[str, Terms] = {}
    for kind, found in chains.items():
        groups: dict[str, list[tuple[int, ...]]] = defaultdict(list)
        for chain in found:
            names = [symbols[i] for i in chain]
            groups["-".join(min(names, names[::-1]))].append(chain)
        result[kind] = {name: np.array(groups[name]) for name in sorted(groups)}
    return result


EDGES: Mapping[str, NDArray[np.float64]] = {
    "bonds": np.linspace(0.0, 3.0, 301),
    "angles": np.linspace(0.0, 180.0, 91),
    "dihedrals": np.linspace(-180.0, 180.0, 73),
}
"""Bin edges: 0.01 Angstrom, 2 degrees, 5 degrees."""


def marginals(ensemble: Ensemble) -> dict[str, dict[str, Histogram]]:
    """
    Histograms of every group of bonds (Angstrom), angles and dihedrals (degrees).

    Parameters
    ----------
    ensemble : Ensemble
        Frames.

    Returns
    -------
    dict
        As `bonded_terms`, with histograms. Bonds beyond 3 Angstrom count in the
        last bin.
    """
    frames = ensemble.frames()
    compute = {
        "bonds": lambda terms: (
            ANGSTROM_PER_NM * mdtraj.compute_distances(frames, terms)
        ),
        "angles": lambda terms: np.rad2deg(mdtraj.compute_angles(frames, terms)),
        "dihedrals": lambda terms: np.rad2deg(mdtraj.compute_dihedrals(frames, terms)),
    }
    result: dict[str, dict[str, Histogram]] = {}
    for kind, groups in bonded_terms(ensemble.topology).items():
        edges = EDGES[kind]
        result[kind] = {}
        for name, terms in groups.items():
            values = np.clip(compute[kind](terms), edges[0], edges[-1])
            result[kind][name] = Histogram(
                edges, np.histogram(values, edges, density=True)[0]
            )
    return result


def jensen_shannon_divergence(p: Histogram, q: Histogram) -> float:
    r"""
    Jensen-Shannon divergence of two histograms, in bits.

    :math:`JSD = \frac{1}{2} KL(p | m) + \frac{1}{2} KL(q | m), m = (p + q)/2`,
    logarithms to base 2: 0 is equal, 1 is disjoint. It is the divergence, not its
    square root.

    Parameters
    ----------
    p, q : Histogram
        Histograms on the same bins.

    Returns
    -------
    float
        The divergence.

    Raises
    ------
    ValueError
        If the bins differ.
    """
    _check_bins(p, q)
    widths = np.diff(p.edges)
    return float(jensenshannon(p.density * widths, q.density * widths, base=2) ** 2)


def marginal_divergences(
    found: Mapping[str, Mapping[str, Histogram]],
    reference: Mapping[str, Mapping[str, Histogram]],
) -> dict[str, dict[str, float]]:
    """
    Divergence of every group of `marginals`.

    Parameters
    ----------
    found, reference : mapping
        From `marginals`.

    Returns
    -------
    dict
        As `marginals`, with divergences in bits.

    Raises
    ------
    ValueError
        If they have different groups.
    """
    result: dict[str, dict[str, float]] = {}
    for kind, groups in reference.items():
        if set(found[kind]) != set(groups):
            raise ValueError(
                f"found {kind} {sorted(found[kind])}, expected {sorted(groups)} as in "
                "the reference: is it the same molecule?"
            )
        result[kind] = {
            name: jensen_shannon_divergence(found[kind][name], groups[name])
            for name in groups
        }
    return result


def dihedral_turns(ensemble: Ensemble) -> dict[str, int]:
    """
    Count turns of torsions: how well populations of their basins can be known.

    Parameters
    ----------
    ensemble : Ensemble
        Frames.

    Returns
    -------
    dict
        Of each group of dihedrals of `bonded_terms`: turns, in all replicas, of the
        torsion that turned least of those that turned at all; 0 where none did. A
        torsion has turned when it is more than 100 degrees from where it had last
        turned to, or from where its replica began.
    """
    groups = bonded_terms(ensemble.topology)["dihedrals"]
    if not groups:
        return {}
    terms = np.concatenate(list(groups.values()))
    counts = np.zeros(len(terms), np.int64)
    limit = np.deg2rad(TURN_DEG)
    for replica in ensemble.trajectories():
        angles = np.unwrap(mdtraj.compute_dihedrals(replica, terms), axis=0)
        last = angles[0]
        for now in angles:
            turned = np.abs(now - last) > limit
            if turned.any():
                counts += turned
                last = np.where(turned, now, last)
    ends = np.cumsum([len(own) for own in groups.values()])[:-1]
    return {
        name: int(min(count[count > 0], default=0))
        for name, count in zip(groups, np.split(counts, ends), strict=True)
    }


def _check_bins(p: Histogram, q: Histogram) -> None:
    if not np.array_equal(p.edges, q.edges):
        raise ValueError("found histograms on different bins, expected the same")

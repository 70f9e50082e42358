"""Atoms that come as close as bonded ones: molecules that collapse, no bond broken."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.elements import (
    APPROACH,
    BOND_TOLERANCE,
    contact_distances,
    pair_name,
)


@dataclass(frozen=True)
class Contact:
    """
    The two atoms, not bonded, that come closest to being so.

    Attributes
    ----------
    distance : float
        Their distance, nm.
    limit : float
        What it should not be below, nm: see `new_bond_limits`.
    atoms : str
        Their names, such as ``C1-C3``.
    replica : int
        Where it is.
    time : float
        When, ps; the first frame lies at the frame interval.
    """

    distance: float
    limit: float
    atoms: str
    replica: int
    time: float


def new_bond_limits(ensemble: Ensemble) -> dict[str, float]:
    """
    Find the distance of two elements below which atoms have become bonded.

    Parameters
    ----------
    ensemble : Ensemble
        The reference.

    Returns
    -------
    dict of str to float
        Symbols, sorted, such as ``C-H``, to nm: `BOND_TOLERANCE` times the sum of their
        covalent radii, but `APPROACH` less than the reference's closest atoms of these
        elements that are not bonded, as protons in hydrogen bonds. Empty where all
        atoms are bonded.
    """
    numbers = np.array([a.element.atomic_number for a in ensemble.topology.atoms])
    limits: dict[str, float] = {}
    for kind, (i, j), replicas in _distances(ensemble):
        closest = min(float(distances.min()) for distances in replicas)
        radii = contact_distances(numbers, np.array([i]), np.array([j]))
        limit = min(BOND_TOLERANCE * float(radii[0]), closest - APPROACH)
        limits[kind] = min(limit, limits.get(kind, limit))
    return limits


def closest_contact(ensemble: Ensemble, limits: Mapping[str, float]) -> Contact | None:
    """
    Find the atoms that come closest to being bonded without a bond between them.

    Parameters
    ----------
    ensemble : Ensemble
        Frames.
    limits : mapping of str to float
        From `new_bond_limits`, of the reference.

    Returns
    -------
    Contact or None
        None where all atoms are bonded.
    """
    names = [f"{a.element.symbol}{a.index + 1}" for a in ensemble.topology.atoms]
    found: list[Contact] = []
    for kind, (i, j), replicas in _distances(ensemble):
        replica = int(np.argmin([distances.min() for distances in replicas]))
        frame = int(replicas[replica].argmin())
        found.append(
            Contact(
                distance=float(replicas[replica][frame]),
                limit=limits[kind],
                atoms=f"{names[i]}-{names[j]}",
                replica=replica,
                time=(frame + 1) * ensemble.frame_interval,
            )
        )
    return min(found, key=lambda one: one.distance - one.limit, default=None)


def _distances(
    ensemble: Ensemble,
) -> Iterator[tuple[str, tuple[int, int], list[NDArray[np.floating]]]]:
    """Elements, atoms, and distances in each replica, of what is not bonded."""
    bonded = {(int(i), int(j)) for i, j in ensemble.bonds}
    symbols = ensemble.symbols
    for i, j in combinations(range(len(symbols)), 2):
        if (i, j) not in bonded:
            kind = pair_name(symbols[i], symbols[j])
            apart = [x[:, i] - x[:, j] for x in ensemble.positions]
            yield kind, (i, j), [np.linalg.norm(d, axis=-1) for d in apart]

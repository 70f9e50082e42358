"""Scales, bond ranges and contact limits of elements, from the training split only."""

from collections import defaultdict
from collections.abc import Sequence
from itertools import combinations
from typing import NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from openmm_diffmd.data.pairs import LaggedPairs, evenly_spread
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.elements import (
    APPROACH,
    BREAK_DEVIATION,
    contact_distances,
    pair_name,
)

FALLEN_APART = 3.0
"""Times the sum of its covalent radii: no bond is so long in the mean."""


class Scales(NamedTuple):
    """
    Root mean squares of what happens over a lag, a component, for each element.

    Attributes
    ----------
    position, velocity : Tensor, shape (n_elements,), nm and nm/ps
        Of x' - x - tau v and of v' - v.
    acceleration : Tensor, shape (n_elements,), nm/ps^2
        Of |v' - v|/tau, the whole vector.
    """

    position: Tensor
    velocity: Tensor
    acceleration: Tensor


def residual_scales(
    pairs: LaggedPairs, n_elements: int, n_samples: int = 20000
) -> Scales:
    """
    Measure the elements' scales on evenly spread pairs.

    Parameters
    ----------
    pairs : LaggedPairs
        Pairs of the training split.
    n_elements : int
        Number of elements.
    n_samples : int
        Pairs to use, at most.

    Returns
    -------
    Scales
        The scales.

    Raises
    ------
    ValueError
        If an element occurs in no pair.
    """
    indices = evenly_spread(len(pairs), n_samples)
    batch = pairs.batch(indices)
    drift = batch.positions + pairs.lag_time * batch.velocities
    squares = torch.stack(
        [
            (batch.following[:, :, 0] - drift).square().mean(-1),
            (batch.following[:, :, 1] - batch.velocities).square().mean(-1),
        ],
        dim=-1,
    ).double()
    rows = []
    for index in range(n_elements):
        chosen = squares[batch.species == index]
        if len(chosen) == 0:
            raise ValueError(
                f"found no atom of element {index} (from 0) of the model's list in the "
                "training pairs; leave it out of the list or bring data that has it"
            )
        rows.append(chosen.mean(0).sqrt())
    position, velocity = torch.stack(rows).float().unbind(1)
    return Scales(position, velocity, velocity * 3**0.5 / pairs.lag_time)


def contact_limits(
    trajectories: Sequence[Trajectory], ranges: Sequence[range]
) -> dict[str, float]:
    """
    Find how close atoms of two elements may come that are not bonded.

    Parameters
    ----------
    trajectories : sequence of Trajectory
        Frames with bonds.
    ranges : sequence of range
        Frames of the training split.

    Returns
    -------
    dict of str to float
        Symbols, sorted and joined by a dash, to the distance, nm: the sum of their
        covalent radii, which new bonds swing through, but `APPROACH` less than the
        closest such atoms of the training data, as protons that two atoms share. Not
        below 0. Elements of which all atoms are bonded have none.
    """
    found: dict[str, float] = {}
    for trajectory, frames in zip(trajectories, ranges, strict=True):
        positions = trajectory.positions[frames.start : frames.stop]
        numbers = trajectory.atomic_numbers
        bonded = {tuple(sorted(bond)) for bond in trajectory.bonds.tolist()}
        for i, j in combinations(range(len(numbers)), 2):
            if (i, j) in bonded:
                continue
            apart = np.linalg.norm(positions[:, i] - positions[:, j], axis=-1)
            radii = contact_distances(numbers, np.array([i]), np.array([j]))
            limit = max(0.0, min(float(radii[0]), float(apart.min()) - APPROACH))
            name = pair_name(*(chemical_symbols[numbers[atom]] for atom in (i, j)))
            found[name] = min(limit, found.get(name, limit))
    return dict(sorted(found.items()))


def bond_ranges(
    trajectories: Sequence[Trajectory],
    ranges: Sequence[range],
    margin: float = 0.25,
) -> dict[str, tuple[float, float]]:
    """
    Measure how far bonds of each pair of elements stretch in the training data.

    Parameters
    ----------
    trajectories : sequence of Trajectory
        Frames with bonds.
    ranges : sequence of range
        Frames of the training split.
    margin : float
        Share of the range seen that is added at either end: the data end where
        they end, not where the molecule breaks.

    Returns
    -------
    dict of str to (float, float)
        Symbols, sorted and joined by a dash, to lowest and highest length, nm. Neither
        is farther than `BREAK_DEVIATION` from the means of such bonds: frames in
        which a hydrogen went over to another atom do not widen the range.

    Raises
    ------
    ValueError
        If the mean of a bond is beyond `FALLEN_APART` times its covalent radii.
    """
    found: dict[str, tuple[float, float]] = {}
    means: dict[str, list[float]] = defaultdict(list)
    for trajectory, frames in zip(trajectories, ranges, strict=True):
        positions = trajectory.positions[frames.start : frames.stop]
        for first, second in trajectory.bonds:
            lengths = np.linalg.norm(
                positions[:, first] - positions[:, second], axis=-1
            )
            numbers = trajectory.atomic_numbers[[first, second]]
            name = pair_name(*(chemical_symbols[number] for number in numbers))
            low, high = found.get(name, (np.inf, 0.0))
            found[name] = (
                min(low, float(lengths.min())),
                max(high, float(lengths.max())),
            )
            means[name].append(float(lengths.mean()))
            usual = contact_distances(
                trajectory.atomic_numbers, np.array([first]), np.array([second])
            )[0]
            if means[name][-1] > FALLEN_APART * usual:
                raise ValueError(
                    f"found a mean of {means[name][-1]:.3g} nm for the bond between "
                    f"atoms {first} and {second} ({name}) of the training data, "
                    f"expected about {usual:.3g} nm: the molecule fell apart; make the "
                    "reference again with a force that holds it together"
                )
    result = {}
    for name, seen in sorted(found.items()):
        # A length is not negative, however far bonds were seen to stretch.
        lowest = max(0.0, min(means[name]) - BREAK_DEVIATION)
        highest = max(means[name]) + BREAK_DEVIATION
        low, high = max(seen[0], lowest), min(seen[1], highest)
        beyond = margin * (high - low)
        result[name] = max(low - beyond, lowest), min(high + beyond, highest)
    return result

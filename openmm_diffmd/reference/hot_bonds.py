"""Bursts with hot bonds: what a bath hardly shows and a rollout may get to."""

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.reference.dynamics import FloatArray, ReferenceFrame

HEATED_SHARE = 0.25
"""Chance of a bond to be heated: the rest of the molecule stays as the bath left it."""


def heat_bonds(
    frame: ReferenceFrame,
    bonds: NDArray[np.integer],
    masses: FloatArray,
    max_energy: float,
    generator: np.random.Generator,
) -> ReferenceFrame:
    """
    Speed up the stretch of some bonds of a frame.

    Each bond is heated with the probability `HEATED_SHARE`, by an energy between 0 and
    `max_energy`, all alike. Its two atoms are pushed along it, apart where they move
    apart and together where they do not, so that momentum and angular momentum stay
    and the kinetic energy grows by that energy.

    Parameters
    ----------
    frame : ReferenceFrame
        Where a burst starts.
    bonds : ndarray of int, shape (n_bonds, 2)
        Pairs of bonded atoms.
    masses : ndarray, shape (n_atoms,), Da
        Masses.
    max_energy : float
        Largest energy of a bond, kJ/mol.
    generator : numpy.random.Generator
        Draws which bonds, and how much.

    Returns
    -------
    ReferenceFrame
        The frame with other velocities.
    """
    velocities = frame.velocities.copy()
    for first, second in bonds:
        heated, share = generator.random(2)
        if heated >= HEATED_SHARE:
            continue
        direction = frame.positions[second] - frame.positions[first]
        direction /= np.linalg.norm(direction)
        reduced = masses[first] * masses[second] / (masses[first] + masses[second])
        speed = direction @ (velocities[second] - velocities[first])
        hotter = np.sqrt(speed**2 + 2 * share * max_energy / reduced)
        impulse = reduced * (np.copysign(hotter, speed) - speed) * direction
        velocities[first] -= impulse / masses[first]
        velocities[second] += impulse / masses[second]
    return replace(frame, velocities=velocities)

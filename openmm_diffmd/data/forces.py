"""Whether forces of a file from elsewhere have the units and the sign of forces."""

import warnings
from pathlib import Path

import numpy as np

from openmm_diffmd.bond_stretches import bond_stretches, reduced_masses
from openmm_diffmd.data.trajectory import Trajectory

STIFFNESS_N_PER_M = (50.0, 3000.0)
"""Of bonds in molecules: C-C has some 450 N/m, C-H 500, N-N in N2 2300."""
RIGID_NM = 1e-4
"""Deviation of a length below which a constraint holds it; at 10 K bonds have 5e-4."""
KILOJOULE_PER_NM2_OF_NEWTON_PER_METRE = 602.214
"""kJ/mol/nm^2 in a N/m."""
NUM_FRAMES = 512
"""Evenly spread, that are looked at."""


def check_forces(path: str | Path, trajectory: Trajectory) -> None:
    r"""
    See whether forces hold bonds as bonds are held: a matter of units and signs.

    A bond's stiffness is the slope of the force on its stretch,
    :math:`-\mathrm{cov}(F, r)/\mathrm{var}(r)` with :math:`F = \mu (F_j/m_j -
    F_i/m_i) \cdot \hat b`.

    Parameters
    ----------
    path : path-like
        Of the trajectory, for errors.
    trajectory : Trajectory
        Frames with forces.

    Raises
    ------
    ValueError
        If most bonds are pushed apart where they are long, or are more than twice as
        soft or stiff as bonds are.

    Warns
    -----
    UserWarning
        If they are softer or stiffer than bonds are.
    """
    if trajectory.forces is None or not len(trajectory.bonds):
        return
    count = min(NUM_FRAMES, trajectory.n_frames)
    chosen = np.linspace(0, trajectory.n_frames - 1, count).astype(int)
    positions = np.asarray(trajectory.positions[chosen], dtype=np.float64)
    bonds = np.asarray(trajectory.bonds)
    masses = np.asarray(trajectory.masses, dtype=np.float64)
    accelerations = np.asarray(trajectory.forces[chosen], np.float64) / masses[:, None]
    lengths, apart = bond_stretches(positions, accelerations, bonds)
    lengths = lengths - lengths.mean(0)
    variances = (lengths**2).mean(0)
    # A rigid bond shows no force on its stretch.
    moves = variances > RIGID_NM**2
    if not moves.any():
        return
    slopes = (lengths * apart).mean(0)[moves] / variances[moves]
    stiffness = -float(np.median(reduced_masses(masses, bonds[moves]) * slopes))
    newtons = stiffness / KILOJOULE_PER_NM2_OF_NEWTON_PER_METRE
    expected = (
        "expected {:g} to {:g}: are energies in kcal/mol and lengths in Angstrom "
        "(npz), or in eV and Angstrom (extxyz), and are these forces, not gradients?"
    ).format(*STIFFNESS_N_PER_M)
    found = f"found bonds of {newtons:.3g} N/m (median) in {path}, {expected}"
    least, most = STIFFNESS_N_PER_M
    if not least / 2 <= newtons <= 2 * most:
        raise ValueError(found)
    if not least <= newtons <= most:
        warnings.warn(found, stacklevel=2)

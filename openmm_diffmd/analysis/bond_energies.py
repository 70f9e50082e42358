"""Energy that gathers in one bond: what precedes a break by resonance with the lag."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.bond_stretches import (
    STRETCH_WINDOW_PS,
    bond_stretches,
    reduced_masses,
)
from openmm_diffmd.units import BOLTZMANN

RARE = 1e-3
"""Probability that chance shows a bond as hot in a run of this length."""
ANHARMONICITY = 0.01
"""Share per kT by which an energy above 10 kT looks higher than it is, 1/kT.

Bonds are softer stretched than at rest. Lengths of most have a skewness of 0.2 to 0.26
in the references of GFN2-xTB; a Morse oscillator of 0.26 with 10, 14 and 18 kT looks as
if it had 10.8, 15.8 and 21.4.
"""


@dataclass(frozen=True)
class HottestBond:
    """
    The bond whose stretch has the most energy in a rollout.

    Attributes
    ----------
    energy : float
        Of the stretch, mean over `STRETCH_WINDOW_PS`, kT.
    likely : float
        What chance alone exceeds in at most one of a thousand such runs, kT.
    atoms : str
        Names of its atoms, such as ``N17-H18``.
    replica : int
        Where it is.
    time : float
        End of the window, ps from the first frame that is looked at.
    """

    energy: float
    likely: float
    atoms: str
    replica: int
    time: float


def hottest_bond(
    ensemble: Ensemble,
    means: NDArray[np.float64],
    variances: NDArray[np.float64],
    temperature: float,
) -> HottestBond | None:
    r"""
    Find the bond whose stretch has the most energy.

    Each stretch is an oscillator with the mean and the variance that the reference
    shows: :math:`E/kT = \mu (\Delta v \cdot \hat b)^2 / 2kT + (r - r_0)^2 / 2\sigma^2`.
    That of an oscillator whose energy is exponentially distributed, looked at n times,
    is above :math:`E` with a probability of :math:`n \exp(-E/kT)` at most; a bond with
    that much looks hotter by `ANHARMONICITY`.

    Parameters
    ----------
    ensemble : Ensemble
        Frames with velocities.
    means, variances : ndarray, shape (n_bonds,), nm and nm^2
        Of each bond's length in the reference, in the order of ``ensemble.bonds``.
    temperature : float
        Temperature of the heat bath, K.

    Returns
    -------
    HottestBond or None
        None where no replica is as long as the window, or no bond varies.

    Raises
    ------
    ValueError
        If the ensemble has no velocities.
    """
    bonds, masses = ensemble.bonds, ensemble.masses
    size = max(1, round(STRETCH_WINDOW_PS / ensemble.frame_interval))
    if not len(bonds) or not np.all(variances > 0):
        return None
    reduced = reduced_masses(masses, bonds)
    found: tuple[float, int, int, int] | None = None
    windows = 0
    for replica, (positions, velocities) in enumerate(
        zip(ensemble.positions, ensemble.relative_velocities(), strict=True)
    ):
        if len(velocities) < size:
            continue
        x = np.asarray(positions, dtype=np.float64)
        lengths, speeds = bond_stretches(x, velocities, bonds)
        energy = 0.5 * reduced * speeds**2 / (BOLTZMANN * temperature)
        energy += 0.5 * (lengths - means) ** 2 / variances
        total = np.cumsum(np.vstack([np.zeros(len(bonds)), energy]), axis=0)
        mean = (total[size:] - total[:-size]) / size
        windows += len(velocities) // size
        frame, bond = divmod(int(mean.argmax()), len(bonds))
        if found is None or mean[frame, bond] > found[0]:
            found = (float(mean[frame, bond]), bond, replica, frame + size)
    if found is None:
        return None
    energy_kT, bond, replica, frames = found
    atoms = "-".join(
        f"{ensemble.symbols[atom]}{atom + 1}" for atom in bonds[bond].tolist()
    )
    rare = math.log(windows * len(bonds) / RARE)
    return HottestBond(
        energy=energy_kT,
        likely=rare * (1.0 + ANHARMONICITY * rare),
        atoms=atoms,
        replica=replica,
        time=frames * ensemble.frame_interval,
    )

"""Energy that gathers in one bond, watched as a run goes: what precedes many breaks."""

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openmm import unit

from openmm_diffmd.bond_stretches import WINDOW_PS, bond_stretches, reduced_masses
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.units import BOLTZMANN, to_float

WARNING_ENERGY_KT = 18.0
"""Chance gives it to a bond once in exp(18) windows: 13 us."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class BondEnergy:
    """
    Energy of the stretch of a bond.

    Attributes
    ----------
    energy_kT : float
        Mean over `WINDOW_PS`, kT of the heat bath.
    atoms : tuple of int
        Its particles.
    molecule : int
        Its molecule.
    time_ps : float
        End of the window, ps.
    """

    energy_kT: float
    atoms: tuple[int, int]
    molecule: int
    time_ps: float

    def to_json(self) -> dict[str, Any]:
        """
        Make what a JSON file holds of it.

        Returns
        -------
        dict
            Its attributes.
        """
        return {**asdict(self), "atoms": list(self.atoms)}


class StretchEnergies:
    r"""
    Energies of the stretch of bonds over the last lags, without a reference.

    Of an oscillator half of the energy is kinetic in the mean over its phase, so that
    :math:`E = \langle \mu (\Delta v \cdot \hat b)^2 \rangle`, :math:`\mu` the reduced
    mass. What the mean of a reference and its variance of lengths give
    (`openmm_diffmd.analysis.bond_energies.hottest_bond`) differs by a tenth or two.

    Parameters
    ----------
    masses : ndarray, shape (n_atoms,), Da
        Masses.
    bonds : ndarray of int, shape (n_bonds, 2)
        Atoms of each bond.
    lag_time : float
        Time between frames, ps.

    Attributes
    ----------
    size : int
        Frames in `WINDOW_PS`.
    """

    def __init__(self, masses: Array, bonds: Indices, lag_time: float) -> None:
        self.size = max(1, round(WINDOW_PS / lag_time))
        self._bonds = bonds
        self._reduced = reduced_masses(masses, bonds)
        self._recent = np.full((self.size, len(bonds)), math.nan)
        self._count = 0

    def add(self, positions: Array, velocities: Array) -> None:
        """
        Take the frame one lag after the last.

        Parameters
        ----------
        positions, velocities : ndarray, shape (n_atoms, 3), nm and nm/ps
            The frame.
        """
        _, speeds = bond_stretches(positions[None], velocities[None], self._bonds)
        self._recent[self._count % self.size] = self._reduced * speeds[0] ** 2
        self._count += 1

    def forget(self, bonds: slice = slice(None)) -> None:
        """
        Begin anew: the next frame does not follow the last.

        Parameters
        ----------
        bonds : slice
            Of which; of all unless given.
        """
        self._recent[:, bonds] = math.nan

    def mean(self) -> Array:
        """
        Compute the mean over the last frames.

        Returns
        -------
        ndarray, shape (n_bonds,), kJ/mol
            nan where `size` frames have not been taken.
        """
        energies: Array = self._recent.mean(axis=0)
        return energies


class BondWatch:
    """
    Watches the bonds of a DiffusionIntegrator, and warns once of a hot one.

    Parameters
    ----------
    integrator : DiffusionIntegrator
        In a Context, or not yet.

    Attributes
    ----------
    now : BondEnergy or None
        The hottest bond at the last look; None where the window is not full, there is
        no bond or no heat.
    hottest : BondEnergy or None
        The hottest of all looks.
    """

    def __init__(self, integrator: DiffusionIntegrator) -> None:
        bonds = [
            integrator.getBondParameters(i)[:2] for i in range(integrator.getNumBonds())
        ]
        particles = [
            integrator.getParticleParameters(i)
            for i in range(integrator.getNumParticles())
        ]
        masses = np.array([to_float(mass, unit.dalton) for _, mass, _ in particles])
        self._integrator = integrator
        self._bonds = np.array(bonds, np.int64).reshape(-1, 2)
        self._molecules = [particles[first][2] for first, _ in bonds]
        self._energies = StretchEnergies(
            masses, self._bonds, to_float(integrator.getStepSize(), unit.picosecond)
        )
        self._step: int | None = None
        self._has_warned = False
        self.now: BondEnergy | None = None
        self.hottest: BondEnergy | None = None

    def steps_to_look(self, step: int, interval: int) -> int:
        """
        Count the steps to the next look.

        Parameters
        ----------
        step : int
            Steps done.
        interval : int
            Steps between reports; each lag of the window before them is looked at.

        Returns
        -------
        int
            Steps, at least 1.
        """
        to_report = interval - step % interval
        return max(1, to_report - self._energies.size + 1)

    def look(self, step: int, time: float, positions: Array, velocities: Array) -> None:
        """
        Take a frame, and warn if a bond is hot for the first time.

        Parameters
        ----------
        step : int
            Steps done; the window begins anew where the last look was not one before.
        time : float
            ps.
        positions, velocities : ndarray, shape (n_atoms, 3), nm and nm/ps
            The frame.

        Warns
        -----
        UserWarning
            If a bond has more than `WARNING_ENERGY_KT`, the first time.
        """
        if self._step is not None and step != self._step + 1:
            self._energies.forget()
        self._step = step
        self._energies.add(positions, velocities)
        kT = BOLTZMANN * to_float(self._integrator.getTemperature(), unit.kelvin)
        energies = self._energies.mean()
        self.now = None
        if kT == 0 or not len(energies) or np.isnan(energies).any():
            return
        bond = int(energies.argmax())
        first, second = self._bonds[bond].tolist()
        self.now = BondEnergy(
            energy_kT=float(energies[bond] / kT),
            atoms=(first, second),
            molecule=self._molecules[bond],
            time_ps=time,
        )
        if self.hottest is None or self.now.energy_kT > self.hottest.energy_kT:
            self.hottest = self.now
        if self.now.energy_kT > WARNING_ENERGY_KT and not self._has_warned:
            self._has_warned = True
            _warn(self.now)


def _warn(found: BondEnergy) -> None:
    first, second = found.atoms
    warnings.warn(
        f"found {found.energy_kT:.1f} kT in the stretch of the bond between atoms "
        f"{first} and {second}, molecule {found.molecule}, at {found.time_ps:.6g} ps, "
        f"expected less than {WARNING_ENERGY_KT:g}: energy gathers in it, and the "
        "bond may break; if it does, raise the friction, or train the model on hot "
        "bonds",
        stacklevel=2,
    )

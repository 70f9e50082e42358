"""Energy that gathers in one bond, watched as a run goes: what precedes many breaks."""

import math
import warnings
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openmm import unit

from openmm_diffmd.bond_stretches import (
    STRETCH_WINDOW_PS,
    bond_stretches,
    reduced_masses,
)
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.particles import read_particles
from openmm_diffmd.units import BOLTZMANN, to_float

WARNING_ENERGY_KT = 18.0
"""Chance gives it to an oscillator once in exp(18) windows, 13 us; to a bond, which is
softer where it is stretched, somewhat oftener."""
TIME_TOLERANCE = 1e-3
"""By how much of a lag times may be rounded."""
SETTLING_PS = 2.0
"""What has to be seen of a kind of bond, over all that are alike, ps."""

Array = NDArray[np.float64]
Indices = NDArray[np.int64]


@dataclass(frozen=True)
class BondEnergy:
    """
    Energy of the stretch of a bond.

    Attributes
    ----------
    energy_kT : float
        Mean over `STRETCH_WINDOW_PS`, kT of the heat bath.
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

    :math:`E = \frac{\mu}{2} \langle v^2 + \omega^2 (r - r_0)^2 \rangle`, :math:`v =
    \Delta v \cdot \hat b`, :math:`\mu` the reduced mass. Of a harmonic stretch, however
    hot, :math:`\omega^2` is the ratio of the variances of v and r; it and :math:`r_0`
    are taken from all frames so far and all bonds of a kind. (The kinetic part alone
    would not do: of a stretch whose period, or half of it, is near the lag it hardly
    changes in 0.2 ps.)

    Parameters
    ----------
    masses : ndarray, shape (n_atoms,), Da
        Masses.
    bonds : ndarray of int, shape (n_bonds, 2)
        Atoms of each bond.
    kinds : ndarray of int, shape (n_bonds,)
        What bonds are alike, such as one bond of all replicas: numbers from 0.
    lag_time : float
        Time between frames, ps.

    Attributes
    ----------
    size : int
        Frames in `STRETCH_WINDOW_PS`.
    is_settled : bool
        Whether each kind of bond has been seen for `SETTLING_PS`.
    """

    def __init__(
        self, masses: Array, bonds: Indices, kinds: Indices, lag_time: float
    ) -> None:
        self.size = max(1, round(STRETCH_WINDOW_PS / lag_time))
        self._bonds = bonds
        self._kinds = kinds
        self._reduced = reduced_masses(masses, bonds)
        self._recent = np.full((2, self.size - 1, len(bonds)), math.nan)
        # Of each kind: bonds seen, lengths, their squares, squares of speeds.
        self._sums = np.zeros((4, int(kinds.max(initial=-1)) + 1))
        self._min_seen = SETTLING_PS / lag_time
        self.is_settled = not len(bonds)

    def add(self, positions: Array, velocities: Array) -> Array:
        """
        Take the frames that follow the last, a lag apart, and compute their energies.

        Parameters
        ----------
        positions, velocities : ndarray, shape (n_frames, n_atoms, 3), nm and nm/ps
            The frames.

        Returns
        -------
        ndarray, shape (n_frames, n_bonds), kJ/mol
            Mean over the `size` frames that end with each; nan where so many have not
            been taken, or a kind of bond has been seen for less than `SETTLING_PS`,
            these frames included.
        """
        lengths, speeds = bond_stretches(positions, velocities, self._bonds)
        squares = speeds**2
        seen = np.ones_like(lengths), lengths, lengths**2, squares
        for total, values in zip(self._sums, seen, strict=True):
            each = values.sum(axis=0)
            total += np.bincount(self._kinds, each, minlength=len(total))
        self.is_settled = bool(np.all(self._sums[0] >= self._min_seen))
        taken = np.concatenate([self._recent, [lengths, squares]], axis=1)
        self._recent = taken[:, len(positions) :]
        rest, stiffness = (of_kind[self._kinds] for of_kind in self._find_springs())
        terms = taken[1] + stiffness * (taken[0] - rest) ** 2
        windows = np.lib.stride_tricks.sliding_window_view(terms, self.size, axis=0)
        energies: Array = 0.5 * self._reduced * windows.mean(axis=-1)
        return energies

    def forget(self, bonds: slice = slice(None)) -> None:
        """
        Begin the window anew: the next frame does not follow the last.

        Parameters
        ----------
        bonds : slice
            Of which; of all unless given.
        """
        self._recent[..., bonds] = math.nan

    def _find_springs(self) -> tuple[Array, Array]:
        """Length at rest, nm, and square of the frequency, 1/ps^2, of each kind."""
        count, length, square, speed = self._sums
        with np.errstate(invalid="ignore", divide="ignore"):
            rest = length / count
            variance = square / count - rest**2
            # Rounding leaves some 1e-16 for a bond of one length.
            moves = variance > 1e-12 * rest**2
            stiffness = np.where(moves, speed / count / variance, 0.0)
        rest[count < self._min_seen] = math.nan
        return rest, stiffness


def kinds_of_bonds(
    bonds: Indices, species: Indices, molecules: Indices
) -> NDArray[np.int64]:
    """
    Say which bonds are the same one of molecules of the same atoms.

    Parameters
    ----------
    bonds : ndarray of int, shape (n_bonds, 2)
        Atoms of each bond.
    species, molecules : ndarray of int, shape (n_atoms,)
        Element and molecule of each atom.

    Returns
    -------
    ndarray of int, shape (n_bonds,)
        The same number for bonds that are alike, from 0.
    """
    own = {int(m): np.flatnonzero(molecules == m) for m in np.unique(molecules)}
    names = {m: species[atoms].tobytes() for m, atoms in own.items()}
    numbers: dict[tuple[bytes, int, int], int] = {}
    kinds = []
    for first, second in bonds.tolist():
        molecule = int(molecules[first])
        i, j = np.searchsorted(own[molecule], [first, second]).tolist()
        kinds.append(numbers.setdefault((names[molecule], i, j), len(numbers)))
    return np.array(kinds, np.int64)


class BondWatch:
    """
    Watches the bonds of a DiffusionIntegrator, and warns once of a hot one.

    Looks are judged together, half a window of them at a time, or when asked for: for
    a small molecule the calls of NumPy cost what counts, not the numbers.

    Parameters
    ----------
    integrator : DiffusionIntegrator
        In a Context, or not yet.
    """

    def __init__(self, integrator: DiffusionIntegrator) -> None:
        particles = read_particles(integrator)
        self._integrator = integrator
        self._lag_time = to_float(integrator.getStepSize(), unit.picosecond)
        self._bonds = particles.bonds
        self._molecules = particles.molecules[self._bonds[:, 0]].tolist()
        self._energies = StretchEnergies(
            particles.masses,
            self._bonds,
            kinds_of_bonds(self._bonds, particles.species, particles.molecules),
            self._lag_time,
        )
        self._time: float | None = None
        self._has_warned = False
        self._pending: list[tuple[float, Array, Array]] = []
        self._now: BondEnergy | None = None
        self._hottest: BondEnergy | None = None

    @property
    def now(self) -> BondEnergy | None:
        """
        The hottest bond at the last look.

        None where the window is not full, too little has been seen, there is no bond or
        no heat.
        """
        self._judge()
        return self._now

    @property
    def hottest(self) -> BondEnergy | None:
        """The hottest of all looks."""
        self._judge()
        return self._hottest

    def steps_to_look(self, step: int, interval: int) -> int:
        """
        Count the steps to the next look.

        Parameters
        ----------
        step : int
            Steps done.
        interval : int
            Steps between reports; each lag of the window before them is looked at, and
            each of the first ones, until enough has been seen.

        Returns
        -------
        int
            Steps, at least 1.
        """
        if not self._energies.is_settled:
            return 1
        to_report = interval - step % interval
        return max(1, to_report - self._energies.size + 1)

    def look(self, time: float, positions: Array, velocities: Array) -> None:
        """
        Take a frame; warn, half a window later at most, of the first hot bond.

        Parameters
        ----------
        time : float
            ps; what follows the last frame by less than a lag, as steps of another
            integrator may, is passed over, and after a gap the window begins anew.
        positions, velocities : ndarray, shape (n_atoms, 3), nm and nm/ps
            The frame; not copied.

        Warns
        -----
        UserWarning
            If a bond has more than `WARNING_ENERGY_KT`, the first time.
        """
        if self._time is not None:
            lags = (time - self._time) / self._lag_time
            if 0.0 <= lags < 1.0 - TIME_TOLERANCE:
                return
            if not math.isclose(lags, 1.0, abs_tol=TIME_TOLERANCE):
                self._judge()
                self._energies.forget()
        self._time = time
        self._pending.append((time, positions, velocities))
        if 2 * len(self._pending) >= self._energies.size:
            self._judge()

    def _judge(self) -> None:
        """Find the hottest bond of each look since the last call."""
        if not self._pending:
            return
        times, positions, velocities = zip(*self._pending, strict=True)
        self._pending.clear()
        energies = self._energies.add(np.array(positions), np.array(velocities))
        kT = BOLTZMANN * to_float(self._integrator.getTemperature(), unit.kelvin)
        for time, of_bonds in zip(times, energies, strict=True):
            self._now = self._find_hottest(time, of_bonds, kT)
            if self._now is None:
                continue
            if self._hottest is None or self._now.energy_kT > self._hottest.energy_kT:
                self._hottest = self._now
            if self._now.energy_kT > WARNING_ENERGY_KT and not self._has_warned:
                self._has_warned = True
                _warn(self._now)

    def _find_hottest(
        self, time: float, energies: Array, kT: float
    ) -> BondEnergy | None:
        if kT == 0 or not len(energies) or np.isnan(energies).any():
            return None
        bond = int(energies.argmax())
        first, second = self._bonds[bond].tolist()
        return BondEnergy(
            energy_kT=float(energies[bond] / kT),
            atoms=(first, second),
            molecule=self._molecules[bond],
            time_ps=time,
        )


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

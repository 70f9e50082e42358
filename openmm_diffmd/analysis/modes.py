"""Kinetic energy where elements do not show it: in bonds, in rotation, in the steps."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.analysis.distributions import bonded_terms
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.statistics import mean_and_error
from openmm_diffmd.analysis.temperature import KineticTemperature
from openmm_diffmd.bond_stretches import bond_stretches, reduced_masses
from openmm_diffmd.units import BOLTZMANN

ROTATION = "rotation"
STRAIGHT = 1e-10
"""Least over largest moment of inertia that rounding leaves of a straight line."""


def mode_temperatures(
    ensemble: Ensemble, temperature: float
) -> dict[str, KineticTemperature]:
    r"""
    Temperature of the molecule's rotation, and of the stretch of each kind of bond.

    Both are T in equilibrium, whatever the potential: velocities do not depend on
    positions, so that :math:`\langle L \cdot I^{-1} L \rangle = 3 kT` for the angular
    momentum, of two atoms 2 kT. A straight molecule of more atoms bends, which gives it
    a third axis to turn about.

    Parameters
    ----------
    ensemble : Ensemble
        Frames with velocities.
    temperature : float
        Temperature of the heat bath, K.

    Returns
    -------
    dict
        ``rotation``, and the elements of each kind of bond, such as ``C-H``, to
        temperature.

    Raises
    ------
    ValueError
        If the ensemble has no velocities.
    """
    turning = [_rotation(x, v, ensemble.masses) for x, v in _replicas(ensemble)]
    rotation = KineticTemperature(*mean_and_error(turning), temperature)
    return {ROTATION: rotation, **stretch_temperatures(ensemble, temperature)}


def stretch_temperatures(
    ensemble: Ensemble, temperature: float
) -> dict[str, KineticTemperature]:
    r"""
    Temperature of the stretch of each kind of bond.

    In equilibrium :math:`\mu \langle (\Delta v \cdot \hat b)^2 \rangle = kT` for two
    atoms of reduced mass :math:`\mu` along the bond :math:`\hat b` between them.

    Parameters
    ----------
    ensemble : Ensemble
        Frames with velocities.
    temperature : float
        Temperature of the heat bath, K.

    Returns
    -------
    dict
        The elements of each kind of bond, such as ``C-H``, to temperature.

    Raises
    ------
    ValueError
        If the ensemble has no velocities.
    """
    replicas, masses = _replicas(ensemble), ensemble.masses
    return {
        kind: KineticTemperature(
            *mean_and_error([_stretch(x, v, masses, pairs) for x, v in replicas]),
            temperature,
        )
        for kind, pairs in bonded_terms(ensemble.topology)["bonds"].items()
    }


def _replicas(
    ensemble: Ensemble,
) -> list[tuple[NDArray[np.float64], NDArray[np.float64]]]:
    """Positions and velocities about the centre of mass, of each replica."""
    relative = ensemble.relative_positions(), ensemble.relative_velocities()
    return list(zip(*relative, strict=True))


def _stretch(
    positions: NDArray[np.float64],
    velocities: NDArray[np.float64],
    masses: NDArray[np.float64],
    pairs: NDArray[np.int64],
) -> NDArray[np.float64]:
    """Mean over bonds of one kind, of each frame, K."""
    _, speeds = bond_stretches(positions, velocities, pairs)
    energies = reduced_masses(masses, pairs) * speeds**2
    return np.asarray(energies.mean(axis=1) / BOLTZMANN)


def vibrational_temperature(ensemble: Ensemble) -> tuple[float, float]:
    r"""
    Temperature of the vibrations: of the velocities less those of a rigid body.

    :math:`T = (\langle 2 K \rangle - \langle L \cdot I^{-1} L \rangle) / (3N - 6) k`,
    the centre of mass at rest, which is the heat bath's also where the molecule does
    not turn; of two atoms there is one. In MD17's run of ethanol it does not, and a
    thermostat that counts 3N degrees of freedom at 500 K holds the 3N - 6 that move at
    643 K.

    Parameters
    ----------
    ensemble : Ensemble
        Frames with velocities.

    Returns
    -------
    tuple of float
        Temperature and its standard error, K.

    Raises
    ------
    ValueError
        If the ensemble has no velocities.
    """
    masses = ensemble.masses
    axes = _axes(masses)
    freedom = 3 * len(masses) - 3 - axes
    series = []
    for x, v in _replicas(ensemble):
        twice_kinetic = np.einsum("a,tad->t", masses, v**2) / BOLTZMANN
        series.append((twice_kinetic - axes * _rotation(x, v, masses)) / freedom)
    return mean_and_error(series)


def _axes(masses: NDArray[np.float64]) -> int:
    """Axes that a molecule turns about."""
    return 2 if len(masses) == 2 else 3


def _rotation(
    x: NDArray[np.float64],
    velocities: NDArray[np.float64],
    masses: NDArray[np.float64],
) -> NDArray[np.float64]:
    """Of each frame, K; `x` relative to its centre."""
    spread = np.einsum("a,tai,taj->tij", masses, x, x)
    inertia = np.trace(spread, axis1=1, axis2=2)[:, None, None] * np.eye(3) - spread
    momentum = np.einsum("a,tad->td", masses, np.cross(x, velocities))
    # Of two atoms, and in single frames of more, nothing turns about the axis.
    inverse = np.linalg.pinv(inertia, rcond=STRAIGHT, hermitian=True)
    turning = (inverse @ momentum[..., None])[..., 0]
    twice = np.einsum("td,td->t", momentum, turning)
    return np.asarray(twice / (_axes(masses) * BOLTZMANN))


@dataclass(frozen=True)
class StepResidual:
    """
    What velocities leave of the steps between frames.

    Attributes
    ----------
    value : float
        Share of the mean square: 0 for straight steps, 1 where there is no relation, 2
        where velocities are opposite.
    error : float
        Its standard error.
    """

    value: float
    error: float


def step_residual(ensemble: Ensemble) -> StepResidual | None:
    r"""
    Measure what velocities leave of the steps between frames.

    :math:`\langle |\Delta x - \tau \bar v|_m^2 \rangle / \langle |\Delta x|_m^2 +
    |\tau \bar v|_m^2 \rangle`, with :math:`\bar v` the mean of the velocities at both
    ends and the square weighted by mass, the centre of mass at rest. Fast vibrations
    leave much of it in true dynamics as well; velocities of other frames leave 1.

    Parameters
    ----------
    ensemble : Ensemble
        Frames with velocities.

    Returns
    -------
    StepResidual or None
        The share; None where no replica has two frames.

    Raises
    ------
    ValueError
        If the ensemble has no velocities.
    """
    masses, tau = ensemble.masses, ensemble.frame_interval
    left, whole = [], []
    for x, v in _replicas(ensemble):
        if len(v) < 2:
            continue
        step = np.diff(x, axis=0)
        expected = 0.5 * tau * (v[1:] + v[:-1])
        left.append(np.einsum("a,tad->t", masses, (step - expected) ** 2))
        whole.append(np.einsum("a,tad->t", masses, step**2 + expected**2))
    if not left:
        return None
    mean, _ = mean_and_error(whole)
    value = mean_and_error(left)[0] / mean
    # Of a ratio: the error of what is 0 on average.
    deviations = [(a - value * b) / mean for a, b in zip(left, whole, strict=True)]
    return StepResidual(float(value), mean_and_error(deviations)[1])

"""Temperature of each element, and the distribution of the kinetic energy."""

import logging
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.statistics import (
    MIN_SAMPLES,
    mean_and_error,
    statistical_inefficiency,
)
from openmm_diffmd.units import BOLTZMANN

APART = 2.0
"""Statistical inefficiencies between kinetic energies that are tested."""


@dataclass(frozen=True)
class KineticTemperature:
    """
    Kinetic temperature of one element, or of one kind of motion.

    Attributes
    ----------
    value : float
        Of an element the mean of m v^2 / (3 k) over atoms and frames in the
        centre-of-mass frame, K.
    error : float
        Its standard error, K.
    expected : float
        What equipartition gives, K: of an element T (1 - m_i / M), averaged over the
        atoms.
    """

    value: float
    error: float
    expected: float


def element_temperatures(
    ensemble: Ensemble, temperature: float
) -> dict[str, KineticTemperature]:
    """
    Temperature of each element, centre-of-mass motion taken out.

    Parameters
    ----------
    ensemble : Ensemble
        Frames with velocities.
    temperature : float
        Temperature of the heat bath, K.

    Returns
    -------
    dict
        Element symbol to temperature.

    Raises
    ------
    ValueError
        If the ensemble has no velocities.

    Notes
    -----
    With the centre of mass at rest, atom i of a molecule of mass M keeps
    1 - m_i / M of its kinetic energy.
    """
    masses, symbols = ensemble.masses, np.array(ensemble.symbols)
    velocities = ensemble.relative_velocities()
    result = {}
    for symbol in sorted(set(symbols)):
        atoms = np.flatnonzero(symbols == symbol)
        series = [
            np.einsum("a,tad->t", masses[atoms], v[:, atoms] ** 2)
            / (3 * len(atoms) * BOLTZMANN)
            for v in velocities
        ]
        value, error = mean_and_error(series)
        expected = temperature * float(np.mean(1 - masses[atoms] / masses.sum()))
        result[str(symbol)] = KineticTemperature(value, error, expected)
    return result


def kinetic_energies(ensemble: Ensemble) -> list[NDArray[np.float64]]:
    """
    Kinetic energy relative to the centre of mass.

    Parameters
    ----------
    ensemble : Ensemble
        Frames with velocities.

    Returns
    -------
    list of ndarray, shape (n_frames,), kJ/mol
        One a replica.
    """
    return [
        0.5 * np.einsum("a,tad->t", ensemble.masses, v**2)
        for v in ensemble.relative_velocities()
    ]


def thin(series: Sequence[NDArray[np.float64]]) -> NDArray[np.float64]:
    """
    Keep one frame in two statistical inefficiencies, all where frames are independent.

    One apart, half of a kinetic energy's variance, which forgets slowly, still has a
    correlation of exp(-1), and a test of independent samples refuses too often.

    Parameters
    ----------
    series : sequence of ndarray, shape (n_frames,)
        Independent series of one observable.

    Returns
    -------
    ndarray, shape (n_samples,)
        What is left of all series.
    """
    stride = round(1.0 + APART * (statistical_inefficiency(series) - 1.0))
    return np.concatenate([s[stride - 1 :: stride] for s in series])


@dataclass(frozen=True)
class KineticEnergyTest:
    """
    How kinetic energies are distributed beside those of the heat bath.

    Attributes
    ----------
    n_samples : int
        Independent kinetic energies that were tested.
    mean_deviation : float
        Distance of the mean from that of the heat bath, standard errors.
    width_deviation : float
        Distance of the standard deviation from that of the heat bath, standard errors.
    p_value : float
        Kolmogorov-Smirnov test against the Maxwell-Boltzmann distribution.
    """

    n_samples: int
    mean_deviation: float
    width_deviation: float
    p_value: float


def kinetic_energy_test(
    ensemble: Ensemble, temperature: float
) -> KineticEnergyTest | None:
    """
    Test that kinetic energies are Maxwell-Boltzmann distributed.

    Parameters
    ----------
    ensemble : Ensemble
        Frames with velocities.
    temperature : float
        Temperature of the heat bath, K.

    Returns
    -------
    KineticEnergyTest or None
        None where fewer than 20 independent samples are left.

    Notes
    -----
    Frames are thinned (`thin`). The molecule has f = 3 N - 3 degrees of freedom: its
    centre of mass is taken out. p is that of `physical_validation`, Merz and Shirts,
    PLoS ONE 13, e0202764 (2018). Standard errors of mean and width are those of the
    gamma distribution itself, whose kurtosis is 3 + 12 / f: a bootstrap calls a sample
    that is narrow by chance certain of its width.
    """
    samples = thin(kinetic_energies(ensemble))
    if len(samples) < MIN_SAMPLES:
        return None
    # pymbar, below physical_validation, logs a banner when imported.
    logger = logging.getLogger("pymbar")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import physical_validation
    finally:
        logger.setLevel(level)
    n_atoms = ensemble.topology.n_atoms
    data = physical_validation.data.SimulationData(
        units=physical_validation.data.UnitData(
            kb=BOLTZMANN,
            energy_str="kJ/mol",
            energy_conversion=1.0,
            length_str="nm",
            length_conversion=1.0,
            volume_str="nm^3",
            volume_conversion=1.0,
            temperature_str="K",
            temperature_conversion=1.0,
            pressure_str="bar",
            pressure_conversion=1.0,
            time_str="ps",
            time_conversion=1.0,
        ),
        ensemble=physical_validation.data.EnsembleData(
            "NVT", natoms=n_atoms, volume=1.0, temperature=temperature
        ),
        system=physical_validation.data.SystemData(
            natoms=n_atoms,
            nconstraints=0,
            ndof_reduction_tra=3,
            ndof_reduction_rot=0,
            mass=ensemble.masses,
        ),
        observables=physical_validation.data.ObservableData(kinetic_energy=samples),
    )
    p_value = physical_validation.kinetic_energy.distribution(
        data, strict=True, verbosity=0, data_is_uncorrelated=True
    )
    freedom, number = 3 * n_atoms - 3, len(samples)
    expected = 0.5 * freedom * BOLTZMANN * temperature
    width = expected * math.sqrt(2.0 / freedom)
    width_error = width * math.sqrt((2.0 + 12.0 / freedom) / (4.0 * number))
    return KineticEnergyTest(
        n_samples=number,
        mean_deviation=float(abs(samples.mean() - expected) / width * number**0.5),
        width_deviation=float(abs(samples.std(ddof=1) - width) / width_error),
        p_value=float(p_value),
    )

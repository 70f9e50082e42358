"""Rates of rare events: groups that turn, protons that move over."""

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.groups import find_protons, find_rotors
from openmm_diffmd.units import PS_PER_NS

IntArray = NDArray[np.int64]
Series = list[NDArray[np.float64]]

CORE_SHARE = 0.25
"""Half the width of a core, in distances between basins: 30 degrees of 120."""
EXCURSION_NM, RETURN_NM = -0.04, -0.07
"""d(O-H) - d(H...O) above which a proton is out, and below which it is back."""
BLOCK_PS = 10.0
"""Counts of blocks of this length are taken as independent."""
MIN_BLOCKS = 10
"""Blocks that can tell how a rate goes with the heat of the turn."""
PROTON = "proton"


@dataclass(frozen=True)
class EquilibriumRate:
    """
    What a rate would be, had the turns the temperature of the heat bath.

    Attributes
    ----------
    rate : float
        Events of one group, 1/ns.
    error : float
        Its standard error, 1/ns.
    temperature : float
        Kinetic temperature of the turns, K.
    temperature_error : float
        Its standard error, K.
    """

    rate: float
    error: float
    temperature: float
    temperature_error: float


@dataclass(frozen=True)
class EventRate:
    """
    How often something happened to one kind of group.

    Attributes
    ----------
    n_groups : int
        Groups of the kind in the molecule.
    n_events : int
        Events of all of them, in all replicas.
    rate : float
        Events of one group, 1/ns.
    error : float
        Its standard error, 1/ns.
    share : float or None
        Share of time that a proton is out; None for groups that turn.
    share_error : float or None
        Its standard error.
    in_equilibrium : EquilibriumRate or None
        The rate for turns as hot as the bath; None for protons, without velocities or
        in less than ten blocks.
    """

    n_groups: int
    n_events: int
    rate: float
    error: float
    share: float | None = None
    share_error: float | None = None
    in_equilibrium: EquilibriumRate | None = None

    def deviation(self, other: "EventRate") -> float:
        """
        Distance to another rate.

        Parameters
        ----------
        other : EventRate
            The reference's.

        Returns
        -------
        float
            Difference in standard errors of it.
        """
        return (self.rate - other.rate) / float(np.hypot(self.error, other.error))


def core_states(
    angles: NDArray[np.floating], n_basins: int, first_basin: float
) -> IntArray:
    """
    Say in which basin's core an angle is.

    Parameters
    ----------
    angles : ndarray, shape (n_frames,), rad
        A torsion.
    n_basins : int
        Basins of one turn, evenly spaced.
    first_basin : float
        Middle of basin 0, rad.

    Returns
    -------
    ndarray of int, shape (n_frames,)
        Basin, or -1 between the cores. A core reaches a quarter of the distance
        between basins to either side.
    """
    place = n_basins * (np.asarray(angles) - first_basin) / (2.0 * np.pi)
    nearest = np.round(place)
    inside = np.abs(place - nearest) <= CORE_SHARE
    return np.where(inside, nearest.astype(np.int64) % n_basins, -1)


def proton_states(coordinates: NDArray[np.floating]) -> IntArray:
    """
    Say whether a proton is at home or out.

    Parameters
    ----------
    coordinates : ndarray, shape (n_frames,), nm
        d(donor-H) - d(acceptor-H).

    Returns
    -------
    ndarray of int, shape (n_frames,)
        0 at home, 1 out, -1 between.
    """
    q = np.asarray(coordinates)
    return np.where(q > EXCURSION_NM, 1, np.where(q < RETURN_NM, 0, -1))


def entries(states: IntArray) -> tuple[IntArray, IntArray]:
    """
    Find when another core than the last one is entered.

    Parameters
    ----------
    states : ndarray of int, shape (n_frames,)
        Core of each frame, -1 between cores.

    Returns
    -------
    frames, entered : ndarray of int, shape (n_events,)
        Frame of each event, and the core entered. To leave a core and come back to
        it is no event, so that motion on top of a barrier counts once.
    """
    visited = np.flatnonzero(states >= 0)
    cores = states[visited]
    changed = 1 + np.flatnonzero(cores[1:] != cores[:-1])
    return visited[changed], cores[changed]


def event_rates(
    ensemble: Ensemble, temperature: float | None = None
) -> dict[str, EventRate]:
    """
    Count turns of groups and excursions of protons.

    Parameters
    ----------
    ensemble : Ensemble
        Frames. Events quicker than the frame interval are not seen: compare at one
        interval.
    temperature : float, optional
        Temperature of the heat bath, K: where it is given and there are velocities,
        rates are also told for turns as hot as it.

    Returns
    -------
    dict
        ``methyl``, ``hydroxyl``, ``formyl`` and ``proton`` to their rates; only what
        the molecule has.

    Notes
    -----
    Assigning states by the core visited last: Buchete and Hummer, J. Phys. Chem. B
    112, 6057 (2008). Errors are of counts in blocks of 10 ps, but not below that of
    as many independent events: turns come in series while a group still spins.

    How hot the turns are in a finite run is chance, known exactly to have the mean T,
    and decides much of their rate. Regression on it (a control variate) takes that
    chance out: Lavenberg and Welch, Manage. Sci. 27, 322 (1981).
    """
    frames = [t for t in ensemble.trajectories() if t.n_frames]
    events: dict[str, list[Series]] = defaultdict(list)
    heat: dict[str, list[Series]] = defaultdict(list)
    out: list[Series] = []
    moving = []
    if temperature is not None and ensemble.velocities is not None:
        states_of = zip(ensemble.positions, ensemble.relative_velocities(), strict=True)
        moving = [(x, v) for x, v in states_of if len(x)]
    for rotor in find_rotors(ensemble.topology):
        counted = []
        for replica in frames:
            states = core_states(
                rotor.angle(replica), rotor.n_basins, rotor.first_basin
            )
            counted.append(_indicator(len(states), entries(states)[0]))
        events[rotor.kind].append(counted)
        heat[rotor.kind].append(
            [rotor.temperature(x, v, ensemble.masses) for x, v in moving]
        )
    for proton in find_protons(ensemble.topology):
        counted, beyond = [], []
        for replica in frames:
            q = proton.coordinate(replica)
            at, entered = entries(proton_states(q))
            counted.append(_indicator(len(q), at[entered == 1]))
            beyond.append((q > EXCURSION_NM).astype(np.float64))
        events[PROTON].append(counted)
        out.append(beyond)
    interval = ensemble.frame_interval
    result = {}
    for kind, groups in events.items():
        per_frame, error = _mean(groups, interval, count=True)
        share, share_error = (
            _mean(out, interval, count=False) if kind == PROTON else (None, None)
        )
        scale = PS_PER_NS / interval
        in_equilibrium = None
        if moving and kind in heat and temperature is not None:
            in_equilibrium = equilibrium_rate(groups, heat[kind], interval, temperature)
        result[kind] = EventRate(
            n_groups=len(groups),
            n_events=int(sum(series.sum() for group in groups for series in group)),
            rate=scale * per_frame,
            error=scale * error,
            share=share,
            share_error=share_error,
            in_equilibrium=in_equilibrium,
        )
    return result


def equilibrium_rate(
    events: Sequence[Series],
    temperatures: Sequence[Series],
    interval: float,
    temperature: float,
) -> EquilibriumRate | None:
    """
    Take out of a rate what is owed to the heat that the turns had by chance.

    Parameters
    ----------
    events : sequence of list of ndarray, shape (n_frames,)
        Of each group, in each replica: 1 where it turned, else 0.
    temperatures : sequence of list of ndarray, shape (n_frames,), K
        The same of `Rotor.temperature`.
    interval : float
        Time between frames, ps.
    temperature : float
        Temperature of the heat bath, K.

    Returns
    -------
    EquilibriumRate or None
        From a straight line through rate over temperature of blocks; None where there
        are fewer than `MIN_BLOCKS`, or their temperatures are all the same.
    """
    counts, sizes = _blocks(events, interval)
    heats, _ = _blocks(temperatures, interval)
    if len(sizes) < MIN_BLOCKS:
        return None
    weights = sizes / sizes.sum()
    rates = counts / sizes * PS_PER_NS / interval
    heats /= sizes
    mean_rate, mean_heat = weights @ rates, weights @ heats
    spread = weights @ (heats - mean_heat) ** 2
    # A control that repeats its first frame has one temperature.
    if spread <= 1e-12 * mean_heat**2:
        return None
    slope = weights @ ((heats - mean_heat) * (rates - mean_rate)) / spread
    left = weights @ (rates - mean_rate - slope * (heats - mean_heat)) ** 2
    # Two numbers of the line are fitted.
    number = len(sizes) - 2
    away = temperature - mean_heat
    return EquilibriumRate(
        rate=float(mean_rate + slope * away),
        error=float(np.sqrt(left / number * (1.0 + away**2 / spread))),
        temperature=float(mean_heat),
        temperature_error=float(np.sqrt(spread / (number + 1))),
    )


def _indicator(n_frames: int, at: IntArray) -> NDArray[np.float64]:
    series = np.zeros(n_frames)
    series[at] = 1.0
    return series


def _mean(
    groups: Sequence[Series], interval: float, *, count: bool
) -> tuple[float, float]:
    """Mean of a frame of a group, and its error by blocks of time."""
    totals, lengths = _blocks(groups, interval)
    mean = totals.sum() / lengths.sum()
    number = len(totals)
    variance = 0.0 if count else np.nan
    if number > 1:
        deviations = totals - mean * lengths
        variance = (deviations**2).sum() * number / (number - 1)
    if count:
        variance = max(variance, totals.sum(), 1.0)
    return float(mean), float(np.sqrt(variance) / lengths.sum())


def _blocks(
    groups: Sequence[Series], interval: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Sum over blocks of time; tell how many frames of a group each has."""
    sums, sizes = [], []
    for replica in zip(*groups, strict=True):
        # Groups of one molecule are not independent: they share a block.
        total = np.sum(replica, axis=0)
        number = max(1, int(len(total) * interval / BLOCK_PS))
        for block in np.array_split(total, number):
            sums.append(block.sum())
            sizes.append(len(block) * len(groups))
    return np.array(sums, dtype=np.float64), np.array(sizes, dtype=np.float64)

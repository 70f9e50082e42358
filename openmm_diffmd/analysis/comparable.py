"""What a rollout and a reference must share to be compared."""

import math
from collections.abc import Mapping
from typing import Any

from openmm_diffmd.analysis.ensemble import Ensemble

ATTOSECONDS_PER_PICOSECOND = 1_000_000


def has_friction_of(provenance: Mapping[str, Any], friction: float | None) -> bool:
    """
    Say whether a rollout had the friction of a reference.

    Parameters
    ----------
    provenance : mapping
        What made the reference; one that does not say its friction may have any.
    friction : float or None
        Of the rollout, 1/ps; None where it is not known.

    Returns
    -------
    bool
        Whether, as far as is known of both.
    """
    theirs = provenance.get("friction_per_ps")
    if theirs is None or friction is None:
        return theirs is None
    return math.isclose(theirs, friction)


def check_temperature(provenance: Mapping[str, Any], heat_bath: float) -> None:
    """
    Refuse a reference of another temperature than a rollout's.

    Parameters
    ----------
    provenance : mapping
        What made the reference; one that does not say its temperature passes.
    heat_bath : float
        Temperature of the rollout's heat bath, K.

    Raises
    ------
    ValueError
        If they are more than 1 K apart.
    """
    found = provenance.get("temperature_K")
    if found is not None and abs(float(found) - heat_bath) > 1:
        raise ValueError(
            f"found a reference at {found:g} K, expected {heat_bath:g} K, the heat "
            "bath of the run: give a reference or a run of the other's temperature"
        )


def common_interval(*intervals: float) -> float:
    """
    Find the shortest time that is a whole number of each interval.

    Parameters
    ----------
    *intervals : float
        Times between frames, ps: of a reference, and of rollouts or a model's lag.

    Returns
    -------
    float
        Their least common multiple, ps, taken in attoseconds: 40 fs of 8 and 10.
    """
    attoseconds = (round(ATTOSECONDS_PER_PICOSECOND * value) for value in intervals)
    return math.lcm(*attoseconds) / ATTOSECONDS_PER_PICOSECOND


def at_interval(ensemble: Ensemble, interval: float) -> Ensemble:
    """
    Thin an ensemble to a larger interval between frames.

    Parameters
    ----------
    ensemble : Ensemble
        Frames.
    interval : float
        A multiple of the ensemble's interval, ps.

    Returns
    -------
    Ensemble
        Every k-th frame; replicas without one go, where any has one.

    Raises
    ------
    ValueError
        If `interval` is no multiple.
    """
    stride = round(interval / ensemble.frame_interval)
    if stride < 1 or abs(stride * ensemble.frame_interval / interval - 1) > 1e-6:
        raise ValueError(
            f"found frames each {ensemble.frame_interval} ps, expected a divisor of "
            f"{interval} ps, so that both can be compared at one interval"
        )
    if stride == 1:
        return ensemble
    thinned = ensemble.strided(stride)
    lengths = [len(p) for p in thinned.positions]
    return thinned.window([0] * len(lengths), lengths) if any(lengths) else thinned

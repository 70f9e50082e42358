"""Goals of how often rare events come."""

import math
from collections.abc import Sequence

from scipy import stats

from openmm_diffmd.analysis.goal import Goal
from openmm_diffmd.analysis.rare_events import EventRate

MAX_RATE_DEVIATION = 2.0
MAX_RATE_ERROR = 0.2
MIN_EVENTS = 20
"""Fewer events than this are judged by the binomial distribution of their counts."""


def rate_goal(
    kind: str, ours: EventRate | None, target: EventRate, errors_are_known: bool
) -> Goal:
    """
    Judge a rate beside the reference's.

    Parameters
    ----------
    kind : str
        What comes, such as ``methyl``.
    ours : EventRate or None
        Of the rollout, where it was measured.
    target : EventRate
        Of the reference.
    errors_are_known : bool
        Whether both are long enough.

    Returns
    -------
    Goal
        Met within two errors, missed beyond three.
    """
    name = f"rate of {kind} events within {MAX_RATE_DEVIATION:g} errors of it"
    if ours is None:
        return Goal(name, "not measured", passed=False)
    deviation = _rate_deviation(ours, target)
    error = math.hypot(ours.error, target.error)
    passed: bool | None = None
    # Where the reference saw none, to see none either is all that can be asked.
    none = ours.n_events == target.n_events == 0
    known = none or error <= MAX_RATE_ERROR * target.rate
    if errors_are_known and deviation <= MAX_RATE_DEVIATION and known:
        passed = True
    elif errors_are_known and deviation > MAX_RATE_DEVIATION + 1.0:
        passed = False
    return Goal(
        name,
        f"{ours.rate:.0f} +- {ours.error:.0f} beside {target.rate:.0f} +- "
        f"{target.error:.0f} per ns",
        passed,
    )


def _rate_deviation(ours: EventRate, target: EventRate) -> float:
    """
    Distance of two rates, standard errors.

    Few events are not normally distributed: of all that were seen, those of ours are
    binomially, in proportion to the times. Counts are of independent events, fewer than
    were seen where several come at once.
    """
    if min(ours.n_events, target.n_events) >= MIN_EVENTS:
        return abs(ours.deviation(target))
    rates = (ours, target)
    in_series = [r.n_events * (r.error / r.rate) ** 2 for r in rates if r.n_events]
    if not in_series:
        return 0.0
    most, counts, times = max(in_series), [], []
    for rate in rates:
        # Of no event the error is that of one, and nothing says how many come at once.
        time = rate.n_events / rate.rate if rate.n_events else 1.0 / rate.error
        # Some event was seen: as one independent event at least.
        counts.append(max(1, round(rate.n_events / most)) if rate.n_events else 0)
        times.append(time)
    return deviation_of_counts(counts, times)


def deviation_of_counts(counts: Sequence[int], times: Sequence[float]) -> float:
    """
    Tell how far apart two counts are, by the binomial test.

    Parameters
    ----------
    counts : sequence of int, shape (2,)
        Independent events.
    times : sequence of float, shape (2,)
        In how long each was counted.

    Returns
    -------
    float
        Their distance, standard errors.
    """
    share = times[0] / sum(times)
    p_value = stats.binomtest(counts[0], sum(counts), share).pvalue
    return float(stats.norm.isf(0.5 * p_value))

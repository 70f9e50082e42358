"""Whether a number rises before something happens."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import stats

Array = NDArray[np.float64]


@dataclass(frozen=True)
class EventWarning:
    """
    A quantity before events, beside its values when nothing happens.

    Attributes
    ----------
    n_events : int
        Events.
    threshold : float
        Value that `false_alarms` of the ordinary lags exceed.
    false_alarms : float
        That share.
    before : ndarray of int, shape (n,)
        Lags before the event; 0 is the lag that was refused.
    area : ndarray, shape (n,)
        Chance that the value so long before an event is above an ordinary one: the
        area under the ROC curve; 0.5 tells nothing, 1 all.
    detected : ndarray, shape (n,)
        Share of events with the value so long before them above the threshold.
    lead : ndarray of int, shape (n_events,)
        Lags from the first value above the threshold to the event, without a break;
        -1 where not even the refused lag is above it.
    """

    n_events: int
    threshold: float
    false_alarms: float
    before: NDArray[np.int64]
    area: Array
    detected: Array
    lead: NDArray[np.int64]


@dataclass(frozen=True)
class Alarms:
    """
    How often an alarm comes before an event, and an event after an alarm.

    Attributes
    ----------
    n_events : int
        Events; of several within the horizon of one molecule the first.
    lead : ndarray of int, shape (n_warned,)
        Of each event that was warned of: lags from the alarm to it, at least 1.
    n_alarms : int
        Times that the value rose above the threshold, of one molecule once in a
        horizon.
    n_followed : int
        Those of them with an event within the horizon.
    """

    n_events: int
    lead: NDArray[np.int64]
    n_alarms: int
    n_followed: int


def measure_alarms(
    values: Array,
    events: Sequence[tuple[int, int]],
    threshold: float,
    horizon: int,
) -> Alarms:
    """
    Tell how well a value above a threshold warns of events ahead.

    Parameters
    ----------
    values : ndarray, shape (n_lags, n_molecules)
        What is to warn, as it is at the end of each lag; nan where it is unknown.
    events : sequence of tuple
        (lag, molecule) of each event: what happened in that lag, so that the last value
        that may warn is that of the lag before.
    threshold : float
        Value that gives the alarm.
    horizon : int
        Lags that an alarm holds; an event within as many of the last one follows from
        it and is left out.

    Returns
    -------
    Alarms
        Events, alarms, leads.

    Raises
    ------
    ValueError
        If the horizon is less than 1.
    """
    if horizon < 1:
        raise ValueError(f"found a horizon of {horizon} lags, expected 1 or more")
    lead, n_events, n_alarms, n_followed = [], 0, 0, 0
    for molecule, series in enumerate(values.T):
        first: list[int] = []
        last = -horizon - 1
        for lag in sorted(lag for lag, m in events if m == molecule):
            if lag - last > horizon:
                first.append(lag)
            last = lag
        above = np.flatnonzero(series > threshold)
        for lag in first:
            before = above[(above >= lag - horizon) & (above < lag)]
            lead += [lag - int(before[0])] if len(before) else []
        n_events += len(first)
        times = np.array([lag for lag, m in events if m == molecule])
        # A value that stays above is one alarm.
        rises = above[~np.isin(above - 1, above)]
        alarm = -horizon - 1
        for lag in rises.tolist():
            if lag - alarm <= horizon:
                continue
            alarm = lag
            n_alarms += 1
            n_followed += bool(np.any((times > lag) & (times <= lag + horizon)))
    return Alarms(n_events, np.array(lead, np.int64), n_alarms, n_followed)


def split_by_events(
    values: Array,
    events: Sequence[tuple[int, int]],
    window: int,
    distance: int,
    breaks: Sequence[tuple[int, int]] = (),
) -> tuple[Array, Array]:
    """
    Sort the values of a run into those before events and ordinary ones.

    Parameters
    ----------
    values : ndarray, shape (n_lags, n_molecules)
        What is to warn.
    events : sequence of tuple
        (lag, molecule) of each event.
    window : int
        Lags before an event that are looked at, the event's included.
    distance : int
        Lags to the nearest event of the molecule, before or after, that make a value
        ordinary; at least `window`.
    breaks : sequence of tuple
        (lag, molecule) at which a molecule began anew: nothing before counts as before
        a later event, and nothing so close after is ordinary.

    Returns
    -------
    ordinary : ndarray, shape (n,)
        Values far from events.
    before : ndarray, shape (n_kept, window)
        Column k holds the values k lags before each event. An event with another one,
        or a new beginning, in its window follows from it and is left out.
    """
    calm = np.ones(values.shape, dtype=bool)
    for lag, molecule in [*events, *breaks]:
        calm[max(0, lag - distance) : lag + distance + 1, molecule] = False
    rows = []
    for lag, molecule in events:
        recent = range(lag - window + 1, lag)
        disturbed = any(
            m == molecule and (when in recent) for when, m in [*events, *breaks]
        )
        if lag >= window - 1 and not disturbed:
            rows.append(values[lag - window + 1 : lag + 1, molecule][::-1])
    return values[calm], np.array(rows).reshape(-1, window)


def measure_warning(
    ordinary: Array, before: Array, false_alarms: float = 1e-3
) -> EventWarning:
    """
    Tell how well, and how early, a value warns of events.

    Parameters
    ----------
    ordinary : ndarray, shape (n,)
        Values when nothing happens.
    before : ndarray, shape (n_events, window)
        Values before events, from `split_by_events`.
    false_alarms : float
        Share of ordinary values that may exceed the threshold.

    Returns
    -------
    EventWarning
        Areas, detection, lead.

    Raises
    ------
    ValueError
        If there is no event or no ordinary value.
    """
    if len(before) == 0 or len(ordinary) == 0:
        raise ValueError(
            f"found {len(before)} events and {len(ordinary)} ordinary lags, expected "
            "some of both: provoke more, or run longer"
        )
    threshold = float(np.quantile(ordinary, 1.0 - false_alarms))
    above = before > threshold
    # Length of the unbroken series of alarms that ends with the event.
    ended = np.cumprod(above, axis=1).sum(axis=1)
    pairs = len(before) * len(ordinary)
    area = [
        stats.mannwhitneyu(column, ordinary).statistic / pairs for column in before.T
    ]
    return EventWarning(
        n_events=len(before),
        threshold=threshold,
        false_alarms=false_alarms,
        before=np.arange(before.shape[1]),
        area=np.array(area),
        detected=above.mean(axis=0),
        lead=ended - 1,
    )

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

"""Contiguous splits with a gap: what comes later never leaks into training."""

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Split(NamedTuple):
    """
    Ranges of frames.

    Attributes
    ----------
    train, validation, test : range
        First to last frame of each part, in the order of time.
    """

    train: range
    validation: range
    test: range


def gap_between_parts(segments: NDArray[np.integer], lag: int) -> int:
    """
    Count the frames to leave out between two parts of a trajectory.

    Parameters
    ----------
    segments : ndarray of int, shape (n_frames,)
        The unbroken piece of dynamics a frame belongs to.
    lag : int
        Frames of a lag.

    Returns
    -------
    int
        A lag; the longest segment where there are several and that is longer.
    """
    counts = np.unique(segments, return_counts=True)[1]
    return lag if len(counts) == 1 else max(lag, int(counts.max()))


def contiguous_split(
    segments: NDArray[np.integer],
    gap: int,
    fractions: tuple[float, float, float] = (0.9, 0.05, 0.05),
) -> Split:
    """
    Cut a trajectory into three contiguous parts.

    Parameters
    ----------
    segments : ndarray of int, shape (n_frames,)
        The unbroken piece of dynamics a frame belongs to.
    gap : int
        Frames left out between parts; where there are several segments, at least as
        many as the longest has.
    fractions : tuple of float
        Shares of the frames, gaps included; none negative, the first above 0, at most
        1 together.

    Returns
    -------
    Split
        The parts.

    Raises
    ------
    ValueError
        If the fractions do not fit or a part would be empty.
    """
    n_frames = len(segments)
    if min(fractions) < 0 or sum(fractions) > 1 + 1e-9:
        raise ValueError(
            f"found fractions {fractions}, expected none below 0 and a sum of at most 1"
        )
    if not fractions[0] > 0:
        raise ValueError(
            f"found fractions {fractions}, expected a training share above 0: the first"
        )
    gap = gap_between_parts(segments, gap)
    first = round(fractions[0] * n_frames)
    second = round((fractions[0] + fractions[1]) * n_frames)
    third = min(n_frames, round(sum(fractions) * n_frames))
    parts = Split(range(first), range(first + gap, second), range(second + gap, third))
    for name, part in parts._asdict().items():
        if len(part) == 0 and fractions[parts._fields.index(name)] > 0:
            raise ValueError(
                f"found {n_frames} frames, too few for a {name} part after gaps of "
                f"{gap} frames; bring more frames or other fractions"
            )
    return parts

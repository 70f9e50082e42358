"""Which frames of a file a model has never seen."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.data.runs import same_run
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.units import FS_PER_PS

UNBROKEN_GAP_FS = 1000.0
"""Left out after the parts of an unbroken run: more than any lag."""

TIME_TOLERANCE = 1e-4
"""ps: other programs than ours may store times in single precision."""


def held_out_frames(
    trajectory: Trajectory,
    training: Sequence[Mapping[str, Any]],
    fractions: Sequence[float],
) -> NDArray[np.bool_]:
    """
    Mark the frames that neither training, validation nor calibration used.

    Parameters
    ----------
    trajectory : Trajectory
        Bursts or a thermostatted run, or a bundle of such runs.
    training : sequence of mapping
        The files a model was trained on, as its metadata list them.
    fractions : sequence of float
        Shares of training, validation and test in those files.

    Returns
    -------
    ndarray of bool, shape (n_frames,)
        All of a run that the model knows nothing of. Of a file it was trained on what
        comes after the validation part and one more segment. Of a thermostatted run
        whose bursts it was trained on the time after them and one more burst, whether
        the bursts were chained into the run or began at its frames. Nothing of a run
        that was joined with others for the training.
    """
    kept = np.ones(trajectory.n_frames, dtype=bool)
    segments = np.unique(trajectory.segments)
    sources = trajectory.provenance.get("sources", [trajectory.provenance])
    for index, source in enumerate(sources):
        own = np.ones_like(kept)
        if len(sources) == len(segments):
            own = trajectory.segments == segments[index]
        for file in training:
            joined = file["provenance"].get("sources")
            if joined is not None and any(same_run(source, one) for one in joined):
                # Where in the bundle it stood is not said.
                kept &= ~own
            elif joined is None and same_run(source, file["provenance"]):
                kept &= ~own | _after(trajectory, own, source, file, fractions)
    return kept


def contiguous_ranges(mask: NDArray[np.bool_]) -> list[range]:
    """
    Turn marked frames into ranges.

    Parameters
    ----------
    mask : ndarray of bool, shape (n_frames,)
        Marked frames.

    Returns
    -------
    list of range
        Unbroken runs of them, in order.
    """
    edges = np.flatnonzero(np.diff(np.concatenate([[0], mask.astype(int), [0]])))
    return [range(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


def _after(
    trajectory: Trajectory,
    own: NDArray[np.bool_],
    source: Mapping[str, Any],
    file: Mapping[str, Any],
    fractions: Sequence[float],
) -> NDArray[np.bool_]:
    used = file["train_frames"] * (fractions[0] + fractions[1]) / fractions[0]
    if source.get("kind") == file["provenance"].get("kind"):
        segment = file["n_frames"] / file["n_segments"]
        # A run made again may have its frames at other intervals.
        intervals = [p.get("frame_interval_fs") for p in (file["provenance"], source)]
        if all(intervals):
            used, segment = (n * intervals[0] / intervals[1] for n in (used, segment))
        if file["n_segments"] == 1 and intervals[1]:
            segment = UNBROKEN_GAP_FS / intervals[1]
        elif file["n_segments"] > 1:
            # Calibration leaves out the longest and ends as much later.
            lengths = np.unique(trajectory.segments[own], return_counts=True)[1]
            segment = max(segment, int(lengths.max()))
        # Counted from the run's own first frame: it may stand anywhere in a bundle.
        return np.asarray(np.cumsum(own) - 1 >= used + segment)
    interval = file["provenance"].get("frame_interval_fs", 0.0)
    chained = used * interval / FS_PER_PS
    # A burst that began at a frame of the run goes beside it for a while.
    burst = file["n_frames"] / file["n_segments"] * interval
    # Files of before do not say the length of their run: taken for as long as this.
    length = file["provenance"].get("length_ps", trajectory.times[own].max())
    spread = used / file["n_frames"] * float(length)
    spread += burst / FS_PER_PS
    return np.asarray(trajectory.times > max(chained, spread) + TIME_TOLERANCE)

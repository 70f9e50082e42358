"""Which frames of a file a model has never seen."""

import itertools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.outputs import file_sha256
from openmm_diffmd.units import FEMTOSECONDS_PER_PICOSECOND

IDENTITY = ("temperature_K", "seed", "file")
"""
Provenance of one run of the reference driver, or of a file of others; when is left out,
since a seed makes the same run again. What moved, and by which force, is told by the
hashes of files that were read, where both have any, else by name.
"""
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


def same_run(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """
    Tell whether two provenances are of one run, made twice or not.

    Parameters
    ----------
    one, other : mapping
        Provenances.

    Returns
    -------
    bool
        Whether all that they say of `IDENTITY`, molecule and force is equal. A file
        that was renamed is the same, one that was edited is not.
    """
    # Early files have no hashes, later ones an empty mapping where no file was read.
    hashes = [sorted((run.get("sha256") or {}).values()) for run in (one, other)]
    if all(hashes) and hashes[0] != hashes[1]:
        return False
    options = [run.get("potential_options") or {} for run in (one, other)]
    if options[0] != options[1]:
        return False
    return all(one.get(name) == other.get(name) for name in IDENTITY) and all(
        _same_name(one, other, name) for name in ("molecule", "potential")
    )


def check_overlap(files: Sequence[Path], trajectories: Sequence[Trajectory]) -> None:
    """
    Refuse one run in two files: what one leaves out the other would train on.

    Parameters
    ----------
    files : sequence of path-like
        Files to train on; one that is named twice counts twice, which is meant.
    trajectories : sequence of Trajectory
        What is in them, with velocities.

    Raises
    ------
    ValueError
        If two files are of one run of the reference driver, of two lengths say.
    """
    both = zip(files, trajectories, strict=True)
    for (file, one), (again, other) in itertools.combinations(both, 2):
        # Hot bonds of the same seed begin at the same frames and go elsewhere.
        kinds = [
            [t.provenance.get(key) for key in ("kind", "bond_energy_kT")]
            for t in (one, other)
        ]
        seed = one.provenance.get("seed")
        if seed is None or kinds[0] != kinds[1]:
            continue
        starts = [
            np.concatenate([t.positions[0], np.asarray(t.velocities)[0]])
            for t in (one, other)
        ]
        if (
            same_run(one.provenance, other.provenance)
            and np.array_equal(starts[0], starts[1])
            and file_sha256(file) != file_sha256(again)
        ):
            raise ValueError(
                f"found the frames of {file} in {again} again, a run of the same seed "
                f"({seed}), expected another: what is left out of one would be trained "
                "on in the other; make it with another --seed, or give the longer one "
                "alone"
            )


def _same_name(one: Mapping[str, Any], other: Mapping[str, Any], key: str) -> bool:
    names = [run.get(key) for run in (one, other)]
    hashes = [
        (run.get("sha256") or {}).get(name)
        for run, name in zip((one, other), names, strict=True)
    ]
    if all(hashes):
        return bool(hashes[0] == hashes[1])
    # Bundled molecules are known by their names in any case.
    first, second = (str(name).casefold() for name in names)
    return first == second


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
    chained = used * interval / FEMTOSECONDS_PER_PICOSECOND
    # A burst that began at a frame of the run goes beside it for a while.
    burst = file["n_frames"] / file["n_segments"] * interval
    # Files of before do not say the length of their run: taken for as long as this.
    length = file["provenance"].get("length_ps", trajectory.times[own].max())
    spread = used / file["n_frames"] * float(length)
    spread += burst / FEMTOSECONDS_PER_PICOSECOND
    return np.asarray(trajectory.times > max(chained, spread) + TIME_TOLERANCE)

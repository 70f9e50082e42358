"""Pairs of the reference files of a training: of its part, and of what comes after."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ase.data import atomic_numbers

from openmm_diffmd.data.pairs import (
    LaggedPairs,
    NoPairError,
    PairBatch,
    evenly_spread,
    lag_in_frames,
)
from openmm_diffmd.data.readers import frame_intervals, read_trajectory
from openmm_diffmd.data.splits import gap_between_parts
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.models import TransitionModel
from openmm_diffmd.outputs import file_sha256
from openmm_diffmd.units import FS_PER_PS

MAX_PAIRS = 4096


def pairs_left_out(
    model: TransitionModel,
    data: Sequence[Path],
    description: dict[str, Any],
    temperature: float,
    fraction: float,
) -> PairBatch:
    """
    Gather evenly spread pairs after the training part of the reference files.

    Parameters
    ----------
    model : TransitionModel
        The model, for its lag.
    data : sequence of path-like
        The files the model was trained on, in their order.
    description : dict
        Of the training.
    temperature : float
        Files at this temperature, K, without heated bonds are used; all files where
        none is.
    fraction : float
        Share of the frames; the option ``calibration_fraction``.

    Returns
    -------
    PairBatch
        At most `MAX_PAIRS` pairs.

    Raises
    ------
    ValueError
        If the files are not those of the training, in its order, or that share holds
        no pair.
    """
    trajectories, ranges = [], []
    for trajectory, train_frames in _files_at(data, description, temperature):
        lag = lag_in_frames(trajectory, model.lag_time)
        start = train_frames + gap_between_parts(trajectory.segments, lag)
        trajectories.append(trajectory)
        ranges.append(range(start, start + int(fraction * trajectory.n_frames)))
    try:
        pairs = LaggedPairs(
            trajectories, ranges, _elements(description), model.lag_time
        )
    except NoPairError as error:
        raise ValueError(
            f"found no pair of frames {FS_PER_PS * model.lag_time:g} fs apart among "
            f"the calibration_fraction {fraction:g} that comes after the training part "
            "and a gap, expected at least one; raise calibration_fraction, to the "
            "validation share at most, or train on a smaller share"
        ) from error
    indices = evenly_spread(len(pairs), MAX_PAIRS)
    return pairs.batch(indices)


def pairs_trained_on(
    model: TransitionModel,
    data: Sequence[Path],
    description: dict[str, Any],
    temperature: float,
) -> LaggedPairs:
    """
    Gather the pairs of the training part of the reference files.

    Parameters
    ----------
    model : TransitionModel
        The model, for its lag.
    data : sequence of path-like
        The files the model was trained on, in their order.
    description : dict
        Of the training.
    temperature : float
        Files at this temperature, K, without heated bonds are used; all files where
        none is.

    Returns
    -------
    LaggedPairs
        The pairs.

    Raises
    ------
    ValueError
        If the files are not those of the training, in its order.
    """
    trajectories, ranges = parts_trained_on(data, description, temperature)
    return LaggedPairs(trajectories, ranges, _elements(description), model.lag_time)


def parts_trained_on(
    data: Sequence[Path], description: dict[str, Any], temperature: float
) -> tuple[list[Trajectory], list[range]]:
    """
    Read the training part of the reference files.

    Parameters
    ----------
    data : sequence of path-like
        The files the model was trained on, in their order.
    description : dict
        Of the training.
    temperature : float
        Files at this temperature, K, without heated bonds are used; all files where
        none is.

    Returns
    -------
    trajectories : list of Trajectory
        The files.
    ranges : list of range
        The frames of each that were trained on.

    Raises
    ------
    ValueError
        If the files are not those of the training, in its order.
    """
    files = _files_at(data, description, temperature)
    return [file for file, _ in files], [range(count) for _, count in files]


def _files_at(
    data: Sequence[Path], description: dict[str, Any], temperature: float
) -> list[tuple[Trajectory, int]]:
    """Read the files of a temperature, or all; with the frames of training in each."""
    names = [file["file"] for file in description["data"]]
    if len(data) != len(names):
        raise ValueError(
            f"found {len(data)} data files, expected the {len(names)} of the training, "
            f"in its order: {', '.join(names)}"
        )
    interval = description["config"]["data"]["frame_interval_fs"]
    intervals = frame_intervals(data, interval)
    files = list(zip(data, intervals, description["data"], strict=True))
    at_temperature = [
        (path, interval, file)
        for path, interval, file in files
        if file["provenance"].get("temperature_K") == temperature
        and not file["provenance"].get("bond_energy_kT")
        and not file["provenance"].get("revisited")
    ]
    found = []
    for path, interval, file in at_temperature or files:
        if file_sha256(path) != file["sha256"]:
            raise ValueError(
                f"found {path} that is not the training's {file['file']} (another "
                f"SHA-256), expected its files in their order: {', '.join(names)}"
            )
        found.append((read_trajectory(path, interval), int(file["train_frames"])))
    return found


def _elements(description: dict[str, Any]) -> list[int]:
    return [atomic_numbers[symbol] for symbol in description["elements"]]

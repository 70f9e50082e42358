"""Files that a transition model may be trained on, and their parts."""

import json
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from openmm_diffmd.data.pairs import LaggedPairs, NoPairError, lag_in_frames
from openmm_diffmd.data.readers import read_trajectory
from openmm_diffmd.data.splits import Split, contiguous_split
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.data.velocities import check_velocities
from openmm_diffmd.elements import check_element_masses
from openmm_diffmd.training.config import TrainConfig
from openmm_diffmd.units import FS_PER_PS


def read_dynamics(
    path: Path, frame_interval_fs: float | None, dynamics: str
) -> Trajectory:
    """
    Read a file, and refuse what is not of the dynamics that are to be learned.

    Parameters
    ----------
    path : path-like
        The file.
    frame_interval_fs : float or None
        Time between frames where the file does not tell, fs.
    dynamics : {"flow", "thermostatted"}
        What is to be learned.

    Returns
    -------
    Trajectory
        Its frames, with velocities.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it cannot be read, has no velocities or such as do not belong to its
        positions, other masses than the elements', or is of other dynamics.

    Warns
    -----
    UserWarning
        If it does not say its dynamics, or has a heat bath that it does not show.
    """
    trajectory = read_trajectory(path, frame_interval_fs)
    if trajectory.velocities is None:
        reason = trajectory.provenance.get("velocities", "the file has none")
        raise ValueError(
            f"found {path} without velocities ({reason}), expected them: bring a "
            "reference of openmm-diffmd reference, or extxyz with momenta; frames of "
            "MD17 are for openmm-diffmd force, and that for reference"
        )
    check_element_masses(path, trajectory.atomic_numbers, trajectory.masses)
    if trajectory.is_foreign:
        check_velocities(path, trajectory)
    kind = trajectory.provenance.get("kind")
    friction = trajectory.provenance.get("friction_per_ps")
    if friction is not None and (friction > 0) != (dynamics == "thermostatted"):
        raise ValueError(
            f"found {path} of friction {friction:g}/ps for dynamics "
            f"{dynamics!r}, expected the frictionless bursts.h5 for 'flow', a "
            "run with friction for 'thermostatted'"
        )
    if friction is None and kind is None and dynamics == "flow":
        warnings.warn(
            f"found {path}, which says neither its friction nor what made it, expected "
            "frictionless dynamics with velocities at the times of the positions: "
            "taken as that; a run with a heat bath needs --pairs.dynamics "
            "thermostatted --pairs.time_reversal false",
            stacklevel=2,
        )
    is_md17 = trajectory.provenance.get("data") == "MD17"
    better = "a reference by way of a force: openmm-diffmd force, then reference"
    if friction is None and kind == "thermostatted" and dynamics == "flow":
        other = "--pairs.dynamics thermostatted --pairs.time_reversal false"
        raise ValueError(
            f"found {path} of a thermostatted run for dynamics 'flow', expected "
            + (f"{better}; or {other}, at a loss" if is_md17 else other)
        )
    if is_md17:
        warnings.warn(
            f"found {path}, frames of MD17, whose heat bath is in neither positions "
            "nor velocities, so that a model of them runs some elements a third too "
            f"cold and others too hot, expected {better}",
            stacklevel=2,
        )
    return trajectory


def warn_of_several_forces(
    data: Sequence[Path], trajectories: Sequence[Trajectory]
) -> None:
    """
    Tell of files of one molecule that no one model can follow.

    Parameters
    ----------
    data : sequence of Path
        The files.
    trajectories : sequence of Trajectory
        Their frames.

    Warns
    -----
    UserWarning
        If files of one molecule are of several forces, or charges.
    """
    seen: dict[Any, tuple[Path, str]] = {}
    for path, trajectory in zip(data, trajectories, strict=True):
        provenance = trajectory.provenance
        force = str(provenance.get("potential", provenance.get("data", "unknown")))
        options = provenance.get("potential_options")
        force += f" {json.dumps(options, sort_keys=True)}" if options else ""
        # A trained force is called force.pt whatever it was trained on.
        if sha256 := provenance.get("sha256", {}).get(provenance.get("potential")):
            force += f" (sha256 {sha256[:12]})"
        molecule = trajectory.atomic_numbers.tobytes(), trajectory.bonds.tobytes()
        other, known = seen.setdefault(molecule, (path, force))
        if force != known:
            warnings.warn(
                f"found {path} of the force {force} and {other} of {known}, both of "
                "one molecule, expected one force and charge: the model would learn "
                "something between; train a model of each",
                stacklevel=3,
            )
            return


def split_trajectories(
    data: Sequence[Path], trajectories: Sequence[Trajectory], config: TrainConfig
) -> list[Split]:
    """
    Split each trajectory, with a gap of a lag at least.

    Parameters
    ----------
    data : sequence of Path
        Their files.
    trajectories : sequence of Trajectory
        The data.
    config : TrainConfig
        All options.

    Returns
    -------
    list of Split
        One a trajectory.

    Raises
    ------
    ValueError
        If the fractions do not fit, or leave a part of a file empty, or a lag is no
        whole number of its frames.
    """
    lag_time = config.data.lag_time_fs / FS_PER_PS
    splits = []
    for path, trajectory in zip(data, trajectories, strict=True):
        try:
            lag = lag_in_frames(trajectory, lag_time)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        try:
            split = contiguous_split(trajectory.segments, lag, config.data.fractions)
        except ValueError as error:
            raise ValueError(f"{error} (--pairs.fractions), for {path}") from error
        splits.append(split)
    return splits


def validation_pairs(
    data: Sequence[Path],
    trajectories: Sequence[Trajectory],
    splits: Sequence[Split],
    elements: list[int],
    lag_time: float,
) -> list[LaggedPairs]:
    """
    Pair the validation part of each file.

    Parameters
    ----------
    data : sequence of Path
        The files.
    trajectories : sequence of Trajectory
        Their frames.
    splits : sequence of Split
        Their parts.
    elements : list of int
        Atomic numbers in the order of the species index.
    lag_time : float
        Lag, ps.

    Returns
    -------
    list of LaggedPairs
        One a file.

    Raises
    ------
    ValueError
        If a file's part holds no pair.
    """
    pairs = []
    for path, trajectory, split in zip(data, trajectories, splits, strict=True):
        try:
            found = LaggedPairs([trajectory], [split.validation], elements, lag_time)
        except NoPairError as error:
            raise ValueError(
                f"found a validation part of {len(split.validation)} frames of {path} "
                "without a pair a lag apart, expected at least one: give it a larger "
                "share (--pairs.fractions) or bring a longer run"
            ) from error
        pairs.append(found)
    return pairs

"""What a training says about itself: kept beside its checkpoints and in the model."""

import dataclasses
import json
import pickle
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols

from openmm_diffmd.data.scales import bond_ranges, contact_limits
from openmm_diffmd.data.splits import Split
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.outputs import file_sha256, written_whole
from openmm_diffmd.training.config import TrainConfig

DESCRIPTION_FILE = "training.json"


def describe(
    config: TrainConfig,
    seed: int,
    data: Sequence[Path],
    trajectories: Sequence[Trajectory],
    splits: Sequence[Split],
    symbols: list[str],
) -> dict[str, Any]:
    """
    Collect what an exported model has to say about its training.

    Parameters
    ----------
    config : TrainConfig
        All options.
    seed : int
        Seed of the training.
    data : sequence of path-like
        The files.
    trajectories : sequence of Trajectory
        Their frames.
    splits : sequence of Split
        Their splits.
    symbols : list of str
        The elements.

    Returns
    -------
    dict
        JSON-able description: configuration, elements, bond ranges, contact limits,
        example, files.
    """
    first = trajectories[0]
    training = [split.train for split in splits]
    return {
        "config": dataclasses.asdict(config),
        "seed": seed,
        "elements": symbols,
        "bond_ranges_nm": bond_ranges(trajectories, training),
        "contact_limits_nm": contact_limits(trajectories, training),
        "example": {
            "elements": [chemical_symbols[number] for number in first.atomic_numbers],
            "bonds": first.bonds.tolist(),
            "positions_nm": first.positions[0].astype(float).tolist(),
        },
        "data": [
            {
                "file": Path(path).name,
                "sha256": file_sha256(path),
                "n_frames": trajectory.n_frames,
                "n_segments": len(set(trajectory.segments.tolist())),
                "train_frames": len(split.train),
                "elements": [chemical_symbols[z] for z in trajectory.atomic_numbers],
                "bonds": trajectory.bonds.tolist(),
                "provenance": dict(trajectory.provenance),
            }
            for path, trajectory, split in zip(data, trajectories, splits, strict=True)
        ],
    }


def read_description(folder: Path) -> dict[str, Any]:
    """
    Read what a training says about itself.

    Parameters
    ----------
    folder : path-like
        Folder of the training.

    Returns
    -------
    dict
        What `describe` made, and the history of the training.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is damaged.
    """
    path = Path(folder) / DESCRIPTION_FILE
    try:
        found: dict[str, Any] = json.loads(path.read_text())
    except FileNotFoundError as error:
        raise FileNotFoundError(
            f"found no {path}, expected the folder of a training with it: copy the "
            "whole folder, or train anew"
        ) from error
    except ValueError as error:
        raise ValueError(
            f"{path} is damaged ({error}), expected JSON: train anew in another folder"
        ) from error
    return found


def write_description(description: dict[str, Any], folder: Path) -> None:
    """
    Write what a training says about itself, whole or not at all.

    Parameters
    ----------
    description : dict
        What `describe` made, and the history of the training.
    folder : path-like
        Folder of the training.
    """
    with written_whole(Path(folder) / DESCRIPTION_FILE) as part:
        part.write_text(json.dumps(description, indent=1))


def read_checkpoint(path: Path) -> dict[str, Any]:
    """
    Read a checkpoint of a training.

    Parameters
    ----------
    path : path-like
        The checkpoint; it is unpickled, so it must be one's own.

    Returns
    -------
    dict
        Lightning's checkpoint, on the CPU.

    Raises
    ------
    ValueError
        If it is damaged.
    """
    try:
        found: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=False)
    except (RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise ValueError(
            f"{path} is damaged ({str(error).split('. ')[0]}); put the last "
            "step=N.ckpt beside it in its place, or start anew"
        ) from error
    return found


def check_same_training(before: dict[str, Any], now: dict[str, Any]) -> None:
    """
    Refuse to go on with weights that mean something else.

    Parameters
    ----------
    before, now : dict
        What `describe` made of the training in the folder and of this one.

    Raises
    ------
    ValueError
        If elements, network, lag, dynamics, or what of the weights is optimized and
        how, differ.
    """
    for name, found, expected in (
        ("elements", now["elements"], before["elements"]),
        *(
            # The option of what is kept as "data" is called pairs.
            (
                f"{'pairs' if part == 'data' else part}.{key}",
                now["config"][part][key],
                before["config"][part][key],
            )
            for part, keys in (
                ("model", before["config"]["model"]),
                ("data", ("lag_time_fs", "dynamics")),
                # The last two are the checkpoint's, whatever is asked for.
                (
                    "optimizer",
                    ("algorithm", "freeze_encoder", "learning_rate", "weight_decay"),
                ),
            )
            for key in keys
            # An option that the training did not know yet is left to it; one that a
            # force knew once meant nothing.
            if key in before["config"][part] and key in now["config"][part]
        ),
    ):
        if found != expected:
            raise ValueError(
                f"found {name} {found!r}, but the training to resume has {expected!r}; "
                "give the same, or choose another folder"
            )

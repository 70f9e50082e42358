"""Cases of `short_horizon.py`: ten frames that are known, twenty that follow."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from held_out_bursts import make_bursts, unseen
from numpy.typing import NDArray
from openmm import app

from openmm_diffmd.analysis.loading import topology_of
from openmm_diffmd.data.md17 import read_md17
from openmm_diffmd.export.torchscript import DiffusionModel

Array = NDArray[np.float64]
NUM_KNOWN, NUM_PREDICTED, STRIDE = 10, 20, 10
TEST_FRACTION = 0.2
FRAME_INTERVAL_FS = 0.5
"""Of most files of MD17."""


@dataclass(frozen=True)
class Cases:
    """
    What is to be predicted.

    Attributes
    ----------
    molecule : str
        Its name.
    topology : openmm.app.Topology
        The molecule.
    positions, velocities : ndarray, shape (n_cases, n_atoms, 3), nm and nm/ps
        The last known frame.
    truth : ndarray, shape (n_cases, 20, n_atoms, 3), nm
        The frames after it.
    spacing_fs : float
        Time between them, fs.
    num_independent : float
        How many cases that do not overlap are as long together.
    source : dict
        Where they are from.
    """

    molecule: str
    topology: app.Topology
    positions: Array
    velocities: Array
    truth: Array
    spacing_fs: float
    num_independent: float
    source: dict[str, Any]


def reference_cases(
    model: DiffusionModel, reference: Path, count: int, output: Path
) -> Cases:
    """Make cases of the reference's force, from its test part."""
    bursts = make_bursts(reference, model.metadata, count, output)
    if bursts.velocities is None:
        raise ValueError("found bursts without velocities, expected them")
    shape = (-1, NUM_KNOWN + NUM_PREDICTED, bursts.n_atoms, 3)
    x = bursts.positions.reshape(shape).astype(np.float64)
    v = bursts.velocities.reshape(shape).astype(np.float64)
    return Cases(
        molecule=Path(str(bursts.provenance["molecule"])).stem,
        topology=topology_of(bursts).to_openmm(),
        positions=x[:, NUM_KNOWN - 1],
        velocities=v[:, NUM_KNOWN - 1],
        truth=x[:, NUM_KNOWN:],
        spacing_fs=float(bursts.provenance["frame_interval_fs"]),
        num_independent=len(x),
        source=dict(bursts.provenance),
    )


def md17_cases(
    model: DiffusionModel,
    path: Path,
    frame_interval_fs: float,
    count: int,
    fraction: float = TEST_FRACTION,
) -> Cases:
    """
    Take cases from the end of an original MD17 file, its last fifth unless told.

    A model that was trained on the file is given frames only that it has not seen.
    """
    frames = read_md17(path, frame_interval_fs)
    if frames.velocities is None:
        raise ValueError(
            f"found {path} without velocities ({frames.provenance['velocities']}), "
            "expected an original MD17 file, and its --frame-interval-fs"
        )
    test = round(fraction * frames.n_frames)
    first = frames.n_frames - test + (NUM_KNOWN - 1) * STRIDE
    last = frames.n_frames - 1 - NUM_PREDICTED * STRIDE
    if last < first:
        raise ValueError(
            f"found {test} frames in the last {fraction:g} of {path}, expected at "
            f"least {(NUM_KNOWN + NUM_PREDICTED - 1) * STRIDE + 1}: bring the whole "
            "file, or a larger --test-fraction where the model saw none of it"
        )
    seen = np.concatenate([[0], np.cumsum(~unseen(frames, model.metadata))])
    starts = np.arange(first, last + 1)
    begin, end = (NUM_KNOWN - 1) * STRIDE, NUM_PREDICTED * STRIDE + 1
    starts = starts[seen[starts + end] == seen[starts - begin]]
    if len(starts) == 0:
        raise ValueError(
            f"found no case in the last {fraction:g} of {path} that the model was not "
            "trained on, expected some: train on a smaller share (--pairs.fractions)"
        )
    chosen = np.linspace(0, len(starts) - 1, count).astype(int)
    starts = starts[np.unique(chosen)]
    later = STRIDE * np.arange(1, NUM_PREDICTED + 1)
    covered = np.unique(starts[:, None] + np.arange(1, NUM_PREDICTED * STRIDE + 1))
    return Cases(
        # md17_benzene2017.npz, md17_ethanol_first2000.npz
        molecule=re.split(r"[^a-z]", path.stem.removeprefix("md17_"))[0],
        topology=topology_of(frames).to_openmm(),
        positions=frames.positions[starts].astype(np.float64),
        velocities=frames.velocities[starts].astype(np.float64),
        truth=frames.positions[starts[:, None] + later].astype(np.float64),
        spacing_fs=STRIDE * frame_interval_fs,
        num_independent=len(covered) / (NUM_PREDICTED * STRIDE),
        source=dict(frames.provenance),
    )

"""Frictionless pieces of reference dynamics that a model has never seen."""

import json
from collections.abc import Iterator, Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from held_out import contiguous_ranges, held_out_frames
from numpy.typing import NDArray
from openmm import app, unit
from reference_force import recreate_reference_system
from tqdm import tqdm

from openmm_diffmd.analysis.loading import topology_of
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.outputs import file_sha256, written_whole
from openmm_diffmd.reference.dynamics import (
    ReferenceFrame,
    baoab_integrator,
    run_segment,
)
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.units import FS_PER_PS

STEP_FS = 0.5
FRAME_FS = 5.0
NUM_FRAMES = 30
"""GeoTDM's 10 frames in and 20 out."""
TEST_SHARE = 0.2
BEGAN_FROM = {"ethanol": (), "md17": ("ethanol",)}
BEGAN_FROM |= {f"ethanol_{lag}fs": ("ethanol",) for lag in (5, 15, 20)}
"""
Bundled models that bundled models began from, whose histories do not list files yet;
others began from both.
"""


def unseen(trajectory: Trajectory, metadata: ModelMetadata) -> NDArray[np.bool_]:
    """
    Mark the frames of a file that the model has not seen.

    Parameters
    ----------
    trajectory : Trajectory
        Frames.
    metadata : ModelMetadata
        What the model says about its training.

    Returns
    -------
    ndarray of bool, shape (n_frames,)
        Frames left out of training, validation and calibration, also of the models
        that it began from.
    """
    kept = np.ones(trajectory.n_frames, dtype=bool)
    for files, config in _trainings(metadata):
        fractions = config.get("data", {}).get("fractions", (1.0, 0.0, 0.0))
        kept &= held_out_frames(trajectory, files, fractions)
    return kept


def unseen_pieces(
    trajectory: Trajectory, metadata: ModelMetadata
) -> list[tuple[Trajectory, range]]:
    """
    List the pieces of a file that the model has not seen.

    Parameters
    ----------
    trajectory : Trajectory
        Frames.
    metadata : ModelMetadata
        What the model says about its training.

    Returns
    -------
    list of (Trajectory, range)
        The file and frames of each piece, in order.

    Raises
    ------
    ValueError
        If none is left.
    """
    ranges = contiguous_ranges(unseen(trajectory, metadata))
    if not ranges:
        raise ValueError(
            "found no frame that the model was not trained on, expected some: give "
            "--data of another seed"
        )
    return [(trajectory, frames) for frames in ranges]


def _trainings(
    metadata: ModelMetadata,
) -> Iterator[tuple[Sequence[Mapping[str, Any]], Mapping[str, Any]]]:
    """Files and configurations of a model and of those before it."""
    history = metadata.config.get("history", [])
    yield metadata.reference.get("data", []), metadata.config
    yield from ((entry["files"], entry) for entry in history if "files" in entry)
    if any("files" not in entry for entry in history):
        for name in BEGAN_FROM.get(metadata.name, ("ethanol", "md17")):
            # With all that it was trained on since: too much rather than too little.
            yield from _trainings(load_model(name).metadata)


def pick_frames(
    trajectory: Trajectory, metadata: ModelMetadata, count: int
) -> NDArray[np.int64]:
    """
    Pick evenly spaced frames of the last fifth that the model has not seen.

    Parameters
    ----------
    trajectory : Trajectory
        A reference.
    metadata : ModelMetadata
        What the model says about its training.
    count : int
        How many.

    Returns
    -------
    ndarray of int, shape (count,)
        Frames, or fewer where there are no more.

    Raises
    ------
    ValueError
        If none is left.
    """
    last = np.arange(trajectory.n_frames) >= (1 - TEST_SHARE) * trajectory.n_frames
    frames = np.flatnonzero(last & unseen(trajectory, metadata))
    if len(frames) == 0:
        raise ValueError(
            "found no frame in the last fifth of the reference that the model was not "
            "trained on, expected some: bring a run of another seed"
        )
    return frames[np.unique(np.linspace(0, len(frames) - 1, count).astype(int))]


def make_bursts(
    reference: Path, metadata: ModelMetadata, count: int, folder: Path
) -> Trajectory:
    """
    Run the reference's force without friction from frames of its test part.

    Parameters
    ----------
    reference : path-like
        A thermostatted reference.
    metadata : ModelMetadata
        The model that is to be tested.
    count : int
        Bursts.
    folder : path-like
        Where to write a file, named by molecule and starting frames, and to look for
        it first.

    Returns
    -------
    Trajectory
        Bursts of 30 frames 5 fs apart, the first 5 fs after a frame of the reference.

    Raises
    ------
    ValueError
        If the reference does not say what its force is.
    """
    trajectory = read_reference(reference)
    frames = pick_frames(trajectory, metadata, count)
    made_of = {
        "reference_sha256": file_sha256(reference),
        "frames": frames.tolist(),
    }
    digest = sha256(json.dumps(made_of).encode()).hexdigest()[:8]
    molecule = Path(str(trajectory.provenance.get("molecule", "molecule"))).stem
    output = folder / f"bursts_{molecule}_{digest}.h5"
    if not output.is_file():
        if trajectory.velocities is None or "potential" not in trajectory.provenance:
            raise ValueError(
                f"found {reference} without velocities or without the name of its "
                "force, expected a file of openmm-diffmd reference"
            )
        _run(trajectory, frames, made_of, output)
    return read_reference(output)


def _run(
    trajectory: Trajectory,
    frames: Sequence[int] | NDArray[np.int64],
    made_of: dict[str, object],
    output: Path,
) -> None:
    topology = topology_of(trajectory).to_openmm()
    provenance = trajectory.provenance
    described = {
        "molecule": provenance.get("molecule"),
        "potential": provenance["potential"],
        "potential_options": provenance.get("potential_options") or {},
        "temperature_K": provenance.get("temperature_K"),
        "friction_per_ps": 0.0,
        "step_size_fs": STEP_FS,
        "frame_interval_fs": FRAME_FS,
        "kind": "bursts",
        "made_of": made_of,
    }
    bursts = run_force(
        topology,
        provenance,
        trajectory.positions[frames],
        trajectory.velocities[frames],  # type: ignore[index]
        NUM_FRAMES,
        FRAME_FS,
    )
    num_frames = NUM_FRAMES * len(frames)
    with (
        written_whole(output) as part,
        ReferenceWriter(
            part, topology, trajectory.masses, described, num_frames
        ) as writer,
    ):
        for segment, burst in enumerate(bursts):
            for recorded in burst:
                writer.write(segment, recorded)


def run_force(
    topology: app.Topology,
    provenance: Mapping[str, Any],
    positions: NDArray[np.floating],
    velocities: NDArray[np.floating],
    num_frames: int,
    frame_fs: float,
) -> Iterator[list[ReferenceFrame]]:
    """
    Run a force without friction from several states.

    Parameters
    ----------
    topology : openmm.app.Topology
        The molecule.
    provenance : mapping
        Of a reference that was made with the force.
    positions, velocities : ndarray, shape (n_states, n_atoms, 3), nm and nm/ps
        Where to start.
    num_frames : int
        Frames of each.
    frame_fs : float
        Time between them, fs: whole steps of about 0.5 fs.

    Yields
    ------
    list of ReferenceFrame
        The frames after each state.

    Raises
    ------
    DynamicsError
        If the force fails.
    FileNotFoundError
        If the force is a System XML that does not lie in this folder.
    ValueError
        If the force is not named, or cannot be made here.
    """
    system = recreate_reference_system(topology, provenance)
    steps = max(1, round(frame_fs / STEP_FS))
    step_size = frame_fs / steps / FS_PER_PS
    # Without friction neither temperature nor seed is used.
    integrator = baoab_integrator(0.0, 0.0, step_size, 1)
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    states = list(zip(positions, velocities, strict=True))
    for x, v in tqdm(states, "reference", unit="burst", disable=None):
        context.setPositions(x.astype(np.float64) * unit.nanometer)
        context.setVelocities(v.astype(np.float64) * unit.nanometer / unit.picosecond)
        yield list(run_segment(context, integrator, num_frames, steps))

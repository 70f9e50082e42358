"""Frictionless pieces of reference dynamics that a model has never seen."""

import json
from collections.abc import Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit
from tqdm import tqdm

from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.data.held_out import held_out_frames
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.reference.dynamics import baoab_integrator, run_segment
from openmm_diffmd.reference.potentials import create_reference_system
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.units import FEMTOSECONDS_PER_PICOSECOND

STEP_FS = 0.5
FRAME_FS = 5.0
NUM_FRAMES = 30
"""GeoTDM's 10 frames in and 20 out."""
TEST_SHARE = 0.2


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
        Frames left out of training, validation and calibration.
    """
    training = metadata.reference.get("data", [])
    fractions = metadata.config.get("data", {}).get("fractions", (1.0, 0.0, 0.0))
    return held_out_frames(trajectory, training, fractions)


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
        "reference_sha256": sha256(Path(reference).read_bytes()).hexdigest(),
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
        _run(reference, trajectory, frames, made_of, output)
    return read_reference(output)


def _run(
    reference: Path,
    trajectory: Trajectory,
    frames: Sequence[int] | NDArray[np.int64],
    made_of: dict[str, object],
    output: Path,
) -> None:
    topology = load_reference(reference)[0].topology.to_openmm()
    provenance = trajectory.provenance
    system = create_reference_system(topology, str(provenance["potential"]))
    integrator = baoab_integrator(
        float(provenance.get("temperature_K", 0.0)),
        0.0,
        STEP_FS / FEMTOSECONDS_PER_PICOSECOND,
        1,
    )
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    described = {
        "molecule": provenance.get("molecule"),
        "potential": provenance["potential"],
        "temperature_K": provenance.get("temperature_K"),
        "friction_per_ps": 0.0,
        "step_size_fs": STEP_FS,
        "frame_interval_fs": FRAME_FS,
        "kind": "bursts",
        "made_of": made_of,
    }
    # Renamed when whole, so that a run that was cut does not pass for a result.
    partial = output.with_name(f"partial_{output.name}")
    partial.unlink(missing_ok=True)
    with ReferenceWriter(
        partial, topology, trajectory.masses, described, NUM_FRAMES * len(frames)
    ) as writer:
        for segment, frame in enumerate(
            tqdm(frames, "reference", unit="burst", disable=None)
        ):
            speed = unit.nanometer / unit.picosecond
            x = trajectory.positions[frame].astype(np.float64)
            v = trajectory.velocities[frame].astype(np.float64)  # type: ignore[index]
            context.setPositions(x * unit.nanometer)
            context.setVelocities(v * speed)
            steps = round(FRAME_FS / STEP_FS)
            for recorded in run_segment(context, integrator, NUM_FRAMES, steps):
                writer.write(segment, recorded)
    partial.replace(output)

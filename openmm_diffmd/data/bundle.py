"""Make a small file of references, to ship beside a model."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import tables
from mdtraj.formats import HDF5TrajectoryFile
from numpy.typing import NDArray

from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.trajectory import Trajectory

POSITION_STEP = 2.0**-14
"""Positions are rounded to this, nm."""
VELOCITY_STEP = 2.0**-7
"""Velocities are rounded to this, nm/ps."""


def bundle_reference(sources: Sequence[Path], output: Path) -> Path:
    """
    Join thermostatted references of one molecule in one small file.

    Positions and velocities are rounded, which lets them compress; forces and
    energies are left out. Each source becomes a segment (or several) of its own.

    Parameters
    ----------
    sources : sequence of path-like
        Files of `make_reference`, of one molecule and one temperature.
    output : path-like
        File to write, MDTraj HDF5.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileExistsError
        If `output` exists.
    ValueError
        If there is no source, one holds bursts or has no velocities, or they differ in
        molecule, force, temperature, friction or interval between frames.
    """
    output = Path(output)
    if output.exists():
        raise FileExistsError(f"{output} exists; choose another name or remove it")
    if not sources:
        raise ValueError("found no source, expected at least one reference")
    trajectories = [read_reference(source) for source in sources]
    first = trajectories[0]
    expected = _what_must_agree(first)
    for source, trajectory in zip(sources, trajectories, strict=True):
        if trajectory.provenance.get("kind") == "bursts":
            raise ValueError(
                f"found frictionless bursts in {source}, expected a thermostatted run"
            )
        for name, found in _what_must_agree(trajectory).items():
            if found != expected[name]:
                raise ValueError(
                    f"found {name} {found} in {source}, expected {expected[name]} as "
                    f"in {sources[0]}"
                )
    velocities = [t.velocities for t in trajectories if t.velocities is not None]
    if len(velocities) < len(trajectories):
        raise ValueError("found a source without velocities, expected them in all")
    segments, offset = [], 0
    for trajectory in trajectories:
        segments.append(trajectory.segments - trajectory.segments.min() + offset)
        offset = int(segments[-1].max()) + 1
    provenance = {
        **first.provenance,
        "kind": "bundle of thermostatted runs",
        "sources": [dict(trajectory.provenance) for trajectory in trajectories],
        "lengths_ps": [float(t.times[-1]) for t in trajectories],
        "rounded_to": {"nm": POSITION_STEP, "nm/ps": VELOCITY_STEP},
    }
    with HDF5TrajectoryFile(str(sources[0]), "r") as file:
        topology = file.topology
    part = output.with_name(f"{output.stem}.part.h5")
    with HDF5TrajectoryFile(str(part), "w", force_overwrite=True) as file:
        file.topology = topology
    arrays = {
        "coordinates": (
            np.concatenate(
                [_rounded(t.positions, POSITION_STEP) for t in trajectories]
            ),
            "nanometers",
        ),
        "velocities": (
            np.concatenate([_rounded(v, VELOCITY_STEP) for v in velocities]),
            "nanometers/picosecond",
        ),
        "time": (np.concatenate([t.times for t in trajectories]), "picoseconds"),
        "segment": (np.concatenate(segments).astype(np.int32), "dimensionless"),
    }
    with tables.open_file(str(part), "a") as file:
        file.root._v_attrs.diffmd_provenance = json.dumps(provenance)
        for name, (values, unit) in arrays.items():
            node = file.create_carray(
                "/", name, obj=values, filters=tables.Filters(complevel=9, shuffle=True)
            )
            node.attrs["units"] = unit
    part.rename(output)
    return output


def _what_must_agree(trajectory: Trajectory) -> dict[str, Any]:
    provenance = trajectory.provenance
    return {
        "atomic numbers": trajectory.atomic_numbers.tolist(),
        "bonds": sorted(sorted(pair) for pair in trajectory.bonds.tolist()),
        "frame interval, ps": round(float(np.median(np.diff(trajectory.times))), 6),
        **{
            key: provenance.get(key) or None
            for key in (
                "temperature_K",
                "friction_per_ps",
                "potential",
                "potential_options",
            )
        },
    }


def _rounded(values: NDArray[np.floating], step: float) -> NDArray[np.float32]:
    return (step * np.round(values / step)).astype(np.float32)

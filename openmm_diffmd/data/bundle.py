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
from openmm_diffmd.data.reference_files import PROVENANCE_ATTRIBUTE, UNITS
from openmm_diffmd.data.runs import same_run
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.outputs import written_whole

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
        If there is no source, one holds bursts or has no velocities, two are of one
        run, or they differ in molecule, force, temperature, friction or interval
        between frames.
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
    runs = [_runs(trajectory) for trajectory in trajectories]
    _check_different(sources, runs)
    velocities = [t.velocities for t in trajectories if t.velocities is not None]
    if len(velocities) < len(trajectories):
        without = [
            str(source)
            for source, trajectory in zip(sources, trajectories, strict=True)
            if trajectory.velocities is None
        ]
        raise ValueError(
            f"found no velocities in {', '.join(without)}, expected them in all "
            "sources: leave these out, or make them again with openmm-diffmd reference"
        )
    segments, offset = [], 0
    for trajectory in trajectories:
        segments.append(trajectory.segments - trajectory.segments.min() + offset)
        offset = int(segments[-1].max()) + 1
    provenance = {
        **first.provenance,
        "kind": "bundle of thermostatted runs",
        "sources": [run for found in runs for run, _ in found],
        "lengths_ps": [length for found in runs for _, length in found],
        "rounded_to": {"nm": POSITION_STEP, "nm/ps": VELOCITY_STEP},
    }
    with HDF5TrajectoryFile(str(sources[0]), "r") as file:
        topology = file.topology
    arrays = {
        "coordinates": np.concatenate(
            [_rounded(t.positions, POSITION_STEP) for t in trajectories]
        ),
        "velocities": np.concatenate([_rounded(v, VELOCITY_STEP) for v in velocities]),
        "time": np.concatenate([t.times for t in trajectories]),
        "segment": np.concatenate(segments).astype(np.int32),
    }
    with written_whole(output) as part:
        with HDF5TrajectoryFile(str(part), "w", force_overwrite=True) as file:
            file.topology = topology
        with tables.open_file(str(part), "a") as file:
            setattr(file.root._v_attrs, PROVENANCE_ATTRIBUTE, json.dumps(provenance))
            for name, values in arrays.items():
                node = file.create_carray(
                    "/",
                    name,
                    obj=values,
                    filters=tables.Filters(complevel=9, shuffle=True),
                )
                node.attrs["units"] = UNITS[name]
    return output


def _runs(trajectory: Trajectory) -> list[tuple[dict[str, Any], float]]:
    """List provenance and length, ps, of a run, or of those that a bundle joined."""
    provenance = trajectory.provenance
    runs = provenance.get("sources", [dict(provenance)])
    lengths = provenance.get("lengths_ps", [float(trajectory.times[-1])])
    return list(zip(runs, lengths, strict=True))


def _check_different(
    sources: Sequence[Path], runs: Sequence[Sequence[tuple[dict[str, Any], float]]]
) -> None:
    found = [
        (path, run)
        for path, joined in zip(sources, runs, strict=True)
        for run, _ in joined
        if run.get("seed") is not None
    ]
    for index, (path, run) in enumerate(found):
        for before, other in found[:index]:
            if same_run(run, other):
                raise ValueError(
                    f"found the run of seed {run['seed']} in {before} and in {path}, "
                    "expected each once: the same seed makes the same run; give "
                    "--seed to reference for another"
                )


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
        # Trained forces have one name.
        "SHA-256 of the force": (provenance.get("sha256") or {}).get(
            provenance.get("potential")
        ),
    }


def _rounded(values: NDArray[np.floating], step: float) -> NDArray[np.float32]:
    return (step * np.round(values / step)).astype(np.float32)

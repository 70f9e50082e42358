"""Make the reference: a thermostatted run, and frictionless bursts from its frames."""

import math
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from openmm import unit
from tqdm import tqdm

from openmm_diffmd.reference.dynamics import (
    ReferenceFrame,
    baoab_integrator,
    run_segment,
)
from openmm_diffmd.reference.molecules import load_molecule
from openmm_diffmd.reference.potentials import create_reference_system
from openmm_diffmd.reference.storage import ReferenceWriter


def make_reference(
    molecule: str,
    output: Path,
    potential: str = "GFN2-xTB",
    temperature_K: float = 500.0,
    friction_per_ps: float = 1.0,
    step_size_fs: float = 0.5,
    equilibration_ps: float = 5.0,
    length_ps: float = 150.0,
    frame_interval_fs: float = 10.0,
    num_bursts: int = 500,
    burst_length_ps: float = 1.0,
    burst_frame_interval_fs: float = 1.0,
    seed: int = 1,
    platform: str = "Reference",
    progress: bool = True,
) -> tuple[Path, Path]:
    """
    Run thermostatted Langevin dynamics, then frictionless bursts from its frames.

    Parameters
    ----------
    molecule : str
        Name of a molecule, or the path of an xyz or pdb file.
    output : path-like
        Folder for ``thermostatted.h5`` and ``bursts.h5``; made if absent.
    potential : str
        ``GFN2-xTB`` (tblite), or the path of a System XML.
    temperature_K : float
        Bath temperature, K.
    friction_per_ps : float
        Collision rate of the thermostatted run, 1/ps.
    step_size_fs : float
        Step size of both, fs.
    equilibration_ps : float
        Thermostatted time before the first recorded frame, ps.
    length_ps : float
        Recorded thermostatted time, ps.
    frame_interval_fs : float
        Time between frames of the thermostatted run, fs.
    num_bursts : int
        Bursts, started from evenly spaced frames of the thermostatted run.
    burst_length_ps : float
        Length of a burst, ps.
    burst_frame_interval_fs : float
        Time between frames of a burst, fs.
    seed : int
        Seed of velocities and random forces, positive.
    platform : str
        OpenMM platform; ``Reference`` is the fastest for a small molecule.
    progress : bool
        Show progress bars.

    Returns
    -------
    thermostatted, bursts : Path
        The files written, MDTraj HDF5.

    Raises
    ------
    ValueError
        If a length is not a positive whole number of frames, or frames of steps.
    FileExistsError
        If one of the files exists.
    """
    if seed < 1:
        raise ValueError(f"found seed {seed}, expected a positive whole number")
    topology, positions = load_molecule(molecule)
    system = create_reference_system(topology, potential)
    masses = np.array(
        [
            system.getParticleMass(i).value_in_unit(unit.dalton)
            for i in range(system.getNumParticles())
        ]
    )
    output = Path(output)
    output.mkdir(parents=True, exist_ok=True)
    provenance: dict[str, Any] = {
        "molecule": molecule,
        "potential": potential,
        "temperature_K": temperature_K,
        "friction_per_ps": friction_per_ps,
        "step_size_fs": step_size_fs,
        "integrator": "BAOAB, full-step velocities",
        "seed": seed,
        "platform": platform,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": {
            name: version(name) for name in ("openmm", "openmmml", "tblite", "ase")
        },
    }
    starts: list[ReferenceFrame] = []
    path = output / "thermostatted.h5"
    num_frames = _whole("length_ps", length_ps * 1000, frame_interval_fs)
    steps = _whole("frame_interval_fs", frame_interval_fs, step_size_fs)
    integrator = baoab_integrator(
        temperature_K, friction_per_ps, step_size_fs / 1000, seed
    )
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatformByName(platform)
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(temperature_K * unit.kelvin, seed)
    integrator.step(math.ceil(equilibration_ps * 1000 / step_size_fs))
    recorded = {"frame_interval_fs": frame_interval_fs, "kind": "thermostatted"}
    stride = max(1, num_frames // num_bursts) if num_bursts else num_frames + 1
    with ReferenceWriter(path, topology, masses, provenance | recorded) as writer:
        frames = run_segment(context, integrator, num_frames, steps)
        for index, frame in enumerate(
            tqdm(frames, "thermostatted", num_frames, disable=not progress)
        ):
            writer.write(0, frame)
            if index % stride == 0 and len(starts) < num_bursts:
                starts.append(frame)
    bursts_path = output / "bursts.h5"
    if not starts:
        return path, bursts_path
    num_frames = _whole(
        "burst_length_ps", burst_length_ps * 1000, burst_frame_interval_fs
    )
    steps = _whole("burst_frame_interval_fs", burst_frame_interval_fs, step_size_fs)
    integrator = baoab_integrator(temperature_K, 0.0, step_size_fs / 1000, seed)
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatformByName(platform)
    )
    recorded = {
        "frame_interval_fs": burst_frame_interval_fs,
        "kind": "bursts",
        "friction_per_ps": 0.0,
    }
    with ReferenceWriter(
        bursts_path, topology, masses, provenance | recorded
    ) as writer:
        for segment, start in enumerate(
            tqdm(starts, "bursts", unit="burst", disable=not progress)
        ):
            context.setPositions(start.positions)
            context.setVelocities(start.velocities)
            for frame in run_segment(context, integrator, num_frames, steps):
                writer.write(segment, frame)
    return path, bursts_path


def _whole(name: str, length: float, interval: float) -> int:
    count = round(length / interval)
    if count < 1 or not math.isclose(count * interval, length, rel_tol=1e-6):
        raise ValueError(
            f"found {name} of {length:g} fs, expected a positive multiple of "
            f"{interval:g} fs"
        )
    return count

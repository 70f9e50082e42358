"""Run replicas of a molecule in one Context and write their trajectory."""

import math
import secrets
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app, unit

from openmm_diffmd.checks import count_intervals
from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.rollout_reporter import record_rollout
from openmm_diffmd.integrator.systems import create_system, replicate
from openmm_diffmd.outputs import file_sha256
from openmm_diffmd.reference.platforms import find_platform
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.units import FS_PER_PS

FloatArray = NDArray[np.floating]
MAX_SEED = 2**31 - 1
RESCUE_STEP_FS = 0.5
"""Longest step of a rescue, fs; a whole number of them make a lag."""


@dataclass(frozen=True, kw_only=True)
class RolloutSettings:
    """
    How to run a model.

    Attributes
    ----------
    length_ps : float
        Length of each replica, ps; a whole number of frames.
    frame_interval_fs : float or None
        Time between frames, fs; a multiple of the lag, the lag unless given.
    temperature_K : float or None
        Temperature of the heat bath, K; the model's unless given.
    friction_per_ps : float or None
        Collision rate, 1/ps; the model's unless given; 0 is no heat bath.
    start_temperature_K : float or None
        Temperature of the first velocities, K; `temperature_K` unless given.
    from_geometry : bool
        Whether positions are of no temperature, not frames of a heat bath.
    seed : int
        Seed of first velocities and noise; 0 picks one.
    sampler : str or None
        Sampler; the model's unless given.
    num_sampling_steps : int or None
        Sampling steps per lag; the model's unless given; 0 takes the mean.
    rescue : str or None
        The force, as `potential` of `make_reference`, that runs lags which cannot be
        drawn; None ends the run there.
    keep_velocities : bool
        Write velocities, to an MDTraj HDF5 file beside the DCD.
    dcd_per_replica : bool
        Write one DCD for each replica instead of one of all.
    platform : str
        OpenMM platform.
    progress : bool
        Show a progress bar, if in a terminal.
    """

    length_ps: float
    frame_interval_fs: float | None = None
    temperature_K: float | None = None
    friction_per_ps: float | None = None
    start_temperature_K: float | None = None
    from_geometry: bool = False
    seed: int = 0
    sampler: str | None = None
    num_sampling_steps: int | None = None
    rescue: str | None = None
    keep_velocities: bool = False
    dcd_per_replica: bool = False
    platform: str = "Reference"
    progress: bool = True


@dataclass(frozen=True)
class RolloutResult:
    """
    What a rollout wrote, and what it cost.

    Attributes
    ----------
    path : Path
        The JSON sidecar; ``.dcd``, ``.pdb`` and perhaps ``.h5`` lie beside it.
    sidecar : RolloutSidecar
        What it says.
    seconds_per_lag : float or None
        Wall time of a lag of all replicas, files included, without the first frames,
        which warm up, s; None after fewer than two frames.
    """

    path: Path
    sidecar: RolloutSidecar
    seconds_per_lag: float | None


def roll_out(
    model: DiffusionModel,
    topology: app.Topology,
    positions: FloatArray,
    output: Path,
    settings: RolloutSettings,
) -> RolloutResult:
    """
    Run replicas of a molecule in one Context and write their trajectory.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    topology : openmm.app.Topology
        One molecule.
    positions : ndarray, shape (n_replicas, n_atoms, 3), nm
        Where each replica starts.
    output : path-like
        Files are called this, with suffixes ``.dcd``, ``.pdb``, ``.json``, ``.h5``; a
        replica's own DCD with ``_0.dcd`` and so on. Those of an earlier run called
        this are replaced.
    settings : RolloutSettings
        How to run.

    Returns
    -------
    RolloutResult
        Files and cost.

    Raises
    ------
    ValueError
        If a length is no whole number of frames, or of lags; if shapes do not fit, or
        the JSON file of this name is no rollout's; or the force of the rescue is not
        the one that the model learned.
    FileExistsError
        If files of another run stand where the output goes.
    IsADirectoryError
        If a folder does.
    OpenMMException
        If the integrator gives up. The frames made until then are kept, the sidecar
        counts them and says why.
    """
    n_replicas = len(positions)
    if positions.shape != (n_replicas, topology.getNumAtoms(), 3):
        raise ValueError(
            f"found positions {positions.shape}, expected (n_replicas, "
            f"{topology.getNumAtoms()}, 3)"
        )
    metadata = model.metadata
    lag = metadata.lag_time_fs
    interval = _given(settings.frame_interval_fs, lag)
    lags_per_frame = count_intervals("frame_interval_fs", interval, lag)
    num_frames = count_intervals("length_ps", settings.length_ps * FS_PER_PS, interval)
    temperature = _given(settings.temperature_K, metadata.temperature_K)
    start_temperature = _given(settings.start_temperature_K, temperature)
    seed = settings.seed or 1 + secrets.randbelow(MAX_SEED - n_replicas)
    replicas = replicate(
        topology, create_system(topology), positions[0] * unit.nanometer, n_replicas
    )
    integrator = DiffusionIntegrator(
        model,
        replicas.topology,
        temperature=temperature,
        friction=settings.friction_per_ps,
        molecules=replicas.molecules,
        sampler=settings.sampler,
        num_sampling_steps=settings.num_sampling_steps,
    )
    integrator.setRandomNumberSeed(seed)
    if settings.rescue is not None:
        integrator.setRescueContext(
            _rescue_context(model, topology, positions[0], settings.rescue, integrator)
        )
    platform = find_platform(settings.platform)
    # Molecules drift far from the origin, where single precision would show.
    can_choose = "Precision" in platform.getPropertyNames()
    simulation = app.Simulation(
        replicas.topology,
        replicas.system,
        integrator,
        platform,
        {"Precision": "mixed"} if can_choose else {},
    )
    start = positions.reshape(-1, 3).astype(np.float64)
    simulation.context.setPositions(start * unit.nanometer)
    simulation.context.setVelocitiesToTemperature(start_temperature * unit.kelvin, seed)
    with record_rollout(
        output,
        lags_per_frame,
        simulation,
        velocities=settings.keep_velocities,
        dcd_per_replica=settings.dcd_per_replica,
        overwrite=True,
        start_temperature_K=start_temperature,
        from_geometry=settings.from_geometry,
        num_frames=num_frames,
        progress=settings.progress,
    ) as reporter:
        simulation.step(num_frames * lags_per_frame)
    return RolloutResult(reporter.path, reporter.sidecar, reporter.seconds_per_lag)


def _rescue_context(
    model: DiffusionModel,
    topology: app.Topology,
    positions: FloatArray,
    potential: str,
    integrator: DiffusionIntegrator,
) -> openmm.Context:
    """Make the Context that runs, by the force learned, what cannot be drawn."""
    # Imported here: other runs need no force.
    from openmm_diffmd.reference.contexts import check_first_force, reference_context
    from openmm_diffmd.reference.potentials import create_reference_system

    metadata = model.metadata
    learned = metadata.learned_force()
    options: dict[str, Any] = {}
    if learned is not None:
        options = dict(learned.options)
        another = Path(potential).name != learned.potential
        if not another and learned.sha256 and Path(potential).is_file():
            # Trained forces have one name.
            another = file_sha256(potential) != learned.sha256
        if another:
            whole = f" of SHA-256 {learned.sha256}" if learned.sha256 else ""
            raise ValueError(
                f"found the force {potential} for the rescue, expected "
                f"{learned.potential}{whole}, which model {metadata.name!r} learned"
            )
    system = create_reference_system(topology, potential, options)
    lag = metadata.lag_time_fs
    is_flow = metadata.dynamics == "flow"
    context = reference_context(
        system,
        integrator.getTemperature().value_in_unit(unit.kelvin),
        # The integrator adds the bath itself, but where it was learned.
        0.0 if is_flow else metadata.friction_per_ps,
        lag / math.ceil(lag / RESCUE_STEP_FS),
        1 + integrator.getRandomNumberSeed() % MAX_SEED,
        "Reference",
    )
    context.setPositions(positions.astype(np.float64) * unit.nanometer)
    check_first_force(context, potential, options)
    return context


def _given(value: Any, default: float) -> float:
    return float(default if value is None else value)

"""What a rollout's sidecar says of a Simulation before its first frame."""

from importlib.metadata import version

import numpy as np
import openmm
from openmm import app, unit

from openmm_diffmd.export.torchscript import load_metadata
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.particles import read_particles
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.units import to_float

PACKAGES = ("openmm_diffmd", "openmm", "torch", "mdtraj", "numpy")


def describe_rollout(
    simulation: app.Simulation,
    reportInterval: int,
    *,
    dcd_per_replica: bool,
    start_temperature_K: float | None,
    from_geometry: bool,
    num_frames: int | None,
) -> RolloutSidecar:
    """
    Describe a rollout that is to begin.

    Parameters
    ----------
    simulation : openmm.app.Simulation
        With a DiffusionIntegrator, of one molecule or of replicas of one.
    reportInterval : int
        Lags between frames.
    dcd_per_replica : bool
        Whether there is one DCD for each replica.
    start_temperature_K : float or None
        Temperature of the first velocities, K, where it is known.
    from_geometry : bool
        Whether the positions are of no temperature.
    num_frames : int or None
        Frames that are going to be made, where it is known.

    Returns
    -------
    RolloutSidecar
        Of no frame, and of a process that was killed.

    Raises
    ------
    TypeError
        If the integrator is another one.
    ValueError
        If molecules are not replicas of one, one after the other.
    """
    if isinstance(simulation.integrator, openmm.CompoundIntegrator):
        raise TypeError(
            "found a CompoundIntegrator, expected a DiffusionIntegrator: a rollout is "
            "of lags alone; record others by app.DCDReporter or ReplicaDCDReporter"
        )
    integrator = DiffusionIntegrator.cast(simulation.integrator)
    n_replicas, n_atoms = _count_replicas(integrator)
    temperature, friction = heat_bath(integrator)
    metadata = load_metadata(integrator.getModelFile())
    learned = metadata.learned_force()
    asked = "" if num_frames is None else f": {num_frames} frames were asked"
    if start_temperature_K is not None:
        start_temperature_K = to_float(start_temperature_K, unit.kelvin)
    return RolloutSidecar(
        lag_time_fs=metadata.lag_time_fs,
        frame_interval_fs=reportInterval * metadata.lag_time_fs,
        num_frames=0,
        num_replicas=n_replicas,
        atoms_per_replica=n_atoms,
        model_name=metadata.name,
        model_sha256=integrator.getModelHash(),
        temperature_K=temperature,
        start_temperature_K=start_temperature_K,
        from_geometry=from_geometry,
        potential=learned.potential if learned else None,
        potential_options=learned.options if learned else {},
        forces=_acting_forces(simulation.system, integrator),
        friction_per_ps=friction,
        seed=integrator.getRandomNumberSeed(),
        sampler=integrator.getSampler(),
        num_sampling_steps=integrator.getNumSamplingSteps(),
        resamples=0,
        dcd_per_replica=dcd_per_replica,
        error=f"killed, or still running{asked}",
        versions={name: version(name) for name in PACKAGES},
    )


def heat_bath(integrator: DiffusionIntegrator) -> tuple[float, float]:
    """
    Read the heat bath of an integrator.

    Parameters
    ----------
    integrator : DiffusionIntegrator
        The integrator.

    Returns
    -------
    temperature : float
        K.
    friction : float
        1/ps.
    """
    return (
        to_float(integrator.getTemperature(), unit.kelvin),
        to_float(integrator.getFriction(), unit.picosecond**-1),
    )


def _count_replicas(integrator: DiffusionIntegrator) -> tuple[int, int]:
    """Count replicas and the atoms of one; refuse molecules of several kinds."""
    particles = read_particles(integrator)
    count = integrator.getNumMolecules()
    n_atoms, left = divmod(len(particles.species), count)
    expected = np.repeat(range(count), n_atoms)
    alike = not left and np.array_equal(particles.molecules, expected)
    if not alike or np.ptp(particles.species.reshape(count, -1), axis=0).any():
        raise ValueError(
            f"found {count} molecules that are not replicas of one, expected the same "
            "atoms in the same order, one molecule after the other, as "
            "openmm_diffmd.replicate makes them: analyze judges one molecule"
        )
    return count, n_atoms


def _acting_forces(system: openmm.System, integrator: DiffusionIntegrator) -> list[str]:
    """Name the forces of a System that move its molecules."""
    groups = integrator.getIntegrationForceGroups()
    return [
        force.getName()
        for force in system.getForces()
        if groups >> force.getForceGroup() & 1
        and not isinstance(force, openmm.CMMotionRemover)
    ]

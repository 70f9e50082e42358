"""Dynamics under an umbrella: of the reference's force, and of the model."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
import openmm
from controls import starting_frames
from numpy.typing import NDArray
from openmm import unit
from reference_force import recreate_reference_system
from tqdm import tqdm

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.outputs import written_whole
from openmm_diffmd.reference.dynamics import baoab_integrator, run_segment
from openmm_diffmd.units import BOLTZMANN, FS_PER_PS

Array = NDArray[np.float64]
FRICTION = 1.0
STEP_FS = 0.5


@dataclass(frozen=True)
class Umbrella:
    """
    Two biases at once, on a distance r and on a torsion phi of each molecule.

    U = k (r - r0)^2/2 + A (1 + cos phi): the first a `openmm.CustomBondForce`, the
    second a `openmm.CustomTorsionForce` that favours the trans form.

    Attributes
    ----------
    bond : tuple of int
        Atoms of the distance.
    spring_constant : float
        k, kJ/mol/nm^2.
    centre : float
        r0, nm.
    torsion : tuple of int
        Atoms of the torsion.
    amplitude : float
        A, kJ/mol.
    """

    bond: tuple[int, int]
    spring_constant: float
    centre: float
    torsion: tuple[int, int, int, int]
    amplitude: float

    def forces(self) -> list[openmm.Force]:
        """
        Make the forces that bias one molecule.

        Returns
        -------
        list of openmm.Force
            The two forces.
        """
        bond = openmm.CustomBondForce("0.5*k*(r-r0)^2")
        bond.addGlobalParameter("k", self.spring_constant)
        bond.addGlobalParameter("r0", self.centre)
        bond.addBond(*self.bond)
        torsion = openmm.CustomTorsionForce("amplitude*(1+cos(theta))")
        torsion.addGlobalParameter("amplitude", self.amplitude)
        torsion.addTorsion(*self.torsion)
        return [bond, torsion]

    def coordinates(self, positions: NDArray[np.floating]) -> Array:
        """
        Measure what is biased.

        Parameters
        ----------
        positions : ndarray, shape (..., n_atoms, 3), nm
            Molecules.

        Returns
        -------
        ndarray, shape (..., 2), nm and rad
            r, and phi from 0 to pi: a molecule and its mirror image count alike.
        """
        x = np.asarray(positions, np.float64)
        distance = np.linalg.norm(
            x[..., self.bond[0], :] - x[..., self.bond[1], :], axis=-1
        )
        first, second, third, fourth = (x[..., atom, :] for atom in self.torsion)
        axis = third - second
        normal1 = np.cross(second - first, axis)
        normal2 = np.cross(axis, fourth - third)
        sine = np.linalg.norm(np.cross(normal1, normal2), axis=-1)
        return np.stack((distance, np.arctan2(sine, (normal1 * normal2).sum(-1))), -1)

    def exponent(self, coordinates: Array, temperature: float) -> Array:
        """
        U/kT.

        Parameters
        ----------
        coordinates : ndarray, shape (..., 2)
            From `coordinates`.
        temperature : float
            T, K.

        Returns
        -------
        ndarray, shape (...)
            U/kT.
        """
        r, phi = coordinates[..., 0], coordinates[..., 1]
        energy = 0.5 * self.spring_constant * (r - self.centre) ** 2
        energy += self.amplitude * (1.0 + np.cos(phi))
        return energy / (BOLTZMANN * temperature)


def run_reference(
    umbrella: Umbrella,
    provenance: Mapping[str, Any],
    ensemble: Ensemble,
    temperature: float,
    *,
    num_segments: int,
    segment_ps: float,
    equilibration_ps: float,
    seed: int,
) -> Array:
    """
    Run independent segments of reference dynamics under the umbrella.

    Parameters
    ----------
    umbrella : Umbrella
        The bias.
    provenance : mapping
        Of the reference whose force to take.
    ensemble : Ensemble
        Unbiased frames to start from.
    temperature : float
        Heat bath, K.
    num_segments : int
        Segments, each with velocities of its own.
    segment_ps, equilibration_ps : float
        Length of a segment that is kept, and before it, ps.
    seed : int
        Seed of velocities and random forces.

    Returns
    -------
    ndarray, shape (num_segments, n_frames, 2)
        The biased coordinates, each 10 fs.
    """
    topology = ensemble.topology.to_openmm()
    system = recreate_reference_system(topology, provenance)
    for force in umbrella.forces():
        system.addForce(force)
    step = STEP_FS / FS_PER_PS
    every = round(10.0 / STEP_FS)
    skipped, kept = (round(ps / step / every) for ps in (equilibration_ps, segment_ps))
    result = []
    for index, start in enumerate(
        tqdm(starting_frames(ensemble, num_segments)[0], "reference", unit="segment")
    ):
        integrator = baoab_integrator(temperature, FRICTION, step, seed + index)
        context = openmm.Context(
            system, integrator, openmm.Platform.getPlatformByName("Reference")
        )
        context.setPositions(start * unit.nanometer)
        context.setVelocitiesToTemperature(temperature * unit.kelvin, seed + index)
        frames = run_segment(context, integrator, skipped + kept, every)
        measured = [umbrella.coordinates(frame.positions) for frame in frames]
        result.append(measured[skipped:])
    return np.array(result)


def run_model(
    umbrella: Umbrella,
    model: DiffusionModel,
    ensemble: Ensemble,
    *,
    num_replicas: int,
    length_ps: float,
    equilibration_ps: float,
    seed: int,
) -> Array:
    """
    Run replicas of the model under the umbrella.

    Parameters
    ----------
    umbrella : Umbrella
        The bias.
    model : DiffusionModel
        The model.
    ensemble : Ensemble
        Unbiased frames to start from.
    num_replicas : int
        Replicas.
    length_ps, equilibration_ps : float
        Length of a replica that is kept, and before it, ps.
    seed : int
        Seed of velocities and noise.

    Returns
    -------
    ndarray, shape (num_replicas, n_frames, 2)
        The coordinates, each lag.
    """
    topology = ensemble.topology.to_openmm()
    start, _ = starting_frames(ensemble, num_replicas)
    system = create_system(topology)
    for force in umbrella.forces():
        system.addForce(force)
    replicas = replicate(topology, system, start[0] * unit.nanometer, num_replicas)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules, friction=FRICTION
    )
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(
        replicas.system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(start.reshape(-1, 3) * unit.nanometer)
    context.setVelocitiesToTemperature(model.temperature, seed)
    lag = integrator.getStepSize().value_in_unit(unit.picosecond)
    integrator.step(round(equilibration_ps / lag))

    def frames() -> Iterator[Array]:
        for _ in tqdm(range(round(length_ps / lag)), "model", unit="lag"):
            integrator.step(1)
            x = context.getState(positions=True).getPositions(asNumpy=True)
            yield x.value_in_unit(unit.nanometer).reshape(num_replicas, -1, 3)

    measured = np.array([umbrella.coordinates(frame) for frame in frames()])
    print(f"model: {integrator.getNumResamples()} lags drawn again")
    return measured.swapaxes(0, 1)


def keep(path: Path, made_of: str, make: Callable[[], Array]) -> Array:
    """
    Read coordinates that were made before, or make and keep them.

    Parameters
    ----------
    path : Path
        npz file.
    made_of : str
        What the coordinates depend on.
    make : callable
        Makes them, shape (n_groups, n_frames, 2).

    Returns
    -------
    ndarray, shape (n_groups, n_frames, 2)
        The coordinates.

    Raises
    ------
    ValueError
        If the file is damaged, or was made of something else.
    """
    if not path.is_file():
        coordinates = make().astype(np.float32)
        with written_whole(path) as part:
            np.savez_compressed(part, made_of=made_of, coordinates=coordinates)
    try:
        # Opened here: numpy leaves a damaged file open.
        with path.open("rb") as file, np.load(file) as content:
            found = str(content["made_of"])
            kept = np.array(content["coordinates"], np.float64)
    except (EOFError, KeyError, OSError, TypeError, ValueError, BadZipFile) as error:
        raise ValueError(
            f"found {path}, which cannot be read ({error}), expected coordinates that "
            "this command kept: remove the file, and they are made again"
        ) from error
    if found != made_of:
        raise ValueError(
            f"found {path} of {found}, expected {made_of}: choose another output, or "
            "remove the file"
        )
    return kept

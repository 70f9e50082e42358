"""Reference dynamics in OpenMM: one splitting for the thermostatted run and bursts."""

import math
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from threading import current_thread, main_thread
from types import FrameType

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import unit

from openmm_diffmd.units import BOLTZMANN

FloatArray = NDArray[np.float64]


class DynamicsError(openmm.OpenMMException):  # type: ignore[misc]
    """Reference dynamics that cannot go on: a force that failed, or an explosion."""


@dataclass(frozen=True)
class ReferenceFrame:
    """
    One recorded frame of reference dynamics.

    Attributes
    ----------
    time : float
        Time since the start of the segment, ps.
    positions : ndarray, shape (n_atoms, 3), nm
        Positions.
    velocities : ndarray, shape (n_atoms, 3), nm/ps
        Full-step velocities: at the time of `positions`.
    forces : ndarray, shape (n_atoms, 3), kJ/mol/nm
        Forces at `positions`.
    potential_energy : float
        Potential energy at `positions`, kJ/mol.
    """

    time: float
    positions: FloatArray
    velocities: FloatArray
    forces: FloatArray
    potential_energy: float


def baoab_integrator(
    temperature: float, friction: float, step_size: float, seed: int
) -> openmm.CustomIntegrator:
    """
    Langevin integrator whose reported velocities belong to the reported positions.

    One step is B(h/2) A(h/2) O(h) A(h/2) B(h/2): B kicks, A drifts, O is the exact
    Ornstein-Uhlenbeck step. It samples what LangevinMiddleIntegrator samples, but
    the latter reports velocities half a step late; here they are full-step. With
    friction 0 it is velocity Verlet. Forces and energy of the last step stay
    readable without another evaluation.

    Parameters
    ----------
    temperature : float
        Bath temperature, K.
    friction : float
        Collision rate, 1/ps.
    step_size : float
        Step size, ps.
    seed : int
        Seed of the random forces; not 0, which OpenMM reads as "any".

    Returns
    -------
    openmm.CustomIntegrator
        The integrator, with the variables ``last_force`` and ``last_energy``.

    Notes
    -----
    Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34 (2013), eq. 10.
    """
    decay = math.exp(-friction * step_size)
    integrator = openmm.CustomIntegrator(step_size)
    integrator.addGlobalVariable("decay", decay)
    integrator.addGlobalVariable("noise", math.sqrt(1.0 - decay * decay))
    integrator.addGlobalVariable("kT", BOLTZMANN * temperature)
    integrator.addGlobalVariable("last_energy", 0.0)
    integrator.addPerDofVariable("last_force", 0.0)
    integrator.addUpdateContextState()
    integrator.addComputePerDof("v", "v + 0.5*dt*f/m")
    if friction > 0:
        integrator.addComputePerDof("x", "x + 0.5*dt*v")
        integrator.addComputePerDof("v", "decay*v + noise*sqrt(kT/m)*gaussian")
        integrator.addComputePerDof("x", "x + 0.5*dt*v")
    else:
        integrator.addComputePerDof("x", "x + dt*v")
    integrator.addComputePerDof("last_force", "f")
    integrator.addComputeGlobal("last_energy", "energy")
    integrator.addComputePerDof("v", "v + 0.5*dt*f/m")
    integrator.setRandomNumberSeed(seed)
    return integrator


class VelocityBath:
    """
    Heat bath that acts between pieces of frictionless dynamics.

    Parameters
    ----------
    temperature : float
        Bath temperature, K.
    friction : float
        Collision rate, 1/ps.
    duration : float
        Time that one refresh stands for, ps.
    masses : ndarray, shape (n_atoms,), Da
        Masses.
    seed : int
        Seed of the random velocities.
    """

    def __init__(
        self,
        temperature: float,
        friction: float,
        duration: float,
        masses: FloatArray,
        seed: int,
    ) -> None:
        self._decay = math.exp(-friction * duration)
        thermal = np.sqrt(BOLTZMANN * temperature / masses)[:, None]
        self._noise = math.sqrt(1.0 - self._decay**2) * thermal
        self._generator = np.random.default_rng(seed)

    def refresh(self, velocities: FloatArray) -> FloatArray:
        """
        Take the exact Ornstein-Uhlenbeck step of the bath's duration.

        Parameters
        ----------
        velocities : ndarray, shape (n_atoms, 3), nm/ps
            Velocities.

        Returns
        -------
        ndarray, shape (n_atoms, 3), nm/ps
            Velocities after it.

        Notes
        -----
        Leimkuhler and Matthews, Appl. Math. Res. Express 2013, 34 (2013), the O of
        eq. 10.
        """
        noise = self._generator.standard_normal(velocities.shape)
        refreshed: FloatArray = self._decay * velocities + self._noise * noise
        return refreshed


def run_segment(
    context: openmm.Context,
    integrator: openmm.CustomIntegrator,
    num_frames: int,
    steps_per_frame: int,
) -> Iterator[ReferenceFrame]:
    """
    Step a Context and yield every `steps_per_frame`-th frame.

    Parameters
    ----------
    context : openmm.Context
        Context whose positions and velocities are set.
    integrator : openmm.CustomIntegrator
        Integrator of `context`, from `baoab_integrator`.
    num_frames : int
        How many frames to yield.
    steps_per_frame : int
        Integration steps between frames.

    Yields
    ------
    ReferenceFrame
        The frame after each `steps_per_frame` steps.

    Raises
    ------
    DynamicsError
        If the force fails (a self-consistent field that does not converge, say) or
        positions, velocities, forces or the energy stop being finite.
    KeyboardInterrupt
        If it is interrupted, also where a force in Python is: OpenMM calls that a
        force that failed.
    """
    step_size = integrator.getStepSize().value_in_unit(unit.picosecond)
    for index in range(num_frames):
        time = index * steps_per_frame * step_size
        try:
            with _interrupts() as interrupts:
                integrator.step(steps_per_frame)
        except openmm.OpenMMException as error:
            if interrupts:
                raise KeyboardInterrupt from error
            raise _stopped(index, time, error) from error
        state = context.getState(positions=True, velocities=True)
        speed = unit.nanometer / unit.picosecond
        forces = integrator.getPerDofVariableByName("last_force")
        frame = ReferenceFrame(
            time=(index + 1) * steps_per_frame * step_size,
            positions=np.array(
                state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
            ),
            velocities=np.array(state.getVelocities(asNumpy=True).value_in_unit(speed)),
            forces=np.array([tuple(force) for force in forces]),
            potential_energy=integrator.getGlobalVariableByName("last_energy"),
        )
        for name in ("positions", "velocities", "forces", "potential_energy"):
            if not np.isfinite(getattr(frame, name)).all():
                raise _stopped(index, time, f"{name.replace('_', ' ')} not finite")
        yield frame


@contextmanager
def _interrupts() -> Iterator[list[int]]:
    """List the Ctrl-C of a while, which Python handles as it did."""
    found: list[int] = []
    before = signal.getsignal(signal.SIGINT)
    if not callable(before) or current_thread() is not main_thread():
        yield found
        return

    def note(number: int, frame: FrameType | None) -> None:
        found.append(number)
        before(number, frame)

    signal.signal(signal.SIGINT, note)
    try:
        yield found
    finally:
        signal.signal(signal.SIGINT, before)


def _stopped(frame: int, time: float, reason: object) -> DynamicsError:
    lines = str(reason).strip().splitlines()
    return DynamicsError(
        f"reference dynamics stopped after frame {frame}, {time:.4g} ps: "
        f"{lines[-1] if lines else 'the force failed'}; use a smaller step size, a "
        "lower temperature, or calculator options that converge"
    )

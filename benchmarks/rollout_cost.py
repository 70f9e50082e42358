"""What a step costs, of the network and of the reference force."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app, unit
from reference_force import recreate_reference_system

from openmm_diffmd.analysis.report import format_columns
from openmm_diffmd.reference.dynamics import baoab_integrator
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.units import FS_PER_PS

NS_PER_DAY = 86400e-6
"""ns/day of 1 fs a second."""

FORCE_SECONDS = 2.0
BLOCK = 20


@dataclass(frozen=True)
class Cost:
    """
    What a step costs.

    Attributes
    ----------
    name : str
        What was timed.
    n_trajectories : int
        Trajectories moved by one step.
    step_fs : float
        Time moved by a step, fs.
    step_seconds : float
        Wall time of a step of all trajectories, s.
    evaluations : int or None
        Network evaluations a step, encoder and denoiser; None for a force.
    threads : int or None
        Threads that it had; None where the force's program chose.
    """

    name: str
    n_trajectories: int
    step_fs: float
    step_seconds: float
    evaluations: int | None = None
    threads: int | None = None

    @property
    def ns_per_day(self) -> float:
        """Length that each trajectory gains in a day, ns."""
        return NS_PER_DAY * self.step_fs / self.step_seconds


def num_evaluations(sampler: str, num_steps: int) -> int:
    """
    Count the denoiser evaluations of one sample.

    Parameters
    ----------
    sampler : str
        Name of the sampler.
    num_steps : int
        Denoising steps K.

    Returns
    -------
    int
        Evaluations.
    """
    second_order = sampler in {"heun", "predictor_corrector"}
    return max(2 * num_steps - 1, 0) if second_order else num_steps


def network_cost(name: str, sidecar: RolloutSidecar, seconds_per_lag: float) -> Cost:
    """
    Cost of a lag: one call of the encoder, and the sampler's calls of the denoiser.

    Parameters
    ----------
    name : str
        Name of the row.
    sidecar : RolloutSidecar
        What was run.
    seconds_per_lag : float
        Wall time of a lag of all replicas, s.

    Returns
    -------
    Cost
        The cost.
    """
    return Cost(
        name=name,
        n_trajectories=sidecar.num_replicas,
        step_fs=sidecar.lag_time_fs,
        step_seconds=seconds_per_lag,
        evaluations=1 + num_evaluations(sidecar.sampler, sidecar.num_sampling_steps),
        threads=torch.get_num_threads(),
    )


def force_cost(
    topology: app.Topology,
    positions: NDArray[np.floating],
    provenance: Mapping[str, Any],
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[Cost | None, str | None]:
    """
    Time the reference's own dynamics on this machine: the quickest steps of some 2 s.

    Parameters
    ----------
    topology : openmm.app.Topology
        The molecule.
    positions : ndarray, shape (n_atoms, 3), nm
        Where to start.
    provenance : mapping
        What made the reference.
    clock : callable
        Tells the time, s.

    Returns
    -------
    cost : Cost or None
        The cost.
    reason : str or None
        Why it could not be measured.
    """
    # Whatever the force's program does here, rollouts made before it are kept.
    try:
        return _time_force(topology, positions, provenance, clock), None
    except (ValueError, OSError, openmm.OpenMMException) as error:
        return None, f"ns/day of the reference force left out: {error}"


def _time_force(
    topology: app.Topology,
    positions: NDArray[np.floating],
    provenance: Mapping[str, Any],
    clock: Callable[[], float],
) -> Cost:
    system = recreate_reference_system(topology, provenance)
    step_fs = float(provenance.get("step_size_fs", 0.5))
    temperature = float(provenance.get("temperature_K", 300.0))
    integrator = baoab_integrator(temperature, 1.0, step_fs / FS_PER_PS, 1)
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions.astype(np.float64) * unit.nanometer)
    context.setVelocitiesToTemperature(temperature * unit.kelvin, 1)
    integrator.step(BLOCK)
    rounds: list[float] = []
    while sum(rounds) < FORCE_SECONDS:
        begin = clock()
        integrator.step(BLOCK)
        rounds.append(clock() - begin)
    return Cost(f"{provenance['potential']} force", 1, step_fs, min(rounds) / BLOCK)


def cost_table(costs: Sequence[Cost]) -> str:
    """
    Write what steps cost.

    Parameters
    ----------
    costs : sequence of Cost
        Rows.

    Returns
    -------
    str
        A table.
    """
    header = [
        "cost",
        "trajectories",
        "threads",
        "step\nfs",
        "wall time\nms/step",
        "one trajectory\nns/day",
        "all\nns/day",
        "fs per network\nevaluation",
    ]
    rows = [
        [
            cost.name,
            str(cost.n_trajectories),
            "-" if cost.threads is None else str(cost.threads),
            f"{cost.step_fs:g}",
            f"{1000 * cost.step_seconds:.2f}",
            _three_digits(cost.ns_per_day),
            _three_digits(cost.n_trajectories * cost.ns_per_day),
            "-"
            if cost.evaluations is None
            else f"{cost.step_fs / cost.evaluations:.2f}",
        ]
        for cost in costs
    ]
    return format_columns(header, rows)


def _three_digits(value: float) -> str:
    return f"{value:.0f}" if value >= 100 else f"{value:.3g}"

"""
Time a step of ours, of the ML force and of the reference's force, for `bench_cost.py`.

Each has one thread, or all where these are quicker. With one thread a time is CPU time,
in which other processes do not count, with more it is wall time.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from controls import starting_frames
from cost_rollouts import ML_FORCE
from ml_force import STEP_FS, Molecule, langevin, start
from openmm import unit
from rollout_cost import Cost, force_cost

from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.threads import set_threads

OURS = "diffmd"


def clock_of(threads: int) -> Callable[[], float]:
    """Choose the clock of so many threads."""
    return time.process_time if threads == 1 else time.perf_counter


def with_quickest_threads(threads: int, measure: Callable[[], Cost]) -> Cost:
    """Time with one thread and with so many, and keep the quicker."""
    costs = []
    for count in sorted({1, threads}):
        set_threads(count)
        costs.append(replace(measure(), threads=count))
    return min(costs, key=lambda cost: cost.step_seconds)


def quickest(run: Callable[[int], Any], seconds: float) -> float:
    """Time rounds of equal length for about some seconds; least time of one, s."""
    clock = clock_of(torch.get_num_threads())
    run(3)
    begin = clock()
    run(3)
    count = max(1, round(3 * seconds / 10 / (clock() - begin)))
    rounds: list[float] = []
    end = clock() + seconds
    while len(rounds) < 3 or clock() < end:
        begin = clock()
        run(count)
        rounds.append((clock() - begin) / count)
    return min(rounds)


def our_cost(
    model: DiffusionModel, replicas: int, k: int, seconds: float, name: str = OURS
) -> Cost:
    """Time a lag with K sampling steps."""
    topology, positions = model.example()
    copies = replicate(topology, create_system(topology), positions, replicas)
    integrator = DiffusionIntegrator(
        model,
        copies.topology,
        molecules=copies.molecules,
        sampler="exponential",
        num_sampling_steps=k,
    )
    integrator.setRandomNumberSeed(1)
    context = start(copies.system, integrator, copies.positions, model)
    lag_fs = integrator.getStepSize().value_in_unit(unit.femtosecond)
    step = quickest(integrator.step, seconds)
    del context
    return Cost(f"{name}, K = {k}", replicas, lag_fs, step, 1 + k)


def ml_cost(molecule: Molecule, replicas: int, form: str, seconds: float) -> Cost:
    """Time a step of the ML force in one form."""
    model = molecule.model
    _, one = model.example()
    positions = np.tile(one.value_in_unit(unit.nanometer), (replicas, 1))
    integrator = langevin(model, seed=1)
    system = molecule.system(replicas, molecule.evaluate(replicas, form))
    context = start(system, integrator, positions * unit.nanometer, model)
    step = quickest(integrator.step, seconds)
    del context
    return Cost(f"{ML_FORCE} ({form})", replicas, STEP_FS, step, 1)


def reference_costs(reference: Path, replicas: int, cores: int) -> list[Cost]:
    """
    Time the reference's force; no cost where it cannot be run here.

    Many molecules are moved as many at once as there are cores, one thread each. One
    has one thread, or all where these are quicker: few atoms gain little, and lose much
    where another process takes a core.
    """
    processes = cores if replicas > 1 else 1
    costs, reason = time_apart(reference, processes, 1)
    if reason is not None:
        print(reason)
        return []
    seconds = fmean(cost.step_seconds for cost in costs) * replicas / processes
    found = [
        replace(
            costs[0], n_trajectories=replicas, step_seconds=seconds, threads=processes
        )
    ]
    if processes < cores:
        together, _ = time_apart(reference, 1, cores)
        found += [replace(cost, threads=cores) for cost in together]
    return [min(found, key=lambda cost: cost.step_seconds)]


def time_apart(
    reference: Path, processes: int, threads: int
) -> tuple[list[Cost], str | None]:
    """Time in processes of their own: OpenMP's threads are fixed as one begins."""
    started = [
        subprocess.Popen(
            [sys.executable, __file__, str(reference), str(threads)],
            env=os.environ | {"OMP_NUM_THREADS": str(threads)},
            stdout=subprocess.PIPE,
        )
        for _ in range(processes)
    ]
    found = [json.loads(process.communicate()[0]) for process in started]
    if "reason" in found[0]:
        return [], found[0]["reason"]
    return [Cost(**cost) for cost in found], None


def time_here(reference: Path, threads: int) -> dict[str, Any]:
    """Time the reference's force in this process; its cost, or why there is none."""
    frames, provenance = load_reference(reference)
    positions, _ = starting_frames(frames, 1)
    topology = frames.topology.to_openmm()
    clock = clock_of(threads)
    cost, reason = force_cost(topology, positions[0], provenance, clock)
    return {"reason": reason} if cost is None else asdict(cost)


if __name__ == "__main__":
    print(json.dumps(time_here(Path(sys.argv[1]), int(sys.argv[2]))))

"""
Measure what a lag costs: around the network, per replica, per thread, in memory.

Three tables:

- *Overhead*: wall time of `integrator.step` less the time inside the TorchScript calls
  (encode, K times denoise, decode), which the integrator itself measures. The network
  is the exact harmonic stub, small enough for the overhead to show.
- *Throughput* of ``--model`` for each number of replicas and threads.
- *Memory*: peak of the process for each number of replicas, and straight lines through
  it: up to the replicas of one batch, and beyond.

Each row is a process of its own; a time is the smallest of several rounds, so that
other work on the machine counts less. Rounds of all rows are of one length, as far as a
lag of the largest is not longer: the smallest of short rounds would flatter. Speeds and
costs per replica are of CPU time with one thread, in which other processes do not
count, of wall time with more and on the platform CUDA. There the time inside the
network is that of launching it, so that *overhead* holds the GPU's own, and memory is
the GPU's that torch has reserved. ``--passes`` goes through all rows more than once and
keeps the best pass of each, so that a slow minute does not fall on one row alone.
``--output`` writes JSON:

    python benchmarks/bench_integrator.py --output results.json
"""

import argparse
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from command_line import output_file, print_goals, write_results
from machine import describe_machine, describe_run
from openmm import unit

from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.integrator.propagator import PAIRS_PER_BATCH
from openmm_diffmd.testing import save_stub_model
from openmm_diffmd.units import SECONDS_PER_DAY

OVERHEAD_GOAL_US = 20.0
RISE_OF_NOISE = 0.05
"""Beyond some tens of replicas cost per replica is flat, and rounds differ."""
LINEAR_GOAL = 0.05
"""Largest distance from the straight lines, of the growth over all replicas."""
EXTRA_FOR_MEMORY = (128, 256)
FEW_SECONDS = 0.5
ROUND_SECONDS = 0.7
"""About a lag of 512 ethanols."""


@dataclass(frozen=True)
class Cost:
    """Cost of a lag of all replicas, for one number of replicas and threads."""

    model: str
    replicas: int
    threads: int
    lag_us: float
    network_us: float
    overhead_us: float
    cpu_us: float
    rounds: int
    lags_per_second: float
    us_per_replica: float
    ns_per_day_each: float
    ns_per_day_all: float
    peak_memory_MiB: float


def measure(
    model: DiffusionModel, num_replicas: int, platform_name: str, seconds: float
) -> Cost:
    """Run rounds of one length for about some seconds, and keep the quickest."""
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, num_replicas)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules
    )
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(
        replicas.system, integrator, openmm.Platform.getPlatformByName(platform_name)
    )
    context.setPositions(replicas.positions)
    context.setVelocitiesToTemperature(model.temperature, 1)
    # On a GPU a graph of the lag is captured after some.
    integrator.step(6)
    begin = time.perf_counter()
    integrator.step(3)
    length = min(ROUND_SECONDS, seconds / 3)
    lags = max(1, round(3 * length / (time.perf_counter() - begin)))
    rounds = []
    end = time.perf_counter() + seconds
    while len(rounds) < 3 or time.perf_counter() < end:
        network = integrator.getNetworkTime()
        cpu, begin = time.process_time(), time.perf_counter()
        integrator.step(lags)
        wall, cpu = time.perf_counter() - begin, time.process_time() - cpu
        inside = integrator.getNetworkTime() - network
        rounds.append((wall / lags, inside / lags, cpu / lags))
    lag, network, _ = min(rounds)
    overhead = min(wall - inside for wall, inside, _ in rounds)
    cpu = min(cpu for _, _, cpu in rounds)
    threads = torch.get_num_threads()
    on_gpu = platform_name == "CUDA" and torch.cuda.is_available()
    spent = cpu if threads == 1 and not on_gpu else lag
    each = integrator.getStepSize().value_in_unit(unit.nanosecond)
    each *= SECONDS_PER_DAY / spent
    return Cost(
        model=model.metadata.name,
        replicas=num_replicas,
        threads=threads,
        lag_us=1e6 * lag,
        network_us=1e6 * network,
        overhead_us=1e6 * overhead,
        cpu_us=1e6 * cpu,
        rounds=len(rounds),
        lags_per_second=1 / spent,
        us_per_replica=1e6 * spent / num_replicas,
        ns_per_day_each=each,
        ns_per_day_all=num_replicas * each,
        peak_memory_MiB=(gpu_memory() if on_gpu else peak_memory()) / 2**20,
    )


def peak_memory() -> int:
    """Read the peak of this process's memory, bytes."""
    # Not getrusage: its peak is at least that of the process that started this one.
    status = Path("/proc/self/status").read_text()
    return 1024 * int(re.search(r"VmHWM:\s*(\d+) kB", status)[1])


def gpu_memory() -> int:
    """Read the peak of what torch has reserved on the GPU, bytes."""
    torch.cuda.init()
    return torch.cuda.max_memory_reserved()


def measure_apart(
    model: str, replicas: int, threads: int, platform_name: str, seconds: float
) -> Cost:
    """Measure in a new process, whose memory is the row's own."""
    words = [sys.executable, __file__, "--platform", platform_name, "--model", model]
    words += ["--row", str(replicas), str(threads), "--seconds", str(seconds)]
    environment = os.environ | dict.fromkeys(
        ("OMP_NUM_THREADS", "MKL_NUM_THREADS"), str(threads)
    )
    done = subprocess.run(
        words, env=environment, stdout=subprocess.PIPE, check=True, text=True
    )
    return Cost(**json.loads(done.stdout))


def measure_in_passes(
    cases: Sequence[tuple[str, int, int]],
    passes: int,
    platform_name: str,
    seconds: float,
) -> list[Cost]:
    """Measure cases of model, replicas and threads in turns; keep the best of each."""
    measured = [
        [measure_apart(*case, platform_name, seconds) for case in cases]
        for _ in range(passes)
    ]
    return [
        min(row, key=lambda cost: cost.us_per_replica)
        for row in zip(*measured, strict=True)
    ]


def fit_lines(costs: Sequence[Cost], batch: int) -> dict[str, float]:
    """Fit memory against replicas, within a batch and beyond, by least squares."""
    replicas = np.array([cost.replicas for cost in costs], float)
    memory = np.array([cost.peak_memory_MiB for cost in costs])
    first = np.polyfit(*_where(replicas <= batch, replicas, memory), 1)
    beyond = replicas >= batch
    second = np.zeros(2)
    if beyond.sum() > 1:
        second = np.polyfit(*_where(beyond, replicas, memory), 1)
    line = np.polyval(first, replicas)
    line[replicas > batch] = np.polyval(second, replicas[replicas > batch])
    # Of few replicas nothing grows; a MiB is noise.
    growth = max(float(np.ptp(memory)), 1.0)
    return {
        "replicas_per_batch": batch,
        "MiB_without_replicas": float(first[1]),
        "KiB_per_replica": 1024 * float(first[0]),
        "KiB_per_replica_beyond_a_batch": 1024 * float(second[0]),
        "farthest_of_growth": float(np.abs(memory - line).max()) / growth,
    }


def _where(chosen: np.ndarray, *arrays: np.ndarray) -> list[np.ndarray]:
    return [array[chosen] for array in arrays]


def default_batch(model: DiffusionModel) -> int:
    """Molecules of a batch, unless the integrator is told."""
    return max(PAIRS_PER_BATCH // model.example()[0].getNumAtoms() ** 2, 1)


def judge(
    overhead: Sequence[Cost], throughput: Sequence[Cost], line: dict[str, float]
) -> dict[str, bool]:
    """Say which goals are met."""
    goals = {}
    # A network that fills the caches leaves the rest of the lag to start cold.
    for what, costs in (("the stub", overhead), ("the model", throughput[:1])):
        of = [cost.overhead_us for cost in costs if cost.replicas == 1]
        name = f"overhead of one molecule of {what} at most {OVERHEAD_GOAL_US:g} us"
        if of:
            goals[name] = all(us <= OVERHEAD_GOAL_US for us in of)
    for threads in sorted({cost.threads for cost in throughput}):
        of = [c.us_per_replica for c in throughput if c.threads == threads]
        goals[f"cost per replica falls with replicas, {threads} threads"] = (
            all(
                later < (1 + RISE_OF_NOISE) * earlier for earlier, later in pairwise(of)
            )
            and of[-1] < of[0]
        )
    goals[f"memory on straight lines to {100 * LINEAR_GOAL:g} % of its growth"] = (
        line["farthest_of_growth"] <= LINEAR_GOAL
        and line["KiB_per_replica_beyond_a_batch"] <= line["KiB_per_replica"]
    )
    return goals


def print_costs(title: str, costs: Sequence[Cost]) -> None:
    """Print a table of times."""
    columns = {
        "replicas": (8, "d"),
        "threads": (7, "d"),
        "lag_us": (11, ".1f"),
        "network_us": (11, ".1f"),
        "overhead_us": (11, ".1f"),
        "cpu_us": (11, ".1f"),
        "us_per_replica": (14, ".1f"),
        "lags_per_second": (15, ".1f"),
        "ns_per_day_each": (15, ".1f"),
        "ns_per_day_all": (14, ".0f"),
    }
    print(f"\n{title}")
    print(" ".join(f"{name:>{width}}" for name, (width, _) in columns.items()))
    for cost in costs:
        row = [f"{getattr(cost, n):{w}{form}}" for n, (w, form) in columns.items()]
        print(" ".join(row))


def run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Measure everything, print it, and return it as plain values."""
    begin = describe_run(__file__)
    platform_name, seconds = arguments.platform, arguments.seconds
    passes = arguments.passes
    with tempfile.TemporaryDirectory() as folder:
        stub = str(save_stub_model(Path(folder) / "harmonic.pt"))
        cases = [(stub, r, 1) for r in arguments.replicas]
        overhead = measure_in_passes(cases, passes, platform_name, seconds)
    print_costs("harmonic stub: what is not network", overhead)
    cases = [
        (arguments.model, r, t) for t in arguments.threads for r in arguments.replicas
    ]
    throughput = measure_in_passes(cases, passes, platform_name, seconds)
    print_costs(f"{arguments.model}", throughput)
    memory = [c for c in throughput if c.threads == arguments.threads[0]]
    between = [r for r in EXTRA_FOR_MEMORY if r < max(arguments.replicas)]
    memory += [
        measure_apart(
            arguments.model, r, arguments.threads[0], platform_name, FEW_SECONDS
        )
        for r in between
    ]
    memory.sort(key=lambda cost: cost.replicas)
    line = fit_lines(memory, default_batch(load_model(arguments.model)))
    print(
        "\npeak memory: "
        + ", ".join(f"{c.replicas}: {c.peak_memory_MiB:.0f} MiB" for c in memory)
    )
    print(
        f"lines: {line['MiB_without_replicas']:.0f} MiB and "
        f"{line['KiB_per_replica']:.0f} KiB a replica of the first "
        f"{line['replicas_per_batch']}, {line['KiB_per_replica_beyond_a_batch']:.0f} "
        f"KiB beyond; farthest point {100 * line['farthest_of_growth']:.1f} % of the "
        "growth"
    )
    goals = judge(overhead, throughput, line)
    print()
    print_goals(goals)
    return {
        **begin,
        "load_at_end": describe_machine()["load"],
        "platform": platform_name,
        "overhead": [asdict(cost) for cost in overhead],
        "throughput": [asdict(cost) for cost in throughput],
        "memory": [[cost.replicas, cost.peak_memory_MiB] for cost in memory],
        "memory_lines": line,
        "goals": goals,
    }


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ethanol", help="bundled name or file")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--platform", default="Reference")
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    parser.add_argument("--passes", type=int, default=1, help="through all rows")
    parser.add_argument("--output", type=output_file, help="JSON file to write")
    parser.add_argument("--row", type=int, nargs=2, help=argparse.SUPPRESS)
    arguments = parser.parse_args(words)
    if arguments.row:
        replicas, threads = arguments.row
        torch.set_num_threads(threads)
        model = load_model(arguments.model)
        cost = measure(model, replicas, arguments.platform, arguments.seconds)
        print(json.dumps(asdict(cost)))
        return
    result = run(arguments)
    if arguments.output:
        write_results(arguments.output, result)


if __name__ == "__main__":
    main()

"""
Measure what a lag costs around the network, and how cost falls with replicas.

Overhead is wall time of `integrator.step` less the time inside the TorchScript calls
(encode, K times denoise, decode), which the integrator itself measures; the smallest of
several rounds, so that other work on the machine counts less. Without ``--model`` the
network is the exact harmonic stub, small enough for the overhead to show. Prints a
table; ``--output`` writes JSON:

    OMP_NUM_THREADS=1 python benchmarks/bench_integrator.py
"""

import argparse
import json
import platform
import resource
import tempfile
import time
import warnings
from dataclasses import asdict, dataclass
from importlib.metadata import version
from pathlib import Path

import openmm
import torch
from openmm import unit

from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator import DiffusionIntegrator, replicate
from openmm_diffmd.testing import save_stub_model

SECONDS_PER_DAY = 86400.0
GOAL_US = 20.0


@dataclass(frozen=True)
class Cost:
    """Cost of a lag of all replicas, for one number of replicas."""

    replicas: int
    lag_us: float
    network_us: float
    overhead_us: float
    lags_per_second: float
    ns_per_day_total: float
    peak_memory_MiB: float


def measure(
    model: DiffusionModel, num_replicas: int, platform_name: str, seconds: float
) -> Cost:
    """Run rounds of equal length for about some seconds, and keep the quickest."""
    topology, positions = model.example()
    replicas = replicate(topology, positions, num_replicas)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules
    )
    integrator.setRandomNumberSeed(1)
    context = openmm.Context(
        replicas.system, integrator, openmm.Platform.getPlatformByName(platform_name)
    )
    context.setPositions(replicas.positions)
    context.setVelocitiesToTemperature(model.temperature, 1)
    integrator.step(3)
    begin = time.perf_counter()
    integrator.step(3)
    lags = max(1, round(3 * seconds / 20 / (time.perf_counter() - begin)))
    rounds = []
    end = time.perf_counter() + seconds
    while len(rounds) < 5 or time.perf_counter() < end:
        network = integrator.getNetworkTime()
        begin = time.perf_counter()
        integrator.step(lags)
        wall = time.perf_counter() - begin
        rounds.append((wall / lags, (integrator.getNetworkTime() - network) / lags))
    lag, network = min(rounds)
    overhead = min(wall - inside for wall, inside in rounds)
    step_ns = integrator.getStepSize().value_in_unit(unit.nanosecond)
    return Cost(
        replicas=num_replicas,
        lag_us=1e6 * lag,
        network_us=1e6 * network,
        overhead_us=1e6 * overhead,
        lags_per_second=1 / lag,
        ns_per_day_total=num_replicas * step_ns * SECONDS_PER_DAY / lag,
        peak_memory_MiB=resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024,
    )


def main() -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--model", help="bundled name or file; default: harmonic stub")
    parser.add_argument("--replicas", type=int, nargs="+", default=[1, 8, 64, 512])
    parser.add_argument("--platform", default="Reference")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each row")
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args()
    # TorchScript is deprecated upstream; one module of ours names it.
    warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
    torch.set_num_threads(arguments.threads)
    with tempfile.TemporaryDirectory() as folder:
        path = arguments.model or save_stub_model(Path(folder) / "harmonic.pt")
        model = load_model(path)
        print(f"{'replicas':>8} {'lag':>9} {'network':>9} {'overhead':>9}  us")
        costs = []
        for num_replicas in arguments.replicas:
            cost = measure(model, num_replicas, arguments.platform, arguments.seconds)
            costs.append(cost)
            print(
                f"{cost.replicas:8d} {cost.lag_us:9.1f} {cost.network_us:9.1f} "
                f"{cost.overhead_us:9.1f}  {cost.lags_per_second:.0f} lags/s, "
                f"{cost.ns_per_day_total:.0f} ns/day in all, "
                f"peak {cost.peak_memory_MiB:.0f} MiB"
            )
    single = [cost for cost in costs if cost.replicas == 1]
    for cost in single:
        verdict = "met" if cost.overhead_us <= GOAL_US else "missed"
        print(f"overhead of one molecule: goal <= {GOAL_US:g} us {verdict}")
    if arguments.output:
        result = {
            "model": model.metadata.name,
            "sampler": model.metadata.sampler,
            "platform": arguments.platform,
            "threads": arguments.threads,
            "machine": f"{platform.processor() or platform.machine()}",
            "versions": {name: version(name) for name in ("openmm", "torch")},
            "costs": [asdict(cost) for cost in costs],
        }
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

"""
Measure what a training step of the default network costs.

Batches of molecules of ethanol's size and elements (random places: the network is
dense over pairs of atoms, its cost does not depend on them); one step is loss,
gradient, clipping and the default optimizer's step, without Lightning's loop,
averaging and logs. Wall and CPU time, the median and the quickest of several steps, so
that other work on the machine counts less.
Prints a table; ``--output`` writes JSON, ``--profile`` prints where the time goes:

    python benchmarks/bench_training.py --threads 2
"""

import argparse
import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from importlib.metadata import version
from typing import Any

import torch
from command_line import output_file, write_results
from machine import describe_machine
from torch.profiler import ProfilerActivity, profile

from openmm_diffmd.data.pairs import PairBatch
from openmm_diffmd.elements import element_masses
from openmm_diffmd.training.config import (
    ModelConfig,
    TrainConfig,
    TransitionOptimizerConfig,
)
from openmm_diffmd.training.module import TransitionTraining

ELEMENTS = ["H", "C", "O"]
SPECIES = [1, 1, 2, 0, 0, 0, 0, 0, 0]
NUMBERS = [1, 6, 8]
GOAL_MS = 150.0


class SilentTraining(TransitionTraining):
    """Training without a Trainer to log to."""

    def log(self, *_: Any, **__: Any) -> None:
        """Drop what is logged."""


@dataclass(frozen=True)
class Cost:
    """Milliseconds of one part of a step."""

    part: str
    wall_ms: float
    wall_ms_quickest: float
    cpu_ms: float
    cpu_ms_quickest: float


def ethanol_like_batch(batch_size: int) -> PairBatch:
    """Make random pairs of nine atoms, ethanol's elements."""
    generator = torch.Generator().manual_seed(1)
    species = torch.tensor(SPECIES).repeat(batch_size, 1)
    masses = torch.tensor(element_masses(NUMBERS), dtype=torch.float32)[species]
    positions, velocities, acceleration, dx, dv = torch.randn(
        5, *species.shape, 3, generator=generator
    ).unbind()
    positions = 0.12 * positions
    return PairBatch(
        positions=positions,
        velocities=velocities,
        acceleration=100.0 * acceleration,
        has_acceleration=torch.ones(batch_size, dtype=torch.bool),
        species=species,
        masses=masses,
        following=torch.stack([positions + 0.01 * dx, velocities + dv], dim=2),
        later=torch.empty(batch_size, 0, *species.shape[1:], 2, 3),
    )


def measure(part: str, run: Callable[[], Any], seconds: float) -> Cost:
    """Repeat a part for some seconds, after a warm-up."""
    for _ in range(3):
        run()
    wall, cpu = [], []
    end = time.perf_counter() + seconds
    while len(wall) < 5 or time.perf_counter() < end:
        begin = time.perf_counter(), time.process_time()
        run()
        wall.append(1e3 * (time.perf_counter() - begin[0]))
        cpu.append(1e3 * (time.process_time() - begin[1]))
    return Cost(
        part, statistics.median(wall), min(wall), statistics.median(cpu), min(cpu)
    )


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0].strip())
    parser.add_argument("--threads", type=int, default=os.cpu_count())
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--noise-draws", type=int, default=2)
    parser.add_argument("--l-max", type=int, default=ModelConfig().l_max)
    parser.add_argument("--seconds", type=float, default=10.0, help="for each part")
    parser.add_argument("--profile", action="store_true")
    parser.add_argument("--output", type=output_file, help="JSON file to write")
    arguments = parser.parse_args(words)
    torch.set_num_threads(arguments.threads)
    torch.manual_seed(1)
    config = TrainConfig(
        ModelConfig(l_max=arguments.l_max),
        optimizer=TransitionOptimizerConfig(num_noise_draws=arguments.noise_draws),
    )
    training = SilentTraining(config, ELEMENTS, seed=1)
    optimizer = training.configure_optimizers()["optimizer"]
    batch = ethanol_like_batch(arguments.batch_size)
    residual = torch.randn(*batch.species.shape, 2, 3)
    sigma = torch.full((arguments.batch_size,), 0.5)
    level = torch.zeros(arguments.batch_size)

    def step() -> None:
        optimizer.zero_grad()
        training.training_step(batch, 0).backward()
        torch.nn.utils.clip_grad_norm_(
            training.parameters(), config.optimizer.gradient_clip
        )
        optimizer.step()

    @torch.no_grad()
    def encode() -> dict[str, torch.Tensor]:
        return training.model.encode(*batch[:6], level)

    condition = encode()

    @torch.no_grad()
    def denoise() -> None:
        training.model.denoise(residual, sigma, condition)

    parameters = sum(weight.numel() for weight in training.parameters())
    print(
        f"{parameters} parameters, batch {arguments.batch_size}, "
        f"{arguments.noise_draws} noise draws, {arguments.threads} threads"
    )
    print(f"{'':>22} {'wall':>8} {'quickest':>8} {'CPU':>8} {'quickest':>8}  ms")
    costs = []
    for name, run in (
        ("training step", step),
        ("encode, no gradient", encode),
        ("denoise, no gradient", denoise),
    ):
        cost = measure(name, run, arguments.seconds)
        costs.append(cost)
        print(
            f"{name:>22} {cost.wall_ms:8.1f} {cost.wall_ms_quickest:8.1f} "
            f"{cost.cpu_ms:8.1f} {cost.cpu_ms_quickest:8.1f}"
        )
    verdict = "met" if costs[0].wall_ms <= GOAL_MS else "missed"
    print(f"training step: goal <= {GOAL_MS:g} ms of wall time {verdict}")
    print(f"load of the machine: {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")
    if arguments.profile:
        with profile(activities=[ProfilerActivity.CPU]) as recorded:
            for _ in range(3):
                step()
        table = recorded.key_averages().table(
            sort_by="self_cpu_time_total", row_limit=25, max_name_column_width=50
        )
        print(table)
    if arguments.output:
        result = {
            "parameters": parameters,
            "batch_size": arguments.batch_size,
            "noise_draws": arguments.noise_draws,
            "algorithm": config.optimizer.algorithm,
            "threads": arguments.threads,
            "model": asdict(config.model),
            "machine": describe_machine(),
            "versions": {"e3nn": version("e3nn")},
            "costs": [asdict(cost) for cost in costs],
        }
        write_results(arguments.output, result)


if __name__ == "__main__":
    main()

"""
Measure the compiled operators beside what users have today and what memory allows.

Tables of nanoseconds per edge, for each number of edges, size, precision and number of
threads: the operator, three baselines (`fourier_bessel_baselines.py`), and the *floor*:
bytes that must be moved over the bandwidth of such traffic, measured in the same run
(writing for forward, reading too for backward) on tensors of the same size. Then the
fused invariants beside the same numbers composed from features.

Contenders take turns; a time is the smallest of many rounds, with one thread in CPU
time, so that other work on the machine counts less. Memory is reused from call to call
(touched before, and glibc is told to keep it), as in a program that runs steps;
``--memory fresh`` lets it go back to the system, where first touches of pages dominate
large outputs. ``--output`` writes JSON:

    python benchmarks/bench_fourier_bessel.py --output results.json
"""

import argparse
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from fourier_bessel_baselines import SPHERICART, make_baselines
from machine import describe_machine
from timing import Run, bandwidth, quickest
from torch import Tensor

from openmm_diffmd.ops import is_loaded
from openmm_diffmd.ops.operators import (
    fourier_bessel_invariants,
    spherical_fourier_bessel,
)

OURS = "compiled"
CUTOFF, VELOCITY_CUTOFF = 0.5, 4.0
EDGES_PER_NODE = 8
"""Ethanol's nine atoms, all of them neighbours of each other."""
TIMES_OUTPUT = 7
"""Memory of a baseline's forward and backward, in units of its output."""
REUSE = {
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_TRIM_THRESHOLD_": str(2**62),
    "MALLOC_TOP_PAD_": str(2**26),
}


@dataclass(frozen=True)
class Case:
    """What a row of a table is about."""

    device: str
    threads: int
    dtype: str
    l_max: int
    n_max: int
    edges: int
    task: str


@dataclass(frozen=True)
class Row:
    """Nanoseconds per edge of each contender, and the floor's."""

    case: Case
    ns_per_edge: dict[str, float]
    floor: float | None

    def speedup(self) -> float | None:
        """Say how many times quicker ours is than the best other."""
        others = [ns for name, ns in self.ns_per_edge.items() if name != OURS]
        return min(others) / self.ns_per_edge[OURS] if others else None

    def over_floor(self) -> float | None:
        """Say how many times the floor ours takes."""
        return self.ns_per_edge[OURS] / self.floor if self.floor else None


def make_vectors(edges: int, dtype: torch.dtype, device: str) -> Tensor:
    """Draw vectors of lengths up to the cutoff, as a neighbour list has them."""
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(edges, 3, generator=generator, dtype=dtype)
    lengths = torch.rand(edges, 1, generator=generator, dtype=dtype)
    vectors *= CUTOFF * (0.1 + 0.9 * lengths) / vectors.norm(dim=1, keepdim=True)
    return vectors.to(device)


def reserve(num_bytes: float) -> None:
    """Touch memory that is given back to glibc, which is told to keep it."""
    torch.empty(int(num_bytes), dtype=torch.uint8).fill_(0)


def both(function: Callable[[Tensor], Tensor], vectors: Tensor, grad: Tensor) -> Run:
    """Make a call and its gradient by the vectors."""
    leaf = vectors.clone().requires_grad_(True)
    return lambda: torch.autograd.grad(function(leaf), leaf, grad)


def backward(
    function: Callable[[Tensor], Tensor], vectors: Tensor, grad: Tensor
) -> Run:
    """Make the gradient of a call that was made before."""
    leaf = vectors.clone().requires_grad_(True)
    out = function(leaf)
    return lambda: torch.autograd.grad(out, leaf, grad, retain_graph=True)


def measure_features(
    arguments: argparse.Namespace, device: str, threads: int, size: tuple[int, int]
) -> Iterator[Row]:
    """Measure the first operator beside the baselines and the floor."""
    l_max, n_max = size
    seconds = arguments.seconds
    for name in arguments.dtypes:
        dtype = getattr(torch, name)

        def ours(vectors: Tensor) -> Tensor:
            return spherical_fourier_bessel(vectors, CUTOFF, l_max, n_max)

        contenders = {
            OURS: ours,
            **make_baselines(l_max, n_max, CUTOFF, dtype, device),
        }
        for edges in arguments.edges:
            vectors = make_vectors(edges, dtype, device)
            grad = torch.ones(edges, (l_max + 1) ** 2, n_max).to(device, dtype)
            out_bytes = grad.numel() * grad.element_size()
            in_bytes = vectors.numel() * vectors.element_size()
            speed = bandwidth(grad, seconds)
            write, read = out_bytes / speed["write"], out_bytes / speed["read"]
            small = in_bytes / speed["read"]
            limit = arguments.memory_gib * 2**30
            enough = TIMES_OUTPUT * out_bytes <= limit
            if arguments.memory == "reused":
                reserve(min(limit, TIMES_OUTPUT * out_bytes))
            fit = contenders if enough else {OURS: ours}
            tasks = {
                "forward": (
                    {n: partial(f, vectors) for n, f in fit.items()},
                    write + small,
                ),
                "forward+backward": (
                    {n: both(f, vectors, grad) for n, f in fit.items()},
                    write + read + 3 * small,
                ),
                "backward": (
                    {OURS: backward(ours, vectors, grad)},
                    read + 2 * small,
                ),
            }
            for task, (runs, floor) in tasks.items():
                with torch.inference_mode(task == "forward"):
                    least = quickest(runs, device, seconds)
                case = Case(device, threads, name, l_max, n_max, edges, task)
                yield Row(
                    case,
                    {n: 1e9 * t / edges for n, t in least.items()},
                    1e9 * floor / edges,
                )


def composed(
    vectors: Tensor, velocities: Tensor, index: Tensor, l_max: int, n_max: int
) -> Tensor:
    """Compute the invariants from features of edges and of nodes."""
    at_edges = spherical_fourier_bessel(vectors, CUTOFF, l_max, n_max)
    at_nodes = spherical_fourier_bessel(velocities, VELOCITY_CUTOFF, l_max, n_max)
    products = [at_edges * at_nodes[index[0]], at_edges * at_nodes[index[1]]]
    out = [at_edges[:, 0]]
    for degree in range(l_max + 1):
        block = slice(degree**2, (degree + 1) ** 2)
        out += [product[:, block].sum(1) for product in products]
    return torch.cat(out, dim=1)


def measure_invariants(
    arguments: argparse.Namespace, device: str, threads: int, size: tuple[int, int]
) -> Iterator[Row]:
    """Measure the fused invariants beside composing them."""
    l_max, n_max = size
    for edges in arguments.edges:
        vectors = make_vectors(edges, torch.float32, device)
        nodes = max(1, edges // EDGES_PER_NODE)
        velocities = 2.0 * make_vectors(nodes, torch.float32, device)
        generator = torch.Generator().manual_seed(2)
        index = torch.randint(nodes, (2, edges), generator=generator).to(device)
        grad = torch.ones(edges, n_max * (2 * l_max + 3), device=device)
        inner = edges * (l_max + 1) ** 2 * n_max * 4
        if TIMES_OUTPUT * inner > arguments.memory_gib * 2**30:
            continue

        def fused(r: Tensor, v: Tensor, index: Tensor = index) -> Tensor:
            return fourier_bessel_invariants(
                r, v, index, CUTOFF, VELOCITY_CUTOFF, l_max, n_max
            )[0]

        def by_parts(r: Tensor, v: Tensor, index: Tensor = index) -> Tensor:
            return composed(r, v, index, l_max, n_max)

        leaves = [t.clone().requires_grad_(True) for t in (vectors, velocities)]
        for task in ("forward", "forward+backward"):
            runs: dict[str, Run] = {}
            for name, function in ((OURS, fused), ("composed", by_parts)):
                if task == "forward":
                    runs[name] = partial(function, vectors, velocities)
                else:
                    runs[name] = lambda f=function, x=leaves, g=grad: (
                        torch.autograd.grad(f(*x), x, g)
                    )
            with torch.inference_mode(task == "forward"):
                least = quickest(runs, device, arguments.seconds)
            case = Case(
                device, threads, "float32", l_max, n_max, edges, f"invariants {task}"
            )
            yield Row(case, {n: 1e9 * t / edges for n, t in least.items()}, None)


def print_row(row: Row, before: Case | None) -> None:
    """Print a row, and a heading where a table begins."""
    case = row.case
    table = (case.device, case.threads, case.dtype, case.l_max, case.n_max)
    if before is None or table != (
        before.device,
        before.threads,
        before.dtype,
        before.l_max,
        before.n_max,
    ):
        print(
            f"\n{case.device}, {case.threads} threads, {case.dtype}, l_max "
            f"{case.l_max}, n_max {case.n_max}; ns per edge"
        )
    times = ", ".join(f"{name} {ns:.4g}" for name, ns in row.ns_per_edge.items())
    print(f"{case.edges:>8} {case.task:<28} {times}", end="")
    if row.floor is not None:
        print(f", floor {row.floor:.4g} (x {row.over_floor():.2f})", end="")
    gain = row.speedup()
    print(f"; {gain:.1f} times the best other" if gain else "", flush=True)


def judge(rows: Sequence[Row]) -> list[dict[str, Any]]:
    """Compare float32 rows on the CPU with the goals."""
    found = []
    for row in rows:
        case = row.case
        at = (case.task, case.edges)
        if case.device != "cpu" or case.dtype != "float32":
            continue
        gain, over = row.speedup(), row.over_floor()
        least = {
            ("forward", 10_000): 10.0,
            ("forward+backward", 10_000): 8.0,
            ("forward", 100): 30.0,
            ("forward+backward", 100): 30.0,
        }.get(at)
        if case.task.startswith("invariants"):
            least = 3.0
        if least is not None and gain is not None:
            found.append(
                (case, f"at least {least:g} times the best other", gain, gain >= least)
            )
        if over is None or case.edges < 100_000 or (case.l_max, case.n_max) != (3, 8):
            continue
        most = {"forward": 1.5, "backward": 4.0}.get(case.task)
        if most is not None:
            found.append(
                (case, f"at most {most:g} times the floor", over, over <= most)
            )
    return [
        {"case": asdict(case), "goal": goal, "found": value, "met": met}
        for case, goal, value, met in found
    ]


def measure(arguments: argparse.Namespace) -> list[Row]:
    """Measure and print everything."""
    rows: list[Row] = []
    places = [("cpu", threads) for threads in arguments.threads]
    if torch.cuda.is_available():
        places.append(("cuda", 1))
    else:
        print("no GPU: its part is left out")
    for device, threads in places:
        torch.set_num_threads(threads)
        for size in arguments.sizes:
            for kind in (measure_features, measure_invariants):
                for row in kind(arguments, device, threads, size):
                    print_row(row, rows[-1].case if rows else None)
                    rows.append(row)
    return rows


def size(word: str) -> tuple[int, int]:
    """Read l_max,n_max."""
    l_max, n_max = word.split(",")
    return int(l_max), int(n_max)


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--edges", type=int, nargs="+", default=[10**k for k in range(2, 7)]
    )
    parser.add_argument(
        "--sizes", type=size, nargs="+", default=[(3, 8), (6, 6)], help="l_max,n_max"
    )
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each figure")
    parser.add_argument("--memory", choices=["reused", "fresh"], default="reused")
    parser.add_argument(
        "--memory-gib", type=float, default=8.0, help="what baselines may take"
    )
    parser.add_argument("--output", type=Path, help="JSON file to write")
    arguments = parser.parse_args(words)
    if not is_loaded():
        sys.exit("found no compiled operators, expected them; build the package")
    if arguments.memory == "reused" and "MALLOC_MMAP_MAX_" not in os.environ:
        # glibc reads these when a process begins.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | REUSE)
    # TorchScript, on which e3nn stands, is deprecated upstream.
    warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
    begin = describe_machine()
    print(f"{begin['processor']}, load {begin['load']}; memory {arguments.memory}")
    if not SPHERICART:
        print("recurrence x sphericart: absent, sphericart-torch is not installed")
    rows = measure(arguments)
    goals = judge(rows)
    print()
    for goal in goals:
        case = goal["case"]
        where = (
            f"{case['edges']} edges, ({case['l_max']}, {case['n_max']}), "
            f"{case['threads']} threads, {case['task']}"
        )
        verdict = "met" if goal["met"] else "MISSED"
        print(f"{verdict:8}{goal['goal']}: {goal['found']:.2f}; {where}")
    result = {
        "command": " ".join(
            ["python", "benchmarks/bench_fourier_bessel.py", *sys.argv[1:]]
        ),
        "machine": begin,
        "load_at_end": describe_machine()["load"],
        "memory": arguments.memory,
        "sphericart": SPHERICART,
        "rows": [asdict(row) for row in rows],
        "goals": goals,
    }
    if arguments.output:
        arguments.output.write_text(json.dumps(result, indent=1) + "\n")


if __name__ == "__main__":
    main()

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

``--merge`` puts the rows into a file that is there, so that a machine which is idle for
a minute at a time can be used: one call for each choice of the other options.
"""

import argparse
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from command_line import output_file
from fourier_bessel_baselines import SPHERICART, make_baselines
from fourier_bessel_rows import OURS, Case, Row, judge, print_row, write_results
from machine import describe_machine, describe_run
from timing import Run, bandwidth, quickest
from torch import Tensor

from openmm_diffmd.ops import is_loaded
from openmm_diffmd.ops.operators import (
    fourier_bessel_invariants,
    spherical_fourier_bessel,
)

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


PARTS = {"features": measure_features, "invariants": measure_invariants}


def measure(arguments: argparse.Namespace) -> Iterator[Row]:
    """Measure everything."""
    places = [("cpu", threads) for threads in arguments.threads]
    if torch.cuda.is_available():
        places.append(("cuda", 1))
    else:
        print("no GPU: its part is left out")
    for device, threads in places:
        torch.set_num_threads(threads)
        # The default stream cannot be captured into graphs.
        stream = torch.cuda.stream(torch.cuda.Stream()) if device == "cuda" else None
        with stream or nullcontext():
            for size in arguments.sizes:
                for part in arguments.parts:
                    yield from PARTS[part](arguments, device, threads, size)


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
    parser.add_argument(
        "--parts",
        nargs="+",
        choices=list(PARTS),
        default=list(PARTS),
        help="invariants are measured in float32",
    )
    parser.add_argument("--dtypes", nargs="+", default=["float32", "float64"])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--seconds", type=float, default=0.5, help="for each figure")
    parser.add_argument("--memory", choices=["reused", "fresh"], default="reused")
    parser.add_argument(
        "--memory-gib", type=float, default=8.0, help="what baselines may take"
    )
    parser.add_argument("--output", type=output_file, help="JSON file to write")
    parser.add_argument(
        "--merge", action="store_true", help="keep the file's rows of other cases"
    )
    arguments = parser.parse_args(words)
    if not is_loaded():
        sys.exit("found no compiled operators, expected them; build the package")
    if arguments.memory == "reused" and "MALLOC_MMAP_MAX_" not in os.environ:
        # glibc reads these when a process begins.
        os.execve(sys.executable, [sys.executable, *sys.argv], os.environ | REUSE)
    # TorchScript, on which e3nn stands, is deprecated upstream.
    warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
    begin = describe_run(__file__)
    machine = begin["machine"]
    print(f"{machine['processor']}, load {machine['load']}; memory {arguments.memory}")
    if not SPHERICART:
        print("recurrence x sphericart: absent, sphericart-torch is not installed")
    run = {
        **begin,
        "memory": arguments.memory,
        "sphericart": SPHERICART,
    }
    rows: list[Row] = []
    for row in measure(arguments):
        print_row(row, rows[-1].case if rows else None)
        rows.append(row)
        run["load_at_end"] = describe_machine()["load"]
        # After each row: what was measured stays if the run is ended.
        if arguments.output:
            write_results(arguments.output, run, rows, merge=arguments.merge)
    print()
    for goal in judge(rows):
        case = goal["case"]
        where = (
            f"{case['edges']} edges, ({case['l_max']}, {case['n_max']}), "
            f"{case['threads']} threads, {case['task']}"
        )
        verdict = "met" if goal["met"] else "MISSED"
        print(f"{verdict:8}{goal['goal']}: {goal['found']:.2f}; {where}")


if __name__ == "__main__":
    main()

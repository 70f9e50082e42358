"""Time contenders in turns, and measure the memory's bandwidth, on a CPU or a GPU."""

import ctypes
import sys
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import torch
from streamed_write import streamed_seconds
from torch import Tensor

ROUND_SECONDS = 0.002

Run = Callable[[], Any]


def captured(run: Run) -> Run:
    """
    Put the kernels of a call into a CUDA graph, or leave it if it cannot be.

    The current stream must not be the default one, and what the call needs was made
    on it: a gradient's kernels go to the stream that the function's were on.
    """
    for _ in range(3):
        run()
    graph = torch.cuda.CUDAGraph()
    try:
        with torch.cuda.graph(graph, stream=torch.cuda.current_stream()):
            run()
    except RuntimeError as error:
        print(f"no CUDA graph, timed with its launches: {error}", file=sys.stderr)
        return run
    return graph.replay


def quickest(runs: dict[str, Run], device: str, seconds: float) -> dict[str, float]:
    """
    Time contenders in turns, and keep the least time of a call of each.

    On one CPU thread it is the process's CPU time, in which other processes do not
    count; else wall time. On a GPU calls are replayed as CUDA graphs where they can be.

    Parameters
    ----------
    runs : dict of str to Callable
        What to time.
    device : str
        "cpu" or "cuda".
    seconds : float
        Time for each, at least; three rounds are always made.

    Returns
    -------
    dict of str to float
        Seconds.
    """
    if device == "cuda":
        runs = {name: captured(run) for name, run in runs.items()}
    wait = torch.cuda.synchronize if device == "cuda" else (lambda: None)
    alone = device == "cpu" and torch.get_num_threads() == 1
    clock = time.process_time if alone else time.perf_counter

    def timed(run: Run, calls: int) -> float:
        wait()
        begin = clock()
        for _ in range(calls):
            run()
        wait()
        return (clock() - begin) / calls

    calls = {}
    for name, run in runs.items():
        for _ in range(2):
            run()
        calls[name] = max(1, round(ROUND_SECONDS / max(timed(run, 1), 1e-6)))
    least = dict.fromkeys(runs, float("inf"))
    spent, rounds = dict.fromkeys(runs, 0.0), 0
    while rounds < 3 or min(spent.values()) < seconds:
        for name, run in runs.items():
            # What is slow has had its time; three rounds are for all.
            if rounds < 3 or spent[name] < seconds:
                one = timed(run, calls[name])
                least[name] = min(least[name], one)
                spent[name] += one * calls[name]
        rounds += 1
    return least


def bandwidth(like: Tensor, seconds: float) -> dict[str, float]:
    """
    Measure the bandwidth of a tensor's size of memory.

    Parameters
    ----------
    like : Tensor
        Its size, type and device are what counts.
    seconds : float
        Time for each kind of traffic.

    Returns
    -------
    dict of str to float
        Bytes per second: ``write`` (the quickest of fill, memset and, on a CPU, a copy
        past the caches, see `streamed_write`), ``read`` (a sum), ``copy`` (bytes read
        and written).
    """
    size = like.numel() * like.element_size()
    other = torch.empty_like(like)
    runs: dict[str, Run] = {
        "fill": lambda: other.fill_(1.0),
        "copy": lambda: other.copy_(like),
        "sum": lambda: torch.sum(like),
    }
    threads = torch.get_num_threads()
    part = size // threads
    with ThreadPoolExecutor(threads) as pool:

        def memset(index: int) -> None:
            ctypes.memset(other.data_ptr() + index * part, 0, part)

        if like.device.type == "cpu":
            # It bypasses the caches where that is quicker.
            runs["memset"] = lambda: list(pool.map(memset, range(threads)))
        least = quickest(runs, like.device.type, seconds)
    writes = [least["fill"]]
    if like.device.type == "cpu":
        writes += [least["memset"], streamed_seconds(size, threads, seconds)]
    return {
        "write": size / min(writes),
        "read": size / least["sum"],
        "copy": 2 * size / least["copy"],
    }

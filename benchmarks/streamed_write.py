"""
Measure how quickly memory is written past the caches.

torch's fill and glibc's memset read each line before they write it (on processors and
versions where they do not stream). glibc's memcpy streams from a size on that is set
when a process begins, so this is a program of its own: it copies a block that stays in
the cache all over a buffer, and prints seconds for the whole buffer.

    python benchmarks/streamed_write.py 512000000 1 0.5     # bytes, threads, seconds
"""

import ctypes
import mmap
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

BLOCK = 2**19
TUNABLES = "glibc.cpu.x86_non_temporal_threshold=0x10000"


def streamed_seconds(size: int, threads: int, seconds: float) -> float:
    """
    Time one streamed write of a buffer, in a program of its own.

    Parameters
    ----------
    size : int
        Bytes.
    threads : int
        Threads that share it; with one it is CPU time.
    seconds : float
        Time to spend on it, at least.

    Returns
    -------
    float
        Seconds of the quickest write.
    """
    words = [sys.executable, str(Path(__file__)), str(size), str(threads), str(seconds)]
    environment = os.environ | {"GLIBC_TUNABLES": TUNABLES}
    ran = subprocess.run(
        words, env=environment, check=True, capture_output=True, text=True
    )
    return float(ran.stdout)


def measure(size: int, threads: int, seconds: float) -> float:
    """Measure in this process, whose glibc was told from where on to stream."""
    buffer = mmap.mmap(-1, size)
    start = ctypes.addressof(ctypes.c_char.from_buffer(buffer))
    source = ctypes.create_string_buffer(BLOCK)
    part = size // threads

    def write(index: int) -> None:
        end = (index + 1) * part
        for at in range(index * part, end, BLOCK):
            ctypes.memmove(start + at, source, min(BLOCK, end - at))

    clock = time.process_time if threads == 1 else time.perf_counter
    least, spent = float("inf"), 0.0
    with ThreadPoolExecutor(threads) as pool:
        while spent < seconds or spent < 3 * least:
            begin = clock()
            if threads == 1:
                write(0)
            else:
                list(pool.map(write, range(threads)))
            one = clock() - begin
            least, spent = min(least, one), spent + one
    return least


if __name__ == "__main__":
    print(measure(int(sys.argv[1]), int(sys.argv[2]), float(sys.argv[3])))

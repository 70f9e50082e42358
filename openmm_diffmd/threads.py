"""Threads of PyTorch."""

import torch

from openmm_diffmd.checks import at_least, to_int


def set_threads(threads: int | None) -> None:
    """
    Set the threads of PyTorch, for the whole process.

    Parameters
    ----------
    threads : int or None
        Threads; None leaves PyTorch's own choice.

    Raises
    ------
    TypeError
        If it is no whole number.
    ValueError
        If it is less than 1.
    """
    if threads is None:
        return
    threads = to_int("threads", threads)
    at_least(1, threads=threads)
    torch.set_num_threads(threads)

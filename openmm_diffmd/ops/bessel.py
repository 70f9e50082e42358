"""Roots of the spherical Bessel functions, and the norms that go with them."""

import math
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import spherical_jn

MAX_DEGREE = 6
"""Highest l of the operators."""
MAX_RADIAL = 16
"""Most radial functions a degree."""


def bessel_roots(l_max: int, n_max: int) -> NDArray[np.float64]:
    """
    Positive roots z_ln of the spherical Bessel functions j_l.

    Parameters
    ----------
    l_max : int
        Highest degree.
    n_max : int
        Roots per degree.

    Returns
    -------
    ndarray, shape (l_max + 1, n_max)
        Roots, ascending in n. Those of j_l lie between those of j_(l-1).
    """
    brackets = math.pi * np.arange(1, n_max + l_max + 1)
    roots = [brackets[:n_max]]
    for degree in range(1, l_max + 1):
        brackets = np.array(
            [
                brentq(lambda s, d=degree: spherical_jn(d, s), low, high, xtol=1e-15)
                for low, high in pairwise(brackets)
            ]
        )
        roots.append(brackets[:n_max])
    return np.array(roots)


def bessel_norms(roots: NDArray[np.float64]) -> NDArray[np.float64]:
    """
    Norms N_ln with which the integral of (N j_l(z s) s)^2 over 0 <= s <= 1 is one.

    Parameters
    ----------
    roots : ndarray, shape (l_max + 1, n_max)
        Roots z_ln.

    Returns
    -------
    ndarray, shape (l_max + 1, n_max)
        sqrt(2)/abs(j_(l+1)(z_ln)).
    """
    degrees = np.arange(len(roots))[:, None]
    norms = math.sqrt(2.0) / np.abs(spherical_jn(degrees + 1, roots))
    return np.asarray(norms, dtype=np.float64)


SERIES_TERMS = 18
"""Terms of the power series; enough for float64 below the bounds that follow."""
SERIES_BOUNDS = (0.5, 2.0, 3.0, 4.0, 4.5, 5.5, 6.5)
"""Argument of j_l below which its power series is the more accurate form."""
# TorchScript takes a tuple, as attribute of a module, for a constant; but it rounds
# floats to float32 on their way into a tensor. Integers stay what they are.
FIXED_POINT = 2.0**51
"""What the numbers of the table were multiplied by; exact for float64 from 2 on."""


def _table() -> tuple[int, ...]:
    roots = bessel_roots(MAX_DEGREE, MAX_RADIAL)
    numbers = np.stack([roots, bessel_norms(roots)]) * FIXED_POINT
    return tuple(numbers.astype(np.int64).flatten().tolist())


ROOTS_AND_NORMS = _table()
"""z_ln, then N_ln; l is slower than n."""

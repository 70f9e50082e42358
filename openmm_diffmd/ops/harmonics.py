"""Real solid harmonics on e3nn's conventions, as polynomials of the components."""

import math

import torch
from torch import Tensor

MAX_DEGREE = 3
"""Highest l that is written out."""


def spherical_harmonics(vectors: Tensor, l_max: int) -> Tensor:
    """
    Real solid harmonics r^l Y_lm of degrees 0 to `l_max`.

    On unit vectors these are the spherical harmonics in e3nn's order and axes
    (l = 1 is (x, y, z)), normalised so that the squares over m sum to 2l + 1.
    Polynomials, hence smooth at zero length.

    Parameters
    ----------
    vectors : Tensor, shape (..., 3)
        Vectors, any unit.
    l_max : int
        Highest degree, 0 to 3.

    Returns
    -------
    Tensor, shape (..., (l_max + 1)**2)
        The harmonics.

    Notes
    -----
    Geiger and Smidt, e3nn: Euclidean Neural Networks, arXiv 2207.09453.
    """
    x, y, z = vectors[..., 0], vectors[..., 1], vectors[..., 2]
    out = [torch.ones_like(x)]
    if l_max >= 1:
        root3 = math.sqrt(3.0)
        out += [root3 * x, root3 * y, root3 * z]
    if l_max >= 2:
        root15, root5 = math.sqrt(15.0), math.sqrt(5.0)
        xx_zz = x * x + z * z
        yy = y * y
        zz_xx = z * z - x * x
        out += [
            root15 * x * z,
            root15 * x * y,
            root5 * (yy - 0.5 * xx_zz),
            root15 * y * z,
            0.5 * root15 * zz_xx,
        ]
        if l_max >= 3:
            a = math.sqrt(70.0) / 4
            b = math.sqrt(105.0)
            c = math.sqrt(42.0) / 4
            out += [
                a * x * (3 * z * z - x * x),
                b * x * y * z,
                c * x * (4 * yy - xx_zz),
                0.5 * math.sqrt(7.0) * y * (2 * yy - 3 * xx_zz),
                c * z * (4 * yy - xx_zz),
                0.5 * b * y * zz_xx,
                a * z * (z * z - 3 * x * x),
            ]
    return torch.stack(out, dim=-1)

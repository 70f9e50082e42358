"""Spherical Fourier-Bessel radial functions in plain torch, smooth at zero length."""

import math

import numpy as np
import torch
from numpy.polynomial import chebyshev
from numpy.typing import NDArray
from scipy.special import spherical_jn
from torch import Tensor, nn

from openmm_diffmd.ops.bessel import bessel_roots


def chebyshev_coefficients(l_max: int, n_max: int, degree: int) -> NDArray[np.float64]:
    """
    Coefficients of normalised j_l(z_ln s)/s^l in T_k(2 s^2 - 1), 0 <= s <= 1.

    The quotient is an even entire function of s, so that a polynomial in s^2
    represents it to float32's rounding at small and large arguments alike.

    Parameters
    ----------
    l_max, n_max : int
        Highest degree l, radial functions per l.
    degree : int
        Degree of the polynomials.

    Returns
    -------
    ndarray, shape (degree + 1, l_max + 1, n_max)
        Coefficients; the normalisation makes the integral of (N j_l s)^2 over
        0 <= s <= 1 one.
    """
    roots = bessel_roots(l_max, n_max)
    nodes = np.cos(math.pi * (np.arange(degree + 1) + 0.5) / (degree + 1))
    s = np.sqrt(0.5 * (nodes + 1.0))
    out = np.empty((degree + 1, l_max + 1, n_max))
    for order in range(l_max + 1):
        for index in range(n_max):
            root = roots[order, index]
            norm = math.sqrt(2.0) / abs(spherical_jn(order + 1, root))
            values = norm * spherical_jn(order, root * s) / s**order
            out[:, order, index] = chebyshev.chebfit(nodes, values, degree)
    return out


class FourierBessel(nn.Module):
    """
    Radial part of 3D spherical Fourier-Bessel features, divided by r^l.

    Multiplied by solid harmonics of vectors / cutoff it gives the features
    Phi_nlm(r) = u(r/c) N_ln j_l(z_ln r/c) Y_lm, u the smooth envelope.

    Parameters
    ----------
    cutoff : float
        Length c at which the features vanish, unit of the vectors.
    l_max, n_max : int
        Highest degree l, radial functions per l.
    envelope_power : int
        p of the envelope 1 - (p+1)(p+2)/2 s^p + p(p+2) s^(p+1) - p(p+1)/2 s^(p+2).

    Notes
    -----
    Gasteiger, Gross and Guennemann, arXiv 2003.03123, eqs. 6 to 8.
    """

    coefficients: Tensor

    def __init__(
        self, cutoff: float, l_max: int, n_max: int, envelope_power: int = 6
    ) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.l_max = l_max
        self.n_max = n_max
        self.power = envelope_power
        # cos(z s) needs about z/2 terms in s^2, and some to converge.
        self.degree = math.ceil(math.pi * (n_max + l_max / 2) / 2) + 10
        coefficients = chebyshev_coefficients(l_max, n_max, self.degree)
        self.register_buffer(
            "coefficients",
            torch.tensor(coefficients, dtype=torch.get_default_dtype()).flatten(1),
            persistent=False,
        )

    def forward(self, squared_lengths: Tensor) -> tuple[Tensor, Tensor]:
        """
        Evaluate the radial functions.

        Parameters
        ----------
        squared_lengths : Tensor, shape (...)
            Squared lengths of the vectors.

        Returns
        -------
        radial : Tensor, shape (..., l_max + 1, n_max)
            u N_ln j_l(z_ln s)/s^l with s = length/cutoff; 0 beyond the cutoff.
        envelope : Tensor, shape (...)
            u(s), from 1 to 0.
        """
        y = (squared_lengths / (self.cutoff * self.cutoff)).clamp(max=1.0)
        x = 2.0 * y - 1.0
        # T_(m+k) = 2 T_m T_k - T_(m-k): each pass doubles the number of terms.
        terms = torch.stack([torch.ones_like(x), x], dim=-1)
        while terms.shape[-1] <= self.degree:
            last = terms[..., -1:]
            more = 2.0 * last * terms[..., 1:] - terms[..., :-1].flip(-1)
            terms = torch.cat([terms, more], dim=-1)
        values = terms[..., : self.degree + 1] @ self.coefficients
        p = float(self.power)
        # Even powers only: smooth at zero length.
        power = y ** (self.power // 2)
        s = torch.sqrt(y + 1e-12)
        envelope = (
            1.0
            - 0.5 * (p + 1) * (p + 2) * power
            + p * (p + 2) * power * s
            - 0.5 * p * (p + 1) * power * y
        )
        envelope = torch.where(y < 1.0, envelope, torch.zeros_like(envelope))
        radial = values.unflatten(-1, (self.l_max + 1, self.n_max))
        return radial * envelope[..., None, None], envelope

"""What users have today for these features, each in its fair best form."""

import importlib.util
import math
from collections.abc import Callable
from functools import cache
from typing import Any

import sympy
import torch
from e3nn import o3
from torch import Tensor, nn

from openmm_diffmd.ops.bessel import bessel_norms, bessel_roots

SPHERICART = importlib.util.find_spec("sphericart") is not None


class Features(nn.Module):
    """
    Radial functions times envelope times harmonics, each by its own library.

    Parameters
    ----------
    radial : Callable
        (E,) lengths over the cutoff to (E, l_max + 1, n_max) N_ln j_l(z_ln s).
    harmonics : Callable
        (E, 3) vectors to (E, (l_max + 1)**2) harmonics of their directions, e3nn's
        order and norm.
    l_max : int
        Highest degree.
    cutoff : float
        Length at which the features vanish.
    """

    degrees: Tensor

    def __init__(
        self,
        radial: Callable[[Tensor], Tensor],
        harmonics: Callable[[Tensor], Tensor],
        l_max: int,
        cutoff: float,
    ) -> None:
        super().__init__()
        self.radial = radial
        self.harmonics = harmonics
        self.cutoff = cutoff
        degrees = torch.arange(l_max + 1)
        self.register_buffer("degrees", degrees.repeat_interleave(2 * degrees + 1))

    def forward(self, vectors: Tensor) -> Tensor:
        """Compute (E, (l_max + 1)**2, n_max) features of (E, 3) vectors."""
        s = vectors.norm(dim=1) / self.cutoff
        s6 = s**6
        envelope = 1.0 + s6 * (-28.0 + s * (48.0 - 21.0 * s))
        envelope = envelope * (s < 1.0)
        radial = envelope[:, None, None] * self.radial(s)
        return radial[:, self.degrees] * self.harmonics(vectors)[:, :, None]


@cache
def closed_forms(l_max: int, n_max: int) -> tuple[Callable[[Tensor], Tensor], ...]:
    """
    Write a function for each l and n: N_ln j_l(z_ln s) in sines and cosines.

    Sympy derives them, as in PyG's DimeNet. Source of the formulas: Gasteiger, Gross
    and Guennemann, arXiv 2003.03123, and j_l(x) = (-x)^l (d/(x dx))^l sin(x)/x.

    Parameters
    ----------
    l_max, n_max : int
        Highest degree, functions a degree.

    Returns
    -------
    tuple of Callable
        (E,) lengths over the cutoff to (E,) values; n runs quicker than l.
    """
    roots = bessel_roots(l_max, n_max)
    norms = bessel_norms(roots)
    functions = []
    x = sympy.symbols("x")
    derived = sympy.sin(x) / x
    for degree in range(l_max + 1):
        form = sympy.simplify((-x) ** degree * derived)
        for index in range(n_max):
            scaled = float(norms[degree, index]) * form
            scaled = scaled.subs(x, float(roots[degree, index]) * x)
            names = {"sin": torch.sin, "cos": torch.cos}
            functions.append(sympy.lambdify(x, scaled, modules=names))
        derived = sympy.diff(derived, x) / x
    return tuple(functions)


class ClosedForms(nn.Module):
    """The closed forms, one evaluated after the other."""

    def __init__(self, l_max: int, n_max: int) -> None:
        super().__init__()
        self.shape = (-1, l_max + 1, n_max)
        self.functions = closed_forms(l_max, n_max)

    def forward(self, s: Tensor) -> Tensor:
        """Compute (E, l_max + 1, n_max) values of (E,) lengths over the cutoff."""
        values = [function(s) for function in self.functions]
        return torch.stack(values, dim=1).view(self.shape)


class Recurrence(nn.Module):
    """N_ln j_l(z_ln s) by upward recurrence, all l and n at once."""

    roots: Tensor
    norms: Tensor

    def __init__(self, l_max: int, n_max: int, scale: float = 1.0) -> None:
        super().__init__()
        self.l_max = l_max
        roots = bessel_roots(l_max, n_max)
        self.register_buffer("roots", torch.from_numpy(roots))
        self.register_buffer("norms", scale * torch.from_numpy(bessel_norms(roots)))

    def forward(self, s: Tensor) -> Tensor:
        """Carry each degree up from j_0 and j_1; those that are reached drop out."""
        x = s[:, None, None] * self.roots
        inverse = 1.0 / x
        before = torch.cos(x) * inverse
        current = torch.sin(x) * inverse
        out = [current[:, 0]]
        for degree in range(self.l_max):
            last = current[:, 1:]
            rest = inverse[:, degree + 1 :]
            current = (2 * degree + 1) * rest * last - before[:, 1:]
            before = last
            out.append(current[:, 0])
        return torch.stack(out, dim=1) * self.norms


def make_baselines(
    l_max: int, n_max: int, cutoff: float, dtype: torch.dtype, device: str
) -> dict[str, Callable[[Tensor], Tensor]]:
    """
    Make the baselines.

    Parameters
    ----------
    l_max, n_max : int
        Highest degree, radial functions a degree.
    cutoff : float
        Length at which the features vanish.
    dtype : torch.dtype
        Precision of their constants.
    device : str
        Where these are.

    Returns
    -------
    dict of str to Callable
        (E, 3) vectors to (E, (l_max + 1)**2, n_max) features; sphericart's is there if
        it is installed.
    """
    e3nn: Any = o3.SphericalHarmonics(
        list(range(l_max + 1)), normalize=True, normalization="component"
    )
    made = {
        "DimeNet formulas x e3nn": Features(
            ClosedForms(l_max, n_max), e3nn, l_max, cutoff
        ),
        "recurrence x e3nn": Features(Recurrence(l_max, n_max), e3nn, l_max, cutoff),
    }
    if SPHERICART:
        import sphericart.torch

        spherical = sphericart.torch.SphericalHarmonics(l_max)
        made["recurrence x sphericart"] = Features(
            # Their norm is 1/sqrt(4 pi) of e3nn's, their pole z and not y.
            Recurrence(l_max, n_max, math.sqrt(4 * math.pi)),
            # An index list would be copied to the GPU, which no graph may capture.
            lambda vectors: spherical.compute(vectors.roll(1, dims=1)),
            l_max,
            cutoff,
        )
    return {name: module.to(device, dtype) for name, module in made.items()}

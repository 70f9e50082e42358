"""
The operators in plain torch: what the compiled ones are tested against.

They also serve where the library was not built. All arithmetic is in float64,
whatever the tensors are, and is rounded once at the end; nothing is tabulated, so
that nothing is shared with the compiled operators but the definitions. Every
function can be scripted and differentiated any number of times.
"""

import math

import torch
from torch import Tensor

from openmm_diffmd.ops import bessel


def solid_harmonics(vectors: Tensor, l_max: int) -> Tensor:
    """
    Real solid harmonics r^l Y_lm of degrees 0 to `l_max`.

    On unit vectors these are the spherical harmonics in e3nn's order and axes
    (l = 1 is (x, y, z)), normalised so that the squares over m sum to 2l + 1.
    Polynomials, hence smooth at zero length.

    Parameters
    ----------
    vectors : Tensor, shape (E, 3)
        Vectors, any unit; float32 or float64.
    l_max : int
        Highest degree, 0 to 6.

    Returns
    -------
    Tensor, shape (E, (l_max + 1)**2)
        The harmonics, m from -l to l within each l.

    Raises
    ------
    ValueError, TypeError
        For another shape or degree, or dtype.

    Notes
    -----
    The usual recurrence of associated Legendre functions, times (z + i x)^m: the
    polar axis of e3nn is y. Geiger and Smidt, arXiv 2207.09453.
    """
    _check_vectors("vectors", vectors)
    _check_range("l_max", l_max, 0, bessel.MAX_DEGREE)
    return _solid(vectors.double(), l_max).to(vectors.dtype)


def spherical_fourier_bessel(
    vectors: Tensor, cutoff: float, l_max: int, n_max: int
) -> Tensor:
    """
    Spherical Fourier-Bessel features of vectors.

    Phi_lmn(r) = u(s) N_ln j_l(z_ln s) Y_lm(r), s = length/cutoff, z_ln the n-th root
    of j_l and N_ln = sqrt(2)/abs(j_(l+1)(z_ln)); u = 1 - 28 s^6 + 48 s^7 - 21 s^8 is
    the envelope. Made of j_l(z s)/s^l and solid harmonics: smooth at zero length.

    Parameters
    ----------
    vectors : Tensor, shape (E, 3)
        Vectors; float32 or float64.
    cutoff : float
        Length from which the features are exactly 0, unit of the vectors.
    l_max, n_max : int
        Highest degree l, 0 to 6; radial functions a degree, 1 to 16.

    Returns
    -------
    Tensor, shape (E, (l_max + 1)**2, n_max)
        The features, harmonics in the order of `solid_harmonics`.

    Raises
    ------
    ValueError, TypeError, RuntimeError
        For another shape or size, dtype, or cutoff.

    Notes
    -----
    Gasteiger, Gross and Guennemann, arXiv 2003.03123, eqs. 6 to 8.
    """
    _check_vectors("vectors", vectors)
    _check_sizes(cutoff, l_max, n_max)
    radial, _, harmonics = _parts(vectors, cutoff, l_max, n_max)
    features: list[Tensor] = []
    for degree in range(l_max + 1):
        of_degree = harmonics[:, degree * degree : (degree + 1) * (degree + 1)]
        features.append(of_degree[:, :, None] * radial[:, degree, None])
    return torch.cat(features, dim=1).to(vectors.dtype)


def fourier_bessel_invariants(
    vectors: Tensor,
    velocities: Tensor,
    edge_index: Tensor,
    cutoff: float,
    velocity_cutoff: float,
    l_max: int,
    n_max: int,
) -> tuple[Tensor, Tensor]:
    """
    Contractions of edges' features with those of the velocities at both ends.

    Parameters
    ----------
    vectors : Tensor, shape (E, 3)
        Vectors of the edges; float32 or float64.
    velocities : Tensor, shape (N, 3)
        Velocities of the nodes, same dtype.
    edge_index : Tensor of int64, shape (2, E)
        Nodes i (row 0) and j (row 1) of each edge.
    cutoff, velocity_cutoff : float
        Length from which the features vanish, unit of the vectors and of the
        velocities.
    l_max, n_max : int
        Highest degree l, 0 to 6; radial functions a degree, 1 to 16.

    Returns
    -------
    invariants : Tensor, shape (E, n_max * (1 + 2 * (l_max + 1)))
        n_max features of degree 0 of the edge; then for each l n_max numbers
        sum_m Phi_lmn(r) Phi_lmn(v_i), and n_max with v_j.
    envelope : Tensor, shape (E,)
        u(length/cutoff), from 1 to 0.

    Raises
    ------
    ValueError, TypeError, RuntimeError, IndexError
        For another shape or size, dtype, cutoff or device, or a node that does not
        exist.
    """
    _check_vectors("vectors", vectors)
    _check_vectors("velocities", velocities)
    _check_sizes(cutoff, l_max, n_max)
    _check_edges(vectors, velocities, edge_index)
    _check_sizes(velocity_cutoff, l_max, n_max, "velocity_cutoff")
    radial, envelope, harmonics = _parts(vectors, cutoff, l_max, n_max)
    of_nodes, _, solid = _parts(velocities, velocity_cutoff, l_max, n_max)
    out: list[Tensor] = [radial[:, 0]]
    for degree in range(l_max + 1):
        start, end = degree * degree, (degree + 1) * (degree + 1)
        for row in range(2):
            node = edge_index[row]
            angular = harmonics[:, start:end] * solid[node, start:end]
            product = radial[:, degree] * of_nodes[node, degree]
            out.append(angular.sum(1, keepdim=True) * product)
    dtype = vectors.dtype
    return torch.cat(out, dim=1).to(dtype), envelope.to(dtype)


def _parts(
    vectors: Tensor, cutoff: float, l_max: int, n_max: int
) -> tuple[Tensor, Tensor, Tensor]:
    """Enveloped radial parts (E, l, n), envelope (E,), harmonics of vectors/cutoff."""
    scaled = vectors.double() / cutoff
    squared = (scaled * scaled).sum(1)
    y = squared.clamp(max=1.0)
    # s^7 = y^3 s. The root's gradient is finite, and at zero length it is zero: below
    # s = 1e-4 the term does not count.
    s = y.clamp(min=1e-8).sqrt()
    cubed = y * y * y
    envelope = 1.0 - 28.0 * cubed + 48.0 * cubed * s - 21.0 * cubed * y
    # What is not a number stays so.
    envelope = torch.where(squared >= 1.0, torch.zeros_like(envelope), envelope)
    radial = _quotients(y, l_max, n_max) * envelope[:, None, None]
    return radial, envelope, _solid(scaled, l_max)


def _quotients(y: Tensor, l_max: int, n_max: int) -> Tensor:
    """N_ln j_l(z_ln s)/s^l, shape (E, l_max + 1, n_max), from y = s^2."""
    table = torch.tensor(bessel.ROOTS_AND_NORMS, device=y.device)
    table = (table.double() / bessel.FIXED_POINT).view(2, -1, bessel.MAX_RADIAL)
    roots, norms = table[0, : l_max + 1, :n_max], table[1, : l_max + 1, :n_max]
    degrees = torch.arange(l_max + 1, dtype=y.dtype, device=y.device)[:, None]
    # Halves: exact in float32, through which TorchScript makes tensors of floats.
    limits = torch.tensor(bessel.SERIES_BOUNDS, dtype=y.dtype, device=y.device)
    bounds = (limits * limits)[: l_max + 1, None]
    # j_l(x)/x^l, an even function: w = x^2. Each branch gets arguments at which it is
    # finite, so that the one not taken cannot spoil a gradient.
    w = roots * roots * y[:, None, None]
    small = torch.minimum(w, bounds)
    series = torch.ones_like(w)
    for k in range(bessel.SERIES_TERMS - 1, 0, -1):
        series = 1.0 - series * small / (2 * k * (2 * degrees + (2 * k + 1)))
    first = 1.0
    below: list[Tensor] = []
    large = w.clamp(min=bessel.SERIES_BOUNDS[0] ** 2)
    x = large.sqrt()
    previous = torch.cos(x)
    current = torch.sin(x) / x
    for degree in range(l_max + 1):
        # Degrees from `degree` up are left; each drops out when it is reached.
        below.append(
            torch.where(
                w[:, degree] < bounds[degree],
                series[:, degree] * first,
                current[:, 0],
            )
        )
        if degree < l_max:
            rest = large[:, degree + 1 :]
            last = current[:, 1:]
            current = ((2 * degree + 1) * last - previous[:, 1:]) / rest
            previous = last
            first = first / (2 * degree + 3)
    return torch.stack(below, dim=1) * (norms * roots**degrees)


def _solid(vectors: Tensor, l_max: int) -> Tensor:
    """Solid harmonics, shape (E, (l_max + 1)^2)."""
    x, polar, z = vectors[:, 0], vectors[:, 1], vectors[:, 2]
    squared = (vectors * vectors).sum(1)
    # (z + i x)^m
    cosines, sines = [torch.ones_like(x)], [torch.zeros_like(x)]
    for m in range(l_max):
        cosines.append(z * cosines[m] - x * sines[m])
        sines.append(z * sines[m] + x * cosines[m])
    legendre: list[list[Tensor]] = []
    out: list[Tensor] = []
    for degree in range(l_max + 1):
        row: list[Tensor] = []
        for m in range(degree - 1):
            ahead = (2 * degree - 1) * polar * legendre[degree - 1][m]
            behind = (degree + m - 1) * squared * legendre[degree - 2][m]
            row.append((ahead - behind) / (degree - m))
        if degree > 0:
            last = (2 * degree - 1) * legendre[degree - 1][degree - 1]
            row.append(polar * last)
            row.append(last)
        else:
            row.append(torch.ones_like(x))
        legendre.append(row)
        for signed in range(-degree, degree + 1):
            m = abs(signed)
            ratio = 2.0 if m > 0 else 1.0
            for factor in range(degree - m + 1, degree + m + 1):
                ratio = ratio / factor
            angular = sines[m] if signed < 0 else cosines[m]
            out.append(math.sqrt((2 * degree + 1) * ratio) * row[m] * angular)
    return torch.stack(out, dim=1)


def _check_vectors(name: str, vectors: Tensor) -> None:
    if vectors.dim() != 2 or vectors.size(1) != 3:
        raise ValueError(f"expected {name} of shape (*, 3), got {vectors.shape}")
    if vectors.dtype != torch.float32 and vectors.dtype != torch.float64:
        raise TypeError(f"expected {name} of float32 or float64, got {vectors.dtype}")


def _check_range(name: str, found: int, low: int, high: int) -> None:
    if found < low or found > high:
        raise ValueError(f"expected {name} from {low} to {high}, got {found}")


def _check_sizes(cutoff: float, l_max: int, n_max: int, name: str = "cutoff") -> None:
    _check_range("l_max", l_max, 0, bessel.MAX_DEGREE)
    _check_range("n_max", n_max, 1, bessel.MAX_RADIAL)
    if not (cutoff > 0.0 and math.isfinite(cutoff)):
        raise RuntimeError(f"expected a positive {name}, got {cutoff}")


def _check_edges(vectors: Tensor, velocities: Tensor, edge_index: Tensor) -> None:
    if velocities.dtype != vectors.dtype:
        raise TypeError(
            f"expected velocities of the vectors' dtype {vectors.dtype}, "
            f"got {velocities.dtype}"
        )
    if velocities.device != vectors.device or edge_index.device != vectors.device:
        raise RuntimeError(
            f"expected velocities and edge_index on the vectors' device "
            f"{vectors.device}, got {velocities.device} and {edge_index.device}"
        )
    if edge_index.dim() != 2 or (
        edge_index.size(0) != 2 or edge_index.size(1) != vectors.size(0)
    ):
        raise ValueError(
            f"expected edge_index of shape (2, {vectors.size(0)}), "
            f"got {edge_index.shape}"
        )
    if edge_index.dtype != torch.int64:
        raise TypeError(f"expected edge_index of int64, got {edge_index.dtype}")
    if edge_index.numel() > 0:
        low, high = int(edge_index.min()), int(edge_index.max())
        if low < 0 or high >= velocities.size(0):
            raise IndexError(
                f"expected edge_index from 0 to {velocities.size(0) - 1}, "
                f"got {low if low < 0 else high}"
            )

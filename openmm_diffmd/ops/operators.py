"""The compiled operators, as functions that TorchScript can take up."""

import torch
from torch import Tensor


def solid_harmonics(vectors: Tensor, l_max: int) -> Tensor:
    """
    Real solid harmonics r^l Y_lm; see `openmm_diffmd.ops.reference`.

    Parameters
    ----------
    vectors : Tensor, shape (E, 3)
        Vectors, any unit; float32 or float64.
    l_max : int
        Highest degree, 0 to 6.

    Returns
    -------
    Tensor, shape (E, (l_max + 1)**2)
        The harmonics. They can be differentiated twice.
    """
    out: Tensor = torch.ops.diffmd.solid_harmonics(vectors, l_max)
    return out


def spherical_fourier_bessel(
    vectors: Tensor, cutoff: float, l_max: int, n_max: int
) -> Tensor:
    """
    Spherical Fourier-Bessel features; see `openmm_diffmd.ops.reference`.

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
        The features. They can be differentiated twice.
    """
    out: Tensor = torch.ops.diffmd.spherical_fourier_bessel(
        vectors, cutoff, l_max, n_max
    )
    return out


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
    Rotation-invariant contractions; see `openmm_diffmd.ops.reference`.

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
        Degree 0 of the edge, then for each l the contractions with v_i and v_j.
    envelope : Tensor, shape (E,)
        u(length/cutoff), from 1 to 0. Both can be differentiated once.
    """
    out: tuple[Tensor, Tensor] = torch.ops.diffmd.fourier_bessel_invariants(
        vectors, velocities, edge_index, cutoff, velocity_cutoff, l_max, n_max
    )
    return out

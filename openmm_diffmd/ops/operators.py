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


def takes_layers(features: Tensor) -> bool:
    """
    Say whether the operators below serve a layer of the Transformer.

    Parameters
    ----------
    features : Tensor
        What the layer takes.

    Returns
    -------
    bool
        True on the CPU where no gradient is recorded, in float32 and float64. (So
        ``torch.vmap`` and derivatives in forward mode need gradients on.)
    """
    precise = features.dtype == torch.float32 or features.dtype == torch.float64
    return precise and not torch.is_grad_enabled() and features.device.type == "cpu"


def equivariant_encoder(
    positions: Tensor,
    velocities: Tensor,
    species: Tensor,
    masses: Tensor,
    level: Tensor,
    position_scale: Tensor,
    velocity_scale: Tensor,
    invariant_scale: Tensor,
    coefficients: Tensor,
    matrices: list[Tensor],
    n_heads: int,
    lag_time: float,
    cutoff: float,
    velocity_cutoff: float,
    n_max: int,
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor]:
    """
    Embed and carry molecules over the lag, without gradient; see `Encoder`.

    Parameters
    ----------
    positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
        State in the centre-of-mass frame; float32 or float64, as all others.
    species : Tensor of int, shape (B, A)
        Index of the element, -1 for padding.
    masses : Tensor, shape (B, A), Da
        Masses, 0 for padding.
    level : Tensor, shape (B,)
        Perturbation level of the state.
    position_scale, velocity_scale : Tensor, shape (n_elements + 1,), nm and nm/ps
        Units of a layer's changes, of each element and of padding.
    invariant_scale : Tensor, shape (I,)
        By which the invariants of edges are divided.
    coefficients : Tensor, shape ((l_max + 1)**2, n_columns)
        Of `openmm_diffmd.models.couplings.EdgeCouplings`, l_max 1 to 3.
    matrices : list of Tensor
        Features of the elements (n_elements + 1, C) and of the level (C, 1); of
        velocities (2 C, n_waves); for each layer the 12 of
        `EquivariantAttention.matrices`, the 9 of `FeedForward.matrices`, and the kick
        (2, C).
    n_heads : int
        Attention heads.
    lag_time : float
        Lag, ps.
    cutoff, velocity_cutoff : float
        Ranges of positions (nm) and of mass-weighted velocities (sqrt(kJ/mol)).
    n_max : int
        Radial functions a degree. I is 2 l_max + 3 times that, n_waves as many; without
        features of velocities I is n_max and n_waves 1.

    Returns
    -------
    features : Tensor, shape (B, A, (l_max + 1)**2, C)
        Features after the last layer.
    positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
        The state carried over the lag.
    invariants, envelope, harmonics : Tensor
        There, as of `openmm_diffmd.models.geometry.Geometry`, at unit scale.
    """
    out: tuple[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor] = (
        torch.ops.diffmd.equivariant_encoder(
            positions,
            velocities,
            species,
            masses,
            level,
            position_scale,
            velocity_scale,
            invariant_scale,
            coefficients,
            matrices,
            n_heads,
            lag_time,
            cutoff,
            velocity_cutoff,
            n_max,
        )
    )
    return out


def equivariant_denoiser(
    residual: Tensor,
    sigma: Tensor,
    features: Tensor,
    invariants: Tensor,
    envelope: Tensor,
    harmonics: Tensor,
    log_scale: Tensor,
    coefficients: Tensor,
    matrices: list[Tensor],
    n_heads: int,
) -> Tensor:
    """
    Denoise residuals, without gradient; see `Denoiser`.

    Parameters
    ----------
    residual : Tensor, shape (B, A, 2, 3)
        Noisy residuals of position and velocity; float32 or float64, as all others.
    sigma : Tensor, shape (B,)
        Noise levels, positive.
    features : Tensor, shape (B, A, (l_max + 1)**2, C')
        The encoder's features, l_max 1 to 3.
    invariants, envelope, harmonics : Tensor
        As of `openmm_diffmd.models.geometry.Geometry`.
    log_scale : Tensor, shape (B, A)
        Logarithm of the residual's scale.
    coefficients : Tensor, shape ((l_max + 1)**2, n_columns)
        Of `openmm_diffmd.models.couplings.EdgeCouplings`.
    matrices : list of Tensor
        Of the condition (l_max + 1, C', C) and (C,); of the residual (C, 2); of the
        noise level (C, 2), (C,), (C, C), (C,); of the gates (C, C), (C,); the last
        (2, C); for each layer the 12 of `EquivariantAttention.matrices` and the 9
        of `FeedForward.matrices`.
    n_heads : int
        Attention heads.

    Returns
    -------
    Tensor, shape (B, A, 2, 3)
        D(u; sigma).
    """
    out: Tensor = torch.ops.diffmd.equivariant_denoiser(
        residual,
        sigma,
        features,
        invariants,
        envelope,
        harmonics,
        log_scale,
        coefficients,
        matrices,
        n_heads,
    )
    return out


def conserve_momenta(
    change: Tensor,
    positions: Tensor,
    velocities: Tensor,
    masses: Tensor,
    angular: bool,
) -> Tensor:
    """
    Project a change over the lag, without gradient; see `project_change`.

    Parameters
    ----------
    change : Tensor, shape (B, A, 2, 3)
        Displacement (nm) and change of velocity (nm/ps); float32 or float64, as all
        others.
    positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
        State before, in the centre-of-mass frame.
    masses : Tensor, shape (B, A), Da
        Masses, 0 for padding.
    angular : bool
        Keep the angular momentum too.

    Returns
    -------
    Tensor, shape (B, A, 2, 3)
        The change that is left; 0 on padding.
    """
    out: Tensor = torch.ops.diffmd.conserve_momenta(
        change, positions, velocities, masses, angular
    )
    return out

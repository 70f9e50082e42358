"""Mass-weighted projections: what the learned change may not do to a molecule."""

import torch
from torch import Tensor


def remove_momentum(change: Tensor, masses: Tensor) -> Tensor:
    """
    Project out the change of the centre of mass or of the total momentum.

    Parameters
    ----------
    change : Tensor, shape (B, A, 3)
        Displacements or velocity changes.
    masses : Tensor, shape (B, A), Da
        Masses, 0 on padding.

    Returns
    -------
    Tensor, shape (B, A, 3)
        Change whose mass-weighted sum is 0; 0 on padding.
    """
    weights = (masses / masses.sum(1, keepdim=True))[..., None]
    centred = change - (weights * change).sum(1, keepdim=True)
    return torch.where(masses[..., None] > 0, centred, torch.zeros_like(centred))


def inertia_tensor(positions: Tensor, masses: Tensor) -> Tensor:
    """
    Compute moments of inertia about the origin.

    Parameters
    ----------
    positions : Tensor, shape (B, A, 3), nm
        Positions in the centre-of-mass frame.
    masses : Tensor, shape (B, A), Da
        Masses.

    Returns
    -------
    Tensor, shape (B, 3, 3), Da nm^2
        sum_i m_i (|x_i|^2 1 - x_i x_i^T).
    """
    weighted = masses[..., None] * positions
    outer = weighted.transpose(1, 2) @ positions
    trace = outer.diagonal(dim1=1, dim2=2).sum(1)
    identity = torch.eye(3, dtype=positions.dtype, device=positions.device)
    return trace[:, None, None] * identity - outer


def match_angular_momentum(
    positions: Tensor, velocities: Tensor, momentum: Tensor, masses: Tensor
) -> Tensor:
    """
    Turn velocities rigidly until the angular momentum is the one given.

    Parameters
    ----------
    positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
        State in the centre-of-mass frame.
    momentum : Tensor, shape (B, 3), Da nm^2/ps
        Angular momentum to reach.
    masses : Tensor, shape (B, A), Da
        Masses, 0 on padding.

    Returns
    -------
    Tensor, shape (B, A, 3)
        Velocities v + omega x x with I omega = L - sum m x x v: of all changes that
        reach L the one of least kinetic energy. Directions without inertia (a
        linear molecule's axis) are left alone by the pseudo-inverse.
    """
    found = angular_momentum(positions, velocities, masses)
    inverse = torch.linalg.pinv(
        inertia_tensor(positions, masses), rtol=1e-5, hermitian=True
    )
    omega = (inverse @ (momentum - found)[..., None])[..., 0]
    turned = velocities + torch.linalg.cross(
        omega[:, None, :].expand_as(positions), positions
    )
    return torch.where(masses[..., None] > 0, turned, velocities)


def angular_momentum(positions: Tensor, velocities: Tensor, masses: Tensor) -> Tensor:
    """
    Compute total angular momenta about the origin.

    Parameters
    ----------
    positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
        State in the centre-of-mass frame.
    masses : Tensor, shape (B, A), Da
        Masses.

    Returns
    -------
    Tensor, shape (B, 3), Da nm^2/ps
        sum_i m_i x_i x v_i.
    """
    each: Tensor = torch.linalg.cross(positions, masses[..., None] * velocities)
    return each.sum(1)

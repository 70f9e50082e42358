"""Mass-weighted projections: what the learned change may not do to a molecule."""

import torch
from torch import Tensor


def project_change(
    change: Tensor,
    positions: Tensor,
    velocities: Tensor,
    masses: Tensor,
    angular: bool,
) -> Tensor:
    """
    Take from a change what it may not do to momentum and angular momentum.

    Parameters
    ----------
    change : Tensor, shape (B, A, 2, 3)
        Displacement (nm) and change of velocity (nm/ps).
    positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
        State before, in the centre-of-mass frame.
    masses : Tensor, shape (B, A), Da
        Masses, 0 for padding.
    angular : bool
        Keep the angular momentum as well as the momentum.

    Returns
    -------
    Tensor, shape (B, A, 2, 3)
        The change that is left; 0 on padding.
    """
    displacement = remove_momentum(change[:, :, 0], masses)
    kick = remove_momentum(change[:, :, 1], masses)
    if angular:
        momentum = angular_momentum(positions, velocities, masses)
        turned = match_angular_momentum(
            positions + displacement, velocities + kick, momentum, masses
        )
        kick = turned - velocities
    return torch.stack([displacement, kick], dim=2)


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


def invert_inertia(inertia: Tensor) -> Tensor:
    """
    Pseudo-inverse of moments of inertia, entry by entry.

    Libraries wait for a GPU to say whether theirs went well; without them a lag can be
    captured into a CUDA graph.

    Parameters
    ----------
    inertia : Tensor, shape (B, 3, 3), Da nm^2
        From `inertia_tensor`.

    Returns
    -------
    Tensor, shape (B, 3, 3), 1/(Da nm^2)
        The inverse. Of a line of atoms, whose smallest moment is below 1e-5 of the
        largest, the axis n has none: I = (tr I/2)(1 - n n^T), of which it is the
        pseudo-inverse. 0 for a single atom.
    """
    wide = inertia.to(torch.float64)
    cofactors = torch.stack(
        [
            torch.linalg.cross(wide[:, 1], wide[:, 2]),
            torch.linalg.cross(wide[:, 2], wide[:, 0]),
            torch.linalg.cross(wide[:, 0], wide[:, 1]),
        ],
        dim=1,
    )
    determinant = (wide[:, 0] * cofactors[:, 0]).sum(-1)
    trace = wide.diagonal(dim1=1, dim2=2).sum(-1)
    # Of the moments a >= b >= c: a b + a c + b c, so that c is determinant/minors.
    minors = cofactors.diagonal(dim1=1, dim2=2).sum(-1)
    line = determinant <= 1e-5 * (0.5 * trace) * minors
    ones = torch.ones_like(trace)
    whole = cofactors / torch.where(line, ones, determinant)[:, None, None]
    # Their cofactors are a b n n^T.
    axis = cofactors / torch.where(minors > 0, minors, ones)[:, None, None]
    identity = torch.eye(3, dtype=wide.dtype, device=wide.device)
    some = (trace > 0).to(wide.dtype)
    scale = 2.0 * some / torch.where(trace > 0, trace, ones)
    flat = scale[:, None, None] * (identity - axis)
    return torch.where(line[:, None, None], flat, whole).to(inertia.dtype)


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
    inverse = invert_inertia(inertia_tensor(positions, masses))
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

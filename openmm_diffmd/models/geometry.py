"""What a layer sees of positions and velocities: invariants and harmonics of edges."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from openmm_diffmd.models.couplings import EdgeCouplings
from openmm_diffmd.ops import FourierBessel, spherical_harmonics


class Geometry(NamedTuple):
    """
    Edge features of a batch of molecules, dense over pairs of atoms.

    Attributes
    ----------
    invariants : Tensor, shape (B, A, A, n_invariants)
        Rotation-invariant features of edge i <- j.
    envelope : Tensor, shape (B, A, A)
        1 to 0 at the cutoff; 0 for i = j and on padding.
    couplings : list of Tensor, shape (B, A, 2 l_out + 1, A * (2 l_in + 1))
        For each coupling path the matrices made of the directions' harmonics.
    """

    invariants: Tensor
    envelope: Tensor
    couplings: list[Tensor]


class EdgeGeometry(nn.Module):
    """
    Fourier-Bessel features of edges, contracted with those of the ends' velocities.

    For each degree l and radial index n the contraction is
    sum_m Phi_nlm(x_ij) Phi_nlm(w) with w the mass-weighted velocity sqrt(m) v of
    either end: a Legendre polynomial of the angle times two radial functions, by
    the addition theorem; smooth at w = 0 because Phi(w) is built on solid harmonics.

    Parameters
    ----------
    cutoff : float
        Range of the edges, nm.
    velocity_cutoff : float
        Mass-weighted velocity at which its features vanish, sqrt(kJ/mol).
    l_max : int
        Highest degree of the contractions and of the couplings.
    n_max : int
        Radial functions a degree.
    """

    def __init__(
        self,
        cutoff: float,
        velocity_cutoff: float,
        l_max: int,
        n_max: int,
    ) -> None:
        super().__init__()
        self.l_max = l_max
        self.velocity_cutoff = velocity_cutoff
        self.edge_basis = FourierBessel(cutoff, l_max, n_max)
        self.velocity_basis = FourierBessel(velocity_cutoff, l_max, n_max)
        self.n_invariants = n_max * (1 + 2 * (l_max + 1))
        self.couplings = EdgeCouplings(l_max, l_max)
        self.sizes = [2 * degree + 1 for degree in range(l_max + 1)]
        self.cutoff = cutoff

    def forward(self, positions: Tensor, velocities: Tensor, pairs: Tensor) -> Geometry:
        """
        Compute the edge features.

        Parameters
        ----------
        positions : Tensor, shape (B, A, 3), nm
            Positions.
        velocities : Tensor, shape (B, A, 3), sqrt(kJ/mol)
            Mass-weighted velocities.
        pairs : Tensor of bool, shape (B, A, A)
            True for two different atoms, neither of them padding.

        Returns
        -------
        Geometry
            Features of edge i <- j at [:, i, j].
        """
        vectors = positions[:, None, :, :] - positions[:, :, None, :]
        squared = (vectors * vectors).sum(-1)
        # 1 where there is no edge: no division by zero, no infinite gradient.
        squared = torch.where(pairs, squared, torch.ones_like(squared))
        radial, envelope = self.edge_basis(squared)
        envelope = envelope * pairs
        directions = vectors * squared.rsqrt()[..., None]
        harmonics = spherical_harmonics(directions, self.l_max)
        scaled = velocities / self.velocity_cutoff
        solid = spherical_harmonics(scaled, self.l_max)
        velocity_radial, _ = self.velocity_basis((velocities * velocities).sum(-1))
        # s^l turns the edge's quotient j_l/s^l back into j_l.
        s = squared.sqrt()[..., None] / self.cutoff
        out = [radial[..., 0, :]]
        power = torch.ones_like(s)
        start = 0
        for degree, size in enumerate(self.sizes):
            at_edge = radial[..., degree, :] * power
            to_i = torch.zeros_like(squared)
            to_j = torch.zeros_like(squared)
            for component in range(start, start + size):
                along = harmonics[..., component]
                to_i = to_i + along * solid[:, :, None, component]
                to_j = to_j + along * solid[:, None, :, component]
            of_velocity = velocity_radial[..., degree, :]
            out.append(at_edge * (to_i[..., None] * of_velocity[:, :, None, :]))
            out.append(at_edge * (to_j[..., None] * of_velocity[:, None, :, :]))
            power = power * s
            start += size
        return Geometry(torch.cat(out, dim=-1), envelope, self.couplings(harmonics))

"""What a layer sees of positions and velocities: invariants and harmonics of edges."""

from typing import NamedTuple

import torch
from torch import Tensor, nn

from openmm_diffmd.ops import fourier_bessel_invariants, solid_harmonics


class Geometry(NamedTuple):
    """
    Edge features of a batch of molecules, dense over pairs of atoms.

    Attributes
    ----------
    invariants : Tensor, shape (B, A, A, n_invariants)
        Rotation-invariant features of edge i <- j.
    envelope : Tensor, shape (B, A, A)
        1 to 0 at the cutoff; 0 for i = j and on padding.
    harmonics : Tensor, shape (B, A, A, (l_max + 1)**2)
        Spherical harmonics of the directions.
    couplings : list of Tensor, shape (B, A, 2 l_out + 1, A * (2 l_in + 1))
        `EdgeCouplings` of the harmonics, where several layers share them; empty where
        each layer makes its own.
    """

    invariants: Tensor
    envelope: Tensor
    harmonics: Tensor
    couplings: list[Tensor]


class Edges(NamedTuple):
    """
    Pairs of atoms of a batch, dense.

    Attributes
    ----------
    pairs : Tensor of bool, shape (B, A, A)
        True for two different atoms, neither of them padding.
    edge_index : Tensor of int, shape (2, B * A * A)
        Atoms i and j of each pair among the B * A of the batch.
    """

    pairs: Tensor
    edge_index: Tensor


def edges_of(species: Tensor) -> Edges:
    """
    List the pairs of atoms, and mark those of different real atoms.

    Parameters
    ----------
    species : Tensor of int, shape (B, A)
        Index of the element, -1 for padding.

    Returns
    -------
    Edges
        All pairs.
    """
    n_batch, n_atoms = species.shape
    real = species >= 0
    others = ~torch.eye(n_atoms, dtype=torch.bool, device=species.device)
    pairs = real[:, :, None] & real[:, None, :] & others
    atoms = torch.arange(n_batch * n_atoms, device=species.device)
    atoms = atoms.view(n_batch, n_atoms)
    i = atoms[:, :, None].expand(-1, -1, n_atoms).flatten()
    j = atoms[:, None, :].expand(-1, n_atoms, -1).flatten()
    return Edges(pairs, torch.stack([i, j]))


def pad_species(species: Tensor, n_elements: int) -> Tensor:
    """
    Give padding the place behind the elements.

    Parameters
    ----------
    species : Tensor of int, shape (B, A)
        Index of the element, -1 for padding.
    n_elements : int
        Number of elements.

    Returns
    -------
    Tensor of int, shape (B, A)
        Index of the element; n_elements for padding.
    """
    return torch.where(species >= 0, species, n_elements)


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
        Highest degree of the contractions and of the harmonics.
    n_max : int
        Radial functions a degree.
    velocity_features : bool
        Contract with the velocities; without, edges show their lengths alone.
    """

    def __init__(
        self,
        cutoff: float,
        velocity_cutoff: float,
        l_max: int,
        n_max: int,
        velocity_features: bool = True,
    ) -> None:
        super().__init__()
        self.cutoff = cutoff
        self.velocity_cutoff = velocity_cutoff
        self.l_max = l_max
        self.n_max = n_max
        self.velocity_features = velocity_features
        # Without contractions the lowest degree is all that is computed and kept.
        self.contracted_l_max = l_max if velocity_features else 0
        self.n_invariants = n_max * (1 + 2 * (l_max + 1) if velocity_features else 1)

    def forward(self, positions: Tensor, velocities: Tensor, edges: Edges) -> Geometry:
        """
        Compute the edge features.

        Parameters
        ----------
        positions : Tensor, shape (B, A, 3), nm
            Positions.
        velocities : Tensor, shape (B, A, 3), sqrt(kJ/mol)
            Mass-weighted velocities.
        edges : Edges
            Pairs of atoms.

        Returns
        -------
        Geometry
            Features of edge i <- j at [:, i, j].
        """
        vectors = positions.unsqueeze(1) - positions.unsqueeze(2)
        # Where there is no edge: beyond the cutoff, and no gradient.
        vectors = torch.where(edges.pairs.unsqueeze(3), vectors, 2.0 * self.cutoff)
        invariants, envelope = fourier_bessel_invariants(
            vectors.flatten(0, 2),
            velocities.flatten(0, 1),
            edges.edge_index,
            self.cutoff,
            self.velocity_cutoff,
            self.contracted_l_max,
            self.n_max,
        )
        if not self.velocity_features:
            invariants = invariants[:, : self.n_max]
        squared = (vectors * vectors).sum(-1, keepdim=True)
        directions = vectors * squared.rsqrt()
        harmonics = solid_harmonics(directions.flatten(0, 2), self.l_max)
        shape = edges.pairs.shape
        return Geometry(
            invariants.view(shape[0], shape[1], shape[2], -1),
            envelope.view(shape),
            harmonics.view(shape[0], shape[1], shape[2], -1),
            [],
        )

"""Encoder of the condition: a Transformer that carries the molecule along the lag."""

import torch
from torch import Tensor, nn

from openmm_diffmd.models.attention import EquivariantAttention, FeedForward
from openmm_diffmd.models.geometry import (
    EdgeGeometry,
    Edges,
    Geometry,
    edges_of,
    pad_species,
)
from openmm_diffmd.ops import spherical_fourier_bessel
from openmm_diffmd.ops.library import serves_layers
from openmm_diffmd.ops.operators import equivariant_encoder, takes_layers


class Encoder(nn.Module):
    """
    Features of (x, v), and the mean change over the lag.

    Each layer sees the molecule where the layers before it have brought it: after
    attention and update it kicks the velocities, then drifts the positions by its
    share of the lag and a learned correction. A layer so has to learn what happens
    within a fraction of the lag, a force more than a map over periods of a bond.
    Where no gradient is asked for, on the CPU, all of it is one compiled operator, if
    there is one.

    Parameters
    ----------
    n_elements : int
        Number of elements.
    lag_time : float
        Lag, ps.
    cutoff, velocity_cutoff : float
        Ranges of positions (nm) and mass-weighted velocities (sqrt(kJ/mol)).
    l_max, n_max : int
        Highest degree of features, radial functions a degree.
    channels, n_heads, edge_channels, n_layers : int
        Sizes of the network.
    velocity_features : bool
        Expand velocities in Fourier-Bessel functions, for the atoms and contracted
        with the edges; without, atoms are given them as plain vectors.
    """

    position_scale: Tensor
    velocity_scale: Tensor
    invariant_scale: Tensor

    # TorchScript then leaves out the branch that is not taken.
    __constants__ = ("has_operator",)

    def __init__(
        self,
        n_elements: int,
        lag_time: float,
        cutoff: float,
        velocity_cutoff: float,
        l_max: int,
        n_max: int,
        channels: int,
        n_heads: int,
        edge_channels: int,
        n_layers: int,
        velocity_features: bool = True,
    ) -> None:
        super().__init__()
        self.has_operator = serves_layers("diffmd::equivariant_encoder", l_max)
        self.n_heads = n_heads
        self.lag_time = lag_time
        self.velocity_cutoff = velocity_cutoff
        self.velocity_features = velocity_features
        self.geometry = EdgeGeometry(
            cutoff, velocity_cutoff, l_max, n_max, velocity_features
        )
        self.n_max = n_max
        self.elements = nn.Embedding(n_elements + 1, channels)
        self.level = nn.Linear(1, channels, bias=False)
        n_waves = n_max if velocity_features else 1
        self.velocity_in = nn.Linear(n_waves, 2 * channels, bias=False)
        self.dim = (l_max + 1) ** 2
        self.attention = nn.ModuleList(
            EquivariantAttention(
                l_max,
                channels,
                n_heads,
                self.geometry.n_invariants,
                edge_channels,
            )
            for _ in range(n_layers)
        )
        self.update = nn.ModuleList(
            FeedForward(l_max, channels) for _ in range(n_layers)
        )
        self.kick = nn.ModuleList(
            nn.Linear(channels, 2, bias=False) for _ in range(n_layers)
        )
        self.register_buffer("position_scale", torch.ones(n_elements + 1))
        self.register_buffer("velocity_scale", torch.ones(n_elements + 1))
        self.register_buffer("invariant_scale", torch.ones(self.geometry.n_invariants))

    def edge_features(
        self, positions: Tensor, weighted: Tensor, edges: Edges
    ) -> Geometry:
        """
        Edge features at a state, invariants at unit scale.

        Parameters
        ----------
        positions, weighted : Tensor, shape (B, A, 3), nm and sqrt(kJ/mol)
            Positions and mass-weighted velocities in the centre-of-mass frame.
        edges : Edges
            Pairs of atoms.

        Returns
        -------
        Geometry
            Edge features.
        """
        geometry = self.geometry(positions, weighted, edges)
        return Geometry(
            geometry.invariants / self.invariant_scale,
            geometry.envelope,
            geometry.harmonics,
            geometry.couplings,
        )

    def set_invariant_scale(
        self, positions: Tensor, velocities: Tensor, species: Tensor, masses: Tensor
    ) -> None:
        """
        Bring the edges' invariants to unit root mean square over some states.

        Parameters
        ----------
        positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
            States of the training split.
        species : Tensor of int, shape (B, A)
            Index of the element, -1 for padding.
        masses : Tensor, shape (B, A), Da
            Masses, 0 for padding.
        """
        edges = edges_of(species)
        weighted = velocities * masses.sqrt()[..., None]
        invariants = self.geometry(positions, weighted, edges).invariants[edges.pairs]
        self.invariant_scale.copy_(invariants.square().mean(0).sqrt() + 1e-6)

    def forward(
        self,
        positions: Tensor,
        velocities: Tensor,
        species: Tensor,
        masses: Tensor,
        level: Tensor,
    ) -> tuple[Tensor, Tensor, Tensor, Geometry]:
        """
        Encode a state and carry it over the lag.

        Parameters
        ----------
        positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
            State in the centre-of-mass frame.
        species : Tensor of int, shape (B, A)
            Index of the element, -1 for padding.
        masses : Tensor, shape (B, A), Da
            Masses, 0 for padding.
        level : Tensor, shape (B,)
            Perturbation level of the state, 0 for a clean one.

        Returns
        -------
        features : Tensor, shape (B, A, (l_max + 1)**2, channels)
            Features of the atoms.
        positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
            The state carried over the lag, before projection.
        geometry : Geometry
            Edge features there.
        """
        if self.has_operator and takes_layers(positions):
            features, x, v, invariants, envelope, harmonics = equivariant_encoder(
                positions,
                velocities,
                species,
                masses,
                level,
                self.position_scale,
                self.velocity_scale,
                self.invariant_scale,
                self.attention[0].couplings.coefficients,  # type: ignore
                self.matrices(),
                self.n_heads,
                self.lag_time,
                self.geometry.cutoff,
                self.velocity_cutoff,
                self.n_max,
            )
            return features, x, v, Geometry(invariants, envelope, harmonics, [])
        edges = edges_of(species)
        padded = pad_species(species, len(self.position_scale) - 1)
        root_mass = masses.sqrt()[..., None]
        features = self.embed(velocities * root_mass, padded, level)
        x, v = positions, velocities
        fraction = 1.0 / len(self.kick)
        position_scale = fraction * self.position_scale[padded][..., None]
        velocity_scale = fraction * self.velocity_scale[padded][..., None]
        geometry = self.edge_features(x, v * root_mass, edges)
        # TorchScript's zip knows no `strict`.
        for attention, update, kick in zip(  # noqa: B905
            self.attention, self.update, self.kick
        ):
            features = features + attention(features, geometry)
            features = features + update(features)
            change = kick(features.narrow(2, 1, 3))
            kicked = v + velocity_scale * change[..., 1]
            drift = 0.5 * (v + kicked) * (self.lag_time * fraction)
            x = x + drift + position_scale * change[..., 0]
            v = kicked
            geometry = self.edge_features(x, v * root_mass, edges)
        return features, x, v, geometry

    def embed(self, weighted: Tensor, species: Tensor, level: Tensor) -> Tensor:
        """
        Say what each atom is, and how it moves.

        Parameters
        ----------
        weighted : Tensor, shape (B, A, 3), sqrt(kJ/mol)
            Mass-weighted velocities.
        species : Tensor of int, shape (B, A)
            Index of the element; n_elements for padding.
        level : Tensor, shape (B,)
            Perturbation level of the state.

        Returns
        -------
        Tensor, shape (B, A, (l_max + 1)**2, channels)
            Features for the first layer.
        """
        n_batch, n_atoms = species.shape
        if self.velocity_features:
            waves = spherical_fourier_bessel(
                weighted.flatten(0, 1), self.velocity_cutoff, 1, self.n_max
            ).view(n_batch, n_atoms, 4, self.n_max)
            waves = waves * (1.0 / self.n_max)
        else:
            # The cutoff is meant to be eight times sqrt(kT): unit variance.
            plain = weighted * (8.0 / self.velocity_cutoff)
            waves = nn.functional.pad(plain, [1, 0])[..., None]
        scalar, vector = self.velocity_in(waves).chunk(2, dim=-1)
        scalars = (
            self.elements(species)
            + scalar[:, :, 0]
            + self.level(level[:, None])[:, None]
        )
        vectors = vector[:, :, 1:]
        rest = vectors.new_zeros(n_batch, n_atoms, self.dim - 4, scalars.shape[-1])
        return torch.cat([scalars[:, :, None], vectors, rest], dim=2)

    def matrices(self) -> list[Tensor]:
        """
        List the weights as the compiled operator takes them.

        Returns
        -------
        list of Tensor
            See `equivariant_encoder`.
        """
        out = [self.elements.weight, self.level.weight, self.velocity_in.weight]
        # TorchScript's zip knows no `strict`.
        for attention, update, kick in zip(  # noqa: B905
            self.attention, self.update, self.kick
        ):
            out = out + attention.matrices() + update.matrices() + [kick.weight]  # type: ignore[operator]
        return out

    def kick_response(self, features: Tensor, species: Tensor) -> Tensor:
        """
        Differentiate the carried state by the weights of the last kick.

        The state is linear in them, so that they can be fitted exactly.

        Parameters
        ----------
        features : Tensor, shape (B, A, (l_max + 1)**2, channels)
            Features of the atoms, from `forward`.
        species : Tensor of int, shape (B, A)
            Index of the element; n_elements for padding.

        Returns
        -------
        Tensor, shape (B, A, 2, 3, 2 * channels), nm and nm/ps
            Derivatives of position and velocity, before projection, by the weights of
            ``kick[-1]`` row after row.
        """
        fraction = 1.0 / len(self.kick)
        vectors = features[:, :, 1:4]
        corrected = fraction * self.position_scale[species][..., None, None] * vectors
        kicked = fraction * self.velocity_scale[species][..., None, None] * vectors
        drifted = 0.5 * self.lag_time * fraction * kicked
        by_position = torch.cat([corrected, drifted], dim=-1)
        by_velocity = torch.cat([torch.zeros_like(kicked), kicked], dim=-1)
        return torch.stack([by_position, by_velocity], dim=2)

"""One layer of the equivariant geometric Transformer."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from openmm_diffmd.models.couplings import EdgeCouplings
from openmm_diffmd.models.geometry import Geometry
from openmm_diffmd.models.linear import EquivariantLayerNorm, EquivariantLinear


class EquivariantAttention(nn.Module):
    """
    Attention whose weights are invariant and whose values carry irreps.

    The message to atom i along a coupling path (l_in, l_edge, l_out) is
    sum_j f_ijc sum_(m, m') C_(m m' m'') Y_m'(r_ij) h_jmc. The filters f are linear in
    the hidden features of the edge, each head's share of which is scaled by its
    attention weight.

    Parameters
    ----------
    l_max : int
        Highest degree of features and edge harmonics.
    channels : int
        Channels of every degree.
    n_heads : int
        Attention heads.
    n_invariants : int
        Invariant features of an edge.
    edge_channels : int
        Width of the hidden layer over edges; a multiple of `n_heads`.

    Raises
    ------
    ValueError
        If `edge_channels` is not a multiple of `n_heads`.
    """

    def __init__(
        self,
        l_max: int,
        channels: int,
        n_heads: int,
        n_invariants: int,
        edge_channels: int,
    ) -> None:
        super().__init__()
        if edge_channels % n_heads:
            raise ValueError(
                f"found {edge_channels} edge_channels, expected a multiple of "
                f"{n_heads} heads"
            )
        self.n_heads = n_heads
        self.couplings = EdgeCouplings(l_max)
        self.paths = self.couplings.paths
        self.n_paths = len(self.paths)
        self.norm = EquivariantLayerNorm(l_max, channels)
        self.edge_in = nn.Linear(n_invariants, edge_channels)
        self.ends_in = nn.Linear(channels, 2 * edge_channels, bias=False)
        self.logits = nn.Linear(edge_channels, n_heads)
        self.filters = nn.Linear(edge_channels, self.n_paths * channels, bias=False)
        self.values = EquivariantLinear(l_max, channels, channels, bias=False)
        self.out = EquivariantLinear(l_max, channels, channels)

    def forward(self, features: Tensor, geometry: Geometry) -> Tensor:
        """
        Gather messages from the other atoms.

        Parameters
        ----------
        features : Tensor, shape (B, A, (l_max + 1)**2, channels)
            Features of the atoms.
        geometry : Geometry
            Edge features.

        Returns
        -------
        Tensor, shape (B, A, (l_max + 1)**2, channels)
            Sum of messages, linearly mixed.
        """
        couplings = geometry.couplings
        if len(couplings) == 0:
            couplings = self.couplings(geometry.harmonics)
        n_batch, n_atoms, dim, channels = features.shape
        features = self.norm(features)
        to_i, from_j = self.ends_in(features[:, :, 0]).chunk(2, dim=-1)
        hidden = self.edge_in(geometry.invariants)
        hidden = functional.silu(hidden + to_i[:, :, None] + from_j[:, None])
        weights = attention_weights(self.logits(hidden), geometry.envelope)
        hidden = hidden.unflatten(-1, (self.n_heads, -1)) * weights[..., None]
        filters = self.filters(hidden.flatten(-2)).chunk(self.n_paths, dim=-1)
        values = self.values(features)
        degree_messages: list[Tensor] = []
        for index, (l_in, l_edge, l_out) in enumerate(self.paths):
            size = 2 * l_in + 1
            value = values[:, :, l_in * l_in : l_in * l_in + size]
            coupling = couplings[index]
            if l_edge == 0:
                # The coupling is the identity.
                sent = filters[index][..., None, :] * value[:, None]
                message = sent.sum(2).flatten(0, 1)
            elif l_out == 0:
                # The sum over components first leaves one number an edge to filter.
                from_j = coupling.view(n_batch, n_atoms, n_atoms, size).transpose(1, 2)
                scalars = torch.matmul(from_j, value).transpose(1, 2)
                message = (filters[index] * scalars).sum(2).flatten(0, 1)[:, None]
            else:
                sent = filters[index][..., None, :] * value[:, None]
                message = torch.bmm(
                    coupling.flatten(0, 1), sent.flatten(2, 3).flatten(0, 1)
                )
            if l_out < len(degree_messages):
                degree_messages[l_out] = degree_messages[l_out] + message
            else:
                degree_messages.append(message)
        messages = torch.cat(degree_messages, dim=1)
        out: Tensor = self.out(messages.view(n_batch, n_atoms, dim, channels))
        return out

    def matrices(self) -> list[Tensor]:
        """
        List the weights as compiled operators take them.

        Returns
        -------
        list of Tensor
            Norm: weight (C,), bias (C,), weight of degrees (l_max + 1, C); of the ends
            (C, 2 E); of the edge (I, E), (E,); logits (E, n_heads), (n_heads,);
            filters (E, n_paths C); values and messages (l_max + 1, C, C) each, bias
            (C,): C channels, E of edges, I invariants. Constants of a frozen module.
        """
        return [
            self.norm.scalars.weight,
            self.norm.scalars.bias,
            self.norm.weight,
            self.ends_in.weight.t().contiguous(),
            self.edge_in.weight.t().contiguous(),
            self.edge_in.bias,
            self.logits.weight.t().contiguous(),
            self.logits.bias,
            self.filters.weight.t().contiguous(),
            self.values.matrices(),
            self.out.matrices(),
            self.out.bias(),
        ]


def attention_weights(logits: Tensor, envelope: Tensor) -> Tensor:
    """
    Softmax over the other atoms, with the envelope and an empty place.

    Parameters
    ----------
    logits : Tensor, shape (B, A, A, n_heads)
        Logits of edge i <- j.
    envelope : Tensor, shape (B, A, A)
        Weight of the edge, 0 where there is none.

    Returns
    -------
    Tensor, shape (B, A, A, n_heads)
        Weights; their sum over j stays below 1, since a place of logit 0 takes part
        too: an atom whose last neighbour leaves loses its message smoothly.
    """
    # A pair that is absent may have any logit: its exponential must not overflow.
    logits = logits.masked_fill((envelope == 0.0)[..., None], -float("inf"))
    largest = logits.detach().amax(dim=2, keepdim=True).clamp(min=0.0)
    unnormalised = (logits - largest).exp() * envelope[..., None]
    return unnormalised / (unnormalised.sum(2, keepdim=True) + (-largest).exp())


class FeedForward(nn.Module):
    """
    Gated update of each atom's features from their invariants.

    One compiled operator where `EquivariantAttention` is.

    Parameters
    ----------
    l_max : int
        Highest degree.
    channels : int
        Channels of every degree.
    """

    def __init__(self, l_max: int, channels: int) -> None:
        super().__init__()
        self.l_max = l_max
        self.sizes = [2 * degree + 1 for degree in range(l_max + 1)]
        self.norm = EquivariantLayerNorm(l_max, channels)
        self.left = EquivariantLinear(l_max, channels, channels, bias=False)
        self.right = EquivariantLinear(l_max, channels, channels, bias=False)
        width = channels * (l_max + 1)
        self.hidden = nn.Linear(width, 2 * channels)
        self.out = nn.Linear(2 * channels, width)

    def forward(self, features: Tensor) -> Tensor:
        """
        Compute the update.

        Parameters
        ----------
        features : Tensor, shape (B, A, (l_max + 1)**2, channels)
            Features.

        Returns
        -------
        Tensor, shape (B, A, (l_max + 1)**2, channels)
            What to add to the features.
        """
        features = self.norm(features)
        left = self.left(features).split(self.sizes, dim=-2)
        right = self.right(features).split(self.sizes, dim=-2)
        invariants = [features[..., 0, :]]
        invariants += [
            (left[degree] * right[degree]).mean(-2)
            for degree in range(1, self.l_max + 1)
        ]
        hidden = functional.silu(self.hidden(torch.cat(invariants, dim=-1)))
        gates = self.out(hidden).chunk(self.l_max + 1, dim=-1)
        out = [gates[0][..., None, :]]
        out += [
            gates[degree][..., None, :] * right[degree]
            for degree in range(1, self.l_max + 1)
        ]
        return torch.cat(out, dim=-2)

    def matrices(self) -> list[Tensor]:
        """
        List the weights as compiled operators take them.

        Returns
        -------
        list of Tensor
            Norm: weight (C,), bias (C,), weight of degrees (l_max + 1, C); left and
            right (l_max + 1, C, C) each; hidden ((l_max + 1) C, W), (W,); gates
            (W, (l_max + 1) C), ((l_max + 1) C,): C channels, W wide. Constants of a
            frozen module.
        """
        return [
            self.norm.scalars.weight,
            self.norm.scalars.bias,
            self.norm.weight,
            self.left.matrices(),
            self.right.matrices(),
            self.hidden.weight.t().contiguous(),
            self.hidden.bias,
            self.out.weight.t().contiguous(),
            self.out.bias,
        ]

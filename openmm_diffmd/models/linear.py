"""Maps of equivariant features degree by degree: linear, and normalisation."""

import torch
from torch import Tensor, nn


class EquivariantLinear(nn.Module):
    """
    Mix the channels of each degree l.

    Parameters
    ----------
    l_max : int
        Highest degree.
    in_channels, out_channels : int
        Channels of every degree.
    bias : bool
        Add a bias to the scalars.
    """

    def __init__(
        self, l_max: int, in_channels: int, out_channels: int, bias: bool = True
    ) -> None:
        super().__init__()
        self.sizes = [2 * degree + 1 for degree in range(l_max + 1)]
        self.maps = nn.ModuleList(
            nn.Linear(in_channels, out_channels, bias=bias and degree == 0)
            for degree in range(l_max + 1)
        )

    def forward(self, features: Tensor) -> Tensor:
        """
        Apply the maps.

        Parameters
        ----------
        features : Tensor, shape (..., (l_max + 1)**2, in_channels)
            Features.

        Returns
        -------
        Tensor, shape (..., (l_max + 1)**2, out_channels)
            Mixed features.
        """
        blocks = features.split(self.sizes, dim=-2)
        out = [linear(blocks[degree]) for degree, linear in enumerate(self.maps)]
        return torch.cat(out, dim=-2)

    def matrices(self) -> Tensor:
        """
        Stack the maps.

        Returns
        -------
        Tensor, shape (l_max + 1, in_channels, out_channels)
            Rows of features are to be multiplied by them from the left.
        """
        # A list of modules forgets their type.
        weights: list[Tensor] = [linear.weight for linear in self.maps]  # type: ignore[misc]
        return torch.stack(weights).transpose(1, 2).contiguous()

    def bias(self) -> Tensor:
        """
        Give what is added to the scalars.

        Returns
        -------
        Tensor, shape (out_channels,)
            The bias of degree 0.
        """
        bias: Tensor = self.maps[0].bias  # type: ignore[assignment]
        return bias


class EquivariantLayerNorm(nn.Module):
    """
    Bring each degree of each atom's features to unit size.

    Scalars are normalised as usual; higher degrees are divided by the root mean
    square over components and channels, an invariant.

    Parameters
    ----------
    l_max : int
        Highest degree.
    channels : int
        Channels of every degree.
    """

    def __init__(self, l_max: int, channels: int) -> None:
        super().__init__()
        self.sizes = [2 * degree + 1 for degree in range(l_max + 1)]
        self.scalars = nn.LayerNorm(channels)
        self.weight = nn.Parameter(torch.ones(l_max + 1, channels))

    def forward(self, features: Tensor) -> Tensor:
        """
        Normalise.

        Parameters
        ----------
        features : Tensor, shape (..., (l_max + 1)**2, channels)
            Features.

        Returns
        -------
        Tensor, shape (..., (l_max + 1)**2, channels)
            Normalised features.
        """
        blocks = features.split(self.sizes, dim=-2)
        out = [self.scalars(blocks[0])]
        for degree in range(1, len(self.sizes)):
            block = blocks[degree]
            # The offset keeps features that vanish (at rest, say) smooth.
            mean_square = (block * block).mean((-2, -1), keepdim=True) + 1e-3
            out.append(block * mean_square.rsqrt() * self.weight[degree])
        return torch.cat(out, dim=-2)

"""Tensor-product couplings of features with edge harmonics, as dense matrices."""

import math

import torch
from e3nn import o3
from torch import Tensor, nn


def coupling_paths(l_max: int) -> list[tuple[int, int, int]]:
    """
    List the paths (l_in, l_edge, l_out) that keep natural parity.

    Features of degree l have parity (-1)^l, as harmonics do, so that a path is
    allowed where the three degrees add up to an even number.

    Parameters
    ----------
    l_max : int
        Highest degree of features and edge harmonics.

    Returns
    -------
    list of (int, int, int)
        The paths.
    """
    return [
        (l_in, l_edge, l_out)
        for l_in in range(l_max + 1)
        for l_out in range(l_max + 1)
        for l_edge in range(abs(l_in - l_out), min(l_in + l_out, l_max) + 1)
        if (l_in + l_edge + l_out) % 2 == 0
    ]


def coupling_tensors(l_max: int) -> list[Tensor]:
    """
    Coefficients that turn edge harmonics into an equivariant matrix, for each path.

    Parameters
    ----------
    l_max : int
        Highest degree of features and edge harmonics.

    Returns
    -------
    list of Tensor, shape (2 l_edge + 1, 2 l_out + 1, 2 l_in + 1)
        One of each of `coupling_paths`, scaled so that features and harmonics of
        unit variance give unit variance.

    Notes
    -----
    Wigner 3j symbols in e3nn's basis (arXiv 2207.09453, section 3).
    """
    return [
        math.sqrt(2 * l_out + 1)
        * o3.wigner_3j(l_in, l_edge, l_out).permute(1, 2, 0).contiguous()
        for l_in, l_edge, l_out in coupling_paths(l_max)
    ]


class EdgeCouplings(nn.Module):
    """
    Equivariant matrices of every edge, one a path.

    Parameters
    ----------
    l_max : int
        Highest degree of features and edge harmonics.
    """

    coefficients: Tensor

    def __init__(self, l_max: int) -> None:
        super().__init__()
        self.paths = coupling_paths(l_max)
        tensors = coupling_tensors(l_max)
        total = sum(tensor[0].numel() for tensor in tensors)
        coefficients = torch.zeros((l_max + 1) ** 2, total)
        column = 0
        self.columns: list[int] = []
        for (_, l_edge, _), tensor in zip(self.paths, tensors, strict=True):
            size = tensor[0].numel()
            rows = slice(l_edge**2, (l_edge + 1) ** 2)
            coefficients[rows, column : column + size] = tensor.flatten(1)
            column += size
            self.columns.append(size)
        self.register_buffer("coefficients", coefficients, persistent=False)

    def forward(self, harmonics: Tensor) -> list[Tensor]:
        """
        Assemble the matrices.

        Parameters
        ----------
        harmonics : Tensor, shape (B, A, A, edge_dim)
            Spherical harmonics of edge i <- j.

        Returns
        -------
        list of Tensor, shape (B, A, 2 l_out + 1, A * (2 l_in + 1))
            For each path and atom i the matrix that maps the components of all
            atoms j to those of the message.
        """
        blocks = (harmonics @ self.coefficients).split(self.columns, dim=-1)
        out: list[Tensor] = []
        for index, (l_in, _, l_out) in enumerate(self.paths):
            block = blocks[index].unflatten(-1, (2 * l_out + 1, 2 * l_in + 1))
            out.append(block.transpose(2, 3).flatten(3))
        return out

"""The light head that denoises residuals, run K times on one encoded condition."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from openmm_diffmd.diffusion.preconditioning import preconditioning
from openmm_diffmd.models.attention import EquivariantAttention, FeedForward
from openmm_diffmd.models.geometry import Geometry
from openmm_diffmd.models.linear import EquivariantLinear


class Denoiser(nn.Module):
    """
    D(u; sigma) with EDM preconditioning on unit-variance residuals.

    Parameters
    ----------
    l_max, n_invariants : int
        As of the encoder.
    condition_channels : int
        Channels of the encoder's features.
    channels, n_heads, edge_channels, n_layers : int
        Sizes of the head.
    """

    def __init__(
        self,
        l_max: int,
        n_invariants: int,
        condition_channels: int,
        channels: int,
        n_heads: int,
        edge_channels: int,
        n_layers: int,
    ) -> None:
        super().__init__()
        self.condition = EquivariantLinear(l_max, condition_channels, channels)
        self.residual = nn.Linear(2, channels, bias=False)
        self.noise = nn.Sequential(
            nn.Linear(2, channels), nn.SiLU(), nn.Linear(channels, channels)
        )
        self.attention = nn.ModuleList(
            EquivariantAttention(l_max, channels, n_heads, n_invariants, edge_channels)
            for _ in range(n_layers)
        )
        self.update = nn.ModuleList(
            FeedForward(l_max, channels) for _ in range(n_layers)
        )
        self.gate = nn.Linear(channels, channels)
        self.out = nn.Linear(channels, 2, bias=False)
        nn.init.zeros_(self.out.weight)

    def forward(
        self,
        residual: Tensor,
        sigma: Tensor,
        condition: Tensor,
        geometry: Geometry,
        log_scale: Tensor,
    ) -> Tensor:
        """
        Denoise.

        Parameters
        ----------
        residual : Tensor, shape (B, A, 2, 3)
            Noisy residuals of position and velocity.
        sigma : Tensor, shape (B,)
            Noise levels, positive.
        condition : Tensor, shape (B, A, (l_max + 1)**2, condition_channels)
            The encoder's features.
        geometry : Geometry
            Edge features of the condition.
        log_scale : Tensor, shape (B, A)
            Logarithm of the residual's scale, from the acceleration.

        Returns
        -------
        Tensor, shape (B, A, 2, 3)
            D(u; sigma).
        """
        c_skip, c_out, c_in, c_noise = preconditioning(sigma[:, None, None, None])
        features = self.condition(condition)
        level = torch.stack(
            [c_noise[:, :, 0, 0].expand_as(log_scale), log_scale], dim=-1
        )
        scalars = features[:, :, :1] + self.noise(level)[:, :, None]
        vectors = features[:, :, 1:4] + self.residual((c_in * residual).transpose(2, 3))
        features = torch.cat([scalars, vectors, features[:, :, 4:]], dim=2)
        # TorchScript's zip knows no `strict`.
        for attention, update in zip(  # noqa: B905
            self.attention, self.update
        ):
            features = features + attention(features, geometry)
            features = features + update(features)
        gate = functional.silu(self.gate(features[:, :, :1]))
        out = self.out(features[:, :, 1:4] * gate).transpose(2, 3)
        denoised: Tensor = c_skip * residual + c_out * out
        return denoised

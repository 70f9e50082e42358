"""The light head that denoises residuals, run K times on one encoded condition."""

import torch
from torch import Tensor, nn
from torch.nn import functional

from openmm_diffmd.diffusion.preconditioning import preconditioning
from openmm_diffmd.models.attention import EquivariantAttention, FeedForward
from openmm_diffmd.models.geometry import Geometry
from openmm_diffmd.models.linear import EquivariantLinear
from openmm_diffmd.ops.library import serves_layers
from openmm_diffmd.ops.operators import equivariant_denoiser, takes_layers


class Denoiser(nn.Module):
    """
    D(u; sigma) with EDM preconditioning on unit-variance residuals.

    One compiled operator where `Encoder` is.

    Parameters
    ----------
    l_max, n_invariants : int
        As of the encoder.
    condition_channels : int
        Channels of the encoder's features.
    channels, n_heads, edge_channels, n_layers : int
        Sizes of the head.
    """

    # TorchScript then leaves out the branch that is not taken.
    __constants__ = ("has_operator",)

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
        # Without a layer there are no couplings to give it.
        registered = serves_layers("diffmd::equivariant_denoiser", l_max)
        self.has_operator = registered and n_layers > 0
        self.n_heads = n_heads
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
            Logarithm of the residual's scale: the learned spread times that of the
            acceleration.

        Returns
        -------
        Tensor, shape (B, A, 2, 3)
            D(u; sigma).
        """
        if self.has_operator and takes_layers(residual):
            return equivariant_denoiser(
                residual,
                sigma,
                condition,
                geometry.invariants,
                geometry.envelope,
                geometry.harmonics,
                log_scale,
                self.attention[0].couplings.coefficients,  # type: ignore
                self.matrices(),
                self.n_heads,
            )
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

    def matrices(self) -> list[Tensor]:
        """
        List the weights as the compiled operator takes them.

        Returns
        -------
        list of Tensor
            See `equivariant_denoiser`.
        """
        first, second = self.noise[0], self.noise[2]
        out: list[Tensor] = [
            self.condition.matrices(),
            self.condition.bias(),
            self.residual.weight,
            first.weight,  # type: ignore[list-item]
            first.bias,  # type: ignore[list-item]
            second.weight,  # type: ignore[list-item]
            second.bias,  # type: ignore[list-item]
            self.gate.weight,
            self.gate.bias,
            self.out.weight,
        ]
        # TorchScript's zip knows no `strict`.
        for attention, update in zip(  # noqa: B905
            self.attention, self.update
        ):
            out = out + attention.matrices() + update.matrices()  # type: ignore[operator]
        return out

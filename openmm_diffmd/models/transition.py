"""The transition model: encode a state, denoise a residual, decode a change."""

from typing import Literal, get_args

import torch
from torch import Tensor, nn

from openmm_diffmd.checks import one_of, within
from openmm_diffmd.models.denoiser import Denoiser
from openmm_diffmd.models.encoder import Encoder
from openmm_diffmd.models.geometry import Geometry, pad_species
from openmm_diffmd.models.projection import project_change
from openmm_diffmd.ops.library import is_registered
from openmm_diffmd.ops.operators import conserve_momenta, takes_layers

Prior = Literal["learned", "ballistic", "previous_frame", "gaussian"]
NoiseConditioning = Literal["acceleration", "element"]
PRIORS: tuple[str, ...] = get_args(Prior)
NOISE_CONDITIONINGS: tuple[str, ...] = get_args(NoiseConditioning)


class TransitionModel(nn.Module):
    """
    Learned p(x(t+tau), v(t+tau) | x(t), v(t)) of molecules in their own frame.

    The change over the lag is u = ((x' - x - tau v)/s_x, (v' - v)/s_v), with scales
    s of the element. `prior` says what the residual r that diffusion draws is
    about: ``learned`` u = mu(x, v) + g L r, with the encoder's mean mu and the
    Cholesky factor L of the element's position-velocity covariance; ``ballistic``
    u = g L r, L diagonal; ``previous_frame`` the same without tau v in u_x;
    ``gaussian`` x' and v' themselves about 0. g of each atom is a learned function of
    its encoded features, times sqrt((|a|^2 + a_th^2)/2)/a_th with ``acceleration``: r
    so has unit variance in calm and in violent states alike, and g tells how sure the
    model is.

    Parameters
    ----------
    n_elements : int
        Number of elements.
    lag_time : float
        Lag, ps.
    prior : str
        One of `PRIORS`.
    noise_conditioning : str
        One of `NOISE_CONDITIONINGS`.
    cutoff, velocity_cutoff : float
        Ranges of positions (nm) and of mass-weighted velocities (sqrt(kJ/mol)).
    l_max : int
        Highest degree of the features, 1 to 3.
    n_max : int
        Radial functions a degree.
    channels, n_heads, edge_channels, n_layers : int
        Sizes of the encoder.
    head_channels, head_layers : int
        Sizes of the denoising head.
    velocity_features : bool
        Expand velocities in Fourier-Bessel functions; see `Encoder`.

    Raises
    ------
    ValueError
        If an option is not one of those named.
    """

    position_scale: Tensor
    velocity_scale: Tensor
    thermal_acceleration: Tensor
    residual_cholesky: Tensor

    # TorchScript then leaves out the branch that is not taken.
    __constants__ = ("has_operator",)

    def __init__(
        self,
        n_elements: int,
        lag_time: float,
        prior: str = "learned",
        noise_conditioning: str = "acceleration",
        cutoff: float = 0.5,
        velocity_cutoff: float = 16.0,
        l_max: int = 1,
        n_max: int = 8,
        channels: int = 48,
        n_heads: int = 4,
        edge_channels: int = 48,
        n_layers: int = 5,
        head_channels: int = 24,
        head_layers: int = 1,
        velocity_features: bool = True,
    ) -> None:
        super().__init__()
        one_of(PRIORS, prior=prior)
        one_of(NOISE_CONDITIONINGS, noise_conditioning=noise_conditioning)
        within(1, 3, l_max=l_max)
        self.has_operator = is_registered("diffmd::conserve_momenta")
        self.n_elements = n_elements
        self.lag_time = lag_time
        self.prior = prior
        self.noise_conditioning = noise_conditioning
        self.encoder = Encoder(
            n_elements,
            lag_time,
            cutoff,
            velocity_cutoff,
            l_max,
            n_max,
            channels,
            n_heads,
            edge_channels,
            n_layers,
            velocity_features,
        )
        self.denoiser = Denoiser(
            l_max,
            self.encoder.geometry.n_invariants,
            channels,
            head_channels,
            n_heads,
            edge_channels,
            head_layers,
        )
        log_spread = nn.Linear(channels, 1)
        # A spread of 1 to begin with.
        nn.init.zeros_(log_spread.weight)
        nn.init.zeros_(log_spread.bias)
        self.spread = nn.Sequential(
            nn.LayerNorm(channels), nn.Linear(channels, channels), nn.SiLU(), log_spread
        )
        self.log_spread_limit = 3.0
        padded = n_elements + 1
        self.register_buffer("position_scale", torch.ones(padded))
        self.register_buffer("velocity_scale", torch.ones(padded))
        self.register_buffer("thermal_acceleration", torch.ones(padded))
        self.register_buffer("residual_cholesky", torch.eye(2).repeat(padded, 1, 1))

    def set_scales(
        self,
        position_scale: Tensor,
        velocity_scale: Tensor,
        thermal_acceleration: Tensor,
    ) -> None:
        """
        Set the elements' scales, taken from the training split.

        Parameters
        ----------
        position_scale, velocity_scale : Tensor, shape (n_elements,), nm and nm/ps
            Root mean square of x' - x - tau v and of v' - v, a component.
        thermal_acceleration : Tensor, shape (n_elements,), nm/ps^2
            Root mean square |v' - v|/tau.
        """
        n = self.n_elements
        self.thermal_acceleration[:n] = thermal_acceleration
        self.encoder.position_scale[:n] = position_scale
        self.encoder.velocity_scale[:n] = velocity_scale
        self.position_scale[:n] = position_scale
        self.velocity_scale[:n] = velocity_scale

    def encode(
        self,
        positions: Tensor,
        velocities: Tensor,
        acceleration: Tensor,
        has_acceleration: Tensor,
        species: Tensor,
        masses: Tensor,
        level: Tensor,
    ) -> dict[str, Tensor]:
        """
        Encode what is known before sampling; run once a lag.

        Parameters
        ----------
        positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
            State in the centre-of-mass frame.
        acceleration : Tensor, shape (B, A, 3), nm/ps^2
            Change of the generated velocities over the lag before, divided by it.
        has_acceleration : Tensor of bool, shape (B,)
            False where there is no lag before: the thermal constant is used.
        species : Tensor of int, shape (B, A)
            Index of the element, -1 for padding.
        masses : Tensor, shape (B, A), Da
            Masses, 0 for padding.
        level : Tensor, shape (B,)
            Perturbation level of the state, 0 for a clean one.

        Returns
        -------
        dict of str to Tensor
            The condition, for `denoise` and `decode`:

            - ``positions``, ``velocities``, shape (B, A, 3), nm and nm/ps, and
              ``masses``, shape (B, A), Da: as given.
            - ``prior``, shape (B, A, 2, 3), nm and nm/ps: what changes are taken about.
            - ``unit``, shape (B, A, 2, 1), nm and nm/ps: the elements' scales.
            - ``mean``, shape (B, A, 2, 3), in ``unit``: of the next frame less
              ``prior``; 0 where the prior is not learned.
            - ``spread``, shape (B, A): the learned spread of the residual.
            - ``scale``, shape (B, A): the same times the acceleration's factor.
            - ``cholesky``, shape (B, A, 2, 2): the elements' factors that colour
              residuals of position and velocity.
            - ``features``, shape (B, A, (l_max + 1)**2, channels): the encoder's.
            - ``invariants``, shape (B, A, A, n_invariants), ``envelope``, shape
              (B, A, A), and ``harmonics``, shape (B, A, A, (l_max + 1)**2): see
              `Geometry`.
        """
        features, x, v, geometry = self.encoder(
            positions, velocities, species, masses, level
        )
        padded = pad_species(species, self.n_elements)
        position_scale = self.position_scale[padded][..., None]
        velocity_scale = self.velocity_scale[padded][..., None]
        prior_positions, prior_velocities = positions, velocities
        if self.prior == "gaussian":
            prior_positions = torch.zeros_like(positions)
            prior_velocities = torch.zeros_like(velocities)
        elif self.prior != "previous_frame":
            prior_positions = positions + self.lag_time * velocities
        mean = torch.zeros_like(x)[:, :, None].expand(-1, -1, 2, -1)
        if self.prior == "learned":
            mean = torch.stack(
                [
                    (x - prior_positions) / position_scale,
                    (v - prior_velocities) / velocity_scale,
                ],
                dim=2,
            )
        # Detached: the encoder serves the mean.
        log_spread = self.spread(features[:, :, 0].detach())[..., 0]
        limit = self.log_spread_limit
        spread = torch.exp(limit * torch.tanh(log_spread / limit))
        scale = spread
        if self.noise_conditioning == "acceleration":
            thermal = self.thermal_acceleration[padded]
            ratio = (acceleration * acceleration).sum(-1) / (thermal * thermal)
            ratio = torch.where(
                has_acceleration[:, None], ratio, torch.ones_like(ratio)
            )
            scale = scale * torch.sqrt(0.5 * (ratio + 1.0))
        return {
            "positions": positions,
            "velocities": velocities,
            "masses": masses,
            "prior": torch.stack([prior_positions, prior_velocities], dim=2),
            "unit": torch.stack([position_scale, velocity_scale], dim=2),
            "mean": mean,
            "spread": spread,
            "scale": scale,
            "cholesky": self.residual_cholesky[padded],
            "features": features,
            "invariants": geometry.invariants,
            "envelope": geometry.envelope,
            "harmonics": geometry.harmonics,
        }

    def denoise(
        self, residual: Tensor, sigma: Tensor, condition: dict[str, Tensor]
    ) -> Tensor:
        """
        Denoise residuals; run K times a lag.

        Parameters
        ----------
        residual : Tensor, shape (B, A, 2, 3)
            Noisy residuals of position and velocity, unit variance without noise.
        sigma : Tensor, shape (B,)
            Noise levels, positive.
        condition : dict of str to Tensor
            From `encode`.

        Returns
        -------
        Tensor, shape (B, A, 2, 3)
            D(u; sigma).
        """
        geometry = Geometry(
            condition["invariants"], condition["envelope"], condition["harmonics"], []
        )
        denoised: Tensor = self.denoiser(
            residual, sigma, condition["features"], geometry, condition["scale"].log()
        )
        return denoised

    def decode(
        self,
        residual: Tensor,
        condition: dict[str, Tensor],
        conserve_angular_momentum: bool,
    ) -> Tensor:
        """
        Turn residuals into the change over the lag, projected.

        Parameters
        ----------
        residual : Tensor, shape (B, A, 2, 3)
            Residuals; zeros give the mean.
        condition : dict of str to Tensor
            From `encode`.
        conserve_angular_momentum : bool
            Keep the angular momentum as well as the momentum.

        Returns
        -------
        Tensor, shape (B, A, 2, 3)
            Displacement over the lag in the centre-of-mass frame (nm) and change of
            velocity (nm/ps); 0 on padding.
        """
        whitened = condition["scale"][:, :, None, None] * torch.matmul(
            condition["cholesky"], residual
        )
        following = condition["prior"] + condition["unit"] * (
            condition["mean"] + whitened
        )
        positions, velocities = condition["positions"], condition["velocities"]
        change = following - torch.stack([positions, velocities], dim=2)
        masses = condition["masses"]
        if self.has_operator and takes_layers(change):
            return conserve_momenta(
                change, positions, velocities, masses, conserve_angular_momentum
            )
        return project_change(
            change, positions, velocities, masses, conserve_angular_momentum
        )

    def whiten(self, following: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """
        Residuals of a known next frame: what diffusion is trained on.

        Parameters
        ----------
        following : Tensor, shape (B, A, 2, 3)
            Positions (nm) and velocities (nm/ps) after the lag, in the
            centre-of-mass frame.
        condition : dict of str to Tensor
            From `encode`.

        Returns
        -------
        Tensor, shape (B, A, 2, 3)
            r of `decode`, without projection.
        """
        error = self.error(following, condition)
        error = error / condition["scale"][:, :, None, None]
        residual: Tensor = torch.linalg.solve_triangular(
            condition["cholesky"], error, upper=False
        )
        return residual

    def error(self, following: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """
        Error of the mean, in units of the elements' scales.

        Parameters
        ----------
        following : Tensor, shape (B, A, 2, 3)
            Positions (nm) and velocities (nm/ps) after the lag, in the
            centre-of-mass frame.
        condition : dict of str to Tensor
            From `encode`.

        Returns
        -------
        Tensor, shape (B, A, 2, 3)
            u - mu.
        """
        u = (following - condition["prior"]) / condition["unit"]
        return u - condition["mean"]

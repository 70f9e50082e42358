"""Systems with closed-form answers, and model files that are exactly such systems."""

import math
import os
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app, unit
from scipy import linalg
from torch import Tensor, nn

from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.export.torchscript import save_model
from openmm_diffmd.units import BOLTZMANN, FS_PER_PS

ETHANOL_ELEMENTS = ["C", "C", "O", "H", "H", "H", "H", "H", "H"]
ETHANOL_BONDS = [[0, 1], [1, 2], [0, 3], [0, 4], [0, 5], [1, 6], [1, 7], [2, 8]]


class HarmonicModel(nn.Module):
    """
    Exact transition of a molecule whose atoms are bound to its centre of mass.

    The potential is V = sum_i m_i omega^2 |x_i - x_c|^2/2, the dynamics dx = v dt,
    dv = -omega^2 x dt - friction v dt + sqrt(2 friction kT/m) dW with no net force on
    the centre of mass. One lag tau is z' = M z + L xi with z = (x, v),
    M = exp(A tau), L L^T = S - M S M^T, S = diag(kT/(m omega^2), kT/m); the residual
    is xi, a unit Gaussian, so D(u; sigma) = u/(1 + sigma^2).

    Parameters
    ----------
    angular_frequency : float
        omega, 1/ps.
    friction : float
        Collision rate, 1/ps; 0 gives the frictionless flow.
    temperature : float
        Bath temperature, K.
    lag_time : float
        tau, ps.

    Notes
    -----
    Uhlenbeck and Ornstein, Phys. Rev. 36, 823 (1930). Forces are central, so the flow
    keeps the angular momentum; the noise of the thermostat does not.
    """

    def __init__(
        self,
        angular_frequency: float = 20.0,
        friction: float = 0.0,
        temperature: float = 300.0,
        lag_time: float = 0.01,
    ) -> None:
        super().__init__()
        self.angular_frequency = angular_frequency
        self.friction = friction
        self.temperature = temperature
        self.lag_time = lag_time
        transition, factor = self.exact_transition()
        # decode returns changes about the ballistic point, so M - 1 is what is stored.
        self.change: Tensor
        self.register_buffer(
            "change", torch.tensor(transition - np.eye(2), dtype=torch.float32)
        )
        self.factor: Tensor
        self.register_buffer("factor", torch.tensor(factor, dtype=torch.float32))

    def exact_transition(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        """
        Compute M and the factor of the noise for unit mass.

        Returns
        -------
        transition : ndarray, shape (2, 2)
            M, on (position in nm, velocity in nm/ps).
        factor : ndarray, shape (2, 2)
            L sqrt(m), lower triangular.
        """
        omega_squared = self.angular_frequency**2
        generator = np.array([[0.0, 1.0], [-omega_squared, -self.friction]])
        transition = linalg.expm(generator * self.lag_time)
        if self.friction == 0.0:
            return transition, np.zeros((2, 2))
        kT = BOLTZMANN * self.temperature
        stationary = np.diag([kT / omega_squared, kT])
        covariance = stationary - transition @ stationary @ transition.T
        return transition, linalg.cholesky(covariance, lower=True)

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
        Keep what `decode` needs; shapes and units as in the artifact's interface.

        Parameters
        ----------
        positions, velocities, acceleration : Tensor, shape (B, A, 3)
            About the centre of mass, nm, nm/ps, nm/ps^2.
        has_acceleration : Tensor of bool, shape (B,)
            Whether there is a history; not used.
        species : Tensor of int64, shape (B, A)
            Element index, -1 for padding.
        masses : Tensor, shape (B, A)
            Da, 0 for padding.
        level : Tensor, shape (B,)
            Perturbation level; not used.

        Returns
        -------
        dict of Tensor
            The condition.
        """
        return {
            "state": torch.stack((positions, velocities), dim=2),
            "masses": masses,
            "level": level,
        }

    def denoise(
        self, residual: Tensor, sigma: Tensor, condition: dict[str, Tensor]
    ) -> Tensor:
        """
        Denoise a unit Gaussian: u/(1 + sigma^2).

        Parameters
        ----------
        residual : Tensor, shape (B, A, 2, 3)
            u.
        sigma : Tensor, shape (B,)
            Noise level.
        condition : dict of Tensor
            From `encode`; not used.

        Returns
        -------
        Tensor, shape (B, A, 2, 3)
            D(u; sigma).
        """
        return residual / (1.0 + sigma * sigma)[:, None, None, None]

    def decode(
        self,
        residual: Tensor,
        condition: dict[str, Tensor],
        conserve_angular_momentum: bool,
    ) -> Tensor:
        """
        Turn a residual into the change over the lag.

        Parameters
        ----------
        residual : Tensor, shape (B, A, 2, 3)
            xi.
        condition : dict of Tensor
            From `encode`.
        conserve_angular_momentum : bool
            Not used.

        Returns
        -------
        Tensor, shape (B, A, 2, 3)
            Displacement (nm) and velocity change (nm/ps); no net momentum.
        """
        return self.compute_change(residual, condition)

    def compute_change(self, residual: Tensor, condition: dict[str, Tensor]) -> Tensor:
        """
        Apply the transition, without net momentum.

        Parameters
        ----------
        residual : Tensor, shape (B, A, 2, 3)
            xi.
        condition : dict of Tensor
            From `encode`.

        Returns
        -------
        Tensor, shape (B, A, 2, 3)
            Displacement (nm) and velocity change (nm/ps).
        """
        masses = condition["masses"][:, :, None, None]
        real = masses > 0
        scale = torch.where(real, masses, torch.ones_like(masses)).rsqrt()
        noise = scale * torch.einsum("pq,baqc->bapc", self.factor, residual)
        mean = (masses * noise).sum(1, keepdim=True) / masses.sum(1, keepdim=True)
        change = torch.einsum("pq,baqc->bapc", self.change, condition["state"])
        return torch.where(real, change + noise - mean, torch.zeros_like(change))


class RememberingModel(HarmonicModel):
    """
    A harmonic molecule that is pushed on by a hundredth of its last change of velocity.

    No physics: it makes the acceleration history visible in the trajectory.

    Parameters
    ----------
    **harmonic : float
        Arguments of `HarmonicModel`.
    """

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
        Keep what `decode` needs; shapes and units as in the artifact's interface.

        Parameters
        ----------
        positions, velocities, acceleration : Tensor, shape (B, A, 3)
            About the centre of mass, nm, nm/ps, nm/ps^2.
        has_acceleration : Tensor of bool, shape (B,)
            Whether there is a history.
        species : Tensor of int64, shape (B, A)
            Element index, -1 for padding.
        masses : Tensor, shape (B, A)
            Da, 0 for padding.
        level : Tensor, shape (B,)
            Perturbation level; not used.

        Returns
        -------
        dict of Tensor
            The condition.
        """
        push = 0.01 * self.lag_time * acceleration
        push = torch.where(
            has_acceleration[:, None, None], push, torch.zeros_like(push)
        )
        return {
            "state": torch.stack((positions, velocities + push), dim=2),
            "masses": masses,
            "level": level,
        }


class FaultyModel(HarmonicModel):
    """
    A harmonic molecule whose draws below a perturbation level are spoilt.

    Parameters
    ----------
    fault : {"nan", "bond", "heat"}
        What is wrong with a spoilt draw: not a number, atom 1 moved away by 10 nm, or
        atom 1 sped up by 1000 nm/ps.
    below_level : float
        Draws at levels below this are spoilt: 0.25 spoils each lag's first draw only,
        2 spoils every draw.
    min_displacement : float
        Spoil only molecules that have an atom farther than this from the centre of
        mass, nm.
    **harmonic : float
        Arguments of `HarmonicModel`.
    """

    def __init__(
        self,
        fault: str = "nan",
        below_level: float = 0.25,
        min_displacement: float = 0.0,
        **harmonic: float,
    ) -> None:
        super().__init__(**harmonic)
        spoil = torch.zeros(2, 3)
        place = {"nan": (0, 0), "bond": (0, 0), "heat": (1, 0)}[fault]
        spoil[place] = {"nan": math.nan, "bond": 10.0, "heat": 1000.0}[fault]
        self.spoil: Tensor
        self.register_buffer("spoil", spoil)
        self.below_level = below_level
        self.min_displacement = min_displacement

    def decode(
        self,
        residual: Tensor,
        condition: dict[str, Tensor],
        conserve_angular_momentum: bool,
    ) -> Tensor:
        """
        Turn a residual into the change over the lag, and spoil it.

        Parameters
        ----------
        residual : Tensor, shape (B, A, 2, 3)
            xi.
        condition : dict of Tensor
            From `encode`.
        conserve_angular_momentum : bool
            Not used.

        Returns
        -------
        Tensor, shape (B, A, 2, 3)
            Displacement (nm) and velocity change (nm/ps).
        """
        change = self.compute_change(residual, condition)
        state = condition["state"]
        farthest = (state[:, :, 0] * state[:, :, 0]).sum(-1).amax(1).sqrt()
        spoilt = condition["level"] < self.below_level
        spoilt = spoilt & (farthest >= self.min_displacement)
        change[:, 1] = torch.where(
            spoilt[:, None, None], change[:, 1] + self.spoil, change[:, 1]
        )
        return change


def read_frame(
    context: openmm.Context,
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """
    Read the state of a Context as plain numbers.

    Parameters
    ----------
    context : openmm.Context
        What to read.

    Returns
    -------
    positions : ndarray, shape (n_particles, 3), nm
        Positions.
    velocities : ndarray, shape (n_particles, 3), nm/ps
        Velocities.
    """
    state = context.getState(positions=True, velocities=True)
    speed = unit.nanometer / unit.picosecond
    return (
        state.getPositions(asNumpy=True).value_in_unit(unit.nanometer),
        state.getVelocities(asNumpy=True).value_in_unit(speed),
    )


def save_stub_model(
    path: str | os.PathLike[str],
    model: HarmonicModel | None = None,
    *,
    name: str = "harmonic",
    contact_limits_nm: Mapping[str, float] | None = None,
    max_resamples: int = 10,
) -> Path:
    """
    Write a stub as a model file, with the metadata it is true to.

    Parameters
    ----------
    path : path-like
        The file.
    model : HarmonicModel, optional
        The stub; by default the frictionless flow.
    name : str
        Name of the model.
    contact_limits_nm : mapping of str to float, optional
        Symbols, such as ``C-H``, to what atoms without a bond keep, nm; none by
        default: atoms of a stub pass through each other.
    max_resamples : int
        Redraws before a lag is given up.

    Returns
    -------
    Path
        The file.
    """
    model = HarmonicModel() if model is None else model
    generator = np.random.default_rng(7)
    masses = [
        app.Element.getBySymbol(symbol).mass.value_in_unit(unit.dalton)
        for symbol in ETHANOL_ELEMENTS
    ]
    # One frame of the stub's equilibrium.
    spread = np.sqrt(BOLTZMANN * model.temperature / np.array(masses))[:, None]
    positions = generator.normal(size=(len(masses), 3))
    positions *= spread / model.angular_frequency
    pairs = ("C-C", "C-H", "C-O", "H-O")
    metadata = ModelMetadata(
        name=name,
        dynamics="thermostatted" if model.friction else "flow",
        lag_time_fs=model.lag_time * FS_PER_PS,
        temperature_K=model.temperature,
        friction_per_ps=model.friction or 1.0,
        elements=["H", "C", "O"],
        sampler={"name": "exponential", "num_steps": 2},
        guards={
            "bond_ranges_nm": {pair: [0.0, 5.0] for pair in pairs},
            "max_resamples": max_resamples,
            "contact_limits_nm": dict(contact_limits_nm or {}),
        },
        example={
            "elements": ETHANOL_ELEMENTS,
            "bonds": ETHANOL_BONDS,
            "positions_nm": positions.tolist(),
        },
    )
    return save_model(model, metadata, path)

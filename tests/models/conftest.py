from collections.abc import Iterator
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from openmm_diffmd.models import TransitionModel

LAG_TIME = 0.01
MASSES = torch.tensor([1.008, 12.011, 15.999], dtype=torch.float64)


@pytest.fixture(autouse=True)
def double() -> Iterator[None]:
    """Run these tests in float64: tolerances are then rounding, not luck."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


class State(NamedTuple):
    """Arguments of `TransitionModel.encode`."""

    positions: Tensor
    velocities: Tensor
    acceleration: Tensor
    has_acceleration: Tensor
    species: Tensor
    masses: Tensor
    level: Tensor

    def transformed(self, matrix: Tensor) -> "State":
        return self._replace(
            positions=self.positions @ matrix.T,
            velocities=self.velocities @ matrix.T,
            acceleration=self.acceleration @ matrix.T,
        )

    def select(self, atoms: Tensor) -> "State":
        """Take some atoms, in that order."""
        return State(*(value[:, atoms] if value.dim() > 1 else value for value in self))


def centred(values: Tensor, masses: Tensor) -> Tensor:
    weights = (masses / masses.sum(1, keepdim=True))[..., None]
    return values - (weights * values).sum(1, keepdim=True)


@pytest.fixture
def make_state():
    """Random molecules of H, C and O with distances of a molecule's order."""

    def make(n_molecules: int, n_atoms: int, seed: int = 0) -> State:
        generator = torch.Generator().manual_seed(seed)

        def normal(*shape: int) -> Tensor:
            return torch.randn(*shape, generator=generator)

        species = torch.randint(0, 3, (n_molecules, n_atoms), generator=generator)
        masses = MASSES[species]
        shape = (n_molecules, n_atoms, 3)
        return State(
            centred(0.15 * normal(*shape), masses),
            centred(1.5 * normal(*shape), masses),
            100.0 * normal(*shape),
            torch.arange(n_molecules) % 3 != 2,
            species,
            masses,
            torch.rand(n_molecules, generator=generator),
        )

    return make


@pytest.fixture
def make_model():
    """Small networks with random weights everywhere, the zeroed output included."""

    def make(
        l_max: int = 1, seed: int = 0, constant_spread: bool = False, **options
    ) -> TransitionModel:
        sizes = {
            "n_max": 4,
            "channels": 6,
            "n_heads": 2,
            "edge_channels": 8,
            "n_layers": 2,
            "head_channels": 4,
        }
        # Initial weights come from the global generator: put back what was there.
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = TransitionModel(3, LAG_TIME, l_max=l_max, **(sizes | options))
            torch.nn.init.normal_(model.denoiser.out.weight)
            torch.nn.init.normal_(model.spread[-1].weight, std=0.3)
        model.set_scales(
            torch.tensor([0.002, 0.001, 0.0008]),
            torch.tensor([2.0, 0.8, 0.6]),
            torch.tensor([300.0, 120.0, 90.0]),
        )
        model.residual_cholesky[:3] = torch.tensor(
            [
                [[0.9, 0.0], [0.5, 0.6]],
                [[0.7, 0.0], [-0.2, 1.1]],
                [[1.2, 0.0], [0.3, 0.4]],
            ]
        )
        model.encoder.invariant_scale.fill_(0.7)
        if constant_spread:
            torch.nn.init.zeros_(model.spread[-1].weight)
        return model.eval()

    return make


@pytest.fixture
def residual_of():
    """Random residuals and noise levels of a state."""

    def make(state: State, seed: int = 1) -> tuple[Tensor, Tensor]:
        generator = torch.Generator().manual_seed(seed)
        n_molecules, n_atoms = state.species.shape
        residual = torch.randn(n_molecules, n_atoms, 2, 3, generator=generator)
        sigma = 0.1 + 2.0 * torch.rand(n_molecules, generator=generator)
        return residual, sigma

    return make


@pytest.fixture
def one_lag():
    """One encoding, denoising and decoding; displacements in nm, kicks in nm/ps."""

    def run(
        model: TransitionModel,
        state: State,
        residual: Tensor,
        sigma: Tensor,
        conserve: bool = False,
    ) -> tuple[Tensor, Tensor]:
        condition = model.encode(*state)
        denoised = model.denoise(residual, sigma, condition)
        return denoised, model.decode(denoised, condition, conserve)

    return run

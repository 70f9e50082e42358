"""The last layer of the mean is fitted exactly."""

import copy

import pytest
import torch

from openmm_diffmd.data.pairs import PairBatch
from openmm_diffmd.export.refit import refit_mean
from openmm_diffmd.models import TransitionModel

N_PAIRS = 300


class Pairs:
    """Pairs held in one batch, as `LaggedPairs` hands them out."""

    def __init__(self, batch: PairBatch):
        self._batch = batch

    def __len__(self) -> int:
        return len(self._batch.species)

    def batch(self, indices: torch.Tensor) -> PairBatch:
        return PairBatch(*(values[indices] for values in self._batch))


@pytest.fixture
def model() -> TransitionModel:
    torch.manual_seed(3)
    made = TransitionModel(
        2, 0.01, channels=8, n_heads=2, edge_channels=8, n_layers=2, head_channels=8
    )
    # Kicks begin at zero; each element has scales of its own.
    for kick in made.encoder.kick:
        torch.nn.init.normal_(kick.weight, std=0.3)
    made.set_scales(
        torch.tensor([0.002, 0.005]),
        torch.tensor([0.3, 2.0]),
        torch.tensor([30.0, 200.0]),
    )
    return made.eval()


@pytest.fixture
def batch(model: TransitionModel) -> PairBatch:
    """Molecules of three atoms and of two, whose next frames are the model's own."""
    generator = torch.Generator().manual_seed(4)
    species = torch.tensor([[0, 1, 1], [0, 1, -1]]).repeat(N_PAIRS // 2, 1)
    real = (species >= 0)[..., None]
    masses = torch.where(species == 0, 12.0, 1.0) * real[..., 0]
    state = (
        0.1 * torch.randn((N_PAIRS, 3, 3), generator=generator) * real,
        torch.randn((N_PAIRS, 3, 3), generator=generator) * real,
        torch.zeros(N_PAIRS, 3, 3),
        torch.zeros(N_PAIRS, dtype=torch.bool),
        species,
        masses,
    )
    with torch.no_grad():
        condition = model.encode(*state, torch.zeros(N_PAIRS))
    following = condition["prior"] + condition["unit"] * condition["mean"]
    return PairBatch(*state, following=following, later=following[:, None][:, 1:])


def error_of(model: TransitionModel, batch: PairBatch) -> torch.Tensor:
    with torch.no_grad():
        condition = model.encode(*batch[:6], torch.zeros(N_PAIRS))
        return model.error(batch.following, condition)[batch.species >= 0]


def test_kicks_that_shrank_are_found_again(model, batch):
    truth = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        model.encoder.kick[-1].weight *= 0.98
    before = error_of(model, batch).square().mean().sqrt()
    # No more than there are.
    assert refit_mean(model, Pairs(batch), 10 * N_PAIRS) == N_PAIRS
    after = error_of(model, batch).square().mean().sqrt()
    assert after < 0.05 * before
    # Nothing else has changed.
    for name, value in model.state_dict().items():
        if name != "encoder.kick.1.weight":
            assert torch.equal(value, truth[name]), name


def test_what_is_left_is_orthogonal_to_what_the_layer_can_say(model, batch):
    generator = torch.Generator().manual_seed(5)
    noise = torch.randn(batch.following.shape, generator=generator)
    real = batch.species >= 0
    unit = torch.tensor([[0.002, 0.3], [0.005, 2.0]])[batch.species][..., None]
    with torch.no_grad():
        condition = model.encode(*batch[:6], torch.zeros(N_PAIRS))
        response = model.encoder.kick_response(
            condition["features"], torch.where(real, batch.species, 2)
        )
        response = (response / unit[..., None])[real].flatten(0, 2).double()
    # A tenth of the change itself is lacking: a molecule that moves too little.
    aligned = unit * condition["mean"]
    spoilt = batch._replace(following=batch.following + 0.1 * (aligned + unit * noise))
    before = response.T @ error_of(model, spoilt).flatten().double()
    refit_mean(model, Pairs(spoilt), N_PAIRS)
    after = response.T @ error_of(model, spoilt).flatten().double()
    assert after.norm() < 0.02 * before.norm()

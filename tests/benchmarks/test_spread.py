"""Spread of draws, of a stub whose noise is known."""

from pathlib import Path

import numpy as np
import pytest
import torch
from spread import SpreadPredictor, SpreadRecorder

from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.testing import FaultyModel, HarmonicModel, save_stub_model

STUB = HarmonicModel(friction=20.0)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> DiffusionModel:
    path = tmp_path_factory.mktemp("stubs") / "thermostatted.pt"
    return load_model(save_stub_model(path, STUB))


def encode(model: DiffusionModel):
    topology, positions = model.example()
    described = describe_molecules(topology, model.metadata)
    x = torch.tensor(np.array(positions._value), dtype=torch.float32)[None]
    masses = torch.tensor(described.masses, dtype=torch.float32)[None]
    species = torch.tensor(described.species)[None]
    # A second molecule of two atoms and padding.
    x = torch.cat([x, x])
    masses = torch.cat([masses, masses.clone()])
    species = torch.cat([species, species.clone()])
    masses[1, 2:], species[1, 2:] = 0.0, -1
    condition = model.module.encode(
        x,
        torch.zeros_like(x),
        torch.zeros_like(x),
        torch.zeros(2, dtype=torch.bool),
        species,
        masses,
        torch.zeros(2),
    )
    return condition, species, masses


@pytest.mark.statistical
def test_spread_is_that_of_the_stub(model: DiffusionModel):
    # stochastic; 400 draws of 3 components: 2 % of a standard deviation.
    condition, species, masses = encode(model)
    prediction = SpreadPredictor(model, 400, seed=1).predict(condition, species)
    _, factor = STUB.exact_transition()
    for molecule, size in ((0, 9), (1, 2)):
        m = masses[molecule, :size].double().numpy()
        # Without net momentum: variance c/m_i - c/M.
        unit = np.sqrt(1.0 / m - 1.0 / m.sum())
        for index in range(2):
            expected = np.linalg.norm(factor[index]) * unit
            found = prediction.spread[molecule, :size, index].numpy()
            assert found == pytest.approx(expected, rel=4 * 0.021)
        assert (prediction.spread[molecule, size:] == 0).all()
        mean = model.module.decode(torch.zeros(2, 9, 2, 3), condition, False)
        off = (prediction.mean - mean)[molecule, :size]
        error = prediction.spread[molecule, :size, :, None] / np.sqrt(400)
        assert (off.abs() < 5 * error).all()


def test_seed_decides(model: DiffusionModel):
    condition, species, _ = encode(model)

    def predict(seed: int) -> torch.Tensor:
        return SpreadPredictor(model, 4, seed).predict(condition, species).spread

    assert torch.equal(predict(1), predict(1))
    assert not torch.equal(predict(1), predict(2))


def test_what_has_no_spread_is_refused(model: DiffusionModel):
    with pytest.raises(ValueError, match="found 1 draws, expected two or more"):
        SpreadPredictor(model, 1, seed=1)
    with pytest.raises(ValueError, match="a mean has no spread"):
        SpreadPredictor(model, 4, seed=1, num_sampling_steps=0)


def test_recorder_leaves_the_run_as_it_is(tmp_path: Path):
    # Each lag's first draw is refused; the second, at a higher level, is good.
    path = save_stub_model(tmp_path / "faulty.pt", FaultyModel(friction=20.0))
    model = load_model(path)
    topology, positions = model.example()
    molecules = describe_molecules(topology, model.metadata)
    settings = resolve_settings(model.metadata)
    recorder = SpreadRecorder(model, SpreadPredictor(model, 4, seed=9))
    ends = []
    for used in (model, recorder.model):
        x = np.array(positions._value)
        v = np.zeros_like(x)
        propagator = Propagator(used, molecules, settings, seed=3)
        for _ in range(3):
            x, v = propagator.step(x, v)
        assert propagator.num_resamples.tolist() == [3]
        ends.append((x, v))
    for found, expected in zip(*ends, strict=True):
        assert np.array_equal(found, expected)
    assert len(recorder.spreads) == 3
    assert recorder.spreads[0].shape == (1, 9, 2)

"""The plain-Python step: exact moments of the stub, noise, guards, redraws."""

from pathlib import Path

import numpy as np
import pytest
import torch

from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator.guards import LagRefusedError
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.testing import (
    FaultyModel,
    HarmonicModel,
    RememberingModel,
    save_stub_model,
)
from openmm_diffmd.units import BOLTZMANN

FRICTION = 20.0


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stubs")


@pytest.fixture(scope="module")
def flow(folder):
    return load_model(save_stub_model(folder / "flow.pt"))


@pytest.fixture(scope="module")
def thermostatted(folder):
    stub = HarmonicModel(friction=FRICTION)
    return load_model(save_stub_model(folder / "thermostatted.pt", stub))


def make(model: DiffusionModel, seed: int = 1, molecules=None, **options):
    topology, positions = model.example()
    described = describe_molecules(topology, model.metadata, molecules)
    settings = resolve_settings(model.metadata, **options)
    propagator = Propagator(model, described, settings, seed)
    velocities = np.random.default_rng(3).normal(size=(9, 3))
    velocities *= np.sqrt(BOLTZMANN * 300 / described.masses)[:, None]
    return propagator, described, (np.array(positions._value), velocities)


def remove_centre(values, masses):
    return values - masses @ values / masses.sum()


def test_mean_step_is_the_exact_transition(thermostatted):
    propagator, described, (x, v) = make(thermostatted, num_sampling_steps=0)
    new_x, new_v = propagator.step(x, v)
    transition, _ = HarmonicModel(friction=FRICTION).exact_transition()
    masses = described.masses
    relative = np.stack([remove_centre(x, masses), remove_centre(v, masses)])
    expected = np.einsum("pq,qac->pac", transition, relative)
    np.testing.assert_allclose(remove_centre(new_x, masses), expected[0], atol=1e-7)
    np.testing.assert_allclose(remove_centre(new_v, masses), expected[1], atol=1e-5)
    centre = masses @ v / masses.sum()
    np.testing.assert_allclose(masses @ new_v / masses.sum(), centre, atol=1e-6)
    np.testing.assert_allclose(
        masses @ (new_x - x) / masses.sum(), 0.01 * centre, atol=1e-8
    )


@pytest.mark.statistical
def test_one_step_has_the_exact_covariance(thermostatted):
    propagator, described, (x, v) = make(thermostatted)
    mean, _, _ = make(thermostatted, num_sampling_steps=0)
    expected_x, expected_v = mean.step(x, v)
    samples = []
    for _ in range(2000):
        propagator.forget_history()
        new_x, new_v = propagator.step(x, v)
        samples.append(np.stack([new_x - expected_x, new_v - expected_v]))
    _, factor = HarmonicModel(friction=FRICTION).exact_transition()
    masses = described.masses
    # Noise of unit mass over sqrt(m), less its share in the motion of the centre.
    scale = np.sqrt(masses / (1 - masses / masses.sum()))[:, None]
    whitened = np.einsum("pq,sqac->spac", np.linalg.inv(factor), samples) * scale
    products = np.einsum("spac,sqac->spqa", whitened, whitened) / 3
    error = products.std(0, ddof=1) / np.sqrt(len(products))
    z = (products.mean(0) - np.eye(2)[:, :, None]) / error
    assert np.abs(z).max() < 4.5


def test_explicit_noise_is_what_the_generator_draws(thermostatted):
    propagator, _, frame = make(thermostatted, seed=4)
    generator = torch.Generator().manual_seed(4)
    noise = torch.randn((4, 9, 3), generator=generator)
    drawn = propagator.step(*frame)
    explicit, _, _ = make(thermostatted, seed=99)
    given = explicit.step(*frame, noise=[noise])
    np.testing.assert_array_equal(given, drawn)


@pytest.mark.parametrize(
    ("sampler", "num_steps", "num_rows"),
    [
        ("exponential", 0, 2),
        ("predictor_corrector", 0, 2),
        ("heun", 3, 4),
        ("predictor_corrector", 1, 4),
        ("predictor_corrector", 3, 12),
    ],
)
def test_a_lag_draws_only_what_it_needs(flow, sampler, num_steps, num_rows):
    propagator, _, _ = make(flow, sampler=sampler, num_sampling_steps=num_steps)
    assert propagator.draw_noise(0).shape == (num_rows, 9, 3)


@pytest.mark.filterwarnings("ignore:found . of . molecules without a bond")
@pytest.mark.filterwarnings("ignore:.*bonded as no molecule")
def test_molecules_do_not_depend_on_the_rest_of_the_batch(thermostatted):
    topology, _ = thermostatted.example()
    topology._bonds = []
    described = describe_molecules(topology, thermostatted.metadata, [0] * 4 + [1] * 5)
    settings = resolve_settings(thermostatted.metadata)
    _, _, (x, v) = make(thermostatted)
    together = Propagator(thermostatted, described, settings, 6).step(x, v)
    moved = np.array(x)
    moved[:4] += 0.01
    apart = Propagator(thermostatted, described, settings, 6).step(moved, v)
    np.testing.assert_array_equal(together[0][4:], apart[0][4:])
    np.testing.assert_array_equal(together[1][4:], apart[1][4:])
    np.testing.assert_allclose(together[0][:4] + 0.01, apart[0][:4], atol=1e-7)


@pytest.mark.filterwarnings("ignore:found . of . molecules without a bond")
@pytest.mark.filterwarnings("ignore:.*bonded as no molecule")
def test_batches_change_nothing(thermostatted):
    molecules = [0] * 4 + [1] * 3 + [2] * 2
    topology, _ = thermostatted.example()
    topology._bonds = []
    described = describe_molecules(topology, thermostatted.metadata, molecules)
    _, _, (x, v) = make(thermostatted)
    whole, split = (
        Propagator(
            thermostatted,
            described,
            resolve_settings(thermostatted.metadata, molecules_per_batch=count),
            6,
        ).step(x, v)
        for count in (3, 2)
    )
    np.testing.assert_allclose(split, whole, rtol=0, atol=1e-6)


def test_history_is_the_change_that_the_model_made(folder):
    stub = RememberingModel()
    model = load_model(save_stub_model(folder / "remembering.pt", stub))
    propagator, _, (x, v) = make(model, num_sampling_steps=0, friction=0)
    first_x, first_v = propagator.step(x, v)
    _, second_v = propagator.step(first_x, first_v)
    forgetful, _, _ = make(model, num_sampling_steps=0, friction=0)
    _, without_v = forgetful.step(first_x, first_v)
    transition, _ = stub.exact_transition()
    push = 0.01 * (first_v - v) * (transition[1, 1] - 1.0)
    np.testing.assert_allclose(second_v - without_v, push, atol=1e-5)
    assert np.abs(push).max() > 1e-4


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("nan", "expected finite numbers"),
        ("bond", "bond between atoms 0 and 1 is .* expected 0 to 5 nm"),
        ("heat", "kinetic energy of atoms 0 to 8 is .* expected at most"),
    ],
)
def test_spoilt_draws_are_redrawn_then_refused(folder, fault, reason):
    path = folder / f"{fault}.pt"
    redrawn = load_model(save_stub_model(path, FaultyModel(fault)))
    propagator, _, frame = make(redrawn)
    for _ in range(3):
        frame = propagator.step(*frame)
    assert propagator.num_resamples == [3]
    assert np.isfinite(frame).all()
    stub = FaultyModel(fault, below_level=2.0)
    broken = load_model(save_stub_model(path, stub, max_resamples=2))
    propagator, _, frame = make(broken)
    match = f"lag 0, molecule 0: .*{reason}.*, after 3 draws"
    with pytest.raises(LagRefusedError, match=match):
        propagator.step(*frame)


@pytest.mark.parametrize(("below_level", "num_redraws"), [(0.4, 1), (0.9, 2)])
def test_redraws_ask_for_half_the_level_then_for_all(folder, below_level, num_redraws):
    stub = FaultyModel("nan", below_level=below_level)
    model = load_model(save_stub_model(folder / "level.pt", stub))
    propagator, _, frame = make(model)
    for _ in range(3):
        frame = propagator.step(*frame)
    assert propagator.num_resamples == [3 * num_redraws]


def test_no_redraw_asks_for_more_than_the_whole_level(folder):
    stub = FaultyModel("nan", below_level=1.1)
    model = load_model(save_stub_model(folder / "level.pt", stub, max_resamples=5))
    propagator, _, frame = make(model)
    with pytest.raises(LagRefusedError, match="after 6 draws"):
        propagator.step(*frame)

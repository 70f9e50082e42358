import subprocess
import sys
from dataclasses import replace

import pytest
import torch
from openmm import unit

from openmm_diffmd.bundled import PRETRAINED
from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.export.torchscript import load_model, save_model
from openmm_diffmd.export.update import update_model
from openmm_diffmd.model_files import read_weights
from openmm_diffmd.models import TransitionModel
from openmm_diffmd.models.transition import NOISE_CONDITIONINGS, PRIORS
from openmm_diffmd.ops import is_loaded
from openmm_diffmd.units import BOLTZMANN

TOLERANCE = 3e-5
"""Of each result's largest number: float32 in another order of summation, which the CPU
decides."""

NETWORK = (
    "diffmd::conserve_momenta",
    "diffmd::equivariant_denoiser",
    "diffmd::equivariant_encoder",
)
BUNDLED = sorted(path.stem for path in PRETRAINED.glob("*.pt"))
SIZES = {"channels": 8, "n_heads": 2, "edge_channels": 8, "n_layers": 2}

FRESH_PROCESS = """
import sys, torch
from openmm_diffmd.export.torchscript import load_model
model = load_model(sys.argv[1])
state, residual, sigma = torch.load(sys.argv[2])
with torch.inference_mode():
    condition = model.module.encode(*state)
    denoised = model.module.denoise(residual, sigma, condition)
    changes = [model.module.decode(denoised, condition, c) for c in (False, True)]
torch.save([denoised, *changes], sys.argv[3])
"""


@pytest.fixture
def metadata():
    def make(model):
        return ModelMetadata(
            name="test",
            dynamics="flow",
            lag_time_fs=10.0,
            temperature_K=500.0,
            friction_per_ps=1.0,
            elements=["H", "C", "O"],
            prior=model.prior,
            noise_conditioning=model.noise_conditioning,
            config={"model": SIZES},
        )

    return make


def make_model(**options):
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TransitionModel(3, 0.01, head_channels=4, **(SIZES | options))
        torch.nn.init.normal_(model.denoiser.out.weight)
        torch.nn.init.normal_(model.spread[-1].weight, std=0.3)
    model.set_scales(
        torch.tensor([0.002, 0.001, 0.0008]),
        torch.tensor([2.0, 0.8, 0.6]),
        torch.tensor([300.0, 120.0, 90.0]),
    )
    model.residual_cholesky[:3] = torch.tensor([[0.9, 0.0], [0.5, 0.6]])
    (positions, velocities, _, _, species, masses, _), _, _ = make_inputs()
    model.encoder.set_invariant_scale(positions, velocities, species, masses)
    return model


def make_inputs():
    """Two molecules of five and four atoms; the second is on its first step."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    species = torch.tensor([[0, 1, 2, 0, 0], [2, 1, 0, 0, -1]])
    real = (species >= 0)[..., None]
    masses = torch.tensor([1.008, 12.011, 15.999, 0.0])[species]
    weights = (masses / masses.sum(1, keepdim=True))[..., None]
    states = []
    for size in (0.15, 1.5):
        values = size * normal(2, 5, 3)
        states.append((values - (weights * values).sum(1, keepdim=True)) * real)
    state = (
        *states,
        100 * normal(2, 5, 3) * real,
        torch.tensor([True, False]),
        species,
        masses,
        torch.tensor([0.0, 0.5]),
    )
    residual = normal(2, 5, 2, 3) * real[..., None]
    return state, residual, torch.tensor([0.3, 2.0])


def inputs_of(model):
    """Two copies of a model's example, with velocities of 500 K."""
    topology, positions = model.example()
    elements = [atom.element for atom in topology.atoms()]
    species = torch.tensor([model.metadata.elements.index(e.symbol) for e in elements])
    masses = torch.tensor([e.mass.value_in_unit(unit.dalton) for e in elements])
    x = torch.tensor(positions.value_in_unit(unit.nanometer), dtype=torch.float32)
    generator = torch.Generator().manual_seed(1)
    shape = (2, *x.shape)
    spread = (BOLTZMANN * 500.0 / masses)[:, None].sqrt()
    v = spread * torch.randn(shape, generator=generator)
    weights = (masses / masses.sum())[:, None]
    state = (
        (x - (weights * x).sum(0)).expand(shape),
        v - (weights * v).sum(1, keepdim=True),
        torch.zeros(shape),
        torch.tensor([False, False]),
        species.expand(2, -1),
        masses.expand(2, -1),
        torch.zeros(2),
    )
    residual = torch.randn(2, len(x), 2, 3, generator=generator)
    return state, residual, torch.tensor([0.3, 2.0])


@torch.inference_mode()
def one_lag(module, state, residual, sigma):
    condition = module.encode(*state)
    denoised = module.denoise(residual, sigma, condition)
    return [denoised, *(module.decode(denoised, condition, c) for c in (False, True))]


def assert_near(found, expected):
    for one, other in zip(found, expected, strict=True):
        for axis in range(2):
            error = (one[:, :, axis] - other[:, :, axis]).abs().max()
            # Changes are differences of numbers of order 1 (0.1 nm, 1 nm/ps).
            assert error <= TOLERANCE * other[:, :, axis].abs().max() + 1e-7


@pytest.mark.parametrize(
    "options",
    [
        *({"l_max": l_max} for l_max in (1, 2, 3)),
        *({"prior": prior} for prior in PRIORS[1:]),
        {"noise_conditioning": NOISE_CONDITIONINGS[1]},
        {"head_layers": 2},
        {"velocity_features": False},
    ],
    ids=str,
)
def test_model_file_equals_eager(options, metadata, tmp_path):
    model = make_model(**options).eval()
    inputs = make_inputs()
    expected = one_lag(model, *inputs)
    path = save_model(model, metadata(model), tmp_path / "model.pt")
    loaded = load_model(path)
    assert loaded.metadata == replace(
        metadata(model), operators=loaded.metadata.operators
    )
    assert bool(loaded.metadata.operators) == is_loaded()
    if model.prior == "gaussian":
        # Untrained it draws all atoms to one point, which has no angular momentum to
        # speak of: the projection then amplifies rounding.
        expected = expected[:2]
    # Twice: the second call may run code optimised after the first.
    for _ in range(2):
        assert_near(one_lag(loaded.module, *inputs)[: len(expected)], expected)
    assert (expected[1][1, 4] == 0).all()


def test_model_file_equals_eager_in_a_fresh_process(metadata, tmp_path):
    model = make_model(l_max=2).eval()
    inputs = make_inputs()
    path = save_model(model, metadata(model), tmp_path / "model.pt")
    torch.save(inputs, tmp_path / "inputs.pt")
    names = [str(path), str(tmp_path / "inputs.pt"), str(tmp_path / "outputs.pt")]
    result = subprocess.run(
        [sys.executable, "-c", FRESH_PROCESS, *names],
        capture_output=True,
        text=True,
        check=False,
    )
    assert result.returncode == 0, result.stderr
    found = torch.load(tmp_path / "outputs.pt")
    assert_near(found, one_lag(model, *inputs))


def test_saving_does_not_change_the_model(metadata, tmp_path):
    model = make_model().eval()
    inputs = make_inputs()
    before = one_lag(model, *inputs)
    save_model(model, metadata(model), tmp_path / "model.pt")
    for one, other in zip(one_lag(model, *inputs), before, strict=True):
        assert torch.equal(one, other)


def test_model_file_keeps_the_weights_by_name(metadata, tmp_path):
    model = make_model()
    path = save_model(model, metadata(model), tmp_path / "model.pt")
    described, weights = read_weights(path)
    assert described["elements"] == ["H", "C", "O"]
    assert weights.keys() == model.state_dict().keys()
    for name, value in model.state_dict().items():
        assert torch.equal(weights[name], value)


@pytest.mark.parametrize("name", BUNDLED)
def test_bundled_models_hold_the_weights_that_they_run_with(name):
    bundled = load_model(name)
    assert set(NETWORK) < set(bundled.metadata.operators)
    described, weights = read_weights(bundled.path)
    model = TransitionModel(
        len(described["elements"]),
        described["lag_time_fs"] / 1000,
        **described["config"]["model"],
    )
    model.load_state_dict(weights)
    state, residual, sigma = inputs_of(bundled)
    found = one_lag(model.eval(), state, residual, sigma)
    expected = one_lag(bundled.module, state, residual, sigma)
    assert_near(found, expected)


@pytest.mark.skipif(not is_loaded(), reason="the library was not built")
def test_a_model_of_before_is_written_again_with_operators(metadata, tmp_path):
    model = make_model().eval()
    config = {"model": SIZES | {"head_channels": 4}}
    described = replace(metadata(model), config=config, acceptance={"kept": 1})
    path = save_model(model, described, tmp_path / "before.pt")
    before = load_model(update_model(path, path, operators=False))
    assert not set(NETWORK) & set(before.metadata.operators)
    after = load_model(update_model(before.path, before.path))
    assert set(NETWORK) < set(after.metadata.operators)
    assert after.metadata.acceptance == {"kept": 1}
    assert after.metadata.versions.keys() >= {"torch", "openmm_diffmd"}
    assert after.sha256 != before.sha256
    state, residual, sigma = make_inputs()
    found = one_lag(after.module, state, residual, sigma)
    assert_near(found, one_lag(before.module, state, residual, sigma))
    # With gradients it is plain torch again.
    residual.requires_grad_()
    gradients = []
    for one in (after, before):
        condition = one.module.encode(*state)
        total = one.module.denoise(residual, sigma, condition).square().sum()
        gradients += torch.autograd.grad(total, residual)
    torch.testing.assert_close(*gradients, rtol=1e-5, atol=1e-5)


@pytest.mark.skipif(not is_loaded(), reason="the library was not built")
def test_operators_that_the_library_lacks_are_named(metadata, tmp_path, monkeypatch):
    path = save_model(make_model(), metadata(make_model()), tmp_path / "model.pt")
    monkeypatch.setattr(
        "openmm_diffmd.export.torchscript.is_registered",
        lambda name: name != NETWORK[0],
    )
    with pytest.raises(ValueError, match=f"calls {NETWORK[0]}, expected a library"):
        load_model(path)


def test_a_model_is_not_written_again_where_a_folder_stands(tmp_path):
    with pytest.raises(IsADirectoryError, match="expected the name of a file"):
        update_model("ethanol", tmp_path)
    assert not any(tmp_path.iterdir())

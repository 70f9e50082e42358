import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import openmm
import pytest
import torch
from numpy.typing import NDArray
from openmm import app, unit
from torch import Tensor

import openmm_diffmd as diffmd
from openmm_diffmd.integrator.score_force import score_module
from openmm_diffmd.testing import HarmonicModel, save_stub_model
from openmm_diffmd.units import BOLTZMANN

Array = NDArray[np.float64]


class OpenHarmonicModel(HarmonicModel):
    """Says where its residuals are, as trained models do."""

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
        """As `TransitionModel.encode`."""
        state = torch.stack((positions, velocities), dim=2)
        width = masses.clamp(min=1e-6).rsqrt()
        return {
            "state": state,
            "masses": masses,
            "level": level,
            "prior": state,
            "unit": torch.ones_like(state)[..., :1],
            "mean": torch.matmul(self.change, state),
            "scale": width,
            "cholesky": self.factor.expand(masses.shape[0], masses.shape[1], 2, 2),
        }


@pytest.fixture(scope="module")
def model() -> diffmd.DiffusionModel:
    return diffmd.load_model("ethanol")


def frame(model: diffmd.DiffusionModel) -> tuple[app.Topology, Array]:
    topology, positions = model.example()
    return topology, positions.value_in_unit(unit.nanometer)


def distances(x: Array) -> Array:
    found: Array = np.linalg.norm(x[:, None] - x, axis=-1)
    return found


def forces_at(force: openmm.Force, topology: app.Topology, x: Array) -> Array:
    system = diffmd.create_system(topology)
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, openmm.VerletIntegrator(0.001), platform)
    context.setPositions(x)
    state = context.getState(getForces=True, getEnergy=True)
    assert state.getPotentialEnergy().value_in_unit(unit.kilojoule_per_mole) == 0.0
    wanted = unit.kilojoule_per_mole / unit.nanometer
    found: Array = state.getForces(asNumpy=True).value_in_unit(wanted)
    return found


def moved(
    system: openmm.System, integrator: openmm.Integrator, x: Array, steps: int
) -> Array:
    platform = openmm.Platform.getPlatform("Reference")
    context = openmm.Context(system, integrator, platform)
    context.setPositions(x)
    integrator.step(steps)
    found: Array = context.getState(positions=True).getPositions(asNumpy=True)._value
    return found


def test_of_a_gaussian_it_is_the_force_of_a_spring(tmp_path: Path) -> None:
    exact = OpenHarmonicModel(friction=5.0)
    stub = diffmd.load_model(save_stub_model(tmp_path / "harmonic.pt", exact))
    topology, _ = stub.example()
    generator = np.random.default_rng(1)
    x, v, away = (generator.standard_normal((9, 3)) for _ in range(3))
    masses = np.array(
        [a.element.mass.value_in_unit(unit.dalton) for a in topology.atoms()]
    )[:, None]

    def centred(values: Array) -> Array:
        return values - (masses * values).sum(0) / masses.sum()

    transition, factor = exact.exact_transition()
    mean = transition[0, 0] * centred(x) + transition[0, 1] * centred(v)
    variance = factor[0, 0] ** 2 / masses * (1 + 0.3**2)
    expected = -BOLTZMANN * 400.0 * (centred(away) - mean) / variance
    expected = expected - masses * expected.sum(0) / masses.sum()
    force = diffmd.score_force(stub, topology, x, v, noise_level=0.3, temperature=400.0)
    found = forces_at(force, topology, away)
    assert abs(found - expected).max() < 1e-4 * abs(expected).max()


def test_it_pulls_to_the_expected_frame_and_turns_with_it(
    model: diffmd.DiffusionModel,
) -> None:
    topology, x = frame(model)
    middle = score_module(model, topology, x).middle.double().numpy()
    # 10 fs from rest: bonds swing, nothing flies.
    assert abs(distances(middle) - distances(x)).max() < 0.05
    generator = np.random.default_rng(1)
    away = middle + 1e-4 * generator.standard_normal(x.shape)
    found = forces_at(diffmd.score_force(model, topology, x), topology, away)
    assert ((found * (away - middle)).sum(1) < 0).mean() > 0.7
    assert abs(found.sum(0)).max() < 1e-4 * abs(found).max()
    # Moved and turned as a whole, the frame given as the one asked about.
    turn = np.linalg.qr(generator.standard_normal((3, 3)))[0]
    turned = diffmd.score_force(model, topology, x @ turn + 1.0)
    again = forces_at(turned, topology, away @ turn - 1.0)
    assert abs(again - found @ turn).max() < 2e-2 * abs(found).max()


def test_openmm_torch_is_given_the_same_in_torchscript(
    model: diffmd.DiffusionModel, monkeypatch: pytest.MonkeyPatch
) -> None:
    class TorchForce:
        def __init__(self, module: torch.jit.ScriptModule) -> None:
            self.module = module
            self.outputs_forces = False

        def setOutputsForces(self, outputs: bool) -> None:
            self.outputs_forces = outputs

    topology, x = frame(model)
    expected = forces_at(diffmd.score_force(model, topology, x), topology, x)
    companion = ModuleType("openmmtorch")
    companion.TorchForce = TorchForce  # type: ignore[attr-defined]
    companion.__spec__ = __spec__
    monkeypatch.setitem(sys.modules, "openmmtorch", companion)
    force = diffmd.score_force(model, topology, x)
    assert isinstance(force, TorchForce)
    assert force.outputs_forces
    _, found = force.module(torch.from_numpy(x))
    assert found.dtype == torch.float64
    assert abs(found.numpy() - expected).max() < 1e-3 * abs(expected).max()


@pytest.mark.filterwarnings("ignore:found friction 0/ps:UserWarning")
def test_a_guess_is_relaxed_to_the_expected_frame() -> None:
    ethanol = diffmd.load_model("ethanol")
    topology, positions = ethanol.example()
    x = np.asarray(positions.value_in_unit(unit.nanometer))
    system = diffmd.create_system(topology)
    lag = diffmd.DiffusionIntegrator(
        ethanol, topology, friction=0, num_sampling_steps=0
    )
    expected = moved(system, lag, x, steps=1)
    system.addForce(diffmd.score_force(ethanol, topology, x))
    guess = expected + 0.003 * np.random.default_rng(0).standard_normal(x.shape)
    overdamped = openmm.LangevinMiddleIntegrator(
        0, 1e5 / unit.picosecond, 1e-5 * unit.picosecond
    )
    found = moved(system, overdamped, guess, steps=300)
    masses = [a.element.mass.value_in_unit(unit.dalton) for a in topology.atoms()]

    def error(frame: Array) -> float:
        apart = frame - expected
        return float(abs(apart - np.average(apart, axis=0, weights=masses)).max())

    assert error(guess) > 5e-3
    assert error(found) < 1e-4


def test_a_system_with_the_force_is_read_back(model: diffmd.DiffusionModel) -> None:
    topology, x = frame(model)
    force = diffmd.score_force(model, topology, x)
    read = openmm.XmlSerializer.deserialize(openmm.XmlSerializer.serialize(force))
    assert (forces_at(read, topology, x) == forces_at(force, topology, x)).all()


def test_what_does_not_fit_is_refused(
    model: diffmd.DiffusionModel, tmp_path: Path
) -> None:
    topology, x = frame(model)
    with pytest.raises(ValueError, match=r"found positions of shape \(8, 3\)"):
        diffmd.score_force(model, topology, x[1:])
    with pytest.raises(ValueError, match="found noise level 1000, expected"):
        diffmd.score_force(model, topology, x, noise_level=1000.0)
    stub = save_stub_model(tmp_path / "harmonic.pt", HarmonicModel())
    with pytest.raises(ValueError, match="found no prior"):
        diffmd.score_force(stub, topology, x)

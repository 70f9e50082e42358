"""Stub model files, made once a session, and what runs them."""

from collections.abc import Callable
from pathlib import Path

import openmm
import pytest
import torch
from openmm import app

from openmm_diffmd.export.torchscript import DiffusionModel, load_model, save_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system
from openmm_diffmd.models.transition import TransitionModel
from openmm_diffmd.reference.platforms import platform_names
from openmm_diffmd.testing import (
    FaultyModel,
    HarmonicModel,
    RememberingModel,
    save_stub_model,
)

Simulate = Callable[..., app.Simulation]


@pytest.fixture(params=["Reference", "CPU", "OpenCL"])
def platform(request: pytest.FixtureRequest) -> str:
    """Each platform that the whole contract holds on; skipped where there is none."""
    if request.param not in platform_names():
        pytest.skip(f"no {request.param} platform: no device or no driver for it")
    found = openmm.Platform.getPlatformByName(request.param)
    if "Precision" in found.getPropertyNames():
        # The C++ tests take each in turn.
        found.setPropertyDefaultValue("Precision", "mixed")
    return str(request.param)


@pytest.fixture(scope="session")
def stub_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stubs")


@pytest.fixture(scope="session")
def flow(stub_folder: Path) -> DiffusionModel:
    """The frictionless flow of the harmonic molecule."""
    return load_model(save_stub_model(stub_folder / "flow.pt"))


@pytest.fixture(scope="session")
def thermostatted(stub_folder: Path) -> DiffusionModel:
    """The Langevin transition of the harmonic molecule."""
    stub = HarmonicModel(friction=20.0)
    return load_model(save_stub_model(stub_folder / "thermostatted.pt", stub))


@pytest.fixture(scope="session")
def remembering(stub_folder: Path) -> DiffusionModel:
    """A molecule whose trajectory shows the acceleration history."""
    stub = RememberingModel(friction=20.0)
    return load_model(save_stub_model(stub_folder / "remembering.pt", stub))


@pytest.fixture(scope="session", params=["nan", "bond", "heat"])
def faulty(request: pytest.FixtureRequest, stub_folder: Path) -> DiffusionModel:
    """Every lag's first draw is spoilt."""
    stub = FaultyModel(request.param, friction=20.0)
    path = stub_folder / f"faulty_{request.param}.pt"
    return load_model(save_stub_model(path, stub))


@pytest.fixture(scope="session", params=["nan", "bond", "heat"])
def broken(request: pytest.FixtureRequest, stub_folder: Path) -> DiffusionModel:
    """Every draw is spoilt."""
    stub = FaultyModel(request.param, below_level=2.0)
    path = stub_folder / f"broken_{request.param}.pt"
    return load_model(save_stub_model(path, stub, name=request.param, max_resamples=3))


@pytest.fixture
def simulate() -> Simulate:
    """Make a Simulation of the model's example, ready to step."""

    def make(
        model: DiffusionModel,
        seed: int = 5,
        platform: str = "Reference",
        **options: object,
    ) -> app.Simulation:
        topology, positions = model.example()
        integrator = DiffusionIntegrator(model, topology, **options)
        integrator.setRandomNumberSeed(seed)
        simulation = app.Simulation(
            topology,
            create_system(topology),
            integrator,
            openmm.Platform.getPlatformByName(platform),
        )
        simulation.context.setPositions(positions)
        simulation.context.setVelocitiesToTemperature(model.temperature, 1)
        return simulation

    return make


@pytest.fixture(scope="session")
def network(
    tmp_path_factory: pytest.TempPathFactory, flow: DiffusionModel
) -> DiffusionModel:
    """A random network; its residual moves an atom by 0.1 pm, which breaks nothing."""
    torch.manual_seed(1)
    small = {"channels": 12, "n_heads": 3, "edge_channels": 12, "n_layers": 2}
    model = TransitionModel(3, 0.01, head_channels=12, **small)
    model.set_scales(
        torch.full((3,), 1e-4), torch.full((3,), 1e-2), torch.full((3,), 1.0)
    )
    path = tmp_path_factory.mktemp("network") / "network.pt"
    return load_model(save_model(model, flow.metadata, path))

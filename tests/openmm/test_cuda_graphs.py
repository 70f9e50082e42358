"""The CUDA platform: lags that must be captured into graphs equal the Reference's."""

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.reference.platforms import platform_names
from openmm_diffmd.testing import HarmonicModel, read_frame, save_stub_model

pytestmark = pytest.mark.gpu

NUM_LAGS = 20
NUM_REPLICAS = 3
MIXED = {"Precision": "mixed"}
# nm and nm/ps after 20 lags: rounding of float32 in the network; of positions too
# in single precision.
TOLERANCES = {"double": (2e-6, 2e-4), "mixed": (2e-6, 2e-4), "single": (1e-4, 1e-2)}


@pytest.fixture(scope="module", autouse=True)
def _cuda() -> None:
    if "CUDA" not in platform_names():
        pytest.skip("no CUDA platform: no GPU, or no openmm-cuda-13")
    if not torch.cuda.is_available():
        pytest.skip("a torch without CUDA: the generic path is used")


@pytest.fixture(autouse=True)
def _graphs(monkeypatch: pytest.MonkeyPatch) -> None:
    """A lag that is not captured is an error here; elsewhere it is slow."""
    monkeypatch.setenv("DIFFMD_GRAPHS", "required")


def run(model, platform, properties=None, force=None, **options):
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, NUM_REPLICAS)
    if force is not None:
        force(replicas.system)
    if model.metadata.dynamics == "flow":
        options["friction"] = 1 / unit.picosecond
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules, **options
    )
    integrator.setRandomNumberSeed(5)
    context = openmm.Context(
        replicas.system,
        integrator,
        openmm.Platform.getPlatformByName(platform),
        properties or {},
    )
    # Not on top of each other: a pair force would not be finite.
    places = replicas.positions.value_in_unit(unit.nanometer)
    context.setPositions(places + 0.5 * replicas.molecules[:, None] * [1.0, 0.0, 0.0])
    velocities = np.random.default_rng(5).normal(0.0, 0.3, (len(replicas.positions), 3))
    context.setVelocities(velocities)
    return context, integrator


def assert_close(found, expected, tolerances=TOLERANCES["mixed"]):
    for one, other, tolerance in zip(
        read_frame(found), read_frame(expected), tolerances, strict=True
    ):
        np.testing.assert_allclose(one, other, rtol=0, atol=tolerance)


def add_tethers(system):
    tethers = openmm.CustomExternalForce("20*(x^2+y^2+z^2)")
    for particle in range(system.getNumParticles()):
        tethers.addParticle(particle)
    system.addForce(tethers)


def add_cutoff(system):
    """No force, but the platform sorts its atoms and wraps them into the box."""
    system.setDefaultPeriodicBoxVectors(*(2.0 * np.eye(3)))
    nonbonded = openmm.NonbondedForce()
    nonbonded.setNonbondedMethod(openmm.NonbondedForce.CutoffPeriodic)
    nonbonded.setCutoffDistance(0.5)
    for _ in range(system.getNumParticles()):
        nonbonded.addParticle(0.0, 0.1, 0.0)
    system.addForce(nonbonded)


@pytest.mark.parametrize("precision", list(TOLERANCES))
@pytest.mark.parametrize("force", [None, add_tethers, add_cutoff])
def test_lags_equal_the_reference_platform(flow, precision, force):
    reference, reference_integrator = run(flow, "Reference", force=force)
    cuda, cuda_integrator = run(flow, "CUDA", {"Precision": precision}, force)
    reference_integrator.step(NUM_LAGS)
    cuda_integrator.step(NUM_LAGS)
    assert_close(cuda, reference, TOLERANCES[precision])
    assert cuda_integrator.getNumResamples() == reference_integrator.getNumResamples()
    assert (
        cuda_integrator.getNumEvaluations() == reference_integrator.getNumEvaluations()
    )


@pytest.mark.parametrize("conserve", [False, True])
def test_the_real_network_is_captured(network, conserve):
    options = {"conserve_angular_momentum": conserve}
    reference, reference_integrator = run(network, "Reference", **options)
    cuda, cuda_integrator = run(network, "CUDA", MIXED, **options)
    for integrator in (reference_integrator, cuda_integrator):
        integrator.step(6)
    assert_close(cuda, reference)


def test_the_bundled_model_takes_the_same_lags():
    model = load_model("ethanol")
    reference, reference_integrator = run(model, "Reference")
    cuda, cuda_integrator = run(model, "CUDA", MIXED)
    for integrator in (reference_integrator, cuda_integrator):
        integrator.step(6)
    # The molecule is chaotic: rounding has grown a little.
    assert_close(cuda, reference, (1e-4, 1e-2))


def test_spoilt_draws_are_redrawn(faulty):
    reference, reference_integrator = run(faulty, "Reference")
    cuda, cuda_integrator = run(faulty, "CUDA", MIXED)
    for integrator in (reference_integrator, cuda_integrator):
        integrator.step(6)
    assert_close(cuda, reference)
    assert cuda_integrator.getNumResamples() == 6 * NUM_REPLICAS
    assert reference_integrator.getNumResamples() == 6 * NUM_REPLICAS


def test_lags_that_cannot_be_drawn_raise_and_change_nothing(broken):
    cuda, integrator = run(broken, "CUDA", MIXED)
    before = read_frame(cuda)
    with pytest.raises(openmm.OpenMMException, match="after 4 draws"):
        integrator.step(1)
    for found, expected in zip(read_frame(cuda), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_rescue_runs_on_the_same_device(broken):
    topology, _ = broken.example()
    results = []
    for platform in ("Reference", "CUDA"):
        system = create_system(topology)
        add_tethers(system)
        rescue = openmm.Context(
            system,
            openmm.VerletIntegrator(0.0005),
            openmm.Platform.getPlatformByName(platform),
            MIXED if platform == "CUDA" else {},
        )
        properties = MIXED if platform == "CUDA" else None
        context, integrator = run(broken, platform, properties)
        integrator.setRescueContext(rescue)
        integrator.step(2)
        assert integrator.getNumRescues() == 2 * NUM_REPLICAS
        results.append(context)
    assert_close(results[1], results[0])


def test_a_captured_lag_equals_one_launched_kernel_by_kernel(flow, monkeypatch):
    graphed, graphed_integrator = run(flow, "CUDA", MIXED)
    monkeypatch.setenv("DIFFMD_GRAPHS", "none")
    plain, plain_integrator = run(flow, "CUDA", MIXED)
    for integrator in (graphed_integrator, plain_integrator):
        integrator.step(NUM_LAGS)
        # The bath is an input of the graph.
        integrator.setFriction(5.0)
        integrator.step(NUM_LAGS)
    assert_close(graphed, plain)
    assert (
        graphed_integrator.getNumEvaluations() == plain_integrator.getNumEvaluations()
    )


def test_a_capture_that_fails_leaves_torch_as_it_was(tmp_path, monkeypatch):
    """The next capture, and what torch itself does then, work."""
    monkeypatch.delenv("DIFFMD_GRAPHS")
    waiting = load_model(save_stub_model(tmp_path / "waiting.pt", WaitingModel()))
    reference, reference_integrator = run(waiting, "Reference")
    cuda, cuda_integrator = run(waiting, "CUDA", MIXED)
    for integrator in (reference_integrator, cuda_integrator):
        integrator.step(6)
    assert_close(cuda, reference)
    numbers = torch.arange(1000, device="cuda").sum()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = numbers * 2
    graph.replay()
    assert doubled.item() == 999_000


class WaitingModel(HarmonicModel):
    """A harmonic molecule that waits for the device in each lag."""

    def encode(
        self,
        positions: torch.Tensor,
        velocities: torch.Tensor,
        acceleration: torch.Tensor,
        has_acceleration: torch.Tensor,
        species: torch.Tensor,
        masses: torch.Tensor,
        level: torch.Tensor,
    ) -> dict[str, torch.Tensor]:
        scale = float(masses.sum().item() > 0.0)
        return {
            "state": scale * torch.stack((positions, velocities), dim=2),
            "masses": masses,
            "level": level,
        }

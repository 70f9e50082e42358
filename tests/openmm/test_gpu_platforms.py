"""
Platforms with kernels of their own: lags equal the Reference platform's.

OpenCL needs no GPU: PoCL makes a device of the CPU. On CUDA a lag has to be captured
into a graph.
"""

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.integrator.plugins import LIBRARIES, PLUGINS
from openmm_diffmd.reference.platforms import platform_names
from openmm_diffmd.testing import HarmonicModel, read_frame, save_stub_model

NUM_LAGS = 20
NUM_REPLICAS = 3
MIXED = {"Precision": "mixed"}
# nm and nm/ps after 20 lags: rounding of float32 in the network; of positions too
# in single precision.
TOLERANCES = {"double": (2e-6, 2e-4), "mixed": (2e-6, 2e-4), "single": (1e-4, 1e-2)}


@pytest.fixture
def cuda(monkeypatch):
    if "CUDA" not in platform_names():
        pytest.skip("no CUDA platform: no GPU, or no openmm-cuda-13")
    if not torch.cuda.is_available():
        pytest.skip("a torch without CUDA: the generic path is used")
    # A lag that is not captured is an error here; elsewhere it is slow.
    monkeypatch.setenv("DIFFMD_GRAPHS", "required")
    return "CUDA"


@pytest.fixture
def opencl():
    if "OpenCL" not in platform_names():
        pytest.skip("no OpenCL platform: no device or no driver for it")
    if not (LIBRARIES / PLUGINS["OpenCL"]).is_file():
        pytest.skip("built without CL/opencl.h: the generic path is used")
    return "OpenCL"


@pytest.fixture(params=[pytest.param("cuda", marks=pytest.mark.gpu), "opencl"])
def gpu_platform(request):
    return request.getfixturevalue(request.param)


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


def test_the_platform_has_its_own_kernel(gpu_platform):
    platform = openmm.Platform.getPlatformByName(gpu_platform)
    assert platform.supportsKernels(["IntegrateDiffusionStep"])


@pytest.mark.parametrize("precision", list(TOLERANCES))
@pytest.mark.parametrize("force", [None, add_tethers, add_cutoff])
def test_lags_equal_the_reference_platform(flow, gpu_platform, precision, force):
    reference, reference_integrator = run(flow, "Reference", force=force)
    found, integrator = run(flow, gpu_platform, {"Precision": precision}, force)
    reference_integrator.step(NUM_LAGS)
    integrator.step(NUM_LAGS)
    assert_close(found, reference, TOLERANCES[precision])
    assert integrator.getNumResamples() == reference_integrator.getNumResamples()
    assert integrator.getNumEvaluations() == reference_integrator.getNumEvaluations()


def test_a_checkpoint_restarts(flow, gpu_platform):
    context, integrator = run(flow, gpu_platform, MIXED)
    integrator.step(3)
    checkpoint = context.createCheckpoint()
    integrator.step(3)
    other, other_integrator = run(flow, gpu_platform, MIXED)
    other.loadCheckpoint(checkpoint)
    other_integrator.step(3)
    # Sums on the device may have another order from run to run.
    assert_close(other, context, (2e-4, 2e-4))


def test_an_example_system_runs(flow, gpu_platform):
    topology, positions = flow.example()
    integrator = DiffusionIntegrator(flow, topology)
    context = openmm.Context(
        create_system(topology),
        integrator,
        openmm.Platform.getPlatformByName(gpu_platform),
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(300.0, 1)
    integrator.step(5)
    assert np.isfinite(read_frame(context)[0]).all()


@pytest.mark.parametrize("conserve", [False, True])
def test_the_real_network_takes_the_same_lags(network, gpu_platform, conserve):
    options = {"conserve_angular_momentum": conserve}
    reference, reference_integrator = run(network, "Reference", **options)
    found, integrator = run(network, gpu_platform, MIXED, **options)
    reference_integrator.step(6)
    integrator.step(6)
    assert_close(found, reference)


def test_the_bundled_model_takes_the_same_lags(gpu_platform):
    model = load_model("ethanol")
    reference, reference_integrator = run(model, "Reference")
    found, integrator = run(model, gpu_platform, MIXED)
    reference_integrator.step(6)
    integrator.step(6)
    # The molecule is chaotic: rounding has grown a little.
    assert_close(found, reference, (1e-4, 1e-2))


def test_spoilt_draws_are_redrawn(faulty, gpu_platform):
    reference, reference_integrator = run(faulty, "Reference")
    found, integrator = run(faulty, gpu_platform, MIXED)
    reference_integrator.step(6)
    integrator.step(6)
    assert_close(found, reference)
    assert integrator.getNumResamples() == 6 * NUM_REPLICAS
    assert reference_integrator.getNumResamples() == 6 * NUM_REPLICAS


def test_lags_that_cannot_be_drawn_raise_and_change_nothing(broken, gpu_platform):
    context, integrator = run(broken, gpu_platform, MIXED)
    before = read_frame(context)
    with pytest.raises(openmm.OpenMMException, match="after 4 draws"):
        integrator.step(1)
    for found, expected in zip(read_frame(context), before, strict=True):
        np.testing.assert_array_equal(found, expected)


def test_a_rescue_runs_on_the_same_device(broken, gpu_platform):
    topology, _ = broken.example()
    results = []
    for name, properties in (("Reference", {}), (gpu_platform, MIXED)):
        system = create_system(topology)
        add_tethers(system)
        rescue = openmm.Context(
            system,
            openmm.VerletIntegrator(0.0005),
            openmm.Platform.getPlatformByName(name),
            properties,
        )
        context, integrator = run(broken, name, properties)
        integrator.setRescueContext(rescue)
        integrator.step(2)
        assert integrator.getNumRescues() == 2 * NUM_REPLICAS
        results.append(context)
    assert_close(results[1], results[0])


@pytest.mark.gpu
def test_a_captured_lag_equals_one_launched_kernel_by_kernel(flow, cuda, monkeypatch):
    graphed, graphed_integrator = run(flow, cuda, MIXED)
    monkeypatch.setenv("DIFFMD_GRAPHS", "none")
    plain, plain_integrator = run(flow, cuda, MIXED)
    for integrator in (graphed_integrator, plain_integrator):
        integrator.step(NUM_LAGS)
        # The bath is an input of the graph.
        integrator.setFriction(5.0)
        integrator.step(NUM_LAGS)
    assert_close(graphed, plain)
    assert (
        graphed_integrator.getNumEvaluations() == plain_integrator.getNumEvaluations()
    )


@pytest.mark.gpu
def test_a_capture_that_fails_leaves_torch_as_it_was(tmp_path, cuda, monkeypatch):
    """The next capture, and what torch itself does then, work."""
    monkeypatch.delenv("DIFFMD_GRAPHS")
    waiting = load_model(save_stub_model(tmp_path / "waiting.pt", WaitingModel()))
    reference, reference_integrator = run(waiting, "Reference")
    found, integrator = run(waiting, cuda, MIXED)
    reference_integrator.step(6)
    integrator.step(6)
    assert_close(found, reference)
    numbers = torch.arange(1000, device="cuda").sum()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        doubled = numbers * 2
    graph.replay()
    assert doubled.item() == 999_000


@pytest.mark.gpu
def test_an_external_stream_and_another_context_do_not_disturb(flow, cuda):
    """Torch works on a stream of its own between two steps of two Contexts."""
    alone, alone_integrator = run(flow, cuda, MIXED)
    alone_integrator.step(6)
    contexts = [run(flow, cuda, MIXED) for _ in range(2)]
    stream = torch.cuda.Stream()
    for _ in range(6):
        for _, integrator in contexts:
            with torch.cuda.stream(stream):
                integrator.step(1)
    for context, _ in contexts:
        assert_close(context, alone, (2e-4, 2e-4))


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

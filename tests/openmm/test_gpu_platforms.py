"""
Platforms with kernels of their own: lags equal the Reference platform's.

OpenCL needs no GPU: PoCL makes a device of the CPU.
"""

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.integrator.plugins import LIBRARIES, PLUGINS
from openmm_diffmd.reference.platforms import platform_names

NUM_LAGS = 20
NUM_REPLICAS = 3
# nm and nm/ps after 20 lags: rounding of float32 in the network; of positions too
# in single precision.
TOLERANCES = {"double": (2e-6, 2e-4), "mixed": (2e-6, 2e-4), "single": (1e-4, 1e-2)}


@pytest.fixture
def cuda():
    if "CUDA" not in platform_names():
        pytest.skip("no CUDA platform: no GPU, or no openmm-cuda-13")
    if not torch.cuda.is_available():
        pytest.skip("a torch without CUDA: the generic path is used")
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


def run(model, platform, properties, force=None):
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, NUM_REPLICAS)
    if force is not None:
        force(replicas.system)
    integrator = DiffusionIntegrator(
        model,
        replicas.topology,
        molecules=replicas.molecules,
        friction=1 / unit.picosecond,
    )
    integrator.setRandomNumberSeed(5)
    context = openmm.Context(
        replicas.system,
        integrator,
        openmm.Platform.getPlatformByName(platform),
        properties,
    )
    context.setPositions(replicas.positions)
    velocities = np.random.default_rng(5).normal(0.0, 0.3, (len(replicas.positions), 3))
    context.setVelocities(velocities)
    return context, integrator


def state_of(context):
    state = context.getState(positions=True, velocities=True)
    return (
        state.getPositions(asNumpy=True).value_in_unit(unit.nanometer),
        state.getVelocities(asNumpy=True).value_in_unit(
            unit.nanometer / unit.picosecond
        ),
    )


def add_tethers(system):
    tethers = openmm.CustomExternalForce("20*(x^2+y^2+z^2)")
    for particle in range(system.getNumParticles()):
        tethers.addParticle(particle)
    system.addForce(tethers)


def test_the_platform_has_its_own_kernel(gpu_platform):
    platform = openmm.Platform.getPlatformByName(gpu_platform)
    assert platform.supportsKernels(["IntegrateDiffusionStep"])


@pytest.mark.parametrize("precision", list(TOLERANCES))
@pytest.mark.parametrize("force", [None, add_tethers])
def test_lags_equal_the_reference_platform(flow, gpu_platform, precision, force):
    reference, reference_integrator = run(flow, "Reference", {}, force)
    found, integrator = run(flow, gpu_platform, {"Precision": precision}, force)
    reference_integrator.step(NUM_LAGS)
    integrator.step(NUM_LAGS)
    for values, expected, tolerance in zip(
        state_of(found), state_of(reference), TOLERANCES[precision], strict=True
    ):
        np.testing.assert_allclose(values, expected, rtol=0, atol=tolerance)
    assert integrator.getNumResamples() == reference_integrator.getNumResamples()


def test_a_checkpoint_restarts(flow, gpu_platform):
    context, integrator = run(flow, gpu_platform, {"Precision": "mixed"})
    integrator.step(3)
    checkpoint = context.createCheckpoint()
    integrator.step(3)
    expected = state_of(context)
    other, other_integrator = run(flow, gpu_platform, {"Precision": "mixed"})
    other.loadCheckpoint(checkpoint)
    other_integrator.step(3)
    for found, wanted in zip(state_of(other), expected, strict=True):
        # Sums on the device may have another order from run to run.
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4)


@pytest.mark.gpu
def test_a_captured_lag_equals_one_launched_kernel_by_kernel(
    flow, cuda, monkeypatch, capfd
):
    graphed, graphed_integrator = run(flow, cuda, {"Precision": "mixed"})
    monkeypatch.setenv("DIFFMD_GRAPHS", "none")
    plain, plain_integrator = run(flow, cuda, {"Precision": "mixed"})
    for integrator in (graphed_integrator, plain_integrator):
        integrator.step(NUM_LAGS)
        # The bath is an input of the graph.
        integrator.setFriction(5.0)
        integrator.step(NUM_LAGS)
    for found, wanted in zip(state_of(graphed), state_of(plain), strict=True):
        np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4)
    assert (
        graphed_integrator.getNumEvaluations() == plain_integrator.getNumEvaluations()
    )
    assert "cannot be captured" not in capfd.readouterr().err


@pytest.mark.gpu
def test_an_external_stream_and_another_context_do_not_disturb(flow, cuda):
    """Torch works on a stream of its own between two steps of two Contexts."""
    alone, alone_integrator = run(flow, cuda, {"Precision": "mixed"})
    alone_integrator.step(6)
    contexts = [run(flow, cuda, {"Precision": "mixed"}) for _ in range(2)]
    stream = torch.cuda.Stream()
    for _ in range(6):
        for _, integrator in contexts:
            with torch.cuda.stream(stream):
                integrator.step(1)
    for context, _ in contexts:
        for found, wanted in zip(state_of(context), state_of(alone), strict=True):
            np.testing.assert_allclose(found, wanted, rtol=0, atol=2e-4)


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
    assert np.isfinite(state_of(context)[0]).all()

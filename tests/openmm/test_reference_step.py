"""The C++ step equals the plain-Python one with the same seed."""

import numpy as np
import openmm
import pytest
from openmm import app

from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.testing import read_frame

# Both round residuals of order 1 to float32, times displacements of about 0.05 nm and
# velocities of a few nm/ps, over five lags.
POSITION_TOLERANCE = 1e-7
VELOCITY_TOLERANCE = 1e-5

# Two molecules, one of which the stubs do not know, and samplers they do not have.
pytestmark = [
    pytest.mark.filterwarnings("ignore:found .* bonded as no molecule"),
    pytest.mark.filterwarnings("ignore:found sampler"),
]

SAMPLERS = [
    ("exponential", 0),
    ("exponential", 1),
    ("exponential", 3),
    ("euler", 4),
    ("heun", 1),
    ("heun", 4),
    ("predictor_corrector", 1),
    ("predictor_corrector", 4),
]


def mixed_molecules(model: DiffusionModel) -> tuple[app.Topology, list[int]]:
    """Ethanol, then water with its atoms first in the id list: sizes 9 and 3."""
    topology, _ = model.example()
    residue = topology.addResidue("HOH", topology.addChain())
    oxygen = topology.addAtom("O", app.element.oxygen, residue)
    for name in ("H1", "H2"):
        hydrogen = topology.addAtom(name, app.element.hydrogen, residue)
        topology.addBond(oxygen, hydrogen)
    return topology, [7] * 9 + [3] * 3


def run_both(
    model: DiffusionModel, num_lags: int, **options: object
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, ...], Propagator]:
    topology, molecules = mixed_molecules(model)
    integrator = DiffusionIntegrator(model, topology, molecules=molecules, **options)
    integrator.setRandomNumberSeed(11)
    context = openmm.Context(
        create_system(topology), integrator, openmm.Platform.getPlatform("Reference")
    )
    generator = np.random.default_rng(2)
    context.setPositions(0.05 * generator.normal(size=(12, 3)))
    context.setVelocitiesToTemperature(model.temperature, 3)
    frame = read_frame(context)
    reference = Propagator(
        model,
        describe_molecules(topology, model.metadata, molecules),
        resolve_settings(model.metadata, **options),
        seed=11,
    )
    for _ in range(num_lags):
        frame = reference.step(*frame)
    integrator.step(num_lags)
    assert integrator.getNumResamples() == reference.num_resamples.sum()
    assert [integrator.getNumResamples(i) for i in (0, 1)] == [*reference.num_resamples]
    return read_frame(context), frame, reference


def assert_equal_frames(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=POSITION_TOLERANCE)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=VELOCITY_TOLERANCE)


@pytest.mark.parametrize(("sampler", "num_steps"), SAMPLERS)
def test_samplers_equal_the_reference(thermostatted, sampler, num_steps):
    found, expected, _ = run_both(
        thermostatted, 5, sampler=sampler, num_sampling_steps=num_steps
    )
    assert_equal_frames(found, expected)


def test_samplers_differ(thermostatted):
    frames = {
        name: run_both(thermostatted, 1, sampler=name, num_sampling_steps=4)[0]
        for name in ("exponential", "euler", "heun", "predictor_corrector")
    }
    positions = np.array([frame[0] for frame in frames.values()])
    for i in range(4):
        others = np.delete(positions, i, axis=0)
        differences = np.abs(others - positions[i]).max((1, 2))
        assert (differences > 100 * POSITION_TOLERANCE).all()


@pytest.mark.parametrize("friction", [0.0, 5.0])
def test_bath_equals_the_reference(flow, friction):
    found, expected, _ = run_both(flow, 5, friction=friction, temperature=250.0)
    assert_equal_frames(found, expected)


def test_redraws_equal_the_reference(faulty):
    found, expected, reference = run_both(faulty, 5)
    assert_equal_frames(found, expected)
    assert [*reference.num_resamples] == [5, 5]


@pytest.mark.parametrize("molecules_per_batch", [1, 2])
def test_batches_equal_the_reference(faulty, molecules_per_batch):
    # Of one molecule: the smaller takes the place of the larger, and its padding.
    found, expected, reference = run_both(
        faulty,
        5,
        sampler="predictor_corrector",
        num_sampling_steps=4,
        molecules_per_batch=molecules_per_batch,
    )
    assert_equal_frames(found, expected)
    assert [*reference.num_resamples] == [5, 5]
    whole = run_both(faulty, 5, sampler="predictor_corrector", num_sampling_steps=4)
    assert_equal_frames(found, whole[0])


def test_acceleration_history_equals_the_reference(remembering):
    found, expected, _ = run_both(remembering, 5)
    assert_equal_frames(found, expected)


@pytest.mark.parametrize("num_replicas", [3])
def test_replica_equals_the_single_run_with_its_seed(simulate, flow, num_replicas):
    topology, positions = flow.example()
    replicas = replicate(topology, create_system(topology), positions, num_replicas)
    integrator = DiffusionIntegrator(
        flow, replicas.topology, molecules=replicas.molecules
    )
    integrator.setRandomNumberSeed(20)
    context = openmm.Context(
        replicas.system, integrator, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(replicas.positions)
    single = simulate(flow)
    _, velocities = read_frame(single.context)
    context.setVelocities(np.tile(velocities, (num_replicas, 1)))
    integrator.step(20)
    found = read_frame(context)
    for replica in range(num_replicas):
        single = simulate(flow, seed=20 + replica)
        single.step(20)
        atoms = slice(9 * replica, 9 * replica + 9)
        assert_equal_frames(
            (found[0][atoms], found[1][atoms]), read_frame(single.context)
        )

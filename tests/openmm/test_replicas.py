"""Replica i of a batch is the single run with its seed, as far as rounding allows."""

import numpy as np
import openmm
import pytest

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.testing import read_frame

SEED = 20
# A batch rounds its matrix products otherwise than one molecule does, and chaos grows
# that about a thousandfold in 80 lags. Largest differences found for 3 and 64 replicas
# of the bundled model from two starts: 1.5e-7 nm and 2.6e-5 nm/ps after 5 lags, 3.4e-6
# and 2.4e-4 after 20, 3.6e-5 and 3e-3 after 50. About ten times that is allowed.
TOLERANCES = {5: (1.5e-6, 2.6e-4), 20: (3.4e-5, 2.4e-3)}


@pytest.fixture(scope="module")
def model():
    return load_model("ethanol")


def run(model, num_replicas, seed, platform, molecules_per_batch=0):
    """Frames after 5 and 20 lags, each of shape (2, num_replicas, 9, 3)."""
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, num_replicas)
    integrator = DiffusionIntegrator(
        model,
        replicas.topology,
        molecules=replicas.molecules,
        molecules_per_batch=molecules_per_batch,
    )
    integrator.setRandomNumberSeed(seed)
    context = openmm.Context(
        replicas.system, integrator, openmm.Platform.getPlatformByName(platform)
    )
    masses = [replicas.system.getParticleMass(i)._value for i in range(9)]
    velocities = np.random.default_rng(1).normal(size=(9, 3))
    velocities *= 2.0 / np.sqrt(masses)[:, None]
    context.setPositions(replicas.positions)
    context.setVelocities(np.tile(velocities, (num_replicas, 1)))
    frames = {}
    for lags in TOLERANCES:
        integrator.step(lags - context.getStepCount())
        frame = np.array(read_frame(context))
        frames[lags] = frame.reshape(2, num_replicas, 9, 3)
    return frames


def test_replica_equals_the_single_run_with_its_seed(model, platform):
    batch = run(model, 8, SEED, platform)
    for replica in (0, 3, 7):
        single = run(model, 1, SEED + replica, platform)
        for lags, tolerances in TOLERANCES.items():
            difference = np.abs(batch[lags][:, replica] - single[lags][:, 0]).max(
                (1, 2)
            )
            assert (difference < tolerances).all()
    # Without it every pair would agree.
    assert np.abs(batch[20][0, 0] - batch[20][0, 1]).max() > 1e-3


def test_batches_change_nothing_but_rounding(model):
    whole = run(model, 8, SEED, "Reference", 8)
    # Two whole batches and a rest; and each molecule alone, which is the single run.
    for molecules_per_batch in (3, 1):
        split = run(model, 8, SEED, "Reference", molecules_per_batch)
        for lags, tolerances in TOLERANCES.items():
            difference = np.abs(split[lags] - whole[lags]).max((1, 2, 3))
            assert (difference < tolerances).all()
    single = run(model, 1, SEED + 5, "Reference")
    np.testing.assert_array_equal(split[20][:, 5], single[20][:, 0])

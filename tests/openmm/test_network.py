"""The real network, untrained, takes the same lags in C++ as in Python."""

import numpy as np
import openmm
import pytest

from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.testing import read_frame

# Relative to the largest displacement and velocity change of the lags; the same file,
# called by an executor that optimises in Python and one that does not in C++.
TOLERANCE = 1e-4


@pytest.mark.parametrize("conserve", [False, True])
def test_network_takes_the_same_lags(network, conserve):
    topology, positions = network.example()
    replicas = replicate(topology, create_system(topology), positions, 2)
    options = {"conserve_angular_momentum": conserve}
    integrator = DiffusionIntegrator(
        network, replicas.topology, molecules=replicas.molecules, **options
    )
    integrator.setRandomNumberSeed(8)
    context = openmm.Context(
        replicas.system, integrator, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(replicas.positions)
    context.setVelocitiesToTemperature(network.temperature, 3)
    start = read_frame(context)
    reference = Propagator(
        network,
        describe_molecules(replicas.topology, network.metadata, replicas.molecules),
        resolve_settings(network.metadata, **options),
        seed=8,
    )
    expected = start
    for _ in range(3):
        expected = reference.step(*expected)
    integrator.step(3)
    for found, wanted, before in zip(read_frame(context), expected, start, strict=True):
        scale = np.abs(wanted - before).max()
        assert np.abs(found - wanted).max() < TOLERANCE * scale
    assert integrator.getNumEvaluations() == 3 * 2

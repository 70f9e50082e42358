"""The real network, untrained, takes the same lags in C++ as in Python."""

import numpy as np
import openmm
import pytest
from openmm import unit

from openmm_diffmd.integrator import (
    DiffusionIntegrator,
    bindings,
    create_system,
    replicate,
)
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


def test_an_error_within_the_network_is_told_in_one_line(network):
    """As a program in C++ would meet it, or XML that was read there."""
    lag = network.lag_time.value_in_unit(unit.picosecond)
    integrator = bindings.DiffusionIntegrator(
        str(network.path), network.sha256, lag, 300.0, 1.0, False
    )
    system = openmm.System()
    integrator.addMolecule(100.0)
    for _ in range(2):
        integrator.addParticle(77, 12.0, 0)
        system.addParticle(12.0)
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions([[0.0, 0.0, 0.0], [0.1, 0.0, 0.0]])
    with pytest.raises(openmm.OpenMMException, match="method encode failed: ") as told:
        integrator.step(1)
    assert "\n" not in str(told.value)

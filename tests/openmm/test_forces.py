"""Forces of the System act on the learned dynamics, as impulses."""

import numpy as np
import openmm
import pytest

from openmm_diffmd.integrator import DiffusionIntegrator, create_system
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.testing import read_frame

PLATFORMS = ["Reference", "CPU"]
# Rounding of residuals to float32, over some lags; as in test_reference_step.py.
POSITION_TOLERANCE = 1e-7
VELOCITY_TOLERANCE = 1e-5
STIFFNESS = 200.0
"""kJ/mol/nm^2: half the stiffness that binds a hydrogen to the centre of mass."""


def make_tethers(group=0):
    """Springs from each atom to the origin, with a Context parameter."""
    force = openmm.CustomExternalForce("0.5*k*(x^2+y^2+z^2)")
    force.addGlobalParameter("k", STIFFNESS)
    force.setForceGroup(group)
    for particle in range(9):
        force.addParticle(particle)
    return force


def make_context(model, forces, groups=None, platform="Reference", **options):
    topology, positions = model.example()
    system = create_system(topology)
    for force in forces:
        system.addForce(force)
    integrator = DiffusionIntegrator(model, topology, **options)
    integrator.setRandomNumberSeed(5)
    if groups is not None:
        integrator.setIntegrationForceGroups(groups)
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatformByName(platform)
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(model.temperature, 1)
    return context, integrator


def make_reference(model, forces, **options):
    return Propagator(
        model,
        describe_molecules(model.example()[0], model.metadata),
        resolve_settings(model.metadata, **options),
        seed=5,
        forces=forces,
    )


def assert_equal_frames(found, expected):
    np.testing.assert_allclose(found[0], expected[0], rtol=0, atol=POSITION_TOLERANCE)
    np.testing.assert_allclose(found[1], expected[1], rtol=0, atol=VELOCITY_TOLERANCE)


@pytest.mark.parametrize("platform", PLATFORMS)
def test_impulses_equal_the_reference(flow, platform):
    context, integrator = make_context(flow, [make_tethers()], platform=platform)
    frame = read_frame(context)
    reference = make_reference(flow, lambda positions: -STIFFNESS * positions)
    for _ in range(5):
        frame = reference.step(*frame)
    integrator.step(5)
    assert_equal_frames(read_frame(context), frame)


def test_forces_out_of_its_groups_are_reported_not_applied(simulate, flow):
    context, integrator = make_context(flow, [make_tethers(group=3)], groups={0, 1})
    integrator.step(3)
    without = simulate(flow)
    without.step(3)
    assert_equal_frames(read_frame(context), read_frame(without.context))
    assert context.getState(energy=True).getPotentialEnergy()._value > 0
    integrator.setIntegrationForceGroups({3})
    frame = read_frame(context)
    reference = make_reference(flow, lambda positions: -STIFFNESS * positions)
    reference.step(*frame)
    integrator.step(1)
    assert np.abs(read_frame(context)[1] - frame[1]).max() > 1e-2

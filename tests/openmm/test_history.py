"""The acceleration history is of the lag before, or void."""

import itertools

import numpy as np
import openmm
import pytest
from openmm import unit

from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.testing import HarmonicModel, read_frame
from openmm_diffmd.units import BOLTZMANN


def assert_same_bits(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def differ(found, expected):
    return np.abs(found[0] - expected[0]).max() > 1e-4


def test_setting_positions_voids_the_history(simulate, remembering):
    simulation = simulate(remembering)
    reference = Propagator(
        remembering,
        describe_molecules(simulation.topology, remembering.metadata),
        resolve_settings(remembering.metadata),
        seed=5,
    )
    frame = read_frame(simulation.context)
    simulation.step(3)
    for _ in range(3):
        frame = reference.step(*frame)
    with_history = simulate(remembering)
    with_history.step(6)
    simulation.context.setPositions(frame[0])
    reference.forget_history()
    simulation.step(3)
    for _ in range(3):
        frame = reference.step(*frame)
    found = read_frame(simulation.context)
    np.testing.assert_allclose(found[0], frame[0], atol=1e-7)
    assert differ(found, read_frame(with_history.context))


def test_setting_positions_after_a_checkpoint_voids_the_history(simulate, remembering):
    simulation = simulate(remembering)
    simulation.step(3)
    positions, _ = read_frame(simulation.context)
    checkpoint = simulation.context.createCheckpoint()
    simulation.step(3)
    with_history = read_frame(simulation.context)
    simulation.context.loadCheckpoint(checkpoint)
    simulation.context.setPositions(positions)
    simulation.step(3)
    assert differ(read_frame(simulation.context), with_history)


def test_compound_integrator_takes_turns(flow):
    topology, positions = flow.example()
    compound = openmm.CompoundIntegrator()
    compound.addIntegrator(DiffusionIntegrator(flow, topology))
    compound.addIntegrator(openmm.LangevinMiddleIntegrator(300, 1, 0.0005))
    context = openmm.Context(
        create_system(topology), compound, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(flow.temperature, 1)
    for _ in range(2):
        compound.setCurrentIntegrator(0)
        compound.step(3)
        compound.setCurrentIntegrator(1)
        compound.step(10)
    time = context.getState().getTime().value_in_unit(unit.picosecond)
    assert time == pytest.approx(2 * (3 * 0.01 + 10 * 0.0005))


def test_steps_of_another_integrator_void_the_history(remembering):
    topology, positions = remembering.example()

    def run(touch_positions):
        compound = openmm.CompoundIntegrator()
        learned = DiffusionIntegrator(remembering, topology)
        learned.setRandomNumberSeed(1)
        compound.addIntegrator(learned)
        compound.addIntegrator(openmm.VerletIntegrator(0.0005))
        context = openmm.Context(
            create_system(topology), compound, openmm.Platform.getPlatform("Reference")
        )
        context.setPositions(positions)
        context.setVelocitiesToTemperature(remembering.temperature, 1)
        compound.step(3)
        compound.setCurrentIntegrator(1)
        compound.step(2)
        compound.setCurrentIntegrator(0)
        if touch_positions:
            context.setPositions(read_frame(context)[0])
        else:
            before = learned.getNumInterruptions()
            for steps in (0, 0, 1, 1):
                # Once, however often it is looked for.
                compound.step(steps)
                assert learned.getNumInterruptions() == before + 1
            return read_frame(context)
        compound.step(2)
        return read_frame(context)

    assert_same_bits(run(touch_positions=False), run(touch_positions=True))


@pytest.mark.parametrize("steps_before", [0, 2])
def test_checkpoints_know_of_the_steps_of_another_integrator(remembering, steps_before):
    topology, positions = remembering.example()
    compound = openmm.CompoundIntegrator()
    learned = DiffusionIntegrator(remembering, topology)
    learned.setRandomNumberSeed(1)
    compound.addIntegrator(learned)
    compound.addIntegrator(openmm.VerletIntegrator(0.0005))
    context = openmm.Context(
        create_system(topology), compound, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(remembering.temperature, 1)
    compound.step(3)
    compound.setCurrentIntegrator(1)
    compound.step(steps_before)
    checkpoint = context.createCheckpoint()
    frames = []
    for _ in range(2):
        compound.setCurrentIntegrator(1)
        compound.step(2 - steps_before)
        compound.setCurrentIntegrator(0)
        compound.step(3)
        frames.append(read_frame(context))
        context.loadCheckpoint(checkpoint)
    assert_same_bits(*frames)


def test_a_refused_checkpoint_of_a_later_integrator_voids_the_history(remembering):
    topology, positions = remembering.example()
    compound = openmm.CompoundIntegrator()
    for _ in range(2):
        learned = DiffusionIntegrator(remembering, topology)
        learned.setRandomNumberSeed(1)
        compound.addIntegrator(learned)
    context = openmm.Context(
        create_system(topology), compound, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(remembering.temperature, 1)
    compound.step(3)
    checkpoint = context.createCheckpoint()
    damaged = bytearray(checkpoint)
    damaged[checkpoint.rindex(b"diffmd") + 20] ^= 0x10
    moved = 1.001 * read_frame(context)[0]
    frames = []
    for data in (bytes(damaged), checkpoint):
        if data is checkpoint:
            context.loadCheckpoint(checkpoint)
        else:
            with pytest.raises(openmm.OpenMMException, match="undamaged checkpoint"):
                context.loadCheckpoint(data)
        context.setPositions(moved)
        compound.step(1)
        frames.append(read_frame(context))
    assert_same_bits(*frames)


def test_setting_velocities_voids_the_history(simulate, remembering):
    frames = []
    for change in ("velocities", "positions", "none"):
        simulation = simulate(remembering)
        simulation.step(3)
        positions, velocities = read_frame(simulation.context)
        if change == "velocities":
            simulation.context.setVelocities(velocities)
        elif change == "positions":
            simulation.context.setPositions(positions)
        simulation.step(3)
        frames.append(read_frame(simulation.context))
    assert_same_bits(frames[0], frames[1])
    assert differ(frames[0], frames[2])


def test_a_step_that_is_looked_at_keeps_the_history(simulate, remembering):
    simulation, untouched = simulate(remembering), simulate(remembering)
    untouched.step(6)
    for _ in range(6):
        simulation.step(1)
        simulation.context.getState(
            positions=True, velocities=True, forces=True, energy=True
        )
    assert_same_bits(read_frame(simulation.context), read_frame(untouched.context))


@pytest.mark.statistical
def test_lags_and_langevin_steps_in_turn_keep_the_ensemble(flow):
    # The stub's own force, for the other integrator: springs between all pairs.
    topology, positions = flow.example()
    replicas = replicate(topology, create_system(topology), positions, 32)
    masses = describe_molecules(topology, flow.metadata).masses
    omega = HarmonicModel().angular_frequency
    force = openmm.HarmonicBondForce()
    force.setForceGroup(1)
    for replica, (i, j) in itertools.product(
        range(32), itertools.combinations(range(9), 2)
    ):
        stiffness = omega**2 * masses[i] * masses[j] / masses.sum()
        force.addBond(9 * replica + i, 9 * replica + j, 0, stiffness)
    replicas.system.addForce(force)
    compound = openmm.CompoundIntegrator()
    learned = DiffusionIntegrator(
        flow, replicas.topology, molecules=replicas.molecules, friction=5.0
    )
    learned.setRandomNumberSeed(1)
    learned.setIntegrationForceGroups({0})
    langevin = openmm.LangevinMiddleIntegrator(300.0, 5.0, 0.0005)
    langevin.setRandomNumberSeed(2)
    compound.addIntegrator(learned)
    compound.addIntegrator(langevin)
    context = openmm.Context(
        replicas.system, compound, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(replicas.positions)
    context.setVelocitiesToTemperature(flow.temperature, 3)
    samples = []
    for round_ in range(220):
        compound.setCurrentIntegrator(0)
        compound.step(3)
        compound.setCurrentIntegrator(1)
        compound.step(20)
        if round_ >= 20:
            frame = np.array(read_frame(context)).reshape(2, 32, 9, 3)
            centre = np.einsum("a,prac->prc", masses / masses.sum(), frame)
            samples.append(frame - centre[:, :, None])
    # In units of its expectation: kT/(m omega^2) and kT/m, less the centre's share.
    scale = masses / (1 - masses / masses.sum()) / (BOLTZMANN * 300.0)
    squared = np.square(samples).mean((0, 4)) * scale
    squared[0] *= omega**2
    error = squared.std(1, ddof=1) / np.sqrt(32)
    z = (squared.mean(1) - 1.0) / error
    assert np.abs(z).max() < 4.5


def test_each_integrator_of_two_keeps_its_own_history(remembering):
    topology, positions = remembering.example()
    compound = openmm.CompoundIntegrator()
    for seed in (1, 2):
        learned = DiffusionIntegrator(remembering, topology)
        learned.setRandomNumberSeed(seed)
        compound.addIntegrator(learned)
    context = openmm.Context(
        create_system(topology), compound, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(remembering.temperature, 1)
    compound.step(2)
    compound.setCurrentIntegrator(1)
    compound.step(2)
    checkpoint = context.createCheckpoint()
    compound.step(2)
    expected = read_frame(context)
    context.loadCheckpoint(checkpoint)
    compound.step(2)
    assert_same_bits(read_frame(context), expected)

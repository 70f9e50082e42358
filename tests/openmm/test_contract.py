"""What OpenMM expects of an Integrator: time, settings, seeds, Contexts, threads."""

import os
import signal
import threading
import time

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from openmm_diffmd.integrator import DiffusionIntegrator, create_system
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.testing import read_frame


def assert_same_bits(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def differ(found, expected):
    return np.abs(found[0] - expected[0]).max() > 1e-4


def test_a_step_is_a_lag(simulate, flow, platform):
    simulation = simulate(flow, platform=platform)
    integrator = simulation.integrator
    assert integrator.getStepSize() == 10 * unit.femtosecond
    simulation.step(7)
    state = simulation.context.getState(energy=True)
    assert state.getTime().value_in_unit(unit.picosecond) == pytest.approx(0.07)
    assert state.getStepCount() == 7
    assert simulation.currentStep == 7
    _, velocities = read_frame(simulation.context)
    masses = describe_molecules(simulation.topology, flow.metadata).masses
    kinetic_energy = 0.5 * (masses[:, None] * velocities**2).sum()
    found = state.getKineticEnergy().value_in_unit(unit.kilojoule_per_mole)
    assert found == pytest.approx(kinetic_energy, rel=1e-6)


def test_temperature_and_friction_carry_units(flow):
    topology, _ = flow.example()
    integrator = DiffusionIntegrator(
        flow, topology, temperature=250 * unit.kelvin, friction=2 / unit.picosecond
    )
    assert integrator.getTemperature() == 250 * unit.kelvin
    assert integrator.getFriction() == 2 / unit.picosecond
    integrator.setTemperature(200 * unit.kelvin)
    integrator.setFriction(0.001 / unit.femtosecond)
    assert integrator.getTemperature() == 200 * unit.kelvin
    assert integrator.getFriction().value_in_unit(unit.picosecond**-1) == pytest.approx(
        1.0
    )
    integrator.setTemperature(220.0)
    assert integrator.getTemperature() == 220 * unit.kelvin


def test_defaults_are_the_models(flow):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    metadata = flow.metadata
    assert integrator.getTemperature() == flow.temperature
    assert integrator.getFriction() == flow.friction
    assert integrator.getSampler() == metadata.sampler["name"]
    assert integrator.getNumSamplingSteps() == metadata.sampler["num_steps"]
    assert integrator.getMaxResamples() == metadata.guards["max_resamples"]
    noise = metadata.noise
    levels = [noise["sigma_min"], noise["sigma_max"], noise["rho"]]
    assert integrator.getNoiseLevels() == levels
    assert integrator.getRandomNumberSeed() == 0


def test_seeds_reproduce(simulate, thermostatted):
    frames = []
    for seed in (5, 5, 6, -5, -5):
        simulation = simulate(thermostatted, seed=seed)
        simulation.step(3)
        frames.append(read_frame(simulation.context))
    assert_same_bits(frames[1], frames[0])
    assert differ(frames[2], frames[0])
    assert_same_bits(frames[4], frames[3])
    assert differ(frames[3], frames[0])


def test_seed_zero_is_new_for_each_context(simulate, thermostatted):
    frames = []
    for _ in range(2):
        simulation = simulate(thermostatted, seed=0)
        simulation.step(3)
        frames.append(read_frame(simulation.context))
    simulation.context.reinitialize(preserveState=False)
    _topology, positions = thermostatted.example()
    simulation.context.setPositions(positions)
    simulation.context.setVelocitiesToTemperature(thermostatted.temperature, 1)
    simulation.step(3)
    frames.append(read_frame(simulation.context))
    assert differ(frames[0], frames[1])
    assert differ(frames[1], frames[2])


def test_temperature_and_friction_change_during_a_run(simulate, flow):
    simulation = simulate(flow, friction=0.0)
    simulation.step(5)
    simulation.integrator.setFriction(1000 / unit.picosecond)
    with pytest.warns(UserWarning, match="temperature 0 K, expected some 300 K"):
        simulation.integrator.setTemperature(0)
    # The bath takes exp(-5) of all velocities, each half step.
    simulation.step(20)
    _, velocities = read_frame(simulation.context)
    assert np.abs(velocities).max() < 0.05


def test_centre_of_mass_motion_remover_works(flow):
    topology, positions = flow.example()
    system = create_system(topology)
    system.addForce(openmm.CMMotionRemover(1))
    integrator = DiffusionIntegrator(flow, topology, friction=0)
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(positions)
    context.setVelocities(np.ones((9, 3)))
    integrator.step(2)
    _, velocities = read_frame(context)
    masses = describe_molecules(topology, flow.metadata).masses
    np.testing.assert_allclose(masses @ velocities, 0, atol=1e-4)


def test_contexts_in_threads_do_not_disturb_each_other(
    simulate, thermostatted, platform
):
    alone = simulate(thermostatted, platform=platform)
    alone.step(200)
    simulations = [simulate(thermostatted, platform=platform) for _ in range(3)]
    threads = [threading.Thread(target=s.step, args=(200,)) for s in simulations]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for simulation in simulations:
        assert_same_bits(read_frame(simulation.context), read_frame(alone.context))


def test_stepping_without_a_context_is_refused(flow):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    with pytest.raises(openmm.OpenMMException, match="not bound to a context"):
        integrator.step(1)


def test_an_integrator_belongs_to_one_context(simulate, flow):
    simulation = simulate(flow)
    with pytest.raises(openmm.OpenMMException, match="already bound"):
        openmm.Context(simulation.system, simulation.integrator)


def test_stepping_without_positions_is_refused(flow):
    topology, _ = flow.example()
    integrator = DiffusionIntegrator(flow, topology)
    context = openmm.Context(
        create_system(topology), integrator, openmm.Platform.getPlatform("Reference")
    )
    with pytest.raises(openmm.OpenMMException, match="positions have not been set"):
        integrator.step(1)
    assert context.getStepCount() == 0


def test_contexts_in_turn_do_not_disturb_each_other(simulate, remembering, flow):
    alone = simulate(remembering)
    alone.step(6)
    first, other, second = simulate(remembering), simulate(flow), simulate(remembering)
    for _ in range(6):
        for simulation in (first, other, second):
            simulation.step(1)
    del other
    for simulation in (first, second):
        assert_same_bits(read_frame(simulation.context), read_frame(alone.context))


def test_an_integrator_outlives_its_context(simulate, flow):
    simulation = simulate(flow)
    simulation.step(2)
    integrator = simulation.integrator
    del simulation.context
    with pytest.raises(openmm.OpenMMException, match="not bound to a context"):
        integrator.step(1)
    with pytest.raises(openmm.OpenMMException, match="not bound to a context"):
        integrator.getNumResamples()


def test_whole_numbers_of_numpy_and_floats_are_taken_as_openmm_does(simulate, flow):
    simulation = simulate(flow)
    simulation.step(12.0)
    simulation.step(np.int64(3))
    integrator = simulation.integrator
    integrator.step(np.float64(2.0))
    assert simulation.context.getStepCount() == 17
    assert integrator.getNumResamples(np.int64(0)) == 0
    fresh = DiffusionIntegrator(flow, flow.example()[0])
    fresh.setRandomNumberSeed(np.int64(7))
    fresh.setNumSamplingSteps(np.int32(3))
    fresh.setConserveAngularMomentum(np.bool_(True))
    assert (fresh.getRandomNumberSeed(), fresh.getNumSamplingSteps()) == (7, 3)
    assert fresh.getConserveAngularMomentum()
    for wrong in (1.5, "3", None):
        with pytest.raises(TypeError, match="cannot be interpreted as an integer"):
            integrator.step(wrong)
    with pytest.raises(OverflowError, match="32 bits"):
        integrator.step(2**40)
    with pytest.raises(TypeError, match="expected True or False"):
        fresh.setConserveAngularMomentum("no")
    with pytest.raises(ValueError, match="truth value of an array"):
        fresh.setConserveAngularMomentum(np.array([True, False]))


@pytest.mark.parametrize(
    ("call", "expected"),
    [
        (lambda i: i.setMaxTemperature(1500 * unit.picosecond), "kelvin"),
        (lambda i: i.setStepSize(10 * unit.kelvin), "picosecond"),
        (lambda i: i.addParticle(0, 12 * unit.kelvin, 0), "dalton"),
        (lambda i: i.addBond(0, 1, 0.0, 5 * unit.kelvin), "nanometer"),
        (lambda i: i.addBond(0, 1, 1 * unit.picosecond, 5.0), "nanometer"),
        (lambda i: i.addContactLimit(0, 1, 1 * unit.kelvin), "nanometer"),
    ],
)
def test_quantities_of_another_dimension_are_refused(flow, call, expected):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    with pytest.raises(TypeError, match=f"expected a quantity in {expected}"):
        call(integrator)


def test_a_hot_bath_is_told_of_whatever_bound_is_set(flow):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    with pytest.warns(UserWarning, match="900 K, expected at most 300 K, the hottest"):
        integrator.setTemperature(900)
    integrator.setMaxTemperature(1000)
    with pytest.warns(UserWarning, match="900 K, expected some 300 K, which"):
        integrator.setTemperature(900)


def test_quantities_are_converted(flow):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    bond = integrator.addBond(0, 1, 0.5 * unit.angstrom, 2.0 * unit.angstrom)
    assert integrator.getBondParameters(bond) == pytest.approx([0, 1, 0.05, 0.2])
    integrator.setStepSize(10 * unit.femtosecond)


def test_torchs_default_type_and_autocast_change_nothing(simulate, network):
    expected = simulate(network)
    expected.step(3)
    torch.set_default_dtype(torch.float64)
    try:
        found = simulate(network)
        found.step(3)
    finally:
        torch.set_default_dtype(torch.float32)
    assert_same_bits(read_frame(found.context), read_frame(expected.context))
    with torch.autocast("cpu"):
        found = simulate(network)
        found.step(3)
    assert_same_bits(read_frame(found.context), read_frame(expected.context))


def test_a_second_thread_is_refused_while_the_first_steps(simulate, flow):
    simulation = simulate(flow)
    integrator = simulation.integrator
    found, over = [], threading.Event()

    def step():
        # Not for ever, if nothing is refused.
        for _ in range(500):
            if over.is_set():
                return
            try:
                integrator.step(20)
            except openmm.OpenMMException as error:
                found.append(str(error))
                over.set()

    threads = [threading.Thread(target=step) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found
    assert "found a call of step() while another has not returned" in found[0]
    simulation.step(1)


def test_steps_can_be_interrupted(simulate, flow):
    simulation = simulate(flow)

    def interrupt():
        time.sleep(0.2)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=interrupt)
    # In the background of a shell SIGINT is ignored.
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    thread.start()
    try:
        with pytest.raises(KeyboardInterrupt):
            simulation.integrator.step(10**6)
    finally:
        thread.join()
        signal.signal(signal.SIGINT, before)
    assert simulation.context.getStepCount() % 10 == 0
    simulation.step(1)

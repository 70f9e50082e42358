"""What OpenMM expects of an Integrator."""

import io
import struct
import subprocess
import sys
import threading

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_diffmd.integrator import DiffusionIntegrator, create_system
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.testing import read_frame

PLATFORMS = ["Reference", "CPU"]


def assert_same_bits(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def differ(found, expected):
    return np.abs(found[0] - expected[0]).max() > 1e-4


@pytest.mark.parametrize("platform", PLATFORMS)
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
    integrator.setTemperature(100.0)
    assert integrator.getTemperature() == 100 * unit.kelvin


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


def test_dcd_header_has_the_lag_and_first_step(simulate, flow, tmp_path):
    path = tmp_path / "run.dcd"
    simulation = simulate(flow)
    simulation.reporters.append(app.DCDReporter(str(path), 5))
    simulation.step(20)
    # CHARMM header: frames, first step, interval, ..., step size in AKMA units.
    header = path.read_bytes()[8:48]
    frames, first, interval = struct.unpack("<3i", header[:12])
    step_size = struct.unpack("<f", header[36:40])[0]
    assert (frames, first, interval) == (4, 5, 5)
    assert step_size * 0.04888821 == pytest.approx(0.01, rel=1e-5)


def test_stock_reporters_work(simulate, flow, tmp_path):
    simulation = simulate(flow)
    log = io.StringIO()
    simulation.reporters += [
        app.StateDataReporter(
            log, 2, step=True, time=True, temperature=True, kineticEnergy=True
        ),
        app.PDBxReporter(str(tmp_path / "run.pdbx"), 2),
        app.CheckpointReporter(str(tmp_path / "run.chk"), 2),
    ]
    simulation.step(4)
    assert [line.split(",")[0] for line in log.getvalue().splitlines()[1:]] == [
        "2",
        "4",
    ]
    assert (tmp_path / "run.chk").stat().st_size > 0


def test_seeds_reproduce(simulate, thermostatted):
    frames = []
    for seed in (5, 5, 6):
        simulation = simulate(thermostatted, seed=seed)
        simulation.step(3)
        frames.append(read_frame(simulation.context))
    assert_same_bits(frames[1], frames[0])
    assert differ(frames[2], frames[0])


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


@pytest.mark.parametrize("platform", PLATFORMS)
def test_checkpoint_restarts_bit_for_bit(simulate, remembering, platform, tmp_path):
    path = str(tmp_path / "run.chk")
    simulation = simulate(remembering, platform=platform)
    simulation.step(5)
    simulation.saveCheckpoint(path)
    simulation.step(5)
    expected = read_frame(simulation.context)
    simulation.loadCheckpoint(path)
    simulation.step(5)
    assert_same_bits(read_frame(simulation.context), expected)
    other = simulate(remembering, seed=99, platform=platform)
    other.loadCheckpoint(path)
    other.step(5)
    assert_same_bits(read_frame(other.context), expected)
    assert other.currentStep == 10


def test_checkpoint_restarts_in_a_new_process(simulate, remembering, tmp_path):
    simulation = simulate(remembering)
    simulation.step(5)
    simulation.saveCheckpoint(str(tmp_path / "run.chk"))
    (tmp_path / "integrator.xml").write_text(
        openmm.XmlSerializer.serialize(simulation.integrator)
    )
    (tmp_path / "system.xml").write_text(
        openmm.XmlSerializer.serialize(simulation.system)
    )
    simulation.step(5)
    expected = read_frame(simulation.context)
    script = """
import sys
from pathlib import Path
import numpy as np
import openmm
from openmm_diffmd.integrator import DiffusionIntegrator
from openmm_diffmd.testing import read_frame
folder = Path(sys.argv[1])
integrator = DiffusionIntegrator.from_xml((folder / "integrator.xml").read_text())
system = openmm.XmlSerializer.deserialize((folder / "system.xml").read_text())
platform = openmm.Platform.getPlatform("Reference")
context = openmm.Context(system, integrator, platform)
context.loadCheckpoint((folder / "run.chk").read_bytes())
integrator.step(5)
np.save(folder / "frame.npy", np.stack(read_frame(context)))
"""
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=True)
    assert_same_bits(np.load(tmp_path / "frame.npy"), expected)


def test_damaged_checkpoint_is_refused(simulate, remembering):
    simulation = simulate(remembering)
    simulation.step(2)
    checkpoint = simulation.context.createCheckpoint()
    for damaged in (checkpoint[:-2000], checkpoint.replace(b"diffmd02", b"diffmd99")):
        with pytest.raises(openmm.OpenMMException, match=r"use an undamaged"):
            simulation.context.loadCheckpoint(damaged)


def test_checkpoint_of_other_molecules_is_refused(simulate, flow):
    simulation = simulate(flow)
    other = simulate(flow, molecules=[0] * 9)
    other.integrator.step(1)
    topology, _ = flow.example()
    bare = app.Topology()
    residue = bare.addResidue("ETH", bare.addChain())
    for atom in topology.atoms():
        bare.addAtom(atom.name, atom.element, residue)
    integrator = DiffusionIntegrator(flow, bare, molecules=[0] * 5 + [1] * 4)
    context = openmm.Context(
        create_system(bare), integrator, openmm.Platform.getPlatform("Reference")
    )
    checkpoint = simulation.context.createCheckpoint()
    with pytest.raises(
        openmm.OpenMMException, match=r"expected one of 2 molecules with 9"
    ):
        context.loadCheckpoint(checkpoint)


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


def test_reinitialize_keeps_the_state(simulate, remembering):
    simulation = simulate(remembering)
    simulation.step(5)
    untouched = simulate(remembering)
    untouched.step(10)
    simulation.context.reinitialize(preserveState=True)
    simulation.step(5)
    assert_same_bits(read_frame(simulation.context), read_frame(untouched.context))


def test_state_restarts(simulate, flow, tmp_path):
    simulation = simulate(flow)
    simulation.step(4)
    path = str(tmp_path / "state.xml")
    simulation.saveState(path)
    other = simulate(flow)
    other.loadState(path)
    assert_same_bits(read_frame(other.context), read_frame(simulation.context))
    assert other.currentStep == 4
    other.step(2)
    assert other.currentStep == 6


def test_temperature_and_friction_change_during_a_run(simulate, flow):
    simulation = simulate(flow, friction=0.0)
    simulation.step(5)
    simulation.integrator.setFriction(1000 / unit.picosecond)
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


@pytest.mark.parametrize("platform", PLATFORMS)
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
        compound.step(3)
        return read_frame(context)

    assert_same_bits(run(touch_positions=False), run(touch_positions=True))


def test_stepping_without_a_context_is_refused(flow):
    integrator = DiffusionIntegrator(flow, flow.example()[0])
    with pytest.raises(openmm.OpenMMException, match="not bound to a context"):
        integrator.step(1)


def test_an_integrator_belongs_to_one_context(simulate, flow):
    simulation = simulate(flow)
    with pytest.raises(openmm.OpenMMException, match="already bound"):
        openmm.Context(simulation.system, simulation.integrator)

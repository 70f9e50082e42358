"""A run that is saved and loaded goes on as if it had not been."""

import struct
import subprocess
import sys

import numpy as np
import openmm
import pytest
from openmm import app, unit

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.testing import HarmonicModel, read_frame, save_stub_model

GO_ON = """
import sys
from pathlib import Path
import numpy as np
import openmm
from openmm import app
import openmm_diffmd.integrator
from openmm_diffmd.testing import read_frame
folder = Path(sys.argv[1])
read = openmm.XmlSerializer.deserialize
integrator = read((folder / "integrator.xml").read_text())
system = read((folder / "system.xml").read_text())
pdb = app.PDBxFile(str(folder / "topology.cif"))
platform = openmm.Platform.getPlatformByName(sys.argv[2])
if "Precision" in platform.getPropertyNames():
    platform.setPropertyDefaultValue("Precision", "mixed")
simulation = app.Simulation(pdb.topology, system, integrator, platform)
simulation.loadCheckpoint(str(folder / "run.chk"))
simulation.step(20)
np.save(folder / "frame.npy", np.stack(read_frame(simulation.context)))
print(simulation.currentStep, simulation.context.getTime()._value)
"""


def assert_same_bits(found, expected):
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


def test_a_new_process_goes_on_bit_for_bit(platform, tmp_path):
    model = load_model("ethanol")
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, 2)
    tether = openmm.CustomExternalForce("10*x^2")
    tether.addParticle(0)
    replicas.system.addForce(tether)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules
    )
    integrator.setRandomNumberSeed(3)
    simulation = app.Simulation(
        replicas.topology,
        replicas.system,
        integrator,
        openmm.Platform.getPlatformByName(platform),
    )
    simulation.context.setPositions(replicas.positions)
    simulation.context.setVelocitiesToTemperature(model.temperature, 1)
    simulation.step(20)
    simulation.saveCheckpoint(str(tmp_path / "run.chk"))
    for name, written in (("integrator", integrator), ("system", replicas.system)):
        xml = openmm.XmlSerializer.serialize(written)
        (tmp_path / f"{name}.xml").write_text(xml)
    with (tmp_path / "topology.cif").open("w") as file:
        app.PDBxFile.writeFile(replicas.topology, replicas.positions, file)
    simulation.step(20)
    expected = read_frame(simulation.context)
    finished = subprocess.run(
        [sys.executable, "-c", GO_ON, str(tmp_path), platform],
        check=True,
        capture_output=True,
        text=True,
    )
    assert_same_bits(np.load(tmp_path / "frame.npy"), expected)
    # OpenMM prints a warning of its own where it does not know the OpenCL driver.
    step, time = finished.stdout.splitlines()[-1].split()
    assert int(step) == 40
    assert float(time) == simulation.context.getTime().value_in_unit(unit.picosecond)


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


def test_damaged_checkpoint_is_refused(simulate, remembering):
    simulation = simulate(remembering)
    simulation.step(2)
    checkpoint = simulation.context.createCheckpoint()
    for damaged in (checkpoint[:-2000], checkpoint.replace(b"diffmd04", b"diffmd99")):
        with pytest.raises(openmm.OpenMMException, match=r"use an undamaged"):
            simulation.context.loadCheckpoint(damaged)


def test_a_checkpoint_that_is_refused_voids_the_history(simulate, remembering):
    # OpenMM has taken its positions by then.
    frames = []
    for spoil in (True, False):
        simulation = simulate(remembering)
        simulation.step(3)
        damaged = bytearray(simulation.context.createCheckpoint())
        damaged[-1] ^= 1
        if spoil:
            with pytest.raises(openmm.OpenMMException, match="undamaged"):
                simulation.context.loadCheckpoint(bytes(damaged))
        else:
            simulation.context.setPositions(read_frame(simulation.context)[0])
        simulation.step(2)
        frames.append(read_frame(simulation.context))
    assert_same_bits(*frames)


def test_a_changed_parameter_in_a_checkpoint_is_refused(flow):
    topology, positions = flow.example()
    system = create_system(topology)
    force = openmm.CustomExternalForce("strength*x")
    force.addGlobalParameter("strength", 1.2345678)
    force.addParticle(0)
    system.addForce(force)
    context = openmm.Context(
        system,
        DiffusionIntegrator(flow, topology),
        openmm.Platform.getPlatformByName("Reference"),
    )
    context.setPositions(positions)
    checkpoint = context.createCheckpoint()
    value = struct.pack("<d", 1.2345678)
    assert checkpoint.count(value) == 1
    with pytest.raises(openmm.OpenMMException, match="undamaged checkpoint"):
        context.loadCheckpoint(checkpoint.replace(value, struct.pack("<d", 1.3)))


@pytest.mark.filterwarnings("ignore:found 2 of 2 molecules without a bond")
@pytest.mark.filterwarnings("ignore:.*bonded as no molecule")
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


def test_checkpoint_of_another_model_is_refused(simulate, flow, tmp_path):
    # Same molecules, another transition: nothing else tells them apart.
    stub = HarmonicModel(angular_frequency=21.0)
    other = simulate(load_model(save_stub_model(tmp_path / "model.pt", stub)))
    simulation = simulate(flow)
    match = f"of another model, expected one of the model with SHA-256 {flow.sha256}"
    with pytest.raises(openmm.OpenMMException, match=match):
        simulation.context.loadCheckpoint(other.context.createCheckpoint())
    simulation.step(1)


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


def test_any_changed_byte_of_the_state_is_refused(simulate, remembering):
    simulation = simulate(remembering)
    simulation.step(2)
    checkpoint = simulation.context.createCheckpoint()
    ours = checkpoint.index(b"diffmd04")
    # Time, step count, box, positions, velocities; before them OpenMM's own header,
    # after them its random numbers: more once another integrator has drawn some.
    numbers = 8 * (1 + 1 + 9 + 2 * 27)
    places = [*range(55, 50 + numbers, 5), *range(ours, ours + 100, 3)]
    places += range(ours + 100, len(checkpoint), 301)
    for place in places:
        damaged = bytearray(checkpoint)
        damaged[place] ^= 0x10
        with pytest.raises(openmm.OpenMMException, match="undamaged checkpoint"):
            simulation.context.loadCheckpoint(bytes(damaged))
    simulation.context.loadCheckpoint(checkpoint)
    simulation.step(2)
    untouched = simulate(remembering)
    untouched.step(4)
    assert_same_bits(read_frame(simulation.context), read_frame(untouched.context))


def test_a_state_restarts_in_another_simulation(simulate, thermostatted):
    simulation = simulate(thermostatted)
    simulation.step(4)
    state = simulation.context.getState(
        positions=True, velocities=True, parameters=True, integratorParameters=True
    )
    other = simulate(thermostatted)
    other.context.setState(openmm.XmlSerializer.clone(state))
    assert_same_bits(read_frame(other.context), read_frame(simulation.context))
    assert other.context.getTime() == simulation.context.getTime()

"""A lag that cannot be drawn is run with the reference force, and counted."""

import gc
import itertools
import threading
import weakref

import numpy as np
import openmm
import pytest
import torch
from openmm import unit

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.reference.dynamics import baoab_integrator
from openmm_diffmd.testing import (
    FaultyModel,
    HarmonicModel,
    read_frame,
    save_stub_model,
)

STEP_SIZE = 1e-4
MAX_RESAMPLES = 2
# Velocity Verlet: (omega dt)^2/24 = 2e-7 of phase a step, 1000 steps; state of 0.05 nm
# and 3 nm/ps. The model's own rounding to float32 is less.
POSITION_TOLERANCE = 2e-6
VELOCITY_TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def hopeless(tmp_path_factory):
    """Every draw is spoilt."""
    path = tmp_path_factory.mktemp("rescue") / "hopeless.pt"
    stub = FaultyModel("heat", below_level=2.0)
    return load_model(save_stub_model(path, stub, max_resamples=MAX_RESAMPLES))


def harmonic_system(topology):
    """
    The stub's own force, m_i omega^2 (x_c - x_i), as springs between all pairs.

    sum_i m_i |x_i - x_c|^2 = sum_(i<j) m_i m_j/M |x_i - x_j|^2.
    """
    system = create_system(topology)
    force = openmm.HarmonicBondForce()
    masses = [system.getParticleMass(i)._value for i in range(9)]
    omega_squared = HarmonicModel().angular_frequency ** 2
    for i, j in itertools.combinations(range(9), 2):
        force.addBond(i, j, 0, omega_squared * masses[i] * masses[j] / sum(masses))
    system.addForce(force)
    return system


def make_rescue(model, integrator=None):
    integrator = integrator or openmm.VerletIntegrator(STEP_SIZE)
    return openmm.Context(
        harmonic_system(model.example()[0]),
        integrator,
        openmm.Platform.getPlatformByName("Reference"),
    )


@pytest.mark.parametrize(
    "integrator",
    [
        lambda: openmm.VerletIntegrator(STEP_SIZE),
        lambda: baoab_integrator(300.0, 0.0, STEP_SIZE, 1),
    ],
    ids=["leapfrog", "velocity_verlet"],
)
def test_rescued_lags_are_the_reference_dynamics(simulate, hopeless, integrator):
    simulation = simulate(hopeless, friction=0.0)
    simulation.integrator.setRescueContext(make_rescue(hopeless, integrator()))
    masses = describe_molecules(simulation.topology, hopeless.metadata).masses
    weights = masses / masses.sum()
    start = np.array(read_frame(simulation.context))
    simulation.step(10)
    found = np.array(read_frame(simulation.context))
    transition, _ = HarmonicModel(lag_time=0.1).exact_transition()
    centre = (weights @ start)[:, None]
    expected = np.einsum("pq,qac->pac", transition, start - centre) + centre
    expected[0] += 0.1 * centre[1]
    np.testing.assert_allclose(found[0], expected[0], atol=POSITION_TOLERANCE)
    np.testing.assert_allclose(found[1], expected[1], atol=VELOCITY_TOLERANCE)
    assert simulation.integrator.getNumRescues() == 10
    assert simulation.integrator.getNumRescues(0) == 10
    assert simulation.integrator.getNumResamples() == 10 * MAX_RESAMPLES
    assert simulation.currentStep == 10


def test_a_rescue_is_not_replaced_while_it_may_run(simulate, hopeless):
    said = []

    def compute(state):
        with pytest.raises(openmm.OpenMMException) as error:
            simulation.integrator.setRescueContext(None)
        said.append(str(error.value))
        return 0.0, np.zeros((9, 3))

    system = harmonic_system(hopeless.example()[0])
    system.addForce(openmm.PythonForce(compute))
    rescue = openmm.Context(
        system,
        openmm.VerletIntegrator(STEP_SIZE),
        openmm.Platform.getPlatformByName("Reference"),
    )
    simulation = simulate(hopeless)
    simulation.integrator.setRescueContext(rescue)
    simulation.step(1)
    assert "rescue Context set while step() has not returned" in said[0]
    simulation.integrator.setRescueContext(None)


def test_counts_and_refusals_can_be_asked_for_during_a_step(simulate, hopeless):
    simulation = simulate(hopeless)
    integrator = simulation.integrator
    rescue = make_rescue(hopeless, openmm.VerletIntegrator(STEP_SIZE))
    integrator.setRescueContext(rescue)
    thread = threading.Thread(target=integrator.step, args=(150,))
    thread.start()
    asked = 0
    while thread.is_alive():
        refusal = integrator.getLastRefusalDetails()
        if refusal is not None:
            assert refusal.atoms == tuple(range(9))
            assert 0 <= refusal.lag < 150
            asked += 1
        assert 0 <= integrator.getNumRescues() <= 150
    thread.join()
    assert asked > 0
    assert integrator.getNumRescues() == 150


def test_a_rescue_makes_as_many_steps_as_a_lag_has(simulate, hopeless):
    # A lag over a 55th of it is 54.99999999999999.
    step_size = 0.01 / 55
    assert 0.01 / step_size < 55
    frames = []
    for size in (step_size, 0.01 / 50):
        simulation = simulate(hopeless, friction=0.0)
        rescue = make_rescue(hopeless, openmm.VerletIntegrator(size))
        simulation.integrator.setRescueContext(rescue)
        simulation.step(1)
        time = rescue.getTime().value_in_unit(unit.picosecond)
        assert time == pytest.approx(0.01)
        frames.append(read_frame(simulation.context))
    np.testing.assert_allclose(frames[0][0], frames[1][0], atol=POSITION_TOLERANCE)


def test_a_rescue_knows_its_integrators_force_groups_alone(simulate, hopeless):
    frames = []
    for with_another in (False, True):
        system = harmonic_system(hopeless.example()[0])
        if with_another:
            force = openmm.CustomExternalForce("1e4*x")
            force.addParticle(0)
            force.setForceGroup(3)
            system.addForce(force)
        integrator = openmm.VerletIntegrator(STEP_SIZE)
        integrator.setIntegrationForceGroups({0})
        rescue = openmm.Context(
            system, integrator, openmm.Platform.getPlatformByName("Reference")
        )
        simulation = simulate(hopeless, friction=0.0)
        simulation.integrator.setRescueContext(rescue)
        simulation.step(2)
        frames.append(read_frame(simulation.context))
    np.testing.assert_array_equal(frames[1], frames[0])


def test_the_reference_force_may_be_a_gradient_of_torch(simulate, hopeless):
    topology, _ = hopeless.example()
    system = create_system(topology)
    masses = torch.tensor([system.getParticleMass(i)._value for i in range(9)]).double()
    stiffness = masses[:, None] * HarmonicModel().angular_frequency ** 2

    def compute(state):
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        x = torch.tensor(positions, requires_grad=True)
        energy = 0.5 * (stiffness * (x - masses @ x / masses.sum()) ** 2).sum()
        energy.backward()
        return energy.item(), -x.grad.numpy()

    system.addForce(openmm.PythonForce(compute))
    gradients = openmm.Context(
        system,
        openmm.VerletIntegrator(STEP_SIZE),
        openmm.Platform.getPlatformByName("Reference"),
    )
    frames = []
    for rescue in (make_rescue(hopeless), gradients):
        simulation = simulate(hopeless, friction=0.0)
        simulation.integrator.setRescueContext(rescue)
        simulation.step(2)
        frames.append(read_frame(simulation.context))
    for found, expected in zip(*frames, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-7)


def test_rescued_lags_are_in_the_bath(simulate, flow, hopeless):
    simulation = simulate(hopeless, friction=5.0)
    simulation.integrator.setRescueContext(make_rescue(hopeless))
    reference = Propagator(
        flow,
        describe_molecules(simulation.topology, flow.metadata),
        resolve_settings(flow.metadata, friction=5.0),
        seed=5,
    )
    frame = read_frame(simulation.context)
    simulation.step(4)
    for _ in range(4):
        # The bath's numbers are those of the last draw.
        for _ in range(MAX_RESAMPLES):
            reference.draw_noise(0)
        frame = reference.step(*frame)
    found = read_frame(simulation.context)
    np.testing.assert_allclose(found[0], frame[0], atol=POSITION_TOLERANCE)
    np.testing.assert_allclose(found[1], frame[1], atol=VELOCITY_TOLERANCE)


def test_only_the_failing_molecule_is_rescued(tmp_path):
    # Spoils molecules with an atom beyond 1 nm: only the second replica has one.
    stub = FaultyModel("nan", below_level=2.0, min_displacement=1.0)
    model = load_model(save_stub_model(tmp_path / "model.pt", stub))
    topology, positions = model.example()
    replicas = replicate(topology, create_system(topology), positions, 3)
    integrator = DiffusionIntegrator(
        model, replicas.topology, molecules=replicas.molecules
    )
    integrator.setRandomNumberSeed(4)
    integrator.setRescueContext(make_rescue(model))
    context = openmm.Context(
        replicas.system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    start = np.array(replicas.positions._value)
    start[9 + 4] += 0.75
    context.setPositions(start)
    context.setVelocitiesToTemperature(0)
    integrator.step(1)
    assert [integrator.getNumRescues(i) for i in range(3)] == [0, 1, 0]
    checkpoint = context.createCheckpoint()
    context.setPositions(start)
    integrator.step(1)
    assert integrator.getNumRescues() == 2
    context.loadCheckpoint(checkpoint)
    assert [integrator.getNumRescues(i) for i in range(3)] == [0, 1, 0]


def test_without_a_rescue_the_lag_is_given_up(simulate, hopeless):
    simulation = simulate(hopeless)
    simulation.integrator.setRescueContext(make_rescue(hopeless))
    simulation.step(1)
    simulation.integrator.setRescueContext(None)
    with pytest.raises(openmm.OpenMMException, match="or set a rescue Context"):
        simulation.step(1)


def test_learned_bath_takes_a_langevin_rescue(simulate, tmp_path):
    stub = FaultyModel("nan", below_level=2.0, friction=20.0)
    model = load_model(save_stub_model(tmp_path / "model.pt", stub, max_resamples=1))
    simulation = simulate(model)
    langevin = openmm.LangevinMiddleIntegrator(300.0, 20.0, 0.0005)
    simulation.integrator.setRescueContext(make_rescue(model, langevin))
    simulation.step(3)
    assert simulation.integrator.getNumRescues() == 3
    for wrong in (
        openmm.LangevinMiddleIntegrator(310.0, 20.0, 0.0005),
        openmm.VerletIntegrator(0.0005),
    ):
        with pytest.raises(openmm.OpenMMException, match=r"300 K and 20 1/ps"):
            simulation.integrator.setRescueContext(make_rescue(model, wrong))


def test_a_rescue_that_explodes_is_named(simulate, hopeless):
    simulation = simulate(hopeless)
    before = read_frame(simulation.context)
    topology = simulation.topology
    system = create_system(topology)
    force = openmm.CustomExternalForce("1e300*x^9")
    for particle in range(9):
        force.addParticle(particle)
    system.addForce(force)
    explosive = openmm.Context(
        system,
        openmm.VerletIntegrator(0.01),
        openmm.Platform.getPlatformByName("Reference"),
    )
    simulation.integrator.setRescueContext(explosive)
    with pytest.raises(
        openmm.OpenMMException, match=r"lag 0, molecule 0: .*after the rescue; use a sm"
    ):
        simulation.step(1)
    np.testing.assert_array_equal(read_frame(simulation.context), before)


@pytest.mark.parametrize(
    ("change", "integrator", "message"),
    [
        (
            lambda s: s.addParticle(1.0),
            None,
            r"of 10 particles, expected 9 as in molecule 0; give a Context of one",
        ),
        (lambda s: s.setParticleMass(3, 2.0), None, r"mass 2 Da of particle 3, exp"),
        (lambda s: s.addConstraint(0, 1, 0.1), None, r"1 constraints, expected none"),
        (
            lambda s: s.addForce(openmm.CMMotionRemover()),
            None,
            r"with a CMMotionRemover, expected forces that do not change the state",
        ),
        (
            lambda s: s.addForce(openmm.AndersenThermostat(300, 1)),
            None,
            r"with a AndersenThermostat, expected",
        ),
        (
            None,
            openmm.VerletIntegrator(0.0003),
            r"step size 0\.0003 ps, expected one that divides the lag time 0\.01",
        ),
        (
            None,
            openmm.LangevinMiddleIntegrator(300, 1, 0.001),
            r"expected no bath, since this integrator adds its own; use a Verlet",
        ),
        (None, openmm.BrownianIntegrator(300, 1, 0.001), r"of an unknown time, exp"),
    ],
    ids=[
        "particles",
        "mass",
        "constraint",
        "centre_of_mass",
        "thermostat",
        "step",
        "bath",
        "integrator",
    ],
)
def test_contexts_that_do_not_fit_are_refused(flow, change, integrator, message):
    topology, _ = flow.example()
    system = create_system(topology)
    if change is not None:
        change(system)
    integrator = integrator or openmm.VerletIntegrator(0.001 * unit.picosecond)
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    learned = DiffusionIntegrator(flow, topology)
    with pytest.raises(openmm.OpenMMException, match=f"found a rescue .*{message}"):
        learned.setRescueContext(context)


def test_rounded_masses_of_a_force_field_are_those_of_the_elements(flow):
    topology, _ = flow.example()
    system = create_system(topology)
    for index, atom in enumerate(topology.atoms()):
        rounded = {"C": 12.01, "H": 1.008, "O": 16.00}[atom.element.symbol]
        system.setParticleMass(index, rounded)
    context = openmm.Context(
        system,
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )
    DiffusionIntegrator(flow, topology).setRescueContext(context)


def test_a_step_size_that_was_changed_since_is_refused(simulate, hopeless):
    simulation = simulate(hopeless, friction=0.0)
    rescue = make_rescue(hopeless)
    simulation.integrator.setRescueContext(rescue)
    simulation.step(1)
    rescue.getIntegrator().setStepSize(0.0007)
    with pytest.raises(openmm.OpenMMException, match=r"step size 0\.0007 ps, expected"):
        simulation.step(1)
    rescue.getIntegrator().setStepSize(STEP_SIZE)
    simulation.step(1)
    assert simulation.integrator.getNumRescues() == 2


def test_its_context_lives_as_long_as_a_compound_integrator(hopeless):
    topology, positions = hopeless.example()
    rescue = make_rescue(hopeless)
    rescue_alive = weakref.ref(rescue)
    learned = DiffusionIntegrator(hopeless, topology)
    learned.setRescueContext(rescue)
    compound = openmm.CompoundIntegrator()
    compound.addIntegrator(learned)
    # The compound integrator owns the C++ object, and nobody the Python ones.
    del learned, rescue
    gc.collect()
    assert rescue_alive() is not None
    context = openmm.Context(
        create_system(topology), compound, openmm.Platform.getPlatform("Reference")
    )
    context.setPositions(positions)
    compound.step(1)
    del context, compound
    gc.collect()
    assert rescue_alive() is None


def test_its_own_context_is_refused(simulate, flow):
    simulation = simulate(flow)
    with pytest.raises(openmm.OpenMMException, match="of this integrator itself"):
        simulation.integrator.setRescueContext(simulation.context)

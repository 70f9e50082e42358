"""Forces of the System act on the learned dynamics, as impulses."""

import numpy as np
import openmm
import pytest
from openmm import app, unit
from scipy import linalg

from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.testing import HarmonicModel, read_frame
from openmm_diffmd.units import BOLTZMANN

# Rounding of residuals to float32, over some lags; as in test_reference_step.py.
POSITION_TOLERANCE = 1e-7
VELOCITY_TOLERANCE = 1e-5
STIFFNESS = 200.0
"""kJ/mol/nm^2: half the stiffness that binds a hydrogen to the centre of mass."""
SQUARED_FREQUENCY = 100.0
"""1/ps^2 of springs as stiff as their atoms are heavy: a quarter of the model's."""
LAG_TIME = 0.01
# Largest of some tens of z-scores; seeds are fixed.
MAX_Z = 4.5


def make_tethers(stiffness=(STIFFNESS,) * 9, group=0):
    """Springs from each atom to the origin, scaled by a Context parameter."""
    force = openmm.CustomExternalForce("0.5*scale*k*(x^2+y^2+z^2)")
    force.addGlobalParameter("scale", 1.0)
    force.addPerParticleParameter("k")
    force.setForceGroup(group)
    for particle, k in enumerate(stiffness):
        force.addParticle(particle, [k])
    return force


def pull(positions):
    """What `make_tethers` does, for the plain-Python step."""
    return -STIFFNESS * positions


class Counter:
    """A force that is 0 and counts its evaluations."""

    def __init__(self, group=0):
        self.count = 0
        self.force = openmm.PythonForce(self.compute)
        self.force.setForceGroup(group)

    def compute(self, state):
        self.count += 1
        return 0.0, np.zeros((9, 3))


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


def test_impulses_equal_the_reference(flow, platform):
    context, integrator = make_context(flow, [make_tethers()], platform=platform)
    frame = read_frame(context)
    reference = make_reference(flow, pull)
    for _ in range(5):
        frame = reference.step(*frame)
    integrator.step(5)
    assert_equal_frames(read_frame(context), frame)


def test_impulses_act_once_where_draws_are_refused(faulty):
    context, integrator = make_context(faulty, [make_tethers()])
    frame = read_frame(context)
    reference = make_reference(faulty, pull)
    for _ in range(3):
        frame = reference.step(*frame)
    integrator.step(3)
    assert integrator.getNumResamples() == 3
    assert_equal_frames(read_frame(context), frame)


def test_bond_force_equals_the_reference(flow):
    force = openmm.CustomBondForce("0.5*k*(r-r0)^2")
    force.addGlobalParameter("k", 3000.0)
    force.addGlobalParameter("r0", 0.1)
    force.addBond(1, 2)

    def pull_bond(positions):
        forces = np.zeros_like(positions)
        difference = positions[2] - positions[1]
        length = np.linalg.norm(difference)
        forces[1] = 3000.0 * (length - 0.1) * difference / length
        forces[2] = -forces[1]
        return forces

    context, integrator = make_context(flow, [force])
    frame = read_frame(context)
    reference = make_reference(flow, pull_bond)
    for _ in range(5):
        frame = reference.step(*frame)
    integrator.step(5)
    assert_equal_frames(read_frame(context), frame)


def kick_and_flow():
    """
    One lag of springs of `SQUARED_FREQUENCY` about the model, (position, velocity).

    The springs are as stiff as the atoms are heavy, so that each atom's motion about
    the centre of mass is one matrix, B M B: impulse, exact flow, impulse.
    """
    kick = np.array([[1.0, 0.0], [-0.5 * LAG_TIME * SQUARED_FREQUENCY, 1.0]])
    flow, _ = HarmonicModel().exact_transition()
    return kick, flow


def test_impulses_on_the_exact_flow_are_a_matrix_power(flow):
    masses = describe_molecules(flow.example()[0], flow.metadata).masses
    context, integrator = make_context(
        flow, [make_tethers(SQUARED_FREQUENCY * masses)], friction=0.0
    )
    weights = masses / masses.sum()
    start = np.array(read_frame(context))
    integrator.step(200)
    found = np.array(read_frame(context))
    kick, transition = kick_and_flow()
    free = np.array([[1.0, LAG_TIME], [0.0, 1.0]])
    for matrix, part in (
        (kick @ transition @ kick, lambda z: z - (weights @ z)[:, None]),
        (kick @ free @ kick, lambda z: (weights @ z)[:, None]),
    ):
        power = np.linalg.matrix_power(matrix, 200)
        expected = np.einsum("pq,qac->pac", power, part(start))
        # 200 lags, each rounded to float32; positions 0.1 nm, velocities some nm/ps.
        np.testing.assert_allclose(part(found)[0], expected[0], atol=2e-6)
        np.testing.assert_allclose(part(found)[1], expected[1], atol=5e-5)


@pytest.mark.statistical
def test_bias_in_a_bath_has_the_variance_of_its_splitting(flow):
    topology, positions = flow.example()
    replicas = replicate(topology, create_system(topology), positions, 64)
    masses = describe_molecules(topology, flow.metadata).masses
    force = openmm.CustomExternalForce("0.5*k*(x^2+y^2+z^2)")
    force.addPerParticleParameter("k")
    for particle in range(64 * 9):
        force.addParticle(particle, [SQUARED_FREQUENCY * masses[particle % 9]])
    replicas.system.addForce(force)
    friction = 10.0
    integrator = DiffusionIntegrator(
        flow, replicas.topology, molecules=replicas.molecules, friction=friction
    )
    integrator.setRandomNumberSeed(3)
    simulation = app.Simulation(
        replicas.topology,
        replicas.system,
        integrator,
        openmm.Platform.getPlatformByName("Reference"),
    )
    simulation.context.setPositions(replicas.positions)
    simulation.context.setVelocitiesToTemperature(flow.temperature, 2)
    simulation.step(100)
    weights = masses / masses.sum()
    samples = []
    for _ in range(200):
        simulation.step(2)
        state = np.array(read_frame(simulation.context)).reshape(2, 64, 9, 3)
        samples.append(state - np.einsum("a,prac->prc", weights, state)[:, :, None])
    measured = np.einsum("sprac,sqrac->rpqa", samples, samples) / (3 * len(samples))
    # B O M O B, z = (position, velocity) of unit mass; O has variance kT (1 - c^2).
    kick, transition = kick_and_flow()
    damping = np.exp(-0.5 * friction * LAG_TIME)
    bath = np.diag([1.0, damping])
    noise = np.diag([0.0, BOLTZMANN * 300.0 * (1.0 - damping**2)])
    after = kick @ bath @ transition
    added = after @ noise @ after.T + kick @ noise @ kick.T
    covariance = linalg.solve_discrete_lyapunov(after @ bath @ kick, added)
    expected = covariance[:, :, None] * ((1 - weights) / masses)
    error = measured.std(0, ddof=1) / np.sqrt(len(measured))
    z = (measured.mean(0) - expected) / error
    assert np.abs(z).max() < MAX_Z
    # What the docs say: (tau/2)^2 k/m to twice that in position, none in velocity.
    omega_squared = HarmonicModel().angular_frequency ** 2 + SQUARED_FREQUENCY
    excess = np.diag(covariance) / (BOLTZMANN * 300.0) * [omega_squared, 1.0] - 1.0
    strength = (0.5 * LAG_TIME) ** 2 * SQUARED_FREQUENCY
    assert strength < excess[0] < 2 * strength
    assert abs(excess[1]) < 1e-5


def test_no_force_is_evaluated_where_none_acts(flow):
    counter = Counter(group=3)
    context, integrator = make_context(flow, [counter.force], groups={0, 1})
    integrator.step(5)
    assert counter.count == 0
    context.getState(energy=True)
    assert counter.count == 1


def test_one_evaluation_a_lag(flow):
    counter = Counter()
    context, integrator = make_context(flow, [counter.force, make_tethers()])
    integrator.step(5)
    assert counter.count == 6
    integrator.step(4)
    assert counter.count == 10
    context.setParameter("scale", 2.0)
    integrator.step(1)
    assert counter.count == 12
    context.setPositions(read_frame(context)[0])
    integrator.step(1)
    assert counter.count == 14


def test_parameters_take_effect_at_once(flow):
    context, integrator = make_context(flow, [make_tethers()])
    frame = read_frame(context)
    reference = make_reference(flow, lambda x: scale * pull(x))
    for scale in (1.0, 3.0):
        context.setParameter("scale", scale)
        integrator.step(2)
        for _ in range(2):
            frame = reference.step(*frame)
    assert_equal_frames(read_frame(context), frame)


def test_parameters_of_particles_take_effect_at_once(flow):
    force = make_tethers()
    context, integrator = make_context(flow, [force])
    integrator.step(2)
    frame = read_frame(context)
    reference = make_reference(flow, lambda x: 3.0 * pull(x))
    for _ in range(2):
        reference.draw_noise(0)
    for particle in range(9):
        force.setParticleParameters(particle, particle, [3.0 * STIFFNESS])
    force.updateParametersInContext(context)
    integrator.step(2)
    for _ in range(2):
        frame = reference.step(*frame)
    assert_equal_frames(read_frame(context), frame)


def test_another_periodic_box_takes_effect_at_once(flow):
    force = openmm.CustomExternalForce("100*periodicdistance(x, y, z, 0, 0, 0)^2")
    force.addParticle(0)
    frames = []
    for touch_positions in (False, True):
        context, integrator = make_context(flow, [force.__copy__()])
        context.setPositions(read_frame(context)[0] + 0.9)
        integrator.step(2)
        # The atom's nearest image is now another one.
        context.setPeriodicBoxVectors(*np.eye(3))
        if touch_positions:
            context.setPositions(read_frame(context)[0])
        integrator.step(1)
        frames.append(read_frame(context))
    np.testing.assert_array_equal(*frames)


def test_forces_out_of_its_groups_are_reported_not_applied(simulate, flow):
    context, integrator = make_context(flow, [make_tethers(group=3)], groups={0, 1})
    integrator.step(3)
    without = simulate(flow)
    without.step(3)
    found, expected = read_frame(context), read_frame(without.context)
    np.testing.assert_array_equal(found, expected)
    assert context.getState(energy=True).getPotentialEnergy()._value > 0
    integrator.setIntegrationForceGroups({3})
    reference = make_reference(flow, pull)
    for _ in range(3):
        reference.draw_noise(0)
    integrator.step(1)
    assert_equal_frames(read_frame(context), reference.step(*found))


def test_lags_of_another_integrator_renew_the_force(flow):
    topology, positions = flow.example()
    system = create_system(topology)
    counter = Counter()
    system.addForce(make_tethers())
    system.addForce(counter.force)
    compound = openmm.CompoundIntegrator()
    learned = DiffusionIntegrator(flow, topology)
    learned.setRandomNumberSeed(5)
    compound.addIntegrator(learned)
    compound.addIntegrator(openmm.VerletIntegrator(0.0005))
    context = openmm.Context(
        system, compound, openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions(positions)
    context.setVelocitiesToTemperature(flow.temperature, 1)
    compound.step(1)
    compound.setCurrentIntegrator(1)
    compound.step(4)
    frame = read_frame(context)
    compound.setCurrentIntegrator(0)
    counter.count = 0
    compound.step(1)
    assert counter.count == 2
    reference = make_reference(flow, pull)
    reference.draw_noise(0)
    assert_equal_frames(read_frame(context), reference.step(*frame))


def test_checkpoint_restarts_bit_for_bit(flow, platform):
    forces = [make_tethers(), openmm.HarmonicBondForce()]
    forces[1].addBond(0, 1, 0.15, 100.0)
    context, integrator = make_context(flow, forces, platform=platform)
    integrator.step(3)
    checkpoint = context.createCheckpoint()
    integrator.step(3)
    expected = read_frame(context)
    context.loadCheckpoint(checkpoint)
    integrator.step(3)
    np.testing.assert_array_equal(read_frame(context), expected)


def test_forces_are_evaluated_at_the_time_of_their_positions(flow):
    seen = []

    def compute(state):
        positions = state.getPositions(asNumpy=True)
        seen.append(
            (state.getTime()._value, state.getStepCount(), positions[0, 0]._value)
        )
        return 0.0, np.zeros((9, 3))

    context, integrator = make_context(flow, [openmm.PythonForce(compute)])
    expected = [(0.0, 0, read_frame(context)[0][0, 0])]
    for step in (1, 2, 3):
        integrator.step(1)
        position = read_frame(context)[0][0, 0]
        expected.append((step * LAG_TIME, step, position))
    np.testing.assert_allclose(seen, expected, rtol=1e-6)


def test_a_force_is_evaluated_anew_where_the_time_was_set(flow):
    def compute(state):
        late = state.getTime().value_in_unit(unit.picosecond) > 1.0
        return 0.0, np.full((9, 3), 1.0 if late else 0.0)

    frames = []
    for touch_box in (False, True):
        context, integrator = make_context(flow, [openmm.PythonForce(compute)])
        integrator.step(1)
        context.setTime(5.0)
        if touch_box:
            # Another box has always been a reason to evaluate.
            context.setPeriodicBoxVectors(*(9.0 * np.eye(3)))
        integrator.step(1)
        frames.append(read_frame(context))
    np.testing.assert_array_equal(frames[0], frames[1])


def test_an_energy_that_is_not_finite_is_refused(flow, platform):
    force = openmm.PythonForce(lambda state: (np.nan, np.zeros((9, 3))))
    _, integrator = make_context(flow, [force], platform=platform)
    with pytest.raises(openmm.OpenMMException, match="energy is not finite"):
        integrator.step(1)


def test_a_force_that_is_not_finite_is_named(flow, platform):
    force = openmm.CustomExternalForce("sqrt(x-100)")
    force.addParticle(4)
    context, integrator = make_context(flow, [force], platform=platform)
    before = read_frame(context)
    with pytest.raises(
        openmm.OpenMMException,
        match=r"force on particle 4 that is not finite or beyond",
    ):
        integrator.step(1)
    np.testing.assert_array_equal(read_frame(context), before)


def test_potential_energy_is_that_of_the_bias(flow):
    context, integrator = make_context(flow, [make_tethers()])
    integrator.step(2)
    positions, _ = read_frame(context)
    energy = context.getState(energy=True).getPotentialEnergy()
    assert energy.value_in_unit(unit.kilojoule_per_mole) == pytest.approx(
        0.5 * STIFFNESS * (positions**2).sum()
    )


def test_a_force_that_fails_at_the_end_of_a_lag_is_evaluated_anew(flow, platform):
    free, integrator = make_context(flow, [], friction=0.0)
    path = [read_frame(free)[0][:, 0]]
    for _ in range(2):
        integrator.step(1)
        path.append(read_frame(free)[0][:, 0])
    # An atom that goes one way in both lags.
    moved = np.diff(path, axis=0)
    atom = int(np.argmax(moved[0] * moved[1]))
    side = np.sign(moved[1, atom])
    # Defined until it has come half the second lag's way, and too weak to change it.
    force = openmm.CustomExternalForce("1e-6*sqrt(side*(limit-x))")
    force.addGlobalParameter("side", side)
    force.addGlobalParameter("limit", 0.5 * (path[1] + path[2])[atom])
    force.addParticle(atom)
    context, integrator = make_context(flow, [force], friction=0.0, platform=platform)
    integrator.step(1)
    for _ in range(2):
        with pytest.raises(openmm.OpenMMException, match=f"force on particle {atom} "):
            integrator.step(1)
    # The second lag was taken, but for its last impulse; a third was not begun.
    assert context.getStepCount() == 2
    assert context.getTime()._value == pytest.approx(2 * LAG_TIME)
    found = read_frame(context)[0]
    assert found[atom, 0] == pytest.approx(path[2][atom], abs=1e-6)
    context.setParameter("limit", found[atom, 0] + side)
    integrator.step(1)
    assert np.isfinite(read_frame(context)).all()

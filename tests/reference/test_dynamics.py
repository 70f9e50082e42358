import os
import signal

import numpy as np
import openmm
import pytest
from openmm import unit

from openmm_diffmd.reference.dynamics import (
    DynamicsError,
    VelocityBath,
    baoab_integrator,
    run_segment,
)

MASS, SPRING = 2.0, 3.0e3
FREQUENCY = np.sqrt(SPRING / MASS)


def context_of(integrator, expression=f"0.5*{SPRING}*(x^2+y^2+z^2)"):
    system = openmm.System()
    system.addParticle(MASS)
    force = openmm.CustomExternalForce(expression)
    force.addParticle(0, [])
    system.addForce(force)
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, platform)
    context.setPositions([[0.02, 0.01, -0.03]])
    context.setVelocities([[0.5, -0.4, 0.1]])
    return context


def state_of(context):
    state = context.getState(positions=True, velocities=True)
    return (
        state.getPositions(asNumpy=True).value_in_unit(unit.nanometer),
        state.getVelocities(asNumpy=True).value_in_unit(
            unit.nanometer / unit.picosecond
        ),
    )


def oscillator(position, velocity, time):
    cosine, sine = np.cos(FREQUENCY * time), np.sin(FREQUENCY * time)
    return (
        position * cosine + velocity * sine / FREQUENCY,
        velocity * cosine - position * sine * FREQUENCY,
    )


def errors_at(step_size, time=0.1):
    """Errors of position and velocity, each in units of the oscillator's amplitude."""
    integrator = baoab_integrator(300.0, 0.0, step_size, seed=1)
    context = context_of(integrator)
    expected = oscillator(*state_of(context), time)
    integrator.step(round(time / step_size))
    found = state_of(context)
    return (
        np.abs(found[0] - expected[0]).max() / 0.03,
        np.abs(found[1] - expected[1]).max() / (0.03 * FREQUENCY),
    )


def test_velocities_are_full_step():
    # Half-step velocities would be off by h/2 * acceleration: first order.
    coarse, fine = errors_at(0.002), errors_at(0.001)
    assert coarse[0] / fine[0] == pytest.approx(4.0, rel=0.1)
    assert coarse[1] / fine[1] == pytest.approx(4.0, rel=0.1)


def test_half_step_velocities_would_be_first_order():
    # What the test above guards against, seen on the integrator that has it.
    def error(step_size):
        integrator = openmm.LangevinMiddleIntegrator(300.0, 0.0, step_size)
        context = context_of(integrator)
        expected = oscillator(*state_of(context), 0.1)
        integrator.step(round(0.1 / step_size))
        return np.abs(state_of(context)[1] - expected[1]).max()

    assert error(0.002) / error(0.001) < 3.0


def test_without_friction_energy_is_conserved():
    integrator = baoab_integrator(300.0, 0.0, 0.0005, seed=1)
    context = context_of(integrator)
    frames = list(run_segment(context, integrator, 2000, 10))
    total = [
        f.potential_energy + 0.5 * MASS * float((f.velocities**2).sum()) for f in frames
    ]
    # Verlet keeps a shadow energy: the true one oscillates by (h w)^2 / 4 of it.
    bound = 0.5 * (0.0005 * FREQUENCY) ** 2 * np.mean(total)
    assert np.ptp(total) < bound
    half = len(total) // 2
    assert abs(np.mean(total[:half]) - np.mean(total[half:])) < 0.1 * bound


def test_a_bath_at_absolute_zero_slows_by_its_friction():
    # Without noise and force BAOAB's velocity decays by exp(-friction time) exactly.
    friction, step_size, steps = 3.0, 0.0005, 400
    integrator = baoab_integrator(0.0, friction, step_size, seed=1)
    context = context_of(integrator, "0*x")
    start = state_of(context)[1]
    integrator.step(steps)
    expected = start * np.exp(-friction * steps * step_size)
    np.testing.assert_allclose(state_of(context)[1], expected, rtol=1e-9)
    bath = VelocityBath(0.0, friction, 0.2, np.array([MASS]), seed=1)
    np.testing.assert_allclose(bath.refresh(start), start * np.exp(-0.2 * friction))


def test_without_friction_time_is_reversible():
    integrator = baoab_integrator(300.0, 0.0, 0.001, seed=1)
    context = context_of(integrator, "100*x^4 + 1000*y^2 + 500*z^2 + 200*x*y")
    before = state_of(context)
    integrator.step(500)
    context.setVelocities(-state_of(context)[1])
    integrator.step(500)
    after = state_of(context)
    np.testing.assert_allclose(after[0], before[0], atol=1e-11)
    np.testing.assert_allclose(after[1], -before[1], atol=1e-9)


def test_frames_hold_the_forces_and_energies_of_their_positions():
    integrator = baoab_integrator(300.0, 1.0, 0.0005, seed=1)
    context = context_of(integrator)
    frames = list(run_segment(context, integrator, 3, 4))
    assert [f.time for f in frames] == pytest.approx([0.002, 0.004, 0.006])
    for frame in frames:
        np.testing.assert_allclose(frame.forces, -SPRING * frame.positions, rtol=1e-12)
        assert frame.potential_energy == pytest.approx(
            0.5 * SPRING * (frame.positions**2).sum()
        )


def test_seed_decides_the_run():
    def final(seed):
        integrator = baoab_integrator(300.0, 5.0, 0.001, seed)
        context = context_of(integrator)
        integrator.step(10)
        return state_of(context)[0]

    np.testing.assert_array_equal(final(1), final(1))
    assert not np.array_equal(final(1), final(2))


def python_context(integrator, compute):
    system = openmm.System()
    system.addParticle(MASS)
    system.addForce(openmm.PythonForce(compute))
    context = openmm.Context(
        system, integrator, openmm.Platform.getPlatformByName("Reference")
    )
    context.setPositions([[0.02, 0.01, -0.03]])
    return context


@pytest.mark.parametrize("last", [9, 10])
def test_a_frame_with_a_force_that_is_no_number_is_not_kept(last):
    calls = []

    def compute(state):
        calls.append(None)
        return 0.0, np.full((1, 3), np.nan if len(calls) > last else 1.0)

    integrator = baoab_integrator(300.0, 0.0, 0.001, seed=1)
    context = python_context(integrator, compute)
    frames = []
    with pytest.raises(DynamicsError, match=r"after frame \d+, .* not finite; use"):
        frames.extend(run_segment(context, integrator, 100, 2))
    assert 3 <= len(frames) <= 5
    for frame in frames:
        for values in (frame.positions, frame.velocities, frame.forces):
            assert np.isfinite(values).all()


def test_an_interrupt_within_a_force_in_python_is_one():
    def compute(state):
        os.kill(os.getpid(), signal.SIGINT)
        return 0.0, np.zeros((1, 3))

    integrator = baoab_integrator(300.0, 0.0, 0.001, seed=1)
    context = python_context(integrator, compute)
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            list(run_segment(context, integrator, 2, 3))
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    finally:
        signal.signal(signal.SIGINT, before)


def test_explosion_is_told():
    integrator = baoab_integrator(300.0, 0.0, 0.5, seed=1)
    context = context_of(integrator)
    with pytest.raises(DynamicsError, match=r"after frame \d+, .* use a smaller step"):
        list(run_segment(context, integrator, 100, 10))

"""Velocities of files from elsewhere: their units, and whose they are."""

from dataclasses import replace

import numpy as np
import pytest

from openmm_diffmd.bundled import PRETRAINED
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.data.velocities import check_velocities
from openmm_diffmd.units import BOLTZMANN

PERIOD = 0.011  # ps, of a C-H stretch


def oscillating(interval: float, n_frames: int = 2000) -> Trajectory:
    """Two atoms that vibrate against each other, one segment after the other."""
    half = n_frames // 2
    times = interval * (np.arange(n_frames) % half)
    omega, amplitude = 2.0 * np.pi / PERIOD, 0.0008
    x, v = np.zeros((n_frames, 2, 3)), np.zeros((n_frames, 2, 3))
    for atom, share in enumerate((-1.0, 12.0)):
        x[:, atom, 0] = 0.1 * atom + share * amplitude * np.cos(omega * times)
        v[:, atom, 0] = -share * amplitude * omega * np.sin(omega * times)
    # Both drift, the segments apart.
    x[..., 1] = 0.5 * times[:, None]
    x[half:] += 3.0
    v[..., 1] = 0.5
    return Trajectory(
        positions=x,
        velocities=v,
        times=times,
        segments=np.repeat([0, 1], half),
        atomic_numbers=np.array([6, 1]),
        masses=np.array([12.0, 1.0]),
        bonds=np.array([[0, 1]]),
    )


def test_velocities_of_a_run_pass():
    check_velocities("reference", read_reference(PRETRAINED / "ethanol_reference.h5"))
    for interval in (0.0005, 0.001, 0.002):
        check_velocities("close", oscillating(interval))
    without = replace(oscillating(0.001), velocities=None)
    check_velocities("without", without)


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 10.0, 98.2, -1.0])
def test_velocities_of_another_unit_are_refused(factor: float):
    right = oscillating(0.001)
    assert right.velocities is not None
    wrong = replace(right, velocities=factor * right.velocities)
    with pytest.raises(ValueError, match=r"momenta, in ASE's\), "):
        check_velocities("wrong", wrong)


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_another_time_between_frames_is_refused(factor: float):
    right = oscillating(0.001)
    with pytest.raises(ValueError, match="is the time between frames right"):
        check_velocities("wrong", replace(right, times=factor * right.times))


def test_velocities_of_other_frames_and_none_are_refused():
    right = oscillating(0.001)
    generator = np.random.default_rng(2)
    spread = np.sqrt(BOLTZMANN * 500.0 / right.masses)[:, None]
    drawn = spread * generator.standard_normal(right.positions.shape)
    with pytest.raises(ValueError, match="of the same times as the positions"):
        check_velocities("drawn", replace(right, velocities=drawn))
    with pytest.raises(ValueError, match="found velocities of 0 K in still"):
        check_velocities("still", replace(right, velocities=np.zeros_like(drawn)))


def thinned(stride: int) -> Trajectory:
    run = read_reference(PRETRAINED / "ethanol_reference.h5")
    arrays = ("positions", "velocities", "times", "segments")
    return replace(
        run,
        **{name: getattr(run, name)[::stride] for name in arrays},
        potential_energies=None,
        forces=None,
    )


@pytest.mark.parametrize("stride", [1, 5, 20])
def test_frames_far_apart_are_judged_by_their_steps_and_their_heat(stride: int):
    run = thinned(stride)
    check_velocities("right", run)
    assert run.velocities is not None
    for factor in (0.01, 0.1, 10.0, 98.2):
        wrong = replace(run, velocities=factor * run.velocities)
        with pytest.raises(ValueError, match=r"in ASE's\), "):
            check_velocities("wrong", wrong)


def test_frames_without_a_next_one_are_judged_by_their_heat():
    run = thinned(1)
    assert run.velocities is not None
    alone = replace(run, segments=np.arange(run.n_frames))
    check_velocities("alone", alone)
    with pytest.raises(ValueError, match=r"found velocities of \S+ K in wrong, expect"):
        check_velocities("wrong", replace(alone, velocities=20 * run.velocities))


def test_stretches_at_ten_femtoseconds_pass():
    # All heat in one stretch: the steps of 10 fs say nothing of its velocities.
    for interval in (0.006, 0.010):
        check_velocities("light", oscillating(interval))

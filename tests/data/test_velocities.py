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
    omega, amplitude = 2.0 * np.pi / PERIOD, 0.01
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
    check_velocities("one", oscillating(0.001, n_frames=2))


@pytest.mark.parametrize("factor", [0.1, 0.5, 2.0, 10.0, 98.2, -1.0])
def test_velocities_of_another_unit_are_refused(factor: float):
    right = oscillating(0.001)
    wrong = replace(right, velocities=factor * right.velocities)
    with pytest.raises(
        ValueError, match=r"fs apart, that are \S+ times what its veloc"
    ):
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
    with pytest.raises(ValueError, match="found velocities of 0 in still"):
        check_velocities("still", replace(right, velocities=np.zeros_like(drawn)))


def test_frames_far_apart_are_refused_only_where_they_move_too_far():
    run = read_reference(PRETRAINED / "ethanol_reference.h5")
    assert run.velocities is not None
    thinned = replace(
        run,
        **{
            name: getattr(run, name)[::5]
            for name in ("positions", "velocities", "times", "segments")
        },
        potential_energies=None,
        forces=None,
    )
    check_velocities("thinned", thinned)
    with pytest.raises(ValueError, match=r"that are \S+ times what its velocities"):
        check_velocities("slow", replace(thinned, velocities=0.1 * thinned.velocities))

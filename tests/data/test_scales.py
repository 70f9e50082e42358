import dataclasses

import numpy as np
import pytest
import torch

from openmm_diffmd.data.pairs import LaggedPairs
from openmm_diffmd.data.scales import bond_ranges, contact_limits, residual_scales
from openmm_diffmd.data.trajectory import Trajectory

STEP, LAG = 0.005, 0.01


def random_trajectory(n_frames=60, seed=0):
    generator = np.random.default_rng(seed)
    return Trajectory(
        generator.normal(size=(n_frames, 3, 3)),
        generator.normal(size=(n_frames, 3, 3)),
        STEP * np.arange(n_frames),
        np.zeros(n_frames, int),
        np.array([6, 1, 1]),
        np.array([12.0, 1.0, 1.0]),
        np.array([[0, 1], [0, 2]]),
    )


def pairs_of(trajectory, frames):
    return LaggedPairs([trajectory], [frames], [1, 6], LAG)


def test_scales_are_root_mean_squares_of_an_element():
    pairs = pairs_of(random_trajectory(), range(60))
    scales = residual_scales(pairs, 2)
    batch = pairs.batch(torch.arange(len(pairs)))
    drifted = batch.positions + LAG * batch.velocities
    for element, atoms in ((0, [1, 2]), (1, [0])):
        moved = (batch.following[:, atoms, 0] - drifted[:, atoms]).numpy()
        kicked = (batch.following[:, atoms, 1] - batch.velocities[:, atoms]).numpy()
        assert scales.position[element].item() == pytest.approx(
            np.sqrt((moved**2).mean()), rel=1e-5
        )
        assert scales.velocity[element].item() == pytest.approx(
            np.sqrt((kicked**2).mean()), rel=1e-5
        )
        lengths = np.linalg.norm(kicked, axis=-1) / LAG
        assert scales.acceleration[element].item() == pytest.approx(
            np.sqrt((lengths**2).mean()), rel=1e-5
        )


def test_scales_know_nothing_of_frames_outside_the_training_part():
    trajectory = random_trajectory()
    positions = trajectory.positions.copy()
    positions[40:] *= 1e3
    velocities = trajectory.velocities.copy()
    velocities[40:] *= 1e3
    wild = dataclasses.replace(trajectory, positions=positions, velocities=velocities)
    expected = residual_scales(pairs_of(trajectory, range(40)), 2)
    found = residual_scales(pairs_of(wild, range(40)), 2)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)
    # The wild frames would be seen if they were looked at.
    everything = residual_scales(pairs_of(wild, range(60)), 2)
    assert (everything.position > 10 * expected.position).all()


def test_samples_are_spread_over_all_pairs():
    trajectory = random_trajectory(400)
    velocities = trajectory.velocities.copy()
    velocities[200:] *= 10.0
    later_hotter = dataclasses.replace(trajectory, velocities=velocities)
    pairs = pairs_of(later_hotter, range(400))
    few = residual_scales(pairs, 2, n_samples=100)
    many = residual_scales(pairs, 2)
    # Stochastic: 300 numbers of carbon, three times 1/sqrt(2 N).
    torch.testing.assert_close(few.velocity, many.velocity, rtol=0.15, atol=0)


def test_element_that_does_not_occur_is_refused():
    pairs = LaggedPairs([random_trajectory()], [range(60)], [1, 6, 8], LAG)
    with pytest.raises(
        ValueError, match=r"no atom of element 2 \(from 0\) of the model"
    ):
        residual_scales(pairs, 3)


def bonded(lengths, bonds, numbers=(6, 1, 8)):
    """Frames in which atom 1 and 2 stand at `lengths` from atom 0."""
    positions = np.zeros((len(lengths), 3, 3))
    positions[:, 1, 0] = [pair[0] for pair in lengths]
    positions[:, 2, 1] = [pair[1] for pair in lengths]
    count = len(lengths)
    return Trajectory(
        positions,
        None,
        STEP * np.arange(count),
        np.zeros(count, int),
        np.array(numbers),
        np.ones(3),
        np.array(bonds),
    )


def test_bond_ranges_are_those_seen_and_a_margin():
    trajectory = bonded([(0.10, 0.14), (0.12, 0.13), (0.11, 0.15)], [[0, 1], [0, 2]])
    found = bond_ranges([trajectory], [range(3)], margin=0.25)
    assert list(found) == ["C-H", "C-O"]
    assert found["C-H"] == pytest.approx((0.10 - 0.005, 0.12 + 0.005))
    assert found["C-O"] == pytest.approx((0.13 - 0.005, 0.15 + 0.005))


def test_bond_ranges_never_begin_below_nothing():
    trajectory = bonded([(0.01, 0.1), (0.07, 0.1)], [[0, 1]])
    found = bond_ranges([trajectory], [range(2)], margin=0.25)
    assert found["C-H"] == (0.0, pytest.approx(0.07 + 0.015))


def test_bond_ranges_end_where_a_bond_is_broken():
    # A hydrogen that went over to another atom, and came back as a collision.
    lengths = [(0.10, 0.1)] * 98 + [(0.18, 0.1), (0.03, 0.1)]
    trajectory = bonded(lengths, [[0, 1]])
    found = bond_ranges([trajectory], [range(100)])
    mean = (98 * 0.10 + 0.18 + 0.03) / 100
    assert found["C-H"] == pytest.approx((mean - 0.05, mean + 0.05))


def test_bonds_of_a_molecule_that_fell_apart_are_refused():
    # Three times the covalent radii of C and H are 0.321 nm.
    bond_ranges([bonded([(0.31, 0.1)] * 2, [[0, 1]])], [range(2)])
    apart = bonded([(0.33, 0.1)] * 2, [[0, 1]])
    with pytest.raises(ValueError, match=r"0\.33 nm .* atoms 0 and 1 \(C-H\) .* fell"):
        bond_ranges([apart], [range(2)])


def test_bond_ranges_look_at_the_training_part_only():
    trajectory = bonded([(0.10, 0.1), (0.12, 0.1), (0.50, 0.1)], [[0, 1]])
    found = bond_ranges([trajectory], [range(2)], margin=0.0)
    assert found == {"C-H": pytest.approx((0.10, 0.12))}


def test_bond_ranges_join_bonds_of_the_same_elements():
    one = bonded([(0.10, 0.11)], [[0, 1], [0, 2]], (6, 1, 1))
    other = bonded([(0.14, 0.12)], [[1, 0]], (6, 1, 8))
    found = bond_ranges([one, other], [range(1), range(1)], margin=0.0)
    assert found == {"C-H": pytest.approx((0.10, 0.14))}


def test_contact_limits_are_covalent_radii_or_below_what_was_seen():
    # Cordero's radii: C 0.076, H 0.031, O 0.066 nm. The two ends of `bonded` lie on one
    # line, or one of them is free.
    trajectory = bonded([(0.11, 0.14), (0.11, 0.125)], [[0, 1]])
    found = contact_limits([trajectory], [range(2)])
    assert list(found) == ["C-O", "H-O"]
    apart = np.linalg.norm(
        trajectory.positions[:, 1] - trajectory.positions[:, 2], axis=1
    )
    assert found["C-O"] == pytest.approx(0.125 - 0.03)
    assert found["H-O"] == pytest.approx(max(0.0, min(0.097, apart.min() - 0.03)))
    # Far apart it is the radii; the part for validation does not count.
    far = bonded([(0.11, 0.3), (0.11, 0.01)], [[0, 1]])
    assert contact_limits([far], [range(1)])["C-O"] == pytest.approx(0.142)


def test_contact_limits_are_the_lowest_of_the_same_elements_and_not_below_0():
    one = bonded([(0.11, 0.16)], [[0, 1]])
    other = bonded([(0.11, 0.02)], [[0, 1]])
    found = contact_limits([one, other], [range(1), range(1)])
    assert found["C-O"] == 0.0
    assert contact_limits([one], [range(1)])["C-O"] == pytest.approx(0.13)
    assert (
        contact_limits([bonded([(0.1, 0.1)], [[0, 1], [0, 2], [1, 2]])], [range(1)])
        == {}
    )


def test_unbonded_pairs_have_no_range():
    trajectory = bonded([(0.1, 0.1)], [[0, 1]])
    assert list(bond_ranges([trajectory], [range(1)])) == ["C-H"]

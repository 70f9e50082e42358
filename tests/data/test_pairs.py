import dataclasses

import numpy as np
import pytest
import torch

from openmm_diffmd.data.pairs import (
    LaggedPairs,
    NoPairError,
    PairBatch,
    encode_pairs,
    lag_in_frames,
)
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.testing import HarmonicModel, save_stub_model

STEP, LAG = 0.002, 0.01
"""Frames every 2 fs, lags of five of them, ps."""
OMEGA = 40.0
"""Angular frequency of the springs to the centre of mass, 1/ps."""
MASSES = np.array([12.0, 1.0, 16.0])
NUMBERS = np.array([6, 1, 8])


def harmonic(lengths, seed=0, numbers=NUMBERS, masses=MASSES):
    """Exact frictionless motion of atoms bound to a centre of mass that drifts."""
    generator = np.random.default_rng(seed)
    pieces = []
    for length in lengths:
        t = (STEP * np.arange(length))[:, None, None]
        x0 = 0.1 * generator.normal(size=(len(masses), 3))
        v0 = generator.normal(size=(len(masses), 3))
        weights = (masses / masses.sum())[:, None]
        x0, v0 = x0 - (weights * x0).sum(0), v0 - (weights * v0).sum(0)
        x_c, v_c = generator.normal(size=3), generator.normal(size=3)
        x = x0 * np.cos(OMEGA * t) + v0 / OMEGA * np.sin(OMEGA * t)
        v = -x0 * OMEGA * np.sin(OMEGA * t) + v0 * np.cos(OMEGA * t)
        pieces.append((x + x_c + v_c * t, v + v_c, t[:, 0, 0]))
    positions, velocities, times = (
        np.concatenate(p) for p in zip(*pieces, strict=True)
    )
    segments = np.repeat(np.arange(len(lengths)), lengths)
    return Trajectory(
        positions, velocities, times, segments, numbers, masses, np.empty((0, 2), int)
    )


def pairs_of(trajectory, frames=None, elements=(1, 6, 8)):
    frames = range(trajectory.n_frames) if frames is None else frames
    return LaggedPairs([trajectory], [frames], elements, LAG)


def everything(pairs, reverse=False):
    flags = torch.ones(len(pairs), dtype=torch.bool) if reverse else None
    return pairs.batch(torch.arange(len(pairs)), flags)


def carried(positions, velocities, tau):
    """The harmonic flow."""
    c, s = np.cos(OMEGA * tau), np.sin(OMEGA * tau)
    return (
        positions * c + velocities / OMEGA * s,
        velocities * c - positions * OMEGA * s,
    )


def test_pairs_never_cross_the_end_of_a_segment():
    lengths = [12, 5, 3, 9]
    pairs = pairs_of(harmonic(lengths))
    # A segment of n frames holds n - 5 pairs; those of 5 and 3 frames none.
    assert len(pairs) == 7 + 4
    batch = everything(pairs)
    x, v = carried(batch.positions, batch.velocities, LAG)
    # Right for every pair only if both frames are of one piece of dynamics.
    torch.testing.assert_close(batch.following[:, :, 0], x, rtol=0, atol=1e-6)
    torch.testing.assert_close(batch.following[:, :, 1], v, rtol=0, atol=1e-5)


def test_pairs_lie_wholly_inside_the_range_given():
    trajectory = harmonic([20])
    assert len(pairs_of(trajectory, range(3, 14))) == 6
    batch = everything(pairs_of(trajectory, range(3, 14)))
    whole = everything(pairs_of(trajectory))
    torch.testing.assert_close(batch.positions, whole.positions[3:9])
    torch.testing.assert_close(batch.following, whole.following[3:9])
    # What lies before the range is no history, though the file has it.
    assert batch.has_acceleration.tolist() == [False] * 5 + [True]


def test_reversed_pairs_are_pairs_of_the_same_dynamics():
    pairs = pairs_of(harmonic([12, 9]))
    forward, backward = everything(pairs), everything(pairs, reverse=True)
    x, v = carried(backward.positions, backward.velocities, LAG)
    torch.testing.assert_close(backward.following[:, :, 0], x, rtol=0, atol=1e-6)
    torch.testing.assert_close(backward.following[:, :, 1], v, rtol=0, atol=1e-5)
    assert torch.equal(backward.positions, forward.following[:, :, 0])
    assert torch.equal(backward.velocities, -forward.following[:, :, 1])
    assert torch.equal(backward.following[:, :, 0], forward.positions)
    assert torch.equal(backward.following[:, :, 1], -forward.velocities)


@pytest.mark.parametrize("reverse", [False, True])
def test_acceleration_is_the_change_over_the_lag_before(reverse):
    pairs = pairs_of(harmonic([18, 9]))
    batch = everything(pairs, reverse)
    _, earlier = carried(batch.positions, batch.velocities, -LAG)
    expected = (batch.velocities - earlier) / LAG
    # Frames 0 to 12 and 0 to 3 start pairs; forwards the lag before must be there,
    # backwards the lag after.
    if reverse:
        known = [first + 2 * 5 < 18 for first in range(13)] + [False] * 4
    else:
        known = [first >= 5 for first in range(13)] + [False] * 4
    assert batch.has_acceleration.tolist() == known
    has = batch.has_acceleration
    # nm/ps^2; single precision of velocities of about 5 nm/ps, divided by the lag.
    torch.testing.assert_close(
        batch.acceleration[has], expected[has], rtol=0, atol=2e-3
    )
    assert expected.abs().max() > 50
    assert (batch.acceleration[~has] == 0).all()


@pytest.mark.parametrize("reverse", [False, True])
def test_what_follows_after_more_lags_is_of_the_same_dynamics(reverse):
    trajectory = harmonic([23, 9])
    ranges = [range(trajectory.n_frames)]
    pairs = LaggedPairs([trajectory], ranges, (1, 6, 8), LAG, num_lags=3)
    # Three lags of five frames: 23 frames hold eight such states, 9 none.
    assert len(pairs) == 8
    batch = everything(pairs, reverse)
    assert batch.later.shape == (8, 2, 3, 2, 3)
    known = [batch.following, *batch.later.unbind(1)]
    for lags, found in enumerate(known, start=1):
        x, v = carried(batch.positions, batch.velocities, lags * LAG)
        torch.testing.assert_close(found[:, :, 0], x, rtol=0, atol=1e-6)
        torch.testing.assert_close(found[:, :, 1], v, rtol=0, atol=1e-5)
    # Forwards a lag lies before the last three of them, backwards after the first.
    has = batch.has_acceleration
    assert has.nonzero()[:, 0].tolist() == ([0, 1, 2] if reverse else [5, 6, 7])
    _, earlier = carried(batch.positions, batch.velocities, -LAG)
    expected = (batch.velocities - earlier) / LAG
    torch.testing.assert_close(
        batch.acceleration[has], expected[has], rtol=0, atol=2e-3
    )


def test_one_lag_is_followed_by_nothing_later():
    batch = everything(pairs_of(harmonic([12])))
    assert batch.later.shape == (7, 0, 3, 2, 3)


def test_some_pairs_may_be_reversed_in_a_batch():
    pairs = pairs_of(harmonic([12]))
    indices = torch.tensor([3, 3, 0])
    mixed = pairs.batch(indices, torch.tensor([False, True, False]))
    forward, backward = everything(pairs), everything(pairs, reverse=True)
    for found, one, other in zip(mixed, forward, backward, strict=True):
        assert torch.equal(found[0], one[3])
        assert torch.equal(found[1], other[3])
        assert torch.equal(found[2], one[0])


def test_frames_are_in_the_centre_of_mass_frame():
    trajectory = harmonic([12])
    batch = everything(pairs_of(trajectory))
    masses = batch.masses[..., None]
    for values in (
        batch.positions,
        batch.velocities,
        batch.following[:, :, 0],
        batch.following[:, :, 1],
    ):
        assert (masses * values).sum(1).abs().max() < 1e-5
    # A boost and a shift of the whole trajectory change no pair.
    boost = np.array([5.0, -3.0, 1.0])
    assert trajectory.velocities is not None
    moved = dataclasses.replace(
        trajectory,
        positions=trajectory.positions + 2.0 + boost * trajectory.times[:, None, None],
        velocities=trajectory.velocities + boost,
    )
    for found, expected in zip(everything(pairs_of(moved)), batch, strict=True):
        torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_molecules_of_different_size_are_padded():
    small = harmonic([8], 1, numbers=np.array([8, 1]), masses=np.array([16.0, 1.0]))
    pairs = LaggedPairs([harmonic([8]), small], [range(8), range(8)], [1, 6, 8], LAG)
    batch = everything(pairs)
    assert batch.species.tolist() == [[1, 0, 2]] * 3 + [[2, 0, -1]] * 3
    assert batch.masses[3].tolist() == [16.0, 1.0, 0.0]
    for values in (batch.positions, batch.velocities, batch.acceleration):
        assert (values[3:, 2] == 0).all()
    assert (batch.following[3:, 2] == 0).all()
    alone = everything(pairs_of(small))
    torch.testing.assert_close(batch.following[3:, :2], alone.following)


def test_groups_are_of_like_size_and_count_different_molecules():
    def ring(n_atoms, seed, first=1):
        numbers = np.array([first] + [6] * (n_atoms - 1))
        return harmonic([8], seed, numbers, np.full(n_atoms, 12.0))

    molecules = [ring(10, 1), ring(11, 2), ring(10, 3), ring(12, 4), ring(10, 5, 8)]
    ranges = [range(8)] * len(molecules)
    pairs = LaggedPairs(molecules, ranges, [1, 6, 8], LAG)
    groups = pairs.size_groups()
    # Two runs of one molecule of ten atoms, another of ten, one of eleven.
    assert [count for _, count in groups] == [3, 1]
    assert sorted(torch.cat([indices for indices, _ in groups]).tolist()) == list(
        range(len(pairs))
    )
    sizes = [(pairs.batch(indices).species >= 0).sum(1) for indices, _ in groups]
    assert sizes[0].unique().tolist() == [10, 11]
    assert sizes[1].unique().tolist() == [12]
    assert pairs.batch(groups[0][0]).positions.shape[1] == 11


@pytest.mark.parametrize("start", [0.0, 1100.0, 20000.0])
def test_times_in_single_precision_are_evenly_spaced_however_late(start):
    # Of 20 ns they are rounded to 2 fs.
    frames = harmonic([2000])
    times = (start + STEP * 5 * np.arange(2000)).astype(np.float32)
    for kept in (times, times.astype(np.float64)):
        late = dataclasses.replace(frames, times=kept)
        assert lag_in_frames(late, LAG) == 1
        assert lag_in_frames(late, 3 * LAG) == 3


def test_lag_in_frames_counts_frames():
    assert lag_in_frames(harmonic([12, 5]), LAG) == 5
    assert lag_in_frames(harmonic([12]), STEP) == 1


@pytest.mark.parametrize("lag", [0.003, 0.0105, 0.0005])
def test_lag_that_is_no_whole_number_of_frames_is_refused(lag):
    with pytest.raises(ValueError, match="frames every 2 fs, expected a whole number"):
        lag_in_frames(harmonic([12]), lag)


def test_uneven_frames_are_refused():
    trajectory = harmonic([12])
    times = trajectory.times.copy()
    times[6:] += 0.001
    uneven = dataclasses.replace(trajectory, times=times)
    with pytest.raises(ValueError, match="between 2 and 3 fs apart in one segment"):
        lag_in_frames(uneven, LAG)


def test_segments_of_one_frame_are_refused():
    with pytest.raises(ValueError, match="found segments of one frame"):
        lag_in_frames(harmonic([1, 1, 1]), LAG)


def test_missing_velocities_are_refused():
    trajectory = dataclasses.replace(harmonic([12]), velocities=None)
    with pytest.raises(ValueError, match="without velocities, expected velocities"):
        pairs_of(trajectory)


def test_unknown_elements_are_refused():
    with pytest.raises(ValueError, match="found elements O, expected only H, C"):
        pairs_of(harmonic([12]), elements=[1, 6])


@pytest.mark.parametrize("frames", [range(5), range(4), range(2), range(0)])
def test_too_few_frames_for_a_pair_are_refused(frames):
    with pytest.raises(NoPairError, match="found no pair of frames 10 fs apart"):
        pairs_of(harmonic([12]), frames)


def test_trajectories_with_another_spacing_keep_the_lag():
    fine = harmonic([21])
    assert fine.velocities is not None
    coarse = Trajectory(
        fine.positions[::5],
        fine.velocities[::5],
        fine.times[::5],
        fine.segments[::5],
        NUMBERS,
        MASSES,
        fine.bonds,
    )
    pairs = LaggedPairs([coarse, fine], [range(5), range(21)], [1, 6, 8], LAG)
    batch = everything(pairs)
    assert len(pairs) == 4 + 16
    x, _ = carried(batch.positions, batch.velocities, LAG)
    torch.testing.assert_close(batch.following[:, :, 0], x, rtol=0, atol=1e-6)


def test_states_of_pairs_are_encoded_clean(tmp_path):
    batch = everything(pairs_of(harmonic([12])))
    given = []

    class Network:
        def encode(self, *state):
            given.extend(state)
            return {"level": state[-1]}

    assert torch.equal(encode_pairs(Network(), batch)["level"], torch.zeros(7))
    for name, value in zip(PairBatch._fields[:-2], given, strict=False):
        assert value is getattr(batch, name)
    assert len(given) == 7
    # The scripted network of a model file takes them too.
    model = load_model(save_stub_model(tmp_path / "harmonic.pt", HarmonicModel(OMEGA)))
    found = encode_pairs(model.module, batch)
    assert torch.equal(found["state"][:, :, 1], batch.velocities)

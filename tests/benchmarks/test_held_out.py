import numpy as np
from held_out import contiguous_ranges, held_out_frames

from openmm_diffmd.data.trajectory import Trajectory

FRACTIONS = (0.8, 0.1, 0.1)
RUN = {
    "molecule": "a",
    "potential": "p",
    "sha256": {"a.xyz": "1"},
    "temperature_K": 500.0,
    "seed": 3,
}
BURSTS = {**RUN, "kind": "bursts", "frame_interval_fs": 1.0}
THERMOSTATTED = {**RUN, "kind": "thermostatted"}
TRAINING = [
    {"n_frames": 1000, "n_segments": 10, "train_frames": 800, "provenance": BURSTS}
]


def make(n_frames: int, interval: float, provenance, segment: int = 0) -> Trajectory:
    segments = np.arange(n_frames) // segment if segment else np.zeros(n_frames, int)
    return Trajectory(
        positions=np.zeros((n_frames, 1, 3)),
        velocities=None,
        times=interval * np.arange(1, n_frames + 1),
        segments=segments,
        atomic_numbers=np.array([1]),
        masses=np.array([1.0]),
        bonds=np.zeros((0, 2), int),
        provenance=provenance,
    )


def test_another_run_is_unseen():
    other = make(1000, 0.001, {**BURSTS, "seed": 4}, 100)
    assert held_out_frames(other, TRAINING, FRACTIONS).all()
    assert held_out_frames(make(10, 0.01, BURSTS), [], FRACTIONS).all()


def test_bursts_of_a_longer_run_are_as_far_apart_as_it_is_long():
    # 0.9 of the bursts begin in 0.9 of their run of 2 ps: all of one of 1 ps.
    longer = {**BURSTS, "length_ps": 2.0}
    training = [TRAINING[0] | {"provenance": longer}]
    shorter = make(100, 0.01, THERMOSTATTED)
    assert not held_out_frames(shorter, training, FRACTIONS).any()
    whole = make(300, 0.01, THERMOSTATTED)
    kept = held_out_frames(whole, training, FRACTIONS)
    # And a burst of 0.1 ps.
    assert contiguous_ranges(kept) == [range(190, 300)]


def test_run_made_again_with_frames_at_another_interval_is_the_same_run():
    # 900 frames of 1 fs and a segment of 100 are 2000 frames of 0.5 fs.
    finer = {**BURSTS, "frame_interval_fs": 0.5}
    kept = held_out_frames(make(2200, 0.0005, finer, 200), TRAINING, FRACTIONS)
    assert contiguous_ranges(kept) == [range(2000, 2200)]


def test_training_file_is_unseen_after_its_validation_part():
    # 800 training, 100 validation, one segment of 100 left out: a file of 1000 frames
    # has none left, one that has grown to 1500 since has 500.
    assert not held_out_frames(
        make(1000, 0.001, BURSTS, 100), TRAINING, FRACTIONS
    ).any()
    kept = held_out_frames(make(1500, 0.001, BURSTS, 100), TRAINING, FRACTIONS)
    assert contiguous_ranges(kept) == [range(1000, 1500)]


def test_longest_segment_is_left_out_after_the_validation_part():
    # As calibration does, which ends as much later: 500 training, 100 validation.
    sizes = [300] * 2 + [50] * 18
    uneven = make(1500, 0.001, BURSTS)
    uneven.segments[:] = np.repeat(np.arange(20), sizes)
    training = [TRAINING[0] | {"n_frames": 1500, "n_segments": 20, "train_frames": 500}]
    kept = held_out_frames(uneven, training, (5 / 15, 1 / 15, 9 / 15))
    assert contiguous_ranges(kept) == [range(900, 1500)]


def test_run_of_chained_bursts_is_unseen_after_their_time():
    # 900 frames of bursts are 0.9 ps; of a run that is twice as long now, the share of
    # starts would be 0.9 of its 2 ps: the later of both. The last burst that was used
    # may begin there, and lasts 0.1 ps.
    assert not held_out_frames(
        make(100, 0.01, THERMOSTATTED), TRAINING, FRACTIONS
    ).any()
    kept = held_out_frames(make(200, 0.01, THERMOSTATTED), TRAINING, FRACTIONS)
    assert contiguous_ranges(kept) == [range(190, 200)]


def test_of_a_bundle_only_the_run_that_was_trained_on_is_seen():
    sources = [
        {**THERMOSTATTED, "seed": 8},
        THERMOSTATTED,
        {**THERMOSTATTED, "seed": 9},
    ]
    bundle = make(300, 0.01, {"sources": sources}, 100)
    bundle.times[:] = np.tile(0.01 * np.arange(1, 101), 3)
    kept = held_out_frames(bundle, TRAINING, FRACTIONS)
    assert contiguous_ranges(kept) == [range(100), range(200, 300)]


def test_frames_of_a_run_in_a_bundle_are_counted_from_its_own_first():
    # 40 training, 10 validation, one segment of 100 left out.
    training = [
        {
            "n_frames": 100,
            "n_segments": 1,
            "train_frames": 40,
            "provenance": THERMOSTATTED,
        }
    ]
    sources = [
        {**THERMOSTATTED, "seed": 8},
        THERMOSTATTED,
        {**THERMOSTATTED, "seed": 9},
    ]
    bundle = make(600, 0.01, {"sources": sources}, 200)
    kept = held_out_frames(bundle, training, (0.4, 0.1, 0.5))
    assert contiguous_ranges(kept) == [range(200), range(350, 600)]


def test_bundle_whose_runs_cannot_be_told_apart_is_cut_as_a_whole():
    sources = [{**THERMOSTATTED, "seed": 8}, THERMOSTATTED]
    bundle = make(300, 0.01, {"sources": sources}, 100)
    kept = held_out_frames(bundle, TRAINING, FRACTIONS)
    assert contiguous_ranges(kept) == [range(280, 300)]


def test_ranges_of_nothing_and_of_all():
    assert contiguous_ranges(np.zeros(5, bool)) == []
    assert contiguous_ranges(np.ones(5, bool)) == [range(5)]


def test_run_that_was_joined_with_others_for_the_training_is_seen():
    sources = [{**THERMOSTATTED, "seed": seed} for seed in (3, 4)]
    training = [
        {
            "n_frames": 200,
            "n_segments": 2,
            "train_frames": 160,
            "provenance": {**THERMOSTATTED, "sources": sources},
        }
    ]
    for seed in (3, 4):
        run = make(100, 0.01, {**THERMOSTATTED, "seed": seed})
        assert not held_out_frames(run, training, FRACTIONS).any()
    other = make(100, 0.01, {**THERMOSTATTED, "seed": 5})
    assert held_out_frames(other, training, FRACTIONS).all()
    bundle = make(200, 0.01, {**THERMOSTATTED, "sources": sources}, 100)
    assert not held_out_frames(bundle, training, FRACTIONS).any()


def test_of_an_unbroken_file_the_end_is_unseen_and_other_files_are():
    # 80 and 10 per cent of 40 ps, and a gap of 1 ps.
    said = {"data": "MD17", "file": "md17_a.npz", "kind": "thermostatted"}
    said |= {"frame_interval_fs": 10.0}
    training = [
        {"n_frames": 4000, "n_segments": 1, "train_frames": 3200, "provenance": said}
    ]
    kept = held_out_frames(make(4000, 0.01, said), training, FRACTIONS)
    assert contiguous_ranges(kept) == [range(3700, 4000)]
    other = make(4000, 0.01, {**said, "file": "md17_b.npz"})
    assert held_out_frames(other, training, FRACTIONS).all()

import numpy as np
import pytest

from openmm_diffmd.data.splits import contiguous_split, gap_between_parts


def segments_of(*lengths):
    return np.repeat(np.arange(len(lengths)), lengths)


def test_one_run_is_cut_in_three_with_gaps():
    split = contiguous_split(segments_of(1000), gap=10, fractions=(0.8, 0.1, 0.1))
    assert split.train == range(800)
    assert split.validation == range(810, 900)
    assert split.test == range(910, 1000)


def test_parts_share_no_frame_and_no_segment():
    segments = segments_of(*[20] * 50)
    split = contiguous_split(segments, gap=5, fractions=(0.7, 0.2, 0.1))
    parts = [set(part) for part in split]
    held = [set(segments[part.start : part.stop]) for part in split]
    for one, other in ((0, 1), (0, 2), (1, 2)):
        assert not parts[one] & parts[other]
        assert not held[one] & held[other]
    assert all(len(part) > 50 for part in split)


def test_gap_is_as_long_as_the_longest_segment():
    split = contiguous_split(segments_of(130, 70, 140, 160), 5, (0.4, 0.4, 0.0))
    assert split.train == range(200)
    assert split.validation == range(200 + 160, 400)


def test_gap_is_the_lag_where_there_is_one_segment_only():
    assert gap_between_parts(segments_of(1000), 10) == 10
    assert gap_between_parts(segments_of(50, 60), 10) == 60
    assert gap_between_parts(segments_of(5, 6), 10) == 10


def test_later_frames_never_come_first():
    split = contiguous_split(segments_of(500), 7)
    assert split.train.stop + 7 <= split.validation.start
    assert split.validation.stop + 7 <= split.test.start
    assert split.test.stop <= 500


def test_shares_that_leave_frames_out_are_kept_to():
    split = contiguous_split(segments_of(1000), 10, (0.5, 0.2, 0.1))
    assert split.test == range(710, 800)


def test_a_part_that_is_not_asked_for_is_empty():
    split = contiguous_split(segments_of(100), 5, (0.8, 0.2, 0.0))
    assert len(split.test) == 0
    assert split.validation == range(85, 100)


@pytest.mark.parametrize("fractions", [(0.9, 0.1, 0.1), (1.1, -0.1, 0.0)])
def test_fractions_that_do_not_fit_are_refused(fractions):
    match = "expected none below 0 and a sum of at most 1"
    with pytest.raises(ValueError, match=match):
        contiguous_split(segments_of(100), 5, fractions)


def test_training_share_of_nothing_is_refused():
    with pytest.raises(ValueError, match="expected a training share above 0"):
        contiguous_split(segments_of(100), 5, (0.0, 0.5, 0.5))


@pytest.mark.parametrize(
    ("gap", "name"), [(5, "validation"), (80, "validation"), (120, "validation")]
)
def test_part_swallowed_by_its_gap_is_refused(gap, name):
    with pytest.raises(ValueError, match=f"too few for a {name} part after gaps"):
        contiguous_split(segments_of(100), gap)


def test_too_few_segments_are_refused():
    with pytest.raises(ValueError, match="too few for a validation part after gaps of"):
        contiguous_split(segments_of(60, 40), 5)

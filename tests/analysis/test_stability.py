import mdtraj
import numpy as np
import pytest

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.stability import stability


def test_break_is_found_in_the_frame_where_it_happens(diatomic: mdtraj.Topology):
    positions = np.zeros((3, 10, 2, 3))
    positions[..., 1, 0] = 0.12
    positions[0, 4, 1, 0] = 0.171  # 0.051 nm too long, and back
    positions[1, 4, 1, 0] = 0.169  # 0.049 nm too long
    positions[2, 9, 1, 0] = 0.069  # 0.051 nm too short
    found = stability(Ensemble(diatomic, 0.01, list(positions)), np.array([0.12]))
    assert found.stable_frames.tolist() == [4, 10, 9]
    np.testing.assert_allclose(found.break_times, [0.05, np.nan, 0.10])
    assert found.n_broken == 2
    assert found.mean_time == pytest.approx((0.05 + 0.10 + 0.10) / 3)
    np.testing.assert_allclose(
        found.survival(np.array([0.0, 0.049, 0.05, 0.099, 0.101])),
        [1, 1, 2 / 3, 2 / 3, 1 / 3],
    )


def test_stability_wants_one_mean_for_each_bond(diatomic: mdtraj.Topology):
    ensemble = Ensemble(diatomic, 0.01, [np.zeros((1, 2, 3))])
    with pytest.raises(ValueError, match="found 2 mean bond lengths, expected 1"):
        stability(ensemble, np.array([0.1, 0.1]))


def test_the_bond_that_breaks_first_counts(hydrogen_peroxide: mdtraj.Topology):
    # In a row, 0.1 nm apart; replica 0 loses an end, replica 1 breaks in the middle
    # in the frame in which its last bond breaks too.
    positions = np.zeros((2, 6, 4, 3))
    positions[..., 0] = 0.1 * np.arange(4)
    positions[0, 3:, 3, 1] = 0.5
    positions[0, 4:, 0, 1] = 0.5
    positions[1, 5:, 2, 1] = 0.5
    ensemble = Ensemble(hydrogen_peroxide, 0.01, list(positions))
    found = stability(ensemble, np.full(3, 0.1))
    assert found.stable_frames.tolist() == [3, 5]

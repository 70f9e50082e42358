import numpy as np
import pytest
from shape_comparison import common_share

from openmm_diffmd.analysis.distributions import Histogram


def test_share_of_a_difference_that_another_has_too():
    edges = np.array([0.0, 1.0, 2.0, 3.0, 4.0])

    def histogram(*density: float) -> Histogram:
        return Histogram(edges, np.array(density))

    truth = histogram(0.25, 0.25, 0.25, 0.25)
    ours = histogram(0.45, 0.05, 0.35, 0.15)
    assert common_share(ours, ours, truth) == pytest.approx(1.0)
    assert common_share(ours, truth, truth) == 0.0
    # Of 0.2, 0.2, 0.1, 0.1: half of the first, all of the second (which exceeds it),
    # none of the third, which has the other sign, and none of the last.
    theirs = histogram(0.35, 0.0, 0.15, 0.25)
    assert common_share(ours, theirs, truth) == pytest.approx(0.3 / 0.6)
    assert np.isnan(common_share(truth, ours, truth))
    with pytest.raises(ValueError, match="different bins"):
        common_share(ours, Histogram(edges + 1.0, ours.density), truth)

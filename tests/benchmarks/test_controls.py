import numpy as np
import pytest
from controls import make_controls, starting_frames

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.topologies import make_topology


def hydrogen_peroxide(n_replicas: int, n_frames: int, seed: int) -> Ensemble:
    """Atoms scattered about fixed places, with velocities; the molecule drifts."""
    generator = np.random.default_rng(seed)
    shape = (n_replicas, n_frames, 4, 3)
    places = 0.15 * generator.normal(size=(4, 3))
    return Ensemble(
        make_topology(["H", "O", "O", "H"], [(0, 1), (1, 2), (2, 3)]),
        0.01,
        list(places + 0.005 * generator.normal(size=shape)),
        list(1.0 + generator.normal(size=shape)),
    )


def test_starting_frames_rest_at_the_origin():
    ensemble = hydrogen_peroxide(2, 50, seed=1)
    x, v = starting_frames(ensemble, 3)
    assert x.shape == v.shape == (3, 4, 3)
    for array in (x, v):
        centre = np.einsum("a,rad->rd", ensemble.masses, array)
        np.testing.assert_allclose(centre, 0.0, atol=1e-10)
    # The first and the last frame of all are among them, shape unchanged.
    for index, frame in ((0, ensemble.positions[0][0]), (2, ensemble.positions[1][-1])):
        np.testing.assert_allclose(x[index] - x[index][0], frame - frame[0], atol=1e-12)
    with pytest.raises(ValueError, match="found 0 replicas"):
        starting_frames(ensemble, 0)


def test_controls_stand_still_or_go_straight_on():
    ensemble = hydrogen_peroxide(1, 5, seed=2)
    x, v = starting_frames(ensemble, 2)
    controls = make_controls(ensemble, x, v, 7)
    frozen, moving = controls["last frame"], controls["constant velocity"]
    for control in (frozen, moving):
        assert control.velocities is not None
        np.testing.assert_array_equal(control.velocities[1], np.repeat(v[1:], 7, 0))
    np.testing.assert_array_equal(frozen.positions[0], np.repeat(x[:1], 7, 0))
    # The first frame lies one interval of 0.01 ps after the start.
    np.testing.assert_allclose(moving.positions[1][0], x[1] + 0.01 * v[1], rtol=1e-12)
    np.testing.assert_allclose(moving.positions[1][6], x[1] + 0.07 * v[1], rtol=1e-12)

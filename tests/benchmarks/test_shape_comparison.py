import mdtraj
import numpy as np
import pytest
from shape_comparison import common_share, compare_all, shapes_of

from openmm_diffmd.analysis.distributions import Histogram
from openmm_diffmd.analysis.ensemble import Ensemble


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


def test_sampling_explains_the_difference_of_draws_from_one_distribution():
    # stochastic; water whose places scatter, in sets of different sizes.
    generator = np.random.default_rng(3)
    topology = mdtraj.Topology()
    residue = topology.add_residue("HOH", topology.add_chain())
    oxygen, *hydrogens = (
        topology.add_atom(symbol, mdtraj.element.get_by_symbol(symbol), residue)
        for symbol in "OHH"
    )
    for hydrogen in hydrogens:
        topology.add_bond(oxygen, hydrogen)
    places = 0.1 * np.array([[0.0, 0.0, 0.0], [0.96, 0.0, 0.0], [-0.24, 0.93, 0.0]])

    def draw(n_frames: int) -> Ensemble:
        noise = generator.normal(scale=0.005, size=(n_frames, 3, 3))
        return Ensemble(topology, 0.01, [places + noise])

    rows = [
        compare_all(shapes_of({"rollout": draw(4000), "real": draw(1000)}))["rows"]
        for _ in range(40)
    ]
    pairs = [row["rollout - real"] for row in rows]
    by_chance = [pair["by_sampling"] for pair in pairs]
    found = np.array(
        [
            [
                row["h_r_error"],
                row["divergences"]["bonds"],
                row["divergences"]["angles"],
            ]
            for row in (*pairs, *by_chance)
        ]
    ).reshape(2, 40, 3)
    ratios = found[0].mean(axis=0) / found[1].mean(axis=0)
    errors = found.std(axis=1) / found.mean(axis=1) / np.sqrt(40)
    assert np.all(errors < 0.08)
    assert np.all(np.abs(ratios - 1.0) < 4.0 * np.hypot(*errors))
    assert pairs[0]["divergences"]["dihedrals"] is None
    assert by_chance[0]["divergences"]["dihedrals"] is None
    assert "by_sampling" not in rows[0]["real, half - half"]

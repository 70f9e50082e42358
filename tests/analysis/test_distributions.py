from collections.abc import Callable

import mdtraj
import numpy as np
import pytest
from scipy.stats import norm

from openmm_diffmd.analysis.distributions import (
    Histogram,
    bonded_terms,
    dihedral_turns,
    h_r_error,
    jensen_shannon_divergence,
    marginal_divergences,
    marginals,
    pair_distances,
)
from openmm_diffmd.analysis.ensemble import Ensemble


def stretched(topology: mdtraj.Topology, lengths: np.ndarray) -> Ensemble:
    """A diatomic with given bond lengths, nm."""
    positions = np.zeros((len(lengths), 2, 3))
    positions[:, 1, 2] = lengths
    return Ensemble(topology, 0.01, [positions])


def test_h_of_r_is_a_density_in_inverse_angstrom(diatomic: mdtraj.Topology):
    h = pair_distances(stretched(diatomic, np.full(10, 0.121)))
    assert h.edges[[0, -1]].tolist() == [0.0, 10.0]
    assert len(h.density) == 500
    assert h.density[60] == pytest.approx(1 / 0.02)  # 1.20 to 1.22 Angstrom
    assert np.sum(h.density) == pytest.approx(1 / 0.02)


def test_h_of_r_loses_what_flies_away(diatomic: mdtraj.Topology):
    h = pair_distances(stretched(diatomic, np.array([0.1, 0.1, 0.1, 5.0])))
    assert np.sum(h.density) * 0.02 == pytest.approx(0.75)


def test_h_of_r_error_of_disjoint_is_two_and_of_equal_zero(diatomic: mdtraj.Topology):
    a = pair_distances(stretched(diatomic, np.full(5, 0.121)))
    b = pair_distances(stretched(diatomic, np.full(5, 0.151)))
    assert h_r_error(a, b) == pytest.approx(2.0)
    assert h_r_error(a, a) == 0.0


@pytest.mark.statistical
def test_h_of_r_error_of_two_gaussians_is_the_closed_form(diatomic: mdtraj.Topology):
    # stochastic; int |N(0, s) - N(d, s)| = 2 (2 Phi(d / 2 s) - 1). The counting noise
    # of n samples in bins of 0.04 s adds at most sum sqrt(2 p / n), about 0.02.
    s, d, n = 0.05, 0.05, 200_000
    generator = np.random.default_rng(5)
    a = pair_distances(stretched(diatomic, 0.4 + s * generator.normal(size=n)))
    b = pair_distances(stretched(diatomic, 0.4 + d + s * generator.normal(size=n)))
    exact = 2 * (2 * norm.cdf(d / (2 * s)) - 1)
    assert h_r_error(a, b) == pytest.approx(exact, abs=0.02)


def test_histograms_on_other_bins_are_refused():
    a = Histogram(np.array([0.0, 1.0, 2.0]), np.array([0.5, 0.5]))
    b = Histogram(np.array([0.0, 2.0, 4.0]), np.array([0.25, 0.25]))
    with pytest.raises(ValueError, match="different bins"):
        h_r_error(a, b)


def test_divergence_of_a_coin_and_a_biased_coin_is_the_closed_form():
    edges = np.array([0.0, 0.5, 1.0])
    p = Histogram(edges, np.array([1.0, 1.0]))
    q = Histogram(edges, np.array([2.0, 0.0]))
    # JSD = H(m) - (H(p) + H(q)) / 2 with m = (3/4, 1/4), H in bits.
    entropy = -(0.75 * np.log2(0.75) + 0.25 * np.log2(0.25))
    assert jensen_shannon_divergence(p, q) == pytest.approx(entropy - 0.5)
    assert jensen_shannon_divergence(p, p) == 0.0
    r = Histogram(edges, np.array([0.0, 2.0]))
    assert jensen_shannon_divergence(q, r) == pytest.approx(1.0)


def test_ethanol_has_its_bonds_angles_and_dihedrals(ethanol: mdtraj.Topology):
    found = {
        kind: {name: len(terms) for name, terms in groups.items()}
        for kind, groups in bonded_terms(ethanol).items()
    }
    assert found == {
        "bonds": {"C-C": 1, "C-H": 5, "C-O": 1, "H-O": 1},
        "angles": {"C-C-H": 5, "C-C-O": 1, "C-O-H": 1, "H-C-H": 4, "H-C-O": 2},
        "dihedrals": {"C-C-O-H": 1, "H-C-C-H": 6, "H-C-C-O": 3, "H-C-O-H": 2},
    }


def test_marginals_hold_the_geometry_they_were_given(
    hydrogen_peroxide: mdtraj.Topology,
):
    # O-H 0.101 nm, O-O 0.147 nm, right angles, dihedral 90 degrees.
    positions = np.array(
        [[[0.101, 0, 0], [0, 0, 0], [0, 0, 0.1475], [0, 0.101, 0.1475]]]
    )
    found = marginals(Ensemble(hydrogen_peroxide, 0.01, [positions]))
    peak = {
        (kind, name): float(h.centers[np.argmax(h.density)])
        for kind, groups in found.items()
        for name, h in groups.items()
    }
    assert peak["bonds", "H-O"] == pytest.approx(1.01, abs=0.0051)
    assert peak["bonds", "O-O"] == pytest.approx(1.475, abs=0.0051)
    assert peak["angles", "H-O-O"] == pytest.approx(90, abs=1.01)
    # From the first O the second H stands a quarter turn clockwise: IUPAC's sign.
    assert peak["dihedrals", "H-O-O-H"] == pytest.approx(90, abs=2.51)


def test_turns_are_of_the_torsion_that_turns_least(
    make_topology: Callable[..., mdtraj.Topology],
):
    # Of two H-O-O-H, in two replicas, the first turns five times, the second swings and
    # turns once, between the replicas, which is none; a third does not move.
    bonds = [(0, 1), (1, 2), (2, 3), (4, 5), (5, 6), (6, 7), (8, 9), (9, 10), (10, 11)]
    topology = make_topology(["H", "O", "O", "H"] * 3, bonds)
    turning = [[0, 120, 60, 180, 300, 420], [60, -60, 0, 50, -35, 0]]
    swinging = [[0, 35, -35, 35, 0, 10], [120, 155, 85, 120, 140, 100]]

    def positions(*angles: list[int]) -> np.ndarray:
        frames = []
        for of_frame in np.deg2rad(np.transpose(angles)):
            atoms = []
            for number, angle in enumerate(of_frame):
                turned = [0.1 * np.cos(angle), -0.1 * np.sin(angle), 0.15]
                chain = [[0.1, 0, 0], [0, 0, 0], [0, 0, 0.15], turned]
                atoms += [[x, y, z + number] for x, y, z in chain]
            frames.append(atoms)
        return np.array(frames)

    def turns(second: list[list[int]]) -> int:
        parts = [positions(a, b, [0] * 6) for a, b in zip(turning, second, strict=True)]
        return dihedral_turns(Ensemble(topology, 0.01, parts))["H-O-O-H"]

    assert turns(swinging) == 5
    assert turns([[0, 0, 0, 120, 120, 120], swinging[1]]) == 1
    assert turns(turning) == 5
    still = Ensemble(topology, 0.01, [positions([0] * 3, [0] * 3, [0] * 3)])
    assert dihedral_turns(still) == {"H-O-O-H": 0}


def test_bonds_that_fly_apart_count_in_the_last_bin(diatomic: mdtraj.Topology):
    found = marginals(stretched(diatomic, np.array([0.1205, 0.1205, 0.1205, 5.0])))
    share = found["bonds"]["C-O"].density * 0.01
    assert share[120] == pytest.approx(0.75)
    assert share[-1] == pytest.approx(0.25)


def test_a_ring_of_three_has_no_dihedral_of_its_own(
    make_topology: Callable[..., mdtraj.Topology],
):
    # Cyclopropane without hydrogens, and an oxygen on one of its atoms.
    topology = make_topology(["C", "C", "C", "O"], [(0, 1), (1, 2), (0, 2), (2, 3)])
    found = bonded_terms(topology)
    assert found["dihedrals"]["C-C-C-O"].tolist() == [[1, 0, 2, 3], [0, 1, 2, 3]]
    assert list(found["dihedrals"]) == ["C-C-C-O"]


def test_marginals_of_another_molecule_are_refused(
    ethanol: mdtraj.Topology, diatomic: mdtraj.Topology
):
    a = marginals(stretched(diatomic, np.full(3, 0.12)))
    positions = np.random.default_rng(0).normal(size=(2, 9, 3))
    b = marginals(Ensemble(ethanol, 0.01, [positions]))
    with pytest.raises(ValueError, match="is it the same molecule"):
        marginal_divergences(a, b)

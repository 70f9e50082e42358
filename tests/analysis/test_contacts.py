"""Atoms that become bonded without a bond between them."""

import mdtraj
import numpy as np
import pytest
from numpy.typing import NDArray

from openmm_diffmd.analysis.contacts import APPROACH, closest_contact, new_bond_limits
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.elements import BOND_TOLERANCE

HYDROGEN, OXYGEN = 0.031, 0.066
"""Covalent radii, nm."""


@pytest.fixture
def row() -> NDArray[np.float64]:
    """H-O-O-H in a row, bonds of 0.1 nm: two replicas of six frames."""
    positions = np.zeros((2, 6, 4, 3))
    positions[..., 0] = 0.1 * np.arange(4)
    return positions


def test_limits_are_those_of_bonds(hydrogen_peroxide: mdtraj.Topology, row):
    ensemble = Ensemble(hydrogen_peroxide, 0.01, list(row))
    expected = {
        "H-O": BOND_TOLERANCE * (HYDROGEN + OXYGEN),
        "H-H": BOND_TOLERANCE * 2 * HYDROGEN,
    }
    assert new_bond_limits(ensemble) == pytest.approx(expected)


def test_what_the_reference_brings_close_is_no_new_bond(
    hydrogen_peroxide: mdtraj.Topology, row
):
    # A proton between two oxygens, in one frame of one replica.
    row[1, 3, 0] = row[1, 3, 2] + [0.0, 0.12, 0.0]
    ensemble = Ensemble(hydrogen_peroxide, 0.01, list(row))
    expected = {"H-O": 0.12 - APPROACH, "H-H": BOND_TOLERANCE * 2 * HYDROGEN}
    assert new_bond_limits(ensemble) == pytest.approx(expected)


def test_the_closest_contact_is_found_where_it_was(
    hydrogen_peroxide: mdtraj.Topology, row
):
    limits = new_bond_limits(Ensemble(hydrogen_peroxide, 0.01, list(row)))
    row[1, 4, 0] = row[1, 4, 3] + [0.0, 0.05, 0.0]
    found = closest_contact(Ensemble(hydrogen_peroxide, 0.01, list(row)), limits)
    assert found is not None
    assert (found.atoms, found.replica) == ("H1-H4", 1)
    assert found.distance == pytest.approx(0.05)
    assert found.time == pytest.approx(0.05)
    assert found.limit == limits["H-H"]


def test_two_atoms_have_no_contact(diatomic: mdtraj.Topology):
    ensemble = Ensemble(diatomic, 0.01, [np.zeros((1, 2, 3))])
    assert new_bond_limits(ensemble) == {}
    assert closest_contact(ensemble, {}) is None

"""At a bound a frame is as it should be, just beyond it is not."""

import dataclasses
import re

import numpy as np
import pytest

from openmm_diffmd.integrator.guards import find_fault
from openmm_diffmd.integrator.molecules import MoleculeSet

MOLECULES = MoleculeSet(
    species=np.zeros(3, np.int64),
    masses=np.array([1e9, 2.0, 3.0]),
    molecules=np.array([0, 1, 1]),
    bonds=np.array([[1, 2]]),
    bond_ranges=np.array([[0.1, 0.2]]),
    contact_limits=np.array([[0.3]]),
    kinetic_energy_quantiles=np.array([5.0, 8.0]),
)
# kJ/mol: half of kT times the quantile of molecule 1 is 10.
MAX_KT = 2.5
HOTTEST = np.sqrt(2 * 10.0 / 3.0)
BELOW, ABOVE = 1 - 1e-9, 1 + 1e-9


def frame(length, speed):
    """Particle 0 is of another molecule, whatever it does."""
    positions = np.full((3, 3), np.nan)
    positions[1] = [1.0, 2.0, 3.0]
    positions[2] = positions[1] + length * np.array([0.0, 0.6, -0.8])
    velocities = np.full((3, 3), np.nan)
    velocities[1:] = [[0.0, 0.0, 0.0], [0.0, -0.8 * speed, 0.6 * speed]]
    return positions, velocities


@pytest.mark.parametrize("length", [0.1 * ABOVE, 0.2 * BELOW])
def test_frames_within_all_bounds_are_good(length):
    assert find_fault(MOLECULES, 1, *frame(length, HOTTEST * BELOW), MAX_KT) == ""


@pytest.mark.parametrize("length", [0.1 * BELOW, 0.2 * ABOVE])
def test_bonds_are_refused_beyond_either_bound(length):
    found = find_fault(MOLECULES, 1, *frame(length, 1.0), MAX_KT)
    assert re.search(r"atoms 1 and 2 is 0.[12] nm long, expected 0.1 to 0.2", found)


def test_kinetic_energy_is_refused_beyond_its_bound():
    found = find_fault(MOLECULES, 1, *frame(0.15, HOTTEST * ABOVE), MAX_KT)
    assert "of atoms 1 to 2 is 10 kJ/mol, expected at most 10 kJ/mol" in found


@pytest.mark.parametrize(
    ("species", "limit"), [([0, 0, 0], 0.15), ([0, 0, 1], 0.2), ([0, 1, 0], 0.2)]
)
def test_atoms_without_a_bond_keep_their_distance(species, limit):
    # Particles 1 and 3 are bonded, else no two are known to have no bond.
    free = dataclasses.replace(
        MOLECULES,
        species=np.array([*species, 1]),
        masses=np.array([1e9, 2.0, 3.0, 1.0]),
        molecules=np.array([0, 1, 1, 1]),
        bonds=np.array([[1, 3]]),
        bond_ranges=np.array([[0.9, 1.1]]),
        contact_limits=np.array([[0.15, 0.2], [0.2, 0.0]]),
    )

    def find(length, molecules=free):
        far = [1.0, 1.0, 3.0], [0.0, 0.0, 0.0]
        state = [np.vstack(pair) for pair in zip(frame(length, 1.0), far, strict=True)]
        return find_fault(molecules, 1, *state, MAX_KT)

    assert find(limit * ABOVE) == ""
    found = find(limit * BELOW)
    assert f"atoms 1 and 2, which have no bond, are {limit:g} nm apart" in found
    assert f"expected at least {limit:g} nm" in found
    none = {"bonds": np.zeros((0, 2), np.int64), "bond_ranges": np.zeros((0, 2))}
    assert find(limit * BELOW, dataclasses.replace(free, **none)) == ""


def test_bonded_atoms_have_no_limit_but_their_range():
    close = dataclasses.replace(MOLECULES, contact_limits=np.array([[0.3]]))
    assert find_fault(close, 1, *frame(0.15, 1.0), MAX_KT) == ""


@pytest.mark.parametrize("which", ["position", "velocity"])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_any_number_that_is_not_finite_is_refused(which, value):
    for atom in (1, 2):
        for axis in range(3):
            state = frame(0.15, 1.0)
            state[which == "velocity"][atom, axis] = value
            found = find_fault(MOLECULES, 1, *state, MAX_KT)
            assert found.startswith(f"atom {atom} has position")

"""Forces of other units or signs are told by how stiff bonds are."""

import dataclasses
import warnings
from pathlib import Path

import numpy as np
import pytest

from openmm_diffmd.data.forces import check_forces
from openmm_diffmd.data.single_molecule import single_molecule


def make_stretched(stiffness):
    """Frames of a molecule whose bonds have this stiffness, N/m."""
    generator = np.random.default_rng(3)
    x0 = 0.1 * np.array([[0, 0, 0], [0.96, 0, 0], [-0.24, 0.93, 0]])
    off = 0.003 * generator.normal(size=(400, 3, 3))
    return single_molecule(
        Path("springs.npz"),
        positions=x0 + off,
        velocities=None,
        times=np.arange(400.0),
        segments=np.zeros(400, np.int32),
        atomic_numbers=np.array([8, 1, 1]),
        potential_energies=np.zeros(400),
        # A bond shows half of the springs that hold its atoms.
        forces=-2.0 * 602.214 * stiffness * off,
        provenance={},
    )


def test_forces_of_other_units_or_sign_are_told():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        check_forces(Path("right.npz"), make_stretched(500.0))
    with pytest.warns(UserWarning, match=r"found bonds of 3\d(\.\d)? N/m .*kcal/mol"):
        check_forces(Path("soft.npz"), make_stretched(35.0))
    with pytest.warns(UserWarning, match=r"found bonds of [45].*e\+03 N/m"):
        check_forces(Path("stiff.npz"), make_stretched(5000.0))
    # eV where kcal/mol is read: 23 times too small.
    with pytest.raises(ValueError, match=r"found bonds of 2\d(\.\d)? N/m .*kcal/mol"):
        check_forces(Path("eV.npz"), make_stretched(500.0 / 23.06))
    with pytest.raises(ValueError, match=r"found bonds of 2.*e\+04 N/m"):
        check_forces(Path("kJ.npz"), make_stretched(500.0 * 41.84))
    with pytest.raises(ValueError, match=r"found bonds of -5\d\d N/m .*not gradients"):
        check_forces(Path("gradients.npz"), make_stretched(-550.0))
    # Of rigid bonds nothing can be told.
    springs = make_stretched(500.0 / 23.06)
    rigid = springs.positions[:1] + 1e-3 * (springs.positions - springs.positions[:1])
    check_forces(Path("rigid.npz"), dataclasses.replace(springs, positions=rigid))


def test_of_one_frame_nothing_can_be_told():
    springs = make_stretched(500.0 / 23.06)
    one = dataclasses.replace(
        springs,
        positions=springs.positions[:1],
        times=springs.times[:1],
        segments=springs.segments[:1],
        potential_energies=np.zeros(1),
        forces=np.asarray(springs.forces)[:1],
    )
    check_forces(Path("one.npz"), one)

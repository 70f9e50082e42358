"""What follows from elements: which atoms are bonded."""

import numpy as np

from openmm_diffmd.elements import bonds_from_radii


def test_atoms_are_bonded_up_to_115_hundredths_of_their_radii():
    # Of oxygen and hydrogen together, 0.097 nm.
    for share, bonds in ((1.14, [[0, 1]]), (1.16, [])):
        positions = np.array([[[0.0, 0.0, 0.0], [0.097 * share, 0.0, 0.0]]])
        found = bonds_from_radii(np.array([8, 1]), positions)
        assert found.tolist() == bonds

import warnings

import numpy as np
import pytest
from ase.data import chemical_symbols
from ase.io import write
from openmm import app, unit

from openmm_diffmd.elements import HEAVIEST, element_masses
from openmm_diffmd.reference.molecules import load_molecule, molecule_names

PDB = """\
HETATM    1  O   LIG A   1       0.000   0.000   0.000  1.00  0.00           O
HETATM    2  H1  LIG A   1       0.960   0.000   0.000  1.00  0.00           H
HETATM    3  H2  LIG A   1      -0.240   0.930   0.000  1.00  0.00           H
"""


def bonds_of(topology):
    return [(bond[0].index, bond[1].index) for bond in topology.bonds()]


@pytest.mark.parametrize(
    ("name", "n_atoms", "n_bonds"),
    [
        ("ethanol", 9, 8),
        ("Benzene", 12, 12),
        ("methane", 5, 4),
        ("alanine_dipeptide", 22, 21),
        ("aspirin", 21, 21),
        ("malonaldehyde", 9, 8),
        ("naphthalene", 18, 19),
        ("Salicylic", 16, 16),
        ("toluene", 15, 15),
        ("uracil", 12, 12),
    ],
)
def test_molecule_is_found_by_name(name, n_atoms, n_bonds):
    topology, positions = load_molecule(name)
    assert (topology.getNumAtoms(), topology.getNumBonds()) == (n_atoms, n_bonds)
    assert positions.shape == (n_atoms, 3)
    # A Quantity, which OpenMM's PDBFile and Modeller take in its unit.
    assert np.ptp(positions.value_in_unit(unit.nanometer), axis=0).max() < 1.0


def test_masses_by_element_are_openmms():
    topologies = [load_molecule(name)[0] for name in molecule_names()]
    atoms = [atom for topology in topologies for atom in topology.atoms()]
    np.testing.assert_array_equal(
        element_masses(atom.element.atomic_number for atom in atoms),
        [atom.element.mass.value_in_unit(unit.dalton) for atom in atoms],
    )


def test_xyz_is_loaded(tmp_path):
    path = tmp_path / "water.xyz"
    path.write_text("3\n\nO 0 0 0\nH 0.96 0 0\nH -0.24 0.93 0\n")
    topology, positions = load_molecule(path)
    assert bonds_of(topology) == [(0, 1), (0, 2)]
    np.testing.assert_allclose(positions[1]._value, [0.096, 0, 0])
    # Never a name that PDB files have bonds of their own for.
    assert next(topology.residues()).name == "MOL"


@pytest.mark.parametrize("connections", ["", "CONECT    1    2\nCONECT    1    3\n"])
def test_pdb_is_loaded_with_its_names_and_bonds(tmp_path, connections):
    path = tmp_path / "water.pdb"
    path.write_text(PDB + connections + "END\n")
    topology, positions = load_molecule(path)
    assert bonds_of(topology) == [(0, 1), (0, 2)]
    assert [atom.name for atom in topology.atoms()] == ["O", "H1", "H2"]
    np.testing.assert_allclose(positions[2]._value, [-0.024, 0.093, 0], atol=1e-9)


def test_pdb_with_repeated_names_is_refused(tmp_path):
    path = tmp_path / "water.pdb"
    path.write_text(PDB.replace("H1", "H ").replace("H2", "H ") + "END\n")
    with pytest.raises(ValueError, match=r"water\.pdb calls several atoms 'H' in one"):
        load_molecule(path)


def test_bonds_of_a_pdb_are_its_own(tmp_path):
    # A ring of three, left open: the radii would close it.
    path = tmp_path / "ozone.pdb"
    ring = """\
HETATM    1  O1  LIG A   1       0.000   0.000   0.000  1.00  0.00           O
HETATM    2  O2  LIG A   1       1.440   0.000   0.000  1.00  0.00           O
HETATM    3  O3  LIG A   1       0.720   1.247   0.000  1.00  0.00           O
"""
    path.write_text(ring + "CONECT    1    2\nCONECT    2    3\nEND\n")
    with pytest.warns(UserWarning, match=r"without bonds between atoms \[\[0, 2\]\]"):
        topology, _ = load_molecule(path)
    assert bonds_of(topology) == [(0, 1), (1, 2)]


def test_bond_of_a_pdb_that_is_none_is_refused(tmp_path):
    path = tmp_path / "water.pdb"
    path.write_text(PDB + "CONECT    1    2\nCONECT    2    3\nEND\n")
    message = r"bonds atoms 1 and 2, .* 1\.52 Angstrom apart, expected about 0\.62"
    with pytest.raises(ValueError, match=message):
        load_molecule(path)


def test_bonds_that_a_pdb_lacks_come_from_radii(tmp_path):
    path = tmp_path / "water.pdb"
    path.write_text(PDB + "CONECT    1    3\nEND\n")
    assert sorted(bonds_of(load_molecule(path)[0])) == [(0, 1), (0, 2)]


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("two.xyz", "4\n\nO 0 0 0\nH 0.96 0 0\nO 9 0 0\nH 9.96 0 0\n", "in 2 pieces"),
        ("nm.xyz", "2\n\nO 0 0 0\nH 0.096 0 0\n", r"1 0\.096 Angstrom apart.* Angst"),
        ("far.xyz", "2\n\nO 0 0 0\nH 1.5 0 0\n", r"smallest of atoms \[0\], .*CONECT"),
        ("two.pdb", "MODEL        1\n" + PDB + "ENDMDL\nMODEL        2\n" + PDB
         + "ENDMDL\nEND\n", "holds 2 models, expected one"),
    ],
)  # fmt: skip
def test_several_molecules_are_refused(tmp_path, name, text, message):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        load_molecule(path)


def test_unknown_name_is_refused():
    with pytest.raises(FileNotFoundError, match=r"no molecule 'ethanl'; .*'ethanol'"):
        load_molecule("ethanl")


def test_file_of_another_kind_is_refused(tmp_path):
    write(tmp_path / "file.cif", [])
    with pytest.raises(ValueError, match="expected an xyz or pdb file: convert it"):
        load_molecule(tmp_path / "file.cif")
    with pytest.raises(ValueError, match="a System XML holds no positions"):
        load_molecule("system.xml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "holds 0 molecules, expected one"),
        ("0\n\n", "holds no atom, expected one molecule"),
        ("3\n\nO 0 0 0\n", r"Frame has 1 atoms, expected 3\); expected a number of"),
        ("1\n\nO 0 0 0\nH 1 0 0\n", "is no xyz file that can be read"),
        ("1\n\nQq 0 0 0\n", "is no xyz file that can be read .*Qq"),
        ("1\n\nO 0 x 0\n", "is no xyz file that can be read .*'x'"),
        ("1\n\nO 0 nan 0\n", r"atoms \[0\] at positions that are not finite"),
        ("3", r"is no xyz .*StopIteration\); expected a number .*: repair or copy"),
        ("2\n\nO 0 0 0\nX 0.96 0 0\n", r"an element that OpenMM knows: \[1\]; exp"),
        (
            "1\n\nOg 0 0 0\n",
            r"an element that OpenMM knows: \[0\]; expected .* H to Rg",
        ),
        ("1\nProperties=pos:R:3\n0 0 0\n", r"an element that OpenMM knows: \[0\]"),
        ("1\nProperties=Z:I:1:pos:R:3\n200 0 0 0\n", r"that OpenMM knows: \[0\]"),
        ("1\nProperties=T\nO 0 0 0\n", r"is no xyz file that can be .*\(AttributeErr"),
        ("1\n\nO 0 0 0\n1\n\nO 0 0 1\n", "holds 2 molecules, expected one"),
    ],
)
def test_xyz_that_is_not_one_molecule_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.xyz"
    path.write_text(text)
    with pytest.raises(ValueError, match=rf"bad.xyz .*{message}"):
        load_molecule(path)


@pytest.mark.parametrize("number", range(1, HEAVIEST + 1))
def test_elements_are_openmms(number):
    element = app.Element.getByAtomicNumber(number)
    assert element.symbol == chemical_symbols[number]
    assert element_masses([number]) > 0


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "is no PDB "),
        ("HEADER    x\nEND\n", r"is no PDB .*\(AttributeError: "),
        ("MODEL        1\nENDMDL\nEND\n", "holds no atom, "),
        ("CONECT    1    2\n", "is no PDB "),
        ("HETATM\n", r"is no PDB .*\(AssertionError: "),
    ],
)
def test_pdb_without_atoms_is_refused(tmp_path, text, message):
    path = tmp_path / "bad.pdb"
    path.write_text(text)
    with pytest.raises(
        ValueError, match=rf"bad.pdb {message}.*expected ATOM or HETATM .*make it again"
    ):
        load_molecule(path)


@pytest.mark.parametrize(
    ("comment", "said"),
    [
        ("charge=1", "{charge: 1}"),
        ("charge=-2 multiplicity=3", "{charge: -2, multiplicity: 3}"),
        ("charge=0 multiplicity=1", None),
        ("hydroxide, charge 1", None),
    ],
)
def test_a_charge_in_a_comment_is_told_of(tmp_path, comment, said):
    path = tmp_path / "oh.xyz"
    path.write_text(f"2\n{comment}\nO 0 0 0\nH 0.97 0 0\n")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        load_molecule(path)
    messages = [str(one.message) for one in caught]
    assert len(messages) == (said is not None)
    assert said is None or f"--potential_options '{said}'" in messages[0]

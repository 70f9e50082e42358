"""Molecules to make references of: by name, or from an xyz or pdb file."""

import warnings
from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule as g2_molecule
from numpy.typing import NDArray
from openmm import app, unit

from openmm_diffmd.bond_graphs import bond_graph, pieces
from openmm_diffmd.data.extxyz import XYZ_FORM, read_xyz_frames
from openmm_diffmd.data.single_molecule import check_positions
from openmm_diffmd.elements import (
    HEAVIEST,
    LONGEST_BOND,
    bonds_from_radii,
    contact_distances,
)
from openmm_diffmd.topologies import make_topology
from openmm_diffmd.units import ANGSTROM

G2_NAMES = {
    "ethanol": "CH3CH2OH",
    "benzene": "C6H6",
    "methane": "CH4",
    "methanol": "CH3OH",
    "water": "H2O",
}
"""Common names of molecules whose geometry ships with ASE (G2 set)."""

GEOMETRIES = Path(__file__).parent / "geometries"
"""Minima of GFN2-xTB for the other molecules of MD17, by the names of its files."""
UNREAD = {"charge": 0, "multiplicity": 1}
"""What the comment of an xyz file may say of the electrons, and its usual values."""


def molecule_names() -> list[str]:
    """
    List the molecules that have a name.

    Returns
    -------
    list of str
        Names that `load_molecule` knows, sorted.
    """
    return sorted([*G2_NAMES, *(path.stem for path in GEOMETRIES.glob("*.xyz"))])


def topology_of(atoms: Atoms) -> app.Topology:
    """
    Make an OpenMM Topology of one molecule, bonds from covalent radii.

    Parameters
    ----------
    atoms : ase.Atoms
        The molecule.

    Returns
    -------
    openmm.app.Topology
        That of `make_topology`.
    """
    bonds = bonds_from_radii(atoms.numbers, ANGSTROM * atoms.positions[None])
    return make_topology(atoms.get_chemical_symbols(), bonds).to_openmm()


def load_molecule(
    molecule: str | Path,
) -> tuple[app.Topology, unit.Quantity]:
    """
    Load a molecule by name or from a file.

    Parameters
    ----------
    molecule : str or path-like
        One of `molecule_names`, or an xyz or pdb file. A pdb file keeps its own
        residues and bonds; where these leave it in pieces, bonds by covalent radii
        join them.

    Returns
    -------
    topology : openmm.app.Topology
        Elements and bonds.
    positions : Quantity, shape (n_atoms, 3)
        Positions, nm.

    Warns
    -----
    UserWarning
        If a pdb file does not bond two atoms that are as close as bonded ones, or the
        comment of an xyz file names a charge or a multiplicity, which is not read.

    Raises
    ------
    FileNotFoundError
        If it is neither a known name nor a file.
    ValueError
        If it is a file of another kind, damaged or of several molecules, an atom has
        no element or no bond to the others, a bond of a pdb file is no bond by its
        length, or a position is not finite.
    """
    topology, positions = _load(str(molecule))
    if len(found := _pieces(topology)) > 1:
        raise ValueError(
            f"found {molecule} in {len(found)} pieces, the smallest of atoms "
            f"{min(found, key=len)}, expected one molecule, bonds by covalent radii "
            "included: split the file, give a pdb with CONECT records of its bonds, or "
            "convert positions that are not in Angstrom"
        )
    return topology, positions


def _pieces(topology: app.Topology) -> list[list[int]]:
    symbols = [atom.element.symbol for atom in topology.atoms()]
    bonds = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
    return pieces(bond_graph(symbols, bonds))


def _load(name: str) -> tuple[app.Topology, unit.Quantity]:
    if name.lower() in G2_NAMES:
        atoms = g2_molecule(G2_NAMES[name.lower()])
        return topology_of(atoms), _positions_of(atoms)
    path = Path(name)
    if name.lower() in molecule_names():
        path = GEOMETRIES / f"{name.lower()}.xyz"
    if path.suffix.lower() == ".xml":
        raise ValueError(
            f"found {name!r} as the molecule, expected an xyz or pdb file: a System "
            "XML holds no positions; give it as the potential"
        )
    if not path.is_file():
        raise FileNotFoundError(
            f"found no molecule {name!r}; expected one of {molecule_names()} "
            "or the path of an xyz or pdb file"
        )
    if path.suffix.lower() == ".pdb":
        return _load_pdb(path)
    if path.suffix.lower() in (".xyz", ".extxyz"):
        atoms = _load_xyz(path)
        return topology_of(atoms), _positions_of(atoms)
    raise ValueError(
        f"found {name!r} as the molecule, expected an xyz or pdb file: convert it"
    )


def _positions_of(atoms: Atoms) -> unit.Quantity:
    return unit.Quantity(ANGSTROM * atoms.positions, unit.nanometer)


def _load_xyz(path: Path) -> Atoms:
    frames = read_xyz_frames(path)
    if len(frames) != 1 or not len(frames[0]):
        found = f"{len(frames)} molecules" if len(frames) != 1 else "no atom"
        raise ValueError(
            f"{path} holds {found}, expected one molecule ({XYZ_FORM}): split the file"
        )
    numbers = frames[0].numbers
    nameless = np.flatnonzero((numbers < 1) | (numbers > HEAVIEST))
    if len(nameless):
        raise ValueError(
            f"{path} has atoms without an element that OpenMM knows: "
            f"{nameless.tolist()}; expected one for each: put its symbol, H to Rg, "
            "before x, y, z"
        )
    check_positions(path, ANGSTROM * frames[0].positions)
    comment = frames[0].info
    # A word without a value is read as True.
    said = {
        name: comment[name]
        for name, usual in UNREAD.items()
        if comment.get(name, True) is not True and comment[name] != usual
    }
    if said:
        options = ", ".join(f"{name}: {value}" for name, value in said.items())
        warnings.warn(
            f"{path} has {options} in its comment, which is not read: give the "
            f"potential's options, --potential_options '{{{options}}}'",
            stacklevel=4,
        )
    return frames[0]


def _check_names(path: Path) -> None:
    """Refuse a PDB file that calls two atoms alike: OpenMM would read one of them."""
    seen = set()
    for line in path.read_text(errors="replace").splitlines():
        if line.startswith("ENDMDL"):
            return
        if line.startswith(("ATOM", "HETATM")):
            # Name, alternate location, residue and chain, its number.
            name = line[12:27]
            if name in seen:
                raise ValueError(
                    f"{path} calls several atoms {line[12:16].strip()!r} in one "
                    "residue, of which OpenMM reads one; expected a name for each: "
                    "number them, H1, H2 and so on, or give an xyz file"
                )
            seen.add(name)


def _load_pdb(path: Path) -> tuple[app.Topology, unit.Quantity]:
    form = "ATOM or HETATM records"
    _check_names(path)
    try:
        with path.open() as file:
            pdb = app.PDBFile(file)
    # OpenMM asserts the form of a record, and has no model to ask where there is none.
    except (
        AssertionError,
        AttributeError,
        IndexError,
        KeyError,
        ValueError,
    ) as error:
        raise ValueError(
            f"{path} is no PDB file that can be read ({type(error).__name__}: "
            f"{error}); expected {form}: copy or make it again"
        ) from error
    topology = pdb.topology
    if pdb.getNumFrames() != 1:
        raise ValueError(
            f"{path} holds {pdb.getNumFrames()} models, expected one: split the file"
        )
    if topology.getNumAtoms() == 0:
        raise ValueError(
            f"{path} holds no atom, expected {form} of one molecule: copy or make it "
            "again"
        )
    positions = pdb.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
    check_positions(path, positions)
    atoms = list(topology.atoms())
    nameless = [atom.index for atom in atoms if atom.element is None]
    if nameless:
        raise ValueError(
            f"{path} has atoms without an element: {nameless}; expected one for each: "
            "fill in columns 77-78"
        )
    numbers = np.array([atom.element.atomic_number for atom in atoms])
    _check_bonds(path, topology, numbers, positions)
    known = {frozenset((a.index, b.index)) for a, b in topology.bonds()}
    near = bonds_from_radii(numbers, positions[None]).tolist()
    lacking = [pair for pair in near if frozenset(pair) not in known]
    if len(_pieces(topology)) > 1:
        # Names of atoms that OpenMM does not know leave bonds out.
        for i, j in lacking:
            topology.addBond(atoms[i], atoms[j])
    elif lacking:
        warnings.warn(
            f"found {path} without bonds between atoms {lacking}, numbered from 0, "
            "which are as close as bonded atoms: guards and analysis take the bonds "
            "of the file; if it lacks them, add CONECT records, or give an xyz file",
            stacklevel=4,
        )
    return topology, unit.Quantity(np.array(positions, np.float64), unit.nanometer)


def _check_bonds(
    path: Path,
    topology: app.Topology,
    numbers: NDArray[np.int64],
    positions: NDArray[np.float64],
) -> None:
    """Refuse bonds of atoms that are too far apart (nm) for one."""
    for a, b in topology.bonds():
        length = np.linalg.norm(positions[a.index] - positions[b.index])
        ends = np.array([a.index]), np.array([b.index])
        usual = contact_distances(numbers, *ends)[0]
        if length > LONGEST_BOND * usual:
            raise ValueError(
                f"{path} bonds atoms {a.index} and {b.index}, numbered from 0, which "
                f"are {length / ANGSTROM:.3g} Angstrom apart, expected about "
                f"{usual / ANGSTROM:.3g}: mend its CONECT records, or give an xyz file"
            )

"""Molecules to make references of: by name, from a file, or from a System XML."""

from pathlib import Path

import numpy as np
from ase import Atoms
from ase.build import molecule as g2_molecule
from ase.io import read
from ase.neighborlist import build_neighbor_list, natural_cutoffs
from numpy.typing import NDArray
from openmm import app

G2_NAMES = {
    "ethanol": "CH3CH2OH",
    "benzene": "C6H6",
    "methane": "CH4",
    "methanol": "CH3OH",
    "water": "H2O",
}
"""Common names of molecules whose geometry ships with ASE (G2 set)."""


def topology_of(atoms: Atoms, name: str = "MOL") -> app.Topology:
    """
    Make an OpenMM Topology of one molecule, bonds from covalent radii.

    Parameters
    ----------
    atoms : ase.Atoms
        The molecule.
    name : str
        Residue name.

    Returns
    -------
    openmm.app.Topology
        One chain, one residue.
    """
    topology = app.Topology()
    residue = topology.addResidue(name[:3].upper(), topology.addChain())
    added = [
        topology.addAtom(
            f"{symbol}{index + 1}", app.Element.getBySymbol(symbol), residue
        )
        for index, symbol in enumerate(atoms.get_chemical_symbols())
    ]
    cutoffs = natural_cutoffs(atoms, mult=1.15)
    neighbors = build_neighbor_list(atoms, cutoffs, self_interaction=False)
    for i in range(len(atoms)):
        for j in neighbors.get_neighbors(i)[0]:
            topology.addBond(added[i], added[int(j)])
    return topology


def load_molecule(
    molecule: str | Path,
) -> tuple[app.Topology, NDArray[np.float64]]:
    """
    Load a molecule by name or from a file.

    Parameters
    ----------
    molecule : str or path-like
        One of `G2_NAMES`, or an xyz or pdb file.

    Returns
    -------
    topology : openmm.app.Topology
        Elements and bonds.
    positions : ndarray, shape (n_atoms, 3), nm
        Positions.

    Raises
    ------
    FileNotFoundError
        If it is neither a known name nor a file.
    """
    name = str(molecule)
    if name.lower() in G2_NAMES:
        atoms = g2_molecule(G2_NAMES[name.lower()])
    elif Path(name).is_file():
        if Path(name).suffix == ".pdb":
            pdb = app.PDBFile(name)
            return pdb.topology, np.array(pdb.positions._value, dtype=np.float64)
        atoms = read(name)
    else:
        raise FileNotFoundError(
            f"found no molecule {name!r}; expected one of {sorted(G2_NAMES)} "
            "or the path of an xyz or pdb file"
        )
    return topology_of(atoms, Path(name).stem), 0.1 * atoms.positions

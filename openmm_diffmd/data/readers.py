"""Readers: every supported file becomes a `Trajectory` in nm, ps, Da, kJ/mol."""

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
import tables
from mdtraj.core.element import Element
from numpy.typing import NDArray

from openmm_diffmd.data.trajectory import Trajectory

FloatArray = NDArray[np.floating[Any]]


def element_masses(atomic_numbers: Iterable[int]) -> FloatArray:
    """
    Look up the masses that OpenMM's own element table gives.

    Parameters
    ----------
    atomic_numbers : iterable of int
        Atomic numbers.

    Returns
    -------
    ndarray, shape (n_atoms,), Da
        Masses.

    Raises
    ------
    ValueError
        If a number is not an element's.
    """
    masses = []
    for number in atomic_numbers:
        try:
            masses.append(Element.getByAtomicNumber(int(number)).mass)
        except KeyError:
            raise ValueError(
                f"found atomic number {int(number)}, expected one of an element"
            ) from None
    return np.array(masses, dtype=np.float64)


def read_reference(path: str | Path) -> Trajectory:
    """
    Read a file of `make_reference`, or any MDTraj HDF5 file of one molecule.

    A file that is still being written, or whose writer was killed, is read as far
    as all of its arrays go.

    Parameters
    ----------
    path : path-like
        MDTraj HDF5 file.

    Returns
    -------
    Trajectory
        Frames; velocities, forces and energies where the file has them.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is not an MDTraj HDF5 file, or holds no whole frame.
    """
    # A copy in memory: a file that its writer has locked can be read all the same.
    image = Path(path).read_bytes()
    if not image.startswith(b"\x89HDF\r\n\x1a\n"):
        raise ValueError(f"{path} is not HDF5; expected an MDTraj HDF5 file")
    with tables.open_file(
        f"{path}.image",
        "r",
        driver="H5FD_CORE",
        driver_core_image=image,
        driver_core_backing_store=0,
    ) as file:
        nodes = {node.name: node for node in file.list_nodes("/")}
        missing = {"coordinates", "time", "topology"} - nodes.keys()
        if missing:
            raise ValueError(
                f"{path} lacks {sorted(missing)}, expected an MDTraj HDF5 file with "
                f"them; found {sorted(nodes)}"
            )
        arrays = {
            name: nodes[name]
            for name in (
                "coordinates",
                "velocities",
                "time",
                "segment",
                "forces",
                "potentialEnergy",
            )
            if name in nodes
        }
        n_frames = min(len(node) for node in arrays.values())
        # Frames that the writer has not reached have no time yet.
        reached = np.isfinite(nodes["time"][:n_frames])
        n_frames = n_frames if reached.all() else int(np.argmin(reached))
        if n_frames == 0:
            raise ValueError(f"{path} holds no whole frame yet; expected at least one")
        values = {name: node[:n_frames] for name, node in arrays.items()}
        topology = json.loads(nodes["topology"][0])
        provenance = json.loads(
            str(getattr(file.root._v_attrs, "diffmd_provenance", "{}"))
        )
    numbers, bonds = _parse_topology(topology)
    return Trajectory(
        positions=values["coordinates"],
        velocities=values.get("velocities"),
        times=values["time"],
        segments=values.get("segment", np.zeros(n_frames, dtype=np.int32)),
        atomic_numbers=numbers,
        masses=np.array(provenance.get("masses_Da", element_masses(numbers))),
        bonds=bonds,
        potential_energies=values.get("potentialEnergy"),
        forces=values.get("forces"),
        provenance=provenance,
    )


def _parse_topology(
    topology: dict[str, Any],
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    atoms = [
        atom
        for chain in topology["chains"]
        for residue in chain["residues"]
        for atom in residue["atoms"]
    ]
    atoms.sort(key=lambda atom: atom["index"])
    numbers = [Element.getBySymbol(atom["element"]).atomic_number for atom in atoms]
    # Each bond is [i, j], or [i, j, type, order] in files of other programs.
    bonds = [bond[:2] for bond in topology["bonds"]]
    return np.array(numbers, dtype=np.int64), np.array(bonds, dtype=np.int64).reshape(
        -1, 2
    )

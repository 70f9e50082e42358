"""Reader of DCD files, whose atoms a PDB file names."""

from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.data.reference_files import damage
from openmm_diffmd.data.single_molecule import single_molecule
from openmm_diffmd.data.trajectory import Trajectory, interval_ps


def read_dcd(path: str | Path, frame_interval_fs: float) -> Trajectory:
    """
    Read a DCD file of one molecule, with the PDB file of its name beside it.

    Parameters
    ----------
    path : path-like
        The DCD file; the PDB file has the same atoms in the same order.
    frame_interval_fs : float
        Time between frames, fs. What the header says is in units of the program that
        wrote it.

    Returns
    -------
    Trajectory
        One segment, without velocities.

    Raises
    ------
    FileNotFoundError
        If one of the files does not exist.
    ValueError
        If one is damaged, they are not of the same atoms, or these are not one molecule
        in one piece, or the interval is not above 0.
    """
    path = Path(path)
    pdb = path.with_suffix(".pdb")
    for file in (path, pdb):
        if not file.is_file():
            raise FileNotFoundError(
                f"found no {file}, expected a DCD file and a PDB file of its name "
                "beside it, which names the atoms: copy or make one"
            )
    interval = interval_ps(frame_interval_fs)
    topology = read_pdb_topology(pdb)
    elements = [atom.element for atom in topology.atoms]
    if any(element is None or not element.number for element in elements):
        raise ValueError(
            f"found an atom of no element in {pdb}, expected those of a molecule: fill "
            "in its columns 77 and 78"
        )
    positions = read_dcd_positions(path, topology)
    return single_molecule(
        path,
        positions=positions,
        velocities=None,
        times=interval * np.arange(len(positions)),
        segments=np.zeros(len(positions), dtype=np.int32),
        atomic_numbers=np.array([e.number for e in elements], dtype=np.int64),
        provenance={
            "data": "DCD",
            "file": path.name,
            "frame_interval_fs": frame_interval_fs,
            "velocities": "a DCD file has none",
            "forces": "a DCD file has none",
        },
    )


def read_pdb_topology(path: Path) -> mdtraj.Topology:
    """
    Read the atoms of a PDB file.

    Parameters
    ----------
    path : Path
        The file.

    Returns
    -------
    mdtraj.Topology
        Its atoms.

    Raises
    ------
    ValueError
        If it cannot be read.
    """
    try:
        return mdtraj.load_pdb(str(path)).topology
    # What MDTraj raises for damaged ones, the first two where there is no atom.
    except (AttributeError, IndexError, AssertionError, ValueError) as error:
        raise ValueError(
            f"{path} is no PDB file that can be read ({damage(error)}), expected the "
            "atoms of the trajectory"
        ) from error


def read_dcd_positions(
    path: Path, topology: mdtraj.Topology
) -> NDArray[np.floating[Any]]:
    """
    Read the positions of a DCD file.

    Parameters
    ----------
    path : Path
        The file.
    topology : mdtraj.Topology
        Its atoms.

    Returns
    -------
    ndarray, shape (n_frames, n_atoms, 3), nm
        Positions.

    Raises
    ------
    ValueError
        If it is damaged, or of other atoms.
    """
    # MDTraj takes names of ASCII only; this one it may always read.
    with path.open("rb") as opened:
        name = f"/dev/fd/{opened.fileno()}"
        try:
            positions: NDArray[np.floating[Any]] = mdtraj.load_dcd(
                name, top=topology
            ).xyz
        except (OSError, ValueError) as error:
            raise ValueError(
                f"found {path} damaged or of other atoms than the .pdb beside it, "
                f"expected a DCD of {topology.n_atoms} atoms: copy or make it again"
            ) from error
    return positions

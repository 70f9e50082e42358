"""Reader of the HDF5 files that `make_reference` writes."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import tables
from mdtraj.core.element import Element
from mdtraj.utils import in_units_of
from numpy.typing import NDArray

from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.elements import bonds_from_radii, element_masses

HDF5_SIGNATURE = b"\x89HDF\r\n\x1a\n"
PROVENANCE_ATTRIBUTE = "diffmd_provenance"
"""Attribute of the file that holds, in JSON, what made it."""
UNITS = {
    "coordinates": "nanometers",
    "velocities": "nanometers/picosecond",
    "forces": "kilojoules/mole/nanometer",
    "kineticEnergy": "kilojoules_per_mole",
    "potentialEnergy": "kilojoules_per_mole",
    "temperature": "kelvin",
    "segment": "dimensionless",
    "time": "picoseconds",
}
"""Arrays of the file and their units; ``time`` last, for it marks a frame whole."""
PER_FRAME = (
    "coordinates",
    "velocities",
    "time",
    "segment",
    "forces",
    "potentialEnergy",
)
HDF5_DAMAGE = (
    tables.HDF5ExtError,
    tables.NoSuchNodeError,
    AttributeError,
    SystemError,
    UnicodeDecodeError,
    json.JSONDecodeError,
)
"""What PyTables and JSON raise where bytes of a file are lost or altered."""


def read_reference(path: str | Path) -> Trajectory:
    """
    Read a file of `make_reference`, or any MDTraj HDF5 file of one molecule.

    A file that is still being written, or whose writer was killed, is read up to
    its last whole frame.

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
        If it is not an MDTraj HDF5 file, is damaged, holds no whole frame, or an array
        says of itself what is no unit of it.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(
            f"found no file {path}, expected an MDTraj HDF5 file: make a reference "
            "with openmm-diffmd reference"
        )
    # A copy in memory: a file that its writer has locked can be read all the same.
    image = Path(path).read_bytes()
    if not image.startswith(HDF5_SIGNATURE):
        raise ValueError(
            f"{path} is not HDF5; expected an MDTraj HDF5 file, such as openmm-diffmd "
            "reference makes: npz and xyz files lack velocities of their own"
        )
    try:
        with tables.open_file(
            f"{path}.image",
            "r",
            driver="H5FD_CORE",
            driver_core_image=image,
            driver_core_backing_store=0,
        ) as file:
            nodes = {node.name: node for node in file.list_nodes("/")}
            missing = {"coordinates", "topology"} - nodes.keys()
            if missing:
                raise ValueError(
                    f"{path} lacks {sorted(missing)}, expected an MDTraj HDF5 file "
                    f"with them; found {sorted(nodes)}"
                )
            values = _whole_frames(path, nodes)
            for name, factor in _factors(path, nodes).items():
                values[name] = factor * values[name]
            topology = json.loads(nodes["topology"][0])
            provenance = json.loads(
                str(getattr(file.root._v_attrs, PROVENANCE_ATTRIBUTE, "{}"))
            )
    except HDF5_DAMAGE as error:
        raise ValueError(
            f"found {path} damaged or cut short ({damage(error)}), expected a whole "
            "MDTraj HDF5 file: copy or make it again"
        ) from error
    try:
        numbers, bonds = _parse_topology(topology)
        if not len(bonds):
            bonds = bonds_from_radii(numbers, values["coordinates"])
        masses = np.array(
            provenance.get("masses_Da", element_masses(numbers)), dtype=np.float64
        )
    except (AttributeError, IndexError, KeyError, TypeError, ValueError) as error:
        raise ValueError(
            f"found atoms of {path} that cannot be read ({damage(error)}), expected "
            "MDTraj's topology of known elements: copy or make the file again"
        ) from error
    n_frames = len(values["time"])
    try:
        return Trajectory(
            positions=values["coordinates"],
            velocities=values.get("velocities"),
            times=values["time"],
            segments=values.get("segment", np.zeros(n_frames, dtype=np.int32)),
            atomic_numbers=numbers,
            masses=masses,
            bonds=bonds,
            potential_energies=values.get("potentialEnergy"),
            forces=values.get("forces"),
            provenance=provenance,
        )
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def damage(error: Exception) -> str:
    """
    Say in one line what is wrong with a damaged file.

    Parameters
    ----------
    error : Exception
        One of `HDF5_DAMAGE`, or of a parser.

    Returns
    -------
    str
        HDF5's innermost reason where it gives one, else the error.
    """
    trace = getattr(error, "h5backtrace", None)
    if trace:
        return str(trace[-1][-1])
    return f"{type(error).__name__}: {error}".strip(": ").splitlines()[0]


def _factors(path: str | Path, nodes: dict[str, Any]) -> dict[str, float]:
    """Of arrays that say another unit than ours, in which MDTraj writes."""
    factors = {}
    for name in PER_FRAME:
        said = getattr(nodes[name]._v_attrs, "units", None) if name in nodes else None
        if said is None:
            continue
        said = said.decode() if isinstance(said, bytes) else str(said)
        if said == UNITS[name]:
            continue
        try:
            factors[name] = float(in_units_of(1.0, said, UNITS[name]))
        # What MDTraj raises for words that are no units, or of something else.
        except (NameError, SyntaxError, TypeError, ValueError) as error:
            raise ValueError(
                f"found {name} of {path} in {said!r}, expected {UNITS[name]!r}, or "
                "another unit of the same by the name that MDTraj knows"
            ) from error
    return factors


def _whole_frames(path: str | Path, nodes: dict[str, Any]) -> dict[str, NDArray[Any]]:
    found = {name: nodes[name] for name in PER_FRAME if name in nodes}
    n_frames = min(len(node) for node in found.values())
    # Of a file without times frames are numbered, as MDTraj does itself.
    times = found.get("time", np.arange(n_frames, dtype=np.float64))
    # Frames that the writer has not reached have no time yet.
    reached = np.isfinite(times[:n_frames])
    if not reached.all():
        n_frames = int(np.argmin(reached))
    if n_frames == 0:
        raise ValueError(f"{path} holds no whole frame yet; expected at least one")
    whole = {name: node[:n_frames] for name, node in found.items()}
    return {**whole, "time": times[:n_frames]}


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
    bonds = np.array([bond[:2] for bond in topology["bonds"]], dtype=np.int64)
    if not np.isin(bonds, np.arange(len(numbers))).all():
        raise ValueError(f"bonds of other atoms than its {len(numbers)}")
    return np.array(numbers, dtype=np.int64), bonds.reshape(-1, 2)

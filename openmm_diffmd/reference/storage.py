"""Reference trajectories on disk: MDTraj HDF5 with forces, segments, provenance."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mdtraj
import numpy as np
import tables
from mdtraj.formats import HDF5TrajectoryFile
from openmm import app

from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.units import BOLTZMANN

PROVENANCE_ATTRIBUTE = "diffmd_provenance"


class ReferenceWriter:
    """
    Append frames to an MDTraj HDF5 file, flushed so that a kill loses little.

    Beside MDTraj's own fields the file holds ``forces`` (kJ/mol/nm) and
    ``segment``, the number of the unbroken piece of dynamics a frame belongs to,
    and as an attribute the provenance in JSON.

    Parameters
    ----------
    path : path-like
        File to write. An existing one is refused.
    topology : openmm.app.Topology
        Atoms and bonds.
    masses : ndarray, shape (n_atoms,), Da
        Masses, for the kinetic energy.
    provenance : mapping
        What made the file; must serialize to JSON.
    flush_interval : int
        Frames between flushes to disk.

    Raises
    ------
    FileExistsError
        If `path` exists: reference data are never overwritten.
    """

    def __init__(
        self,
        path: str | Path,
        topology: app.Topology,
        masses: np.ndarray,
        provenance: Mapping[str, Any],
        flush_interval: int = 200,
    ) -> None:
        if Path(path).exists():
            raise FileExistsError(
                f"{path} exists; expected a new file: choose another name or remove it"
            )
        self._masses = np.asarray(masses, dtype=np.float64)
        self._flush_interval = flush_interval
        self._pending: list[tuple[int, ReferenceFrame]] = []
        with HDF5TrajectoryFile(str(path), "w") as file:
            file.topology = mdtraj.Topology.from_openmm(topology)
        # MDTraj opens the root group for arrays of our own in this mode only.
        self._file = HDF5TrajectoryFile(str(path), "a")
        root = self._file.root
        setattr(root._v_attrs, PROVENANCE_ATTRIBUTE, json.dumps(dict(provenance)))
        n_atoms = len(self._masses)
        self._forces = root._v_file.create_earray(
            root, "forces", tables.Float32Atom(), (0, n_atoms, 3)
        )
        self._forces.attrs["units"] = "kilojoules/mole/nanometer"
        self._segment = root._v_file.create_earray(
            root, "segment", tables.Int32Atom(), (0,)
        )

    def write(self, segment: int, frame: ReferenceFrame) -> None:
        """
        Append one frame.

        Parameters
        ----------
        segment : int
            Number of the unbroken piece of dynamics the frame belongs to.
        frame : ReferenceFrame
            The frame.
        """
        self._pending.append((segment, frame))
        if len(self._pending) >= self._flush_interval:
            self.flush()

    def flush(self) -> None:
        """Write pending frames, so that they survive a kill of the process."""
        if not self._pending:
            return
        segments, frames = zip(*self._pending, strict=True)
        velocities = np.array([frame.velocities for frame in frames])
        kinetic = 0.5 * np.einsum("i,fia->f", self._masses, velocities**2)
        self._file.write(
            coordinates=np.array([f.positions for f in frames], dtype=np.float32),
            velocities=velocities.astype(np.float32),
            time=np.array([f.time for f in frames], dtype=np.float32),
            kineticEnergy=kinetic.astype(np.float32),
            potentialEnergy=np.array(
                [f.potential_energy for f in frames], dtype=np.float32
            ),
            temperature=(2 * kinetic / (3 * len(self._masses) * BOLTZMANN)).astype(
                np.float32
            ),
        )
        self._forces.append(np.array([f.forces for f in frames], dtype=np.float32))
        self._segment.append(np.array(segments, dtype=np.int32))
        self._pending.clear()
        self._file.flush()

    def close(self) -> None:
        """Write pending frames and close the file."""
        self.flush()
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

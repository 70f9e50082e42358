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
from numpy.typing import NDArray
from openmm import app

from openmm_diffmd.data.reference_files import PROVENANCE_ATTRIBUTE, UNITS
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.units import BOLTZMANN

PER_ATOM = ("coordinates", "velocities", "forces")
DTYPES = dict.fromkeys(PER_ATOM, np.float32) | {"segment": np.int32}
"""Types other than float64, which scalars need: float32 rounds xTB's total energies
to 0.002 kJ/mol, and times of nanoseconds to tenths of a femtosecond."""


class ReferenceWriter:
    """
    Write frames into an MDTraj HDF5 file that is readable whenever the writer dies.

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
    num_frames : int
        Frames that will be written, at most.
    flush_interval : int
        Frames between flushes to disk.

    Raises
    ------
    FileExistsError
        If `path` exists: reference data are never overwritten.

    Notes
    -----
    HDF5 files that grow are not safe: killed inside a flush, their index names
    chunks that were never written, and whole arrays become unreadable. So the
    arrays are made at their full length first, filled with NaN, and frames are
    written into them in place, which touches no index. Frames not reached have a
    ``time`` of NaN. Closing cuts them off.
    """

    def __init__(
        self,
        path: str | Path,
        topology: app.Topology,
        masses: NDArray[np.floating],
        provenance: Mapping[str, Any],
        num_frames: int,
        flush_interval: int = 200,
    ) -> None:
        self._path = Path(path)
        if self._path.exists():
            raise FileExistsError(
                f"{path} exists; expected a new file: choose another name or remove it"
            )
        self._masses = np.asarray(masses, dtype=np.float64)
        self._flush_interval = flush_interval
        self._pending: list[tuple[int, ReferenceFrame]] = []
        self._num_written = 0
        self._capacity = num_frames
        self._topology = mdtraj.Topology.from_openmm(topology)
        self._provenance = json.dumps(dict(provenance))
        n_atoms = len(self._masses)
        empty = {
            name: np.full(
                (num_frames, n_atoms, 3) if name in PER_ATOM else (num_frames,),
                -1 if name == "segment" else np.nan,
                dtype=DTYPES.get(name, np.float64),
            )
            for name in UNITS
        }
        self._save(self._path, empty)
        self._file = tables.open_file(str(path), "a")

    @property
    def path(self) -> Path:
        """The file."""
        return self._path

    @property
    def num_frames(self) -> int:
        """Frames handed to `write` so far."""
        return self._num_written + len(self._pending)

    def write(self, segment: int, frame: ReferenceFrame) -> None:
        """
        Append one frame.

        Parameters
        ----------
        segment : int
            Number of the unbroken piece of dynamics the frame belongs to.
        frame : ReferenceFrame
            The frame.

        Raises
        ------
        ValueError
            If the file already has `num_frames` frames.
        """
        if self.num_frames >= self._capacity:
            raise ValueError(
                f"{self._path} has its {self._capacity} frames; expected no more: "
                "make the writer with a larger num_frames"
            )
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
        values = {
            "coordinates": [frame.positions for frame in frames],
            "velocities": velocities,
            "forces": [frame.forces for frame in frames],
            "kineticEnergy": kinetic,
            "potentialEnergy": [frame.potential_energy for frame in frames],
            "temperature": 2 * kinetic / (3 * len(self._masses) * BOLTZMANN),
            "segment": segments,
            "time": [frame.time for frame in frames],
        }
        end = self._num_written + len(frames)
        for name in UNITS:
            node = self._file.get_node("/", name)
            node[self._num_written : end] = np.asarray(values[name], dtype=node.dtype)
            node.flush()
        self._num_written = end
        self._pending.clear()

    def close(self) -> None:
        """
        Write pending frames and close the file, cut off after the last of them.

        A file without a frame is removed.
        """
        self.flush()
        if self._num_written == self._capacity:
            self._file.close()
            return
        written = {
            name: self._file.get_node("/", name)[: self._num_written] for name in UNITS
        }
        self._file.close()
        if self._num_written == 0:
            self._path.unlink()
            return
        shortened = self._path.with_suffix(".part.h5")
        self._save(shortened, written)
        shortened.replace(self._path)

    def _save(self, path: Path, values: Mapping[str, NDArray[Any]]) -> None:
        with HDF5TrajectoryFile(str(path), "w") as file:
            file.topology = self._topology
            file.application = "openmm_diffmd"
        with tables.open_file(str(path), "a") as file:
            root = file.root
            root._v_attrs.conventions = "Pande"
            root._v_attrs.conventionVersion = "1.1"
            root._v_attrs.program = "MDTraj"
            root._v_attrs.programVersion = mdtraj.__version__
            setattr(root._v_attrs, PROVENANCE_ATTRIBUTE, self._provenance)
            for name, unit in UNITS.items():
                node = file.create_array(root, name, values[name])
                node.attrs["units"] = unit

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

"""Positions and velocities of a rollout, in an MDTraj HDF5 file."""

from pathlib import Path

import mdtraj
import numpy as np
from mdtraj.formats import HDF5TrajectoryFile
from numpy.typing import NDArray
from openmm import app


class VelocityFile:
    """
    Writes frames evenly spaced in time, some at once.

    A process that is killed while it writes may leave a file that cannot be read.

    Parameters
    ----------
    path : path-like
        The file, written anew.
    topology : openmm.app.Topology
        The atoms.
    frame_interval : float
        Time between frames, ps; the first is at one interval.
    """

    def __init__(
        self, path: str | Path, topology: app.Topology, frame_interval: float
    ) -> None:
        self._file = HDF5TrajectoryFile(str(path), "w")
        self._file.topology = mdtraj.Topology.from_openmm(topology)
        self._frame_interval = frame_interval
        self._pending: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        self._num_written = 0

    def add(
        self, positions: NDArray[np.floating], velocities: NDArray[np.floating]
    ) -> None:
        """
        Take a frame, to be written with the next `flush`.

        Parameters
        ----------
        positions, velocities : ndarray, shape (n_atoms, 3), nm and nm/ps
            The frame.
        """
        self._pending.append(
            (positions.astype(np.float32), velocities.astype(np.float32))
        )

    def flush(self) -> None:
        """Write what is pending."""
        if not self._pending:
            return
        positions, velocities = zip(*self._pending, strict=True)
        frames = self._num_written + np.arange(1, len(positions) + 1)
        self._file.write(
            coordinates=np.array(positions),
            velocities=np.array(velocities),
            time=(frames * self._frame_interval).astype(np.float32),
        )
        self._file.flush()
        self._num_written += len(positions)
        self._pending.clear()

    def close(self) -> None:
        """Close the file; what is pending is not written."""
        self._file.close()

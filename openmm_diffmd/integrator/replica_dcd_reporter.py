"""A reporter that writes each replica to a DCD file of its own."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from openmm import app, unit

from openmm_diffmd.integrator.dcd_file import ResumableDCDFile
from openmm_diffmd.integrator.periodic_reporter import PeriodicReporter


class ReplicaDCDReporter(PeriodicReporter):
    """
    Write each molecule of a System to its own DCD, to be read with its own topology.

    A frame is on disk when the report returns; a run that is killed leaves every file
    readable to its last whole frame. For one DCD of all molecules use
    `openmm.app.DCDReporter`.

    Parameters
    ----------
    pattern : str or path-like
        Names of the files: ``{replica}`` stands for the number of the replica, in order
        of first appearance, as in ``ethanol_{replica}.dcd`` or ``{replica:03d}.dcd``.
    reportInterval : int
        Steps between frames.
    molecules : sequence of int, shape (n_atoms,)
        Molecule id of each atom, `Replicas.molecules`.
    append : bool
        Continue the files of an earlier run: frames of steps that are made again, from
        a checkpoint say, and a frame that was cut are taken out.

    Raises
    ------
    ValueError
        If the interval is less than 1, molecule ids are no whole numbers, or the
        pattern gives two replicas one file or has other names in it.
    FileNotFoundError
        If a folder is missing, or a file to continue.
    """

    def __init__(
        self,
        pattern: str | os.PathLike[str],
        reportInterval: int,
        molecules: Sequence[int] | NDArray[np.int64],
        append: bool = False,
    ) -> None:
        super().__init__(reportInterval, "positions")
        ids = np.asarray(molecules)
        if ids.ndim != 1 or ids.dtype.kind not in "iu":
            raise ValueError(
                f"found a {type(molecules).__name__} as the molecules, expected a "
                "whole number for each atom: Replicas.molecules"
            )
        unique, first = np.unique(ids, return_index=True)
        self._atoms = [np.flatnonzero(ids == m) for m in unique[np.argsort(first)]]
        count = len(self._atoms)
        name = os.fspath(pattern)
        try:
            self.paths = [Path(name.format(replica=r)) for r in range(count)]
        except (IndexError, KeyError, ValueError) as error:
            raise ValueError(
                f"found {name!r}, expected {{replica}} where the number of the replica "
                "stands, and no other braces"
            ) from error
        if len(set(self.paths)) < count:
            raise ValueError(
                f"found {name!r}, which names one file for several of "
                f"{count} replicas, expected {{replica}} in it"
            )
        for path in self.paths:
            # Fails now where it would fail after the first lags.
            with path.open("r+b" if append else "wb"):
                pass
        self._append = append
        self._files: list[ResumableDCDFile] = []

    def report(self, simulation: app.Simulation, state: Any) -> None:
        """
        Write one frame of each replica.

        Parameters
        ----------
        simulation : openmm.app.Simulation
            The simulation.
        state : openmm.State
            Its positions.

        Raises
        ------
        ValueError
            If the number of atoms is another one, or a file cannot be continued.
        """
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        self.write(simulation, positions)

    def write(
        self, simulation: app.Simulation, positions: NDArray[np.floating]
    ) -> None:
        """
        Write one frame of each replica, from numbers.

        Parameters
        ----------
        simulation : openmm.app.Simulation
            The simulation.
        positions : ndarray, shape (n_atoms, 3), nm
            Its positions.

        Raises
        ------
        ValueError
            As `report`.
        """
        n_atoms = sum(len(atoms) for atoms in self._atoms)
        if len(positions) != n_atoms:
            raise ValueError(
                f"found {len(positions)} atoms in the Simulation, expected {n_atoms}, "
                "one for each molecule id"
            )
        if not self._files:
            self._open(simulation)
        for file, atoms in zip(self._files, self._atoms, strict=True):
            file.write(positions[atoms])

    def _open(self, simulation: app.Simulation) -> None:
        step_size = simulation.integrator.getStepSize().value_in_unit(unit.picosecond)
        files = [
            ResumableDCDFile(path, len(atoms), step_size, self._interval)
            for path, atoms in zip(self.paths, self._atoms, strict=True)
        ]
        for file in files:
            # Empty: the run before ended before its first frame.
            if self._append and file.path.stat().st_size:
                file.resume(simulation.currentStep)
            else:
                file.create(simulation.currentStep)
        self._files = files

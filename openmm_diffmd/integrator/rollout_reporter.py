"""A reporter that writes every file of a rollout and loses none of it."""

import time
from dataclasses import replace
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import mdtraj
import numpy as np
from mdtraj.formats import HDF5TrajectoryFile
from numpy.typing import NDArray
from openmm import app, unit
from tqdm import tqdm

from openmm_diffmd.integrator.bond_watch import BondWatch
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.periodic_reporter import PeriodicReporter
from openmm_diffmd.integrator.replica_dcd_reporter import ReplicaDCDReporter
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.units import FEMTOSECONDS_PER_PICOSECOND

WARM_UP_FRAMES = 10
FLUSH_INTERVAL = 200
"""Frames between flushes of velocities and sidecar; the DCD is flushed each frame."""


class RolloutReporter(PeriodicReporter):
    """
    OpenMM reporter that writes DCD, PDB, JSON sidecar, and velocities if wanted.

    It looks at the bonds at each lag of the 0.2 ps before a frame, which is each lag
    where frames are no farther apart, and at each of the first ones, until 2 ps of all
    molecules together have been seen. It warns once of one with more than 18 kT.

    Use it as a context manager: however the block ends, files are closed and the
    sidecar counts the good frames and says why the run ended early.

    Parameters
    ----------
    output : Path
        Files are called this, with suffixes.
    topology : openmm.app.Topology
        All replicas.
    positions : ndarray, shape (n_atoms, 3), nm
        Positions for the PDB file.
    sidecar : RolloutSidecar
        What to write beside the DCD, with `num_frames`, counts of redraws
        and rescues and `hottest_bond` of each `FLUSH_INTERVAL`.
    integrator : DiffusionIntegrator
        Counts redraws and knows the bonds.
    lags_per_frame : int
        Steps between frames.
    num_frames : int
        Frames the progress bar ends at.
    keep_velocities : bool
        Write velocities to an MDTraj HDF5 file.
    progress : bool
        Show a progress bar, if in a terminal.
    molecule : openmm.app.Topology, optional
        One replica: what the PDB file is of, where the sidecar says that each has
        its own DCD; all replicas unless given.
    """

    def __init__(
        self,
        output: Path,
        topology: app.Topology,
        positions: NDArray[np.floating],
        sidecar: RolloutSidecar,
        *,
        integrator: DiffusionIntegrator,
        lags_per_frame: int,
        num_frames: int,
        keep_velocities: bool,
        progress: bool,
        molecule: app.Topology | None = None,
    ) -> None:
        super().__init__(lags_per_frame, "positions", "velocities")
        self.path = _with_suffix(output, ".json")
        # What the file says of a process that is killed.
        self.sidecar = replace(
            sidecar, error=f"killed, or still running: {num_frames} frames were asked"
        )
        self._integrator = integrator
        self._watch = BondWatch(integrator)
        self._num_frames = 0
        self._report_times: list[float] = []
        self._pending: list[tuple[NDArray[np.float32], NDArray[np.float32]]] = []
        shown = topology if molecule is None else molecule
        _write_pdb(_with_suffix(output, ".pdb"), shown, positions)
        # Velocities of an earlier run of this name would not fit this one's frames.
        velocities = _with_suffix(output, ".h5")
        velocities.unlink(missing_ok=True)
        self._velocities: HDF5TrajectoryFile | None = None
        if keep_velocities:
            self._velocities = HDF5TrajectoryFile(str(velocities), "w")
            self._velocities.topology = mdtraj.Topology.from_openmm(topology)
        # Braces of folders are no place for a replica's number.
        name = str(output).replace("{", "{{").replace("}", "}}")
        n_files = sidecar.num_replicas if sidecar.dcd_per_replica else 1
        self._trajectory = ReplicaDCDReporter(
            name + ("_{replica}.dcd" if sidecar.dcd_per_replica else ".dcd"),
            lags_per_frame,
            np.repeat(np.arange(n_files), topology.getNumAtoms() // n_files),
        )
        self._bar = tqdm(
            desc=f"{output.name}, {sidecar.num_replicas} replicas",
            total=num_frames * lags_per_frame,
            unit="lag",
            disable=None if progress else True,
        )
        self._write_sidecar()

    @property
    def seconds_per_lag(self) -> float | None:
        """Wall time of a lag, files included, without the first frames, s."""
        times = self._report_times
        if len(times) < 2:
            return None
        first = min(WARM_UP_FRAMES, (len(times) - 1) // 2)
        lags = (len(times) - 1 - first) * self._interval
        return (times[-1] - times[first]) / lags

    def _steps_to_next(self, simulation: app.Simulation) -> int:
        return self._watch.steps_to_look(simulation.currentStep, self._interval)

    def report(self, simulation: app.Simulation, state: Any) -> None:
        """
        Look at the bonds, and write one frame where it is due.

        Parameters
        ----------
        simulation : openmm.app.Simulation
            The simulation, with a DiffusionIntegrator.
        state : openmm.State
            Its state.
        """
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        velocities = state.getVelocities(asNumpy=True).value_in_unit(
            unit.nanometer / unit.picosecond
        )
        now = state.getTime().value_in_unit(unit.picosecond)
        self._watch.look(now, positions, velocities)
        if simulation.currentStep % self._interval:
            return
        self._trajectory.write(simulation, positions)
        if self._velocities is not None:
            self._pending.append(
                (positions.astype(np.float32), velocities.astype(np.float32))
            )
        self._num_frames += 1
        self._bar.update(self._interval)
        self._report_times.append(time.perf_counter())
        if self._num_frames % FLUSH_INTERVAL == 0:
            self._flush()
            self._bar.set_postfix(redrawn=self.sidecar.resamples)

    def _flush(self) -> None:
        if self._velocities is not None and self._pending:
            positions, velocities = zip(*self._pending, strict=True)
            last = self._num_frames
            frames = np.arange(last - len(positions) + 1, last + 1)
            self._velocities.write(
                coordinates=np.array(positions),
                velocities=np.array(velocities),
                time=(
                    frames
                    * self.sidecar.frame_interval_fs
                    / FEMTOSECONDS_PER_PICOSECOND
                ).astype(np.float32),
            )
            self._velocities.flush()
            self._pending.clear()
        self._write_sidecar()

    def _write_sidecar(self) -> None:
        hottest = self._watch.hottest
        self.sidecar = replace(
            self.sidecar,
            num_frames=self._num_frames,
            resamples=self._integrator.getNumResamples(),
            rescues=self._integrator.getNumRescues(),
            hottest_bond=None if hottest is None else hottest.to_json(),
        )
        self.sidecar.write(self.path)

    def close(self, error: BaseException | None = None) -> None:
        """
        Write what is pending, the sidecar last, and close all files.

        Parameters
        ----------
        error : BaseException, optional
            Why the run ended early.
        """
        reason = None if error is None else f"{type(error).__name__}: {error}"
        self.sidecar = replace(self.sidecar, error=reason)
        self._bar.close()
        self._flush()
        if self._velocities is not None:
            self._velocities.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        exception_type: type[BaseException] | None,
        exception: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close(exception)


def _with_suffix(output: Path, suffix: str) -> Path:
    return output.with_name(output.name + suffix)


def _write_pdb(
    path: Path, topology: app.Topology, positions: NDArray[np.floating]
) -> None:
    """Write a PDB file whose bonds can be read back."""
    x = positions[: topology.getNumAtoms()] * unit.nanometer
    with path.open("w") as pdb:
        app.PDBFile.writeFile(topology, x, pdb)
    if mdtraj.load_pdb(str(path)).topology.n_bonds == topology.getNumBonds():
        return
    # Bonds of residues with a standard name are left out of a PDB file.
    renamed = app.Topology()
    chain = renamed.addChain()
    residues = {r: renamed.addResidue("MOL", chain) for r in topology.residues()}
    atoms = {
        a: renamed.addAtom(a.name, a.element, residues[a.residue])
        for a in topology.atoms()
    }
    for first, second in topology.bonds():
        renamed.addBond(atoms[first], atoms[second])
    with path.open("w") as pdb:
        app.PDBFile.writeFile(renamed, x, pdb)

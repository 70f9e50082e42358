"""A reporter that writes every file of a rollout."""

import math
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from openmm import app, unit
from tqdm import tqdm

from openmm_diffmd.integrator.bond_watch import BondWatch
from openmm_diffmd.integrator.diffusion_integrator import DiffusionIntegrator
from openmm_diffmd.integrator.periodic_reporter import PeriodicReporter
from openmm_diffmd.integrator.replica_dcd_reporter import ReplicaDCDReporter
from openmm_diffmd.integrator.rollout_description import describe_rollout, heat_bath
from openmm_diffmd.integrator.rollout_files import (
    check_free,
    remove_frames,
    with_suffix,
    write_pdb,
)
from openmm_diffmd.integrator.velocity_file import VelocityFile
from openmm_diffmd.outputs import make_folder
from openmm_diffmd.units import FS_PER_PS, to_float

WARM_UP_FRAMES = 10
FLUSH_INTERVAL = 200
"""Frames between flushes of velocities and sidecar; the DCD is flushed each frame."""


@contextmanager
def record_rollout(
    output: str | os.PathLike[str],
    reportInterval: int,
    simulation: app.Simulation,
    *,
    velocities: bool = True,
    dcd_per_replica: bool = False,
    overwrite: bool = False,
    start_temperature_K: float | None = None,
    from_geometry: bool = False,
    num_frames: int | None = None,
    progress: bool = False,
) -> Iterator["RolloutReporter"]:
    """
    Write what a Simulation does in a block as `run` writes it, for `analyze`.

    The files are a DCD, a PDB, a JSON sidecar and velocities (MDTraj HDF5)::

        with record_rollout("rollout/mine", 1, simulation):
            simulation.step(10_000)

    However the block ends, files are closed, and the sidecar counts the good frames and
    says why the run ended early. A block is one trajectory in one heat bath: positions,
    velocities, time, temperature and friction are not set in it.

    Parameters
    ----------
    output : str or path-like
        Files are called this, with suffixes ``.dcd``, ``.pdb``, ``.json``, ``.h5``,
        which it does not have itself; the folder is made if absent.
    reportInterval : int
        Steps, which are lags, between frames.
    simulation : openmm.app.Simulation
        A Simulation with a DiffusionIntegrator, of one molecule or of replicas of one,
        with positions and velocities. Temperature and friction are kept while it
        reports.
    velocities : bool
        Write velocities too, to an MDTraj HDF5 file: temperatures and spectra are
        judged by them.
    dcd_per_replica : bool
        Write one DCD for each replica, ``OUTPUT_0.dcd`` and so on, and the PDB of one
        replica, instead of one of all.
    overwrite : bool
        Replace the files of an earlier run called `output`.
    start_temperature_K : float, optional
        Temperature of the first velocities, K, where it is known.
    from_geometry : bool
        Whether the positions are of no temperature, not frames of a heat bath.
    num_frames : int, optional
        Frames that are going to be made, for the progress bar and for what the sidecar
        says of a run that is killed.
    progress : bool
        Show a progress bar, if in a terminal.

    Yields
    ------
    RolloutReporter
        The reporter that writes, in the Simulation's list for the time of the block.

    Raises
    ------
    FileExistsError
        If there is a run called `output` and `overwrite` is off, or another file that
        would be replaced.
    OSError
        If `output` is a folder, or its own is a file, or cannot be made or written in.
    TypeError
        If the integrator is another one.
    ValueError
        If the interval is less than 1, molecules are not replicas of one, one after the
        other, `output` has one of the suffixes, or the JSON file to be replaced is no
        rollout's.

    Warns
    -----
    UserWarning
        Once, if a bond has more than 18 kT.
    """
    reporter = RolloutReporter(
        Path(output),
        reportInterval,
        simulation,
        velocities=velocities,
        dcd_per_replica=dcd_per_replica,
        overwrite=overwrite,
        start_temperature_K=start_temperature_K,
        from_geometry=from_geometry,
        num_frames=num_frames,
        progress=progress,
    )
    simulation.reporters.append(reporter)
    try:
        yield reporter
    except BaseException as error:
        reporter.close(error)
        raise
    else:
        reporter.close()
    finally:
        # A script may have emptied the list.
        if reporter in simulation.reporters:
            simulation.reporters.remove(reporter)


class RolloutReporter(PeriodicReporter):
    """
    OpenMM reporter that writes every file of a rollout, and keeps what it wrote.

    It looks at the bonds at each lag of the 0.2 ps before a frame, which is each lag
    where frames are no farther apart, and at each of the first ones, until 2 ps of all
    molecules together have been seen. It warns once of one with more than 18 kT.

    Parameters
    ----------
    output, reportInterval, simulation, **options
        As `record_rollout`, which makes and closes it.

    Attributes
    ----------
    path : Path
        The JSON sidecar.
    sidecar : RolloutSidecar
        What it says.
    """

    def __init__(
        self,
        output: Path,
        reportInterval: int,
        simulation: app.Simulation,
        *,
        velocities: bool,
        dcd_per_replica: bool,
        overwrite: bool,
        start_temperature_K: float | None,
        from_geometry: bool,
        num_frames: int | None,
        progress: bool,
    ) -> None:
        super().__init__(reportInterval, "positions", "velocities")
        self.sidecar = describe_rollout(
            simulation,
            self._interval,
            dcd_per_replica=dcd_per_replica,
            start_temperature_K=start_temperature_K,
            from_geometry=from_geometry,
            num_frames=num_frames,
        )
        integrator = DiffusionIntegrator.cast(simulation.integrator)
        n_replicas = self.sidecar.num_replicas
        n_atoms = self.sidecar.atoms_per_replica
        check_free(output, n_replicas if dcd_per_replica else None, overwrite)
        state = simulation.context.getState(positions=True)
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        self.path = with_suffix(output, ".json")
        self._integrator = integrator
        self._first_step = simulation.currentStep
        self._start = to_float(state.getTime(), unit.picosecond)
        self._counted = _count_mended(integrator)
        self._interruptions = integrator.getNumInterruptions()
        self._watch = BondWatch(integrator)
        self._num_frames, self._num_asked = 0, num_frames
        self._report_times: list[float] = []
        make_folder(output.parent)
        remove_frames(self.path)
        modeller = app.Modeller(simulation.topology, positions * unit.nanometer)
        if dcd_per_replica:
            modeller.delete(list(simulation.topology.atoms())[n_atoms:])
        write_pdb(with_suffix(output, ".pdb"), modeller)
        # Velocities of an earlier run of this name would not fit this one's frames.
        velocity_file = with_suffix(output, ".h5")
        velocity_file.unlink(missing_ok=True)
        self._velocities: VelocityFile | None = None
        if velocities:
            frame_interval = self.sidecar.frame_interval_fs / FS_PER_PS
            self._velocities = VelocityFile(
                velocity_file, simulation.topology, frame_interval
            )
        # Braces of folders are no place for a replica's number.
        name = str(output).replace("{", "{{").replace("}", "}}")
        n_files = n_replicas if dcd_per_replica else 1
        self._trajectory = ReplicaDCDReporter(
            name + ("_{replica}.dcd" if dcd_per_replica else ".dcd"),
            self._interval,
            np.repeat(np.arange(n_files), n_replicas * n_atoms // n_files),
        )
        self._bar = tqdm(
            desc=f"{output.name}, {n_replicas} replicas",
            total=None if num_frames is None else num_frames * self._interval,
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
        step = simulation.currentStep - self._first_step
        return self._watch.steps_to_look(step, self._interval)

    def report(self, simulation: app.Simulation, state: Any) -> None:
        """
        Look at the bonds, and write one frame where it is due.

        Parameters
        ----------
        simulation : openmm.app.Simulation
            The simulation.
        state : openmm.State
            Its state.

        Raises
        ------
        ValueError
            If this does not go on from the frame before: positions, velocities, time,
            temperature or friction were set, a checkpoint was loaded, or a lag given
            up.
        """
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        velocities = state.getVelocities(asNumpy=True).value_in_unit(
            unit.nanometer / unit.picosecond
        )
        now = state.getTime().value_in_unit(unit.picosecond)
        self._watch.look(now, positions, velocities)
        if (simulation.currentStep - self._first_step) % self._interval:
            return
        self._check_unbroken(now)
        self._trajectory.write(simulation, positions)
        if self._velocities is not None:
            self._velocities.add(positions, velocities)
        self._num_frames += 1
        self._bar.update(self._interval)
        self._report_times.append(time.perf_counter())
        if self._num_frames % FLUSH_INTERVAL == 0:
            self._flush()
            self._bar.set_postfix(redrawn=self.sidecar.resamples)

    def _check_unbroken(self, now: float) -> None:
        """Refuse what a sidecar cannot say: it is of one trajectory in one bath."""
        sidecar = self.sidecar
        interval = sidecar.frame_interval_fs / FS_PER_PS
        due = self._start + (self._num_frames + 1) * interval
        bath = sidecar.temperature_K, sidecar.friction_per_ps
        if self._integrator.getNumInterruptions() != self._interruptions:
            problem = (
                "found positions or velocities that were set, or a lag that was given "
                "up, expected one trajectory"
            )
        elif not math.isclose(now, due, rel_tol=1e-6, abs_tol=1e-3 * interval):
            problem = f"found a frame at {now:.6g} ps, expected {due:.6g} ps"
        elif (found := heat_bath(self._integrator)) != bath:
            problem = "found a heat bath of {:g} K and {:g}/ps".format(*found)
            problem += ", expected {:g} K and {:g}/ps".format(*bath)
        else:
            return
        raise ValueError(
            f"{problem}, in the rollout {self.path.stem}: record another from there"
        )

    def _flush(self) -> None:
        if self._velocities is not None:
            self._velocities.flush()
        self._write_sidecar()

    def _write_sidecar(self) -> None:
        hottest = self._watch.hottest
        resamples, rescues = (
            # Fewer than before once a checkpoint was loaded.
            max(0, now - before)
            for now, before in zip(
                _count_mended(self._integrator), self._counted, strict=True
            )
        )
        self.sidecar = replace(
            self.sidecar,
            num_frames=self._num_frames,
            resamples=resamples,
            rescues=rescues,
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
        if error is None and self._num_frames < (self._num_asked or 0):
            reason = f"ended after {self._num_frames} of {self._num_asked} frames"
        self.sidecar = replace(self.sidecar, error=reason)
        self._bar.close()
        try:
            self._flush()
        finally:
            if self._velocities is not None:
                self._velocities.close()


def _count_mended(integrator: DiffusionIntegrator) -> tuple[int, int]:
    return integrator.getNumResamples(), integrator.getNumRescues()

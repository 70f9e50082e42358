"""Roll a model out in OpenMM and measure it beside the reference."""

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from ablation_cells import Cell
from numpy.typing import NDArray
from openmm import app, unit
from partial_rollouts import roll_out_as_far
from reference_force import recreate_reference_system
from rollout_cost import NS_PER_DAY

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_rollout
from openmm_diffmd.analysis.measure import Reference, measure
from openmm_diffmd.analysis.temperature import kinetic_energies
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.integrator.rollout import RolloutSettings
from openmm_diffmd.outputs import make_folder
from openmm_diffmd.units import EV, FS_PER_PS

MIN_TIMED_LAGS = 100
"""The start of a run is in its time; of fewer lags it would be most."""
ENERGY_INTERVAL_PS = 0.25
EQUILIBRATION_PS = 2.0
MEV = EV / 1000.0


def run_cell(
    cell: Cell,
    model: DiffusionModel,
    topology: app.Topology,
    positions: NDArray[np.float64],
    reference: Reference,
    length_ps: float,
    context: openmm.Context | None,
    folder: Path,
) -> dict[str, Any]:
    """
    Roll out and measure; the next cell's trajectory replaces this one's.

    Parameters
    ----------
    cell : Cell
        Sampler, K, friction and seed.
    model : DiffusionModel
        The model.
    topology : openmm.app.Topology
        One molecule.
    positions : ndarray, shape (n_replicas, n_atoms, 3), nm
        Where the replicas start.
    reference : Reference
        What to compare with, at the interval of the frames.
    length_ps : float
        Length of each replica, ps.
    context : openmm.Context or None
        The reference's potential, for the energy drift where the friction is 0; None
        leaves that out.
    folder : path-like
        Where to put the trajectory meanwhile; what is called ``rollout`` goes.

    Returns
    -------
    dict
        Plain figures.
    """
    output = make_folder(folder) / "rollout"
    for old in folder.glob("rollout.*"):
        old.unlink()
    interval_fs = reference.ensemble.frame_interval * FS_PER_PS
    settings = RolloutSettings(
        length_ps=length_ps,
        frame_interval_fs=round(interval_fs, 6),
        temperature_K=reference.temperature,
        friction_per_ps=cell.friction,
        # Replica i has the noise of a run with seed + i: seeds must not share any.
        seed=1 + (cell.seed - 1) * len(positions),
        sampler=cell.sampler,
        num_sampling_steps=cell.num_sampling_steps,
        keep_velocities=True,
        progress=False,
    )
    begin = time.process_time()
    made = roll_out_as_far(model, topology, positions, output, settings)
    seconds = time.process_time() - begin
    sidecar = made.sidecar
    lags = sidecar.num_lags
    found: dict[str, Any] = {
        "n_replicas": sidecar.num_replicas,
        "length_ps": length_ps,
        "ended_ps": sidecar.length_ps,
        "error": sidecar.error,
        "redrawn": sidecar.redrawn,
    }
    if lags >= MIN_TIMED_LAGS:
        found["cpu_ms_per_lag"] = 1000 * seconds / lags
        moved_fs = sidecar.lag_time_fs * sidecar.num_replicas * lags
        found["cpu_ns_per_day"] = NS_PER_DAY * moved_fs / seconds
    if sidecar.num_frames == 0:
        return found
    ensemble, _ = load_rollout(made.path)
    found |= figures_of(ensemble, reference, min(EQUILIBRATION_PS, 0.25 * length_ps))
    if cell.friction == 0.0 and context is not None:
        found["energy_drift"] = energy_drift(
            *total_energies(ensemble, context), ensemble.topology.n_atoms
        )
    return found


def figures_of(
    ensemble: Ensemble, reference: Reference, equilibration: float
) -> dict[str, Any]:
    """
    Measure an ensemble beside the reference.

    Parameters
    ----------
    ensemble : Ensemble
        Frames.
    reference : Reference
        What to compare with.
    equilibration : float
        Time at the start that counts for broken bonds only, ps.

    Returns
    -------
    dict
        Plain figures; without those that could not be measured.
    """
    measured = measure("", ensemble, reference, equilibration).figures
    found: dict[str, Any] = {
        "n_broken": measured.n_broken,
        "stable_ps": measured.stable_ps,
    }
    if measured.h_r_error is None:
        return found
    temperatures = measured.temperatures or {}
    found |= {
        "analyzed_ps": measured.analyzed_ps,
        "h_r_error": measured.h_r_error,
        "temperatures": {s: [t.value, t.error] for s, t in temperatures.items()},
    }
    if measured.h_r_expected is not None:
        found["h_r_by_sampling"] = measured.h_r_expected
    return found


def reference_context(
    topology: app.Topology, provenance: Mapping[str, Any]
) -> openmm.Context | None:
    """
    Make a Context that knows the energies of the reference's potential.

    Parameters
    ----------
    topology : openmm.app.Topology
        The molecule.
    provenance : mapping
        Of the reference.

    Returns
    -------
    openmm.Context or None
        None, and a line says why, where the potential cannot be had here.
    """
    try:
        system = recreate_reference_system(topology, provenance)
    except (FileNotFoundError, ValueError) as error:
        print(f"energy drift left out: {error}")
        return None
    return openmm.Context(
        system,
        openmm.VerletIntegrator(0.001),
        openmm.Platform.getPlatformByName("Reference"),
    )


def total_energies(
    ensemble: Ensemble, context: openmm.Context
) -> tuple[list[NDArray[np.float64]], float]:
    """
    Energies of the reference's potential along a rollout, kinetic energy included.

    Parameters
    ----------
    ensemble : Ensemble
        Frames with velocities.
    context : openmm.Context
        The reference's potential, of one molecule.

    Returns
    -------
    energies : list of ndarray, shape (n,), kJ/mol
        One a replica.
    interval : float
        Time between them, a quarter of a picosecond or a frame, ps.
    """
    stride = max(1, round(ENERGY_INTERVAL_PS / ensemble.frame_interval))

    def potential_energy(positions: NDArray[np.floating]) -> float:
        context.setPositions(positions.astype(np.float64) * unit.nanometer)
        energy = context.getState(getEnergy=True).getPotentialEnergy()
        return float(energy.value_in_unit(unit.kilojoule_per_mole))

    energies = [
        kinetic[stride - 1 :: stride]
        + np.array([potential_energy(x) for x in positions[stride - 1 :: stride]])
        for positions, kinetic in zip(
            ensemble.positions, kinetic_energies(ensemble), strict=True
        )
    ]
    return energies, stride * ensemble.frame_interval


def burst_energies(bursts: Trajectory) -> list[NDArray[np.float64]]:
    """
    Energies of the reference's own frictionless bursts.

    Parameters
    ----------
    bursts : Trajectory
        Frames with velocities and potential energies.

    Returns
    -------
    list of ndarray, shape (n_frames,), kJ/mol
        One a burst.
    """
    assert bursts.velocities is not None  # noqa: S101
    assert bursts.potential_energies is not None  # noqa: S101
    kinetic = 0.5 * np.einsum(
        "a,fad->f", bursts.masses, bursts.velocities.astype(np.float64) ** 2
    )
    energies = bursts.potential_energies + kinetic
    return np.split(energies, np.flatnonzero(np.diff(bursts.segments)) + 1)


def energy_drift(
    energies: list[NDArray[np.float64]], interval: float, n_atoms: int
) -> dict[str, float] | None:
    """
    Slope of the total energy, a straight line through each replica.

    Parameters
    ----------
    energies : list of ndarray, shape (n,), kJ/mol
        One a replica.
    interval : float
        Time between energies, ps.
    n_atoms : int
        Atoms of the molecule.

    Returns
    -------
    dict or None
        ``value`` and ``error``, mean and standard error over replicas; ``rms``, the
        root mean square over replicas, where gains and losses do not cancel;
        meV/atom/ps. None with less than four energies in less than two replicas.
    """
    slopes = np.array(
        [
            np.polyfit(interval * np.arange(len(series)), series, 1)[0]
            for series in energies
            if len(series) >= 4
        ]
    ) / (n_atoms * MEV)
    if len(slopes) < 2:
        return None
    return {
        "value": float(slopes.mean()),
        "error": float(slopes.std(ddof=1) / np.sqrt(len(slopes))),
        "rms": float(np.sqrt((slopes**2).mean())),
    }


def figures_of_control(
    ensemble: Ensemble, reference: Reference, one_lag: float
) -> dict[str, Any]:
    """
    Measure a control that needs no model.

    Parameters
    ----------
    ensemble : Ensemble
        Frames.
    reference : Reference
        What to compare with.
    one_lag : float
        Its one-lag error.

    Returns
    -------
    dict
        As of a cell.
    """
    return {
        "n_replicas": ensemble.n_replicas,
        "length_ps": ensemble.length / ensemble.n_replicas,
        "one_lag_error": one_lag,
        **figures_of(ensemble, reference, 0.0),
    }

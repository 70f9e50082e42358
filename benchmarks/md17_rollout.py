"""The bundled model beside its reference, in a few minutes: a table and a picture."""

import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from bundled_reference import reference_of
from command_line import run_command, whole_frames, write_results
from controls import make_controls, starting_frames
from machine import describe_run
from numpy.typing import NDArray
from openmm import app
from partial_rollouts import roll_out_as_far
from rollout_cost import Cost, cost_table, force_cost, network_cost

from openmm_diffmd.analysis.comparable import (
    at_interval,
    check_temperature,
    common_interval,
    has_friction_of,
)
from openmm_diffmd.analysis.figures import Row
from openmm_diffmd.analysis.goal import Goal
from openmm_diffmd.analysis.goals import judge
from openmm_diffmd.analysis.loading import load_reference, load_rollout
from openmm_diffmd.analysis.measure import Reference, measure, prepare_reference
from openmm_diffmd.analysis.plots import plot_rows
from openmm_diffmd.analysis.report import (
    event_table,
    goal_lines,
    mode_table,
    structure_table,
    temperature_table,
    to_plain,
)
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator.rollout import (
    RolloutResult,
    RolloutSettings,
)
from openmm_diffmd.integrator.rollout_files import check_free
from openmm_diffmd.outputs import file_sha256, make_folder
from openmm_diffmd.threads import set_threads
from openmm_diffmd.units import FS_PER_PS

OURS, REGRESSION, SINGLE = "diffmd", "regression", "single"
LENGTH_PS = 20.0
SINGLE_LAGS = 300
EQUILIBRATION_PS, HOT_EQUILIBRATION_PS = 2.0, 8.0


class NoFirstFrameError(openmm.OpenMMException):
    """The model's own run ended before its first frame: there is nothing to measure."""


def md17_rollout(
    model: str = "ethanol",
    reference: Path | None = None,
    output: Path = Path("rollout"),
    replicas: int = 16,
    length_ps: float | None = None,
    temperature_K: float | None = None,
    friction_per_ps: float | None = None,
    start_temperature_K: float | None = None,
    regression: bool = True,
    seed: int = 1,
    threads: int | None = None,
    platform: str = "Reference",
    progress: bool = True,
) -> None:
    """
    Run a model in OpenMM and compare it with its reference and with controls.

    Parameters
    ----------
    model : str
        Name of a bundled model, or the path of a model file.
    reference : path-like, optional
        Reference trajectory with velocities at the same temperature, MDTraj HDF5 or
        original MD17 (npz); unless given the bundled one, which is of ethanol and
        called ``ethanol``.
    output : path-like
        Folder for trajectories, ``results.json`` and ``rollout.png``.
    replicas : int
        Replicas, evolved in one batch from evenly spaced reference frames.
    length_ps : float, optional
        Length of each replica, ps, in whole frames; 20, to the nearest whole frame,
        unless given.
    temperature_K : float, optional
        Temperature of the heat bath, K; the model's unless given.
    friction_per_ps : float, optional
        Collision rate, 1/ps; the model's unless given.
    start_temperature_K : float, optional
        Temperature of the first velocities, K; the heat bath's unless given.
    regression : bool
        Run the mean alone too, as a control; it takes nearly as long.
    seed : int
        Seed of velocities and noise; 0 picks one.
    threads : int, optional
        Threads of PyTorch; its own choice unless given.
    platform : str
        OpenMM platform of ours, such as ``CUDA``; the reference force stays on the CPU.
    progress : bool
        Show progress bars.

    Raises
    ------
    FileNotFoundError
        If there is no such model or reference.
    ValueError
        If the reference does not fit the model or the run.
    NoFirstFrameError
        If the integrator gives up before the first frame of the model's own run;
        later, the frames made until then are used and the table says so. A control
        that ends before its first frame has no row, and a line says so.
    """
    begin = time.perf_counter()
    at_least(1, replicas=replicas)
    at_least(0, temperature_K=temperature_K, friction_per_ps=friction_per_ps, seed=seed)
    at_least(0, start_temperature_K=start_temperature_K)
    above(0, length_ps=length_ps)
    set_threads(threads)
    loaded = load_model(model)
    reference = reference_of(loaded, reference)
    frames, provenance = load_reference(reference)
    lag = loaded.metadata.lag_time_fs / FS_PER_PS
    interval = common_interval(frames.frame_interval, lag)
    heat_bath = (
        loaded.metadata.temperature_K if temperature_K is None else temperature_K
    )
    check_temperature(provenance, heat_bath)
    length_ps = whole_frames(length_ps, LENGTH_PS, interval)
    settings = RolloutSettings(
        length_ps=length_ps,
        frame_interval_fs=round(interval * FS_PER_PS, 6),
        temperature_K=heat_bath,
        friction_per_ps=friction_per_ps,
        start_temperature_K=start_temperature_K,
        seed=seed,
        keep_velocities=True,
        platform=platform,
        progress=progress,
    )
    prepared = prepare_reference(at_interval(frames, interval), heat_bath)
    positions, velocities = starting_frames(prepared.ensemble, replicas)
    topology = frames.topology.to_openmm()
    make_folder(output)
    runs, not_begun = _run_all(
        loaded, topology, positions, output, settings, regression
    )

    same = start_temperature_K in (None, heat_bath)
    equilibration = min(
        EQUILIBRATION_PS if same else HOT_EQUILIBRATION_PS, 0.25 * length_ps
    )
    ensembles = {
        name: load_rollout(run.path)[0] for name, run in runs.items() if name != SINGLE
    }
    n_frames = round(length_ps / interval)
    rows = [
        measure(name, ensemble, prepared, equilibration)
        for name, ensemble in (
            ensembles
            | make_controls(prepared.ensemble, positions, velocities, n_frames)
        ).items()
    ]
    costs = [
        network_cost(name, run.sidecar, run.seconds_per_lag)
        for name, run in runs.items()
        if run.seconds_per_lag is not None
    ]
    force, left_out = force_cost(topology, positions[0], provenance)
    if force is not None:
        costs.append(force)
    notes = [
        *_early_ends(runs),
        *(f"{n} ended before its first frame: {e}" for n, e in not_begun.items()),
        *([left_out] if left_out else []),
    ]
    ours = runs[OURS].sidecar
    goals = judge(
        rows[0].figures,
        prepared.figures,
        ours.redraws,
        ours.gave_up,
        same_friction=has_friction_of(provenance, ours.friction_per_ps),
    )

    title = (
        f"{ours.model_name}, {heat_bath:g} K, friction {ours.friction_per_ps:g}/ps, "
        f"lag {ours.lag_time_fs:g} fs"
    )
    lengths = (
        f"{replicas} replicas x {length_ps:g} ps beside {frames.length:g} ps of "
        f"{provenance.get('potential', 'reference')}"
    )
    print(f"\n{title}: {lengths}")
    print(
        f"The first {equilibration:g} ps of a replica count for broken bonds only; "
        f"frames each {settings.frame_interval_fs:g} fs.\n"
    )
    _print_tables(prepared, rows, costs, notes, goals)
    plot_rows(
        prepared,
        [row for row in rows if row.name in runs],
        output / "rollout.png",
        f"{title}\n{lengths}",
        [row for row in rows if row.name not in runs],
    )
    results = {
        **describe_run(__file__),
        "model": {"name": loaded.metadata.name, "sha256": loaded.sha256},
        "reference": {
            "file": reference.name,
            "sha256": file_sha256(reference),
            "length_ps": frames.length,
            "provenance": dict(provenance),
        },
        "replicas": replicas,
        "settings": to_plain(settings),
        "equilibration_ps": equilibration,
        "floor": to_plain(prepared.figures),
        "rows": {row.name: to_plain(row.figures) for row in rows},
        "break_times_ps": {
            row.name: to_plain(row.curves.stability.break_times) for row in rows
        },
        "redrawn": ours.redrawn,
        "rollouts": {name: to_plain(run.sidecar) for name, run in runs.items()},
        "not_begun": not_begun,
        "cost": [to_plain(c) | {"ns_per_day": c.ns_per_day} for c in costs],
        "notes": notes,
        "goals": to_plain(goals),
        "seconds": time.perf_counter() - begin,
    }
    write_results(output / "results.json", results)
    print(f"\nIn {output}: rollout.png, results.json, {OURS}.dcd with {OURS}.pdb")


def _run_all(
    model: DiffusionModel,
    topology: app.Topology,
    positions: NDArray[np.float64],
    output: Path,
    settings: RolloutSettings,
    regression: bool,
) -> tuple[dict[str, RolloutResult], dict[str, str]]:
    """
    Run ours, the mean alone where ours is not that, and one trajectory alone.

    Returns
    -------
    runs : dict of str to RolloutResult
        Runs that have frames.
    not_begun : dict of str to str
        Why a control ended before its first frame.
    """
    for name in (OURS, REGRESSION, SINGLE):
        check_free(output / name, None, overwrite=True)
    runs: dict[str, RolloutResult] = {}
    not_begun: dict[str, str] = {}

    def attempt(name: str, n_replicas: int, **changes: Any) -> None:
        try:
            run = roll_out_as_far(
                model,
                topology,
                positions[:n_replicas],
                output / name,
                replace(settings, **changes),
            )
        except openmm.OpenMMException as error:
            if name == OURS:
                raise
            not_begun[name] = str(error)
            return
        if run.sidecar.num_frames:
            runs[name] = run
        elif name == OURS:
            raise NoFirstFrameError(run.sidecar.error)
        else:
            not_begun[name] = str(run.sidecar.error)

    attempt(OURS, len(positions))
    if regression and runs[OURS].sidecar.num_sampling_steps > 0:
        attempt(REGRESSION, len(positions), num_sampling_steps=0)
    frame = float(settings.frame_interval_fs or model.metadata.lag_time_fs)
    frames = max(1, round(SINGLE_LAGS * model.metadata.lag_time_fs / frame))
    length = frames * frame / FS_PER_PS
    attempt(SINGLE, 1, length_ps=min(length, settings.length_ps))
    return runs, not_begun


def _early_ends(runs: Mapping[str, RolloutResult]) -> list[str]:
    return [
        f"{name} ended at {s.length_ps:g} ps: {s.error}"
        for name, s in ((name, run.sidecar) for name, run in runs.items())
        if s.error is not None
    ]


def _print_tables(
    prepared: Reference,
    rows: Sequence[Row],
    costs: Sequence[Cost],
    notes: Sequence[str],
    goals: Sequence[Goal],
) -> None:
    print(structure_table(prepared, rows), end="\n\n")
    print(temperature_table(prepared, rows), end="\n\n")
    if modes := mode_table(prepared, rows):
        print(modes, end="\n\n")
    if events := event_table(prepared, rows):
        print(events, end="\n\n")
    print(cost_table(costs), end="\n\n")
    for note in notes:
        print(note, end="\n\n")
    print(goal_lines(goals))


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Read the command line and run.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program; the process's own unless given.
    """
    run_command(md17_rollout, arguments)


if __name__ == "__main__":
    main()

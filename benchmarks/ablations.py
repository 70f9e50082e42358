"""
Controls and ablations: every choice of the method beside its alternatives, one table.

Each variant is trained on the same references with the same budget, exported, and
rolled out in OpenMM. ``results.json`` is written after each cell: kill the command when
time is up, run it again to go on; cells that are done are not run again.
"""

import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from ablation_cells import GROUPS, LAG_FS, Cell, cells
from ablation_runs import (
    burst_energies,
    energy_drift,
    figures_of_control,
    reference_context,
    run_cell,
)
from ablation_table import make_table
from ablation_training import (
    Budget,
    export_cell,
    first_segment,
    left_out_pairs,
    model_error,
    train_variant,
)
from ase.data import chemical_symbols
from bundled_reference import BUNDLED_REFERENCE
from command_line import (
    read_results,
    require_same_molecule,
    run_command,
    whole_frames,
    write_results,
)
from controls import make_controls, starting_frames
from machine import describe_run
from one_lag_errors import relative_errors

from openmm_diffmd.analysis.comparable import at_interval, common_interval
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.analysis.measure import Reference, prepare_reference
from openmm_diffmd.analysis.report import to_plain
from openmm_diffmd.analysis.stability import stability
from openmm_diffmd.analysis.temperature import element_temperatures
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.data.pairs import PairBatch
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.outputs import file_sha256, make_folder, written_whole
from openmm_diffmd.threads import set_threads
from openmm_diffmd.training.config import ModelConfig
from openmm_diffmd.units import FS_PER_PS

LENGTH_PS = 10.0


def ablations(
    data: list[Path],
    output: Path = Path("ablations"),
    model: str = "ethanol",
    reference: Path = BUNDLED_REFERENCE,
    groups: list[str] | None = None,
    variants: list[str] | None = None,
    seeds: int = 1,
    budget: Budget = Budget(),  # noqa: B008
    network: ModelConfig = ModelConfig(),  # noqa: B008
    replicas: int = 16,
    length_ps: float | None = None,
    friction_per_ps: float = 1.0,
    threads: int = 1,
) -> None:
    """
    Train, roll out and compare the variants of the method.

    Parameters
    ----------
    data : list of path-like
        Bursts to train on, of the molecule of the model; the first at the temperature
        of the reference, its end for one-lag errors.
    output : path-like
        Folder for ``results.json``, ``table.txt`` and the trainings.
    model : str
        Trained model that the groups ``friction`` and ``sampler`` run.
    reference : path-like
        Thermostatted reference with velocities. The variant ``thermostatted`` is
        trained on its first unbroken piece.
    groups : list of str, optional
        Some of ``controls``, ``friction``, ``sampler``, ``training`` and ``lag``; all
        unless given.
    variants : list of str, optional
        Some of the rows of the group ``training``; all unless given.
    seeds : int
        Seeds of each training of the group ``training``.
    budget : Budget
        What every variant gets.
    network : ModelConfig
        The network that variants change one option of.
    replicas : int
        Replicas of a rollout, from evenly spaced reference frames.
    length_ps : float, optional
        Length of each replica, ps, in whole frames of every cell; 10, to the nearest
        whole frame, unless given.
    friction_per_ps : float
        Friction where it is not varied, 1/ps.
    threads : int
        Threads of PyTorch. Speeds are CPU times, which one thread makes those of a
        quiet machine.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    ValueError
        If the files do not fit, or `output` holds results of other settings.
    """
    groups = list(GROUPS) if groups is None else groups
    planned = cells(groups, variants, seeds, friction_per_ps)
    at_least(1, seeds=seeds, replicas=replicas)
    at_least(0, friction_per_ps=friction_per_ps)
    above(0, length_ps=length_ps)
    at_least(1, number_of_data_files=len(data))
    set_threads(threads)
    frames, provenance = load_reference(reference)
    if "temperature_K" not in provenance:
        raise ValueError(
            f"found {reference} without its temperature, expected a file of "
            "openmm-diffmd reference"
        )
    temperature = float(provenance["temperature_K"])
    bursts = read_reference(data[0])
    _check_bursts(data[0], bursts, frames, temperature)
    topology = frames.topology.to_openmm()
    loaded_model = load_model(model)
    describe_molecules(topology, loaded_model.metadata)
    _check_friction(planned, provenance, friction_per_ps)
    times = _frame_times(planned, loaded_model.metadata.lag_time_fs, frames, length_ps)
    make_folder(output)
    settings = {
        "model": loaded_model.sha256,
        # Not the lengths of the rollouts: each cell has its own beside it.
        "reference": file_sha256(reference),
        "data": [file_sha256(path) for path in data],
        "budget": to_plain(budget),
        "network": to_plain(network),
    }
    results = _open_results(output / "results.json", settings)
    _check_sizes(planned, results["cells"], replicas, times, loaded_model)

    @cache
    def prepared(interval: float) -> Reference:
        return prepare_reference(at_interval(frames, interval), temperature)

    base_interval, base_length = times[LAG_FS]
    base = prepared(base_interval)
    symbols = sorted(set(frames.symbols))
    results["floor"] = to_plain(
        {
            "lag_time_fs": None,
            "n_replicas": frames.n_replicas,
            "length_ps": frames.length / frames.n_replicas,
            "n_broken": stability(frames, base.mean_bond_lengths).n_broken,
            "h_r_error": base.figures.h_r_error,
            "temperatures": {
                symbol: [found.value, found.error]
                for symbol, found in element_temperatures(frames, temperature).items()
            },
            "energy_drift": energy_drift(
                burst_energies(bursts),
                bursts.times[1] - bursts.times[0],
                bursts.n_atoms,
            ),
        }
    )
    positions, velocities = starting_frames(base.ensemble, replicas)
    if "controls" in groups:
        pairs, scales = left_out_pairs(data[0], symbols, LAG_FS)
        n_frames = round(base_length / base_interval)
        controls = make_controls(base.ensemble, positions, velocities, n_frames)
        for name, ensemble in controls.items():
            errors = relative_errors(_control_change(name), pairs, scales)
            results["cells"][f"controls/{name}"] = {
                "row": ["controls", name, "", "", ""],
                "lag_time_fs": LAG_FS,
                **figures_of_control(ensemble, base, float(errors.mean())),
            }
    context = None
    if "friction" in groups:
        context = reference_context(topology, provenance)
    # Tells the next run whose reference the file below was taken from.
    _write(output, results, symbols)
    langevin = first_segment(reference, output / "thermostatted.h5")

    def finish(cell: Cell) -> dict[str, Any]:
        variant = cell.variant
        own_data = data
        training: dict[str, Any] = {}
        if variant is None:
            loaded = loaded_model
        else:
            own_data = [langevin] if variant.dynamics == "thermostatted" else data
            folder, training = train_variant(
                variant, cell.seed, own_data, network, budget, output / "trainings"
            )
            loaded = export_cell(
                cell, variant, folder, own_data, temperature, friction_per_ps
            )
        lag_time_fs = loaded.metadata.lag_time_fs
        interval, length = times[lag_time_fs]
        found = run_cell(
            cell,
            loaded,
            topology,
            positions,
            prepared(interval),
            length,
            context,
            # A folder of its own: the user may have a file called rollout.
            output / "last_cell",
        )
        return {
            "row": cell.row,
            "seed": cell.seed,
            "lag_time_fs": lag_time_fs,
            "training": training,
            "one_lag_error": model_error(
                loaded,
                own_data[0],
                [s for s in loaded.metadata.elements if s in symbols],
                cell.sampler,
                cell.num_sampling_steps,
                cell.seed,
            ),
            **found,
        }

    for cell in planned:
        if cell.key in results["cells"]:
            continue
        begin = time.perf_counter()
        results["cells"][cell.key] = to_plain(finish(cell))
        seconds = time.perf_counter() - begin
        print(f"{time.strftime('%H:%M')} {cell.key}: {seconds:.0f} s", flush=True)
        _write(output, results, symbols)
    _write(output, results, symbols)
    print((output / "table.txt").read_text())


def _frame_times(
    planned: Sequence[Cell],
    own_lag_fs: float,
    frames: Ensemble,
    length_ps: float | None,
) -> dict[float, tuple[float, float]]:
    """
    Time between frames of reference and rollouts, and length of these, by the lag.

    Parameters
    ----------
    planned : sequence of Cell
        What is to be run.
    own_lag_fs : float
        Lag of the model that cells without a variant run, fs.
    frames : Ensemble
        The reference.
    length_ps : float or None
        What the command line names.

    Returns
    -------
    dict of float to tuple of float
        Both in ps, by the lag in fs.

    Raises
    ------
    ValueError
        If the length is no whole number of frames of one of the lags.
    """
    lags = {
        cell.variant.lag_time_fs if cell.variant else own_lag_fs for cell in planned
    }
    found = {}
    for lag_fs in sorted({LAG_FS, *lags}):
        both = (lag / FS_PER_PS for lag in (LAG_FS, lag_fs))
        interval = common_interval(frames.frame_interval, *both)
        found[lag_fs] = interval, whole_frames(length_ps, LENGTH_PS, interval)
    return found


def _check_friction(
    planned: Sequence[Cell], provenance: Mapping[str, Any], friction: float
) -> None:
    """Refuse another friction than the reference's for dynamics that include it."""
    own = provenance.get("friction_per_ps")
    for cell in planned:
        if (
            cell.variant is not None
            and cell.variant.dynamics == "thermostatted"
            and own != friction
        ):
            raise ValueError(
                f"found friction {friction:g} for the variant {cell.variant.name!r}, "
                f"which has learned the reference's {own}: leave --friction-per-ps "
                "out, or name --variants without it"
            )


def _check_sizes(
    planned: Sequence[Cell],
    kept: Mapping[str, Mapping[str, Any]],
    replicas: int,
    times: Mapping[float, tuple[float, float]],
    model: DiffusionModel,
) -> None:
    """Refuse to average runs of unlike lengths or numbers of replicas in one row."""
    for cell in planned:
        lag = cell.variant.lag_time_fs if cell.variant else model.metadata.lag_time_fs
        asked = replicas, times[lag][1]
        for other in kept.values():
            found = other.get("n_replicas"), other.get("length_ps")
            if tuple(other["row"]) == cell.row and found != asked:
                raise ValueError(
                    f"found a result of {found[0]} x {found[1]:g} ps in the row of "
                    f"{cell.key}, expected {asked[0]} x {asked[1]:g} as now: give "
                    "--replicas and --length-ps of then, or another --output"
                )


def _check_bursts(
    path: Path, bursts: Trajectory, frames: Ensemble, temperature: float
) -> None:
    """Refuse bursts of another temperature or molecule than the reference's."""
    if bursts.provenance.get("temperature_K") != temperature:
        raise ValueError(
            f"found {path} at {bursts.provenance.get('temperature_K')} K, expected "
            f"the reference's {temperature:g} K: name its bursts first"
        )
    symbols = [chemical_symbols[number] for number in bursts.atomic_numbers]
    require_same_molecule(str(path), symbols, frames.symbols)


def _control_change(name: str) -> Callable[[PairBatch], torch.Tensor]:
    def change(batch: PairBatch) -> torch.Tensor:
        drift = torch.zeros_like(batch.positions)
        if name == "constant velocity":
            drift = LAG_FS / FS_PER_PS * batch.velocities
        return torch.stack([drift, torch.zeros_like(drift)], dim=2)

    return change


def _open_results(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    results: dict[str, Any] = {
        **describe_run(__file__),
        "settings": settings,
        "cells": {},
    }
    if path.is_file():
        before = read_results(path, "cells", "settings")
        # The bundled model and the controls have no budget.
        trained = any(cell.get("training") for cell in before["cells"].values())
        free = set() if trained else {"budget", "network"}
        changed = [
            key
            for key, value in settings.items()
            if key not in free and before["settings"].get(key) != value
        ]
        if changed:
            raise ValueError(
                f"found results of another {', '.join(changed)} in {path}, expected "
                "those of this command; choose another --output"
            )
        results["cells"] = before["cells"]
    return results


def _write(output: Path, results: dict[str, Any], symbols: Sequence[str]) -> None:
    table = make_table(results["cells"], results["floor"], symbols)
    with written_whole(output / "table.txt") as part:
        part.write_text(table + "\n")
    write_results(output / "results.json", results)


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Read the command line and run.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program; the process's own unless given.
    """
    # Lightning: a data loader without workers, and a logger without its package.
    warnings.filterwarnings("ignore", module="lightning")
    run_command(ablations, arguments)


if __name__ == "__main__":
    main()

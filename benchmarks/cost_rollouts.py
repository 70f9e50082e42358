"""How true the dynamics are whose cost `bench_cost.py` measures: errors of h(r)."""

import argparse
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from controls import starting_frames
from ml_force import STEP_FS, Molecule, langevin, start
from numpy.typing import NDArray
from openmm import unit
from partial_rollouts import roll_out_as_far

from openmm_diffmd.analysis.comparable import at_interval, common_interval
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_reference, load_rollout
from openmm_diffmd.analysis.measure import Reference, measure, prepare_reference
from openmm_diffmd.analysis.report import format_columns
from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.integrator.rollout import RolloutSettings
from openmm_diffmd.units import FS_PER_PS

ML_FORCE = "ML force"


def measure_rollouts(
    arguments: argparse.Namespace, molecule: Molecule
) -> dict[str, Any]:
    """Roll out all, print errors of h(r), and return them as plain values."""
    model = molecule.model
    frames, provenance = load_reference(arguments.reference)
    interval = common_interval(
        frames.frame_interval, model.metadata.lag_time_fs / FS_PER_PS
    )
    reference = prepare_reference(
        at_interval(frames, interval), float(provenance["temperature_K"])
    )
    positions, _ = starting_frames(reference.ensemble, arguments.rollout_replicas)
    equilibration = min(1.0, 0.25 * arguments.length_ps)
    rows = {}
    for k in arguments.rollout_k:
        settings = RolloutSettings(
            length_ps=arguments.length_ps,
            frame_interval_fs=round(FS_PER_PS * interval, 6),
            seed=1,
            sampler="exponential",
            num_sampling_steps=k,
            progress=False,
        )
        rows[f"diffmd, K = {k}"] = run_model(
            model, reference, positions, settings, equilibration
        )
    ensemble = roll_out_force(
        molecule, reference, positions, arguments.length_ps, arguments.rollout_form
    )
    rows[ML_FORCE] = figures(ensemble, reference, equilibration)
    floor = reference.figures.h_r_error
    header = [
        "",
        "error of\nh(r)",
        "of it by\nsampling",
        "broken\nreplicas",
        "ended\nps",
    ]
    cells = [
        [
            name,
            *(
                "-" if row[key] is None else f"{row[key]:.4f}"
                for key in ("h_r_error", "h_r_expected")
            ),
            f"{row['n_broken']} of {arguments.rollout_replicas}",
            f"{row['ended_ps']:g}",
        ]
        for name, row in rows.items()
    ]
    print(
        f"\n{arguments.rollout_replicas} replicas x {arguments.length_ps:g} ps, the "
        f"first {equilibration:g} ps left out; reference half against half {floor:.4f}"
    )
    print(format_columns(header, cells))
    return {
        "replicas": arguments.rollout_replicas,
        "length_ps": arguments.length_ps,
        "floor": floor,
        "rows": rows,
    }


def run_model(
    model: DiffusionModel,
    reference: Reference,
    positions: NDArray[np.float64],
    settings: RolloutSettings,
    equilibration: float,
) -> dict[str, Any]:
    """Roll the model out and measure; where the guards end it, what there is."""
    topology = reference.ensemble.topology.to_openmm()
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "rollout"
        made = roll_out_as_far(model, topology, positions, path, settings)
        if made.sidecar.error is not None:
            k = settings.num_sampling_steps
            print(f"K = {k} ended early: {made.sidecar.error}")
        if made.sidecar.num_frames == 0:
            measured = ("h_r_error", "h_r_expected", "first_break_ps")
            return dict.fromkeys(measured) | {
                "n_broken": len(positions),
                "analyzed_ps": 0.0,
                "ended_ps": 0.0,
            }
        return figures(load_rollout(made.path)[0], reference, equilibration)


def figures(
    ensemble: Ensemble, reference: Reference, equilibration: float
) -> dict[str, Any]:
    """Measure h(r) and broken bonds."""
    found = measure("", ensemble, reference, equilibration).figures
    return {
        "h_r_error": found.h_r_error,
        "h_r_expected": found.h_r_expected,
        "n_broken": found.n_broken,
        "first_break_ps": found.first_break_ps,
        "analyzed_ps": found.analyzed_ps,
        "ended_ps": found.watched_ps,
    }


def roll_out_force(
    molecule: Molecule,
    reference: Reference,
    positions: NDArray[np.float64],
    length_ps: float,
    form: str,
) -> Ensemble:
    """Run the ML force; an ensemble ends where a coordinate stops being finite."""
    replicas = len(positions)
    integrator = langevin(molecule.model, seed=1)
    system = molecule.system(replicas, molecule.evaluate(replicas, form))
    start_positions = positions.reshape(-1, 3) * unit.nanometer
    context = start(system, integrator, start_positions, molecule.model)
    interval = reference.ensemble.frame_interval
    kept = []
    for _ in range(round(length_ps / interval)):
        integrator.step(round(FS_PER_PS * interval / STEP_FS))
        state = context.getState(positions=True)
        now = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        if not np.isfinite(now).all():
            break
        kept.append(np.array(now, np.float32).reshape(positions.shape))
    if not kept:
        raise ValueError(
            "found no finite position in the first frame of the ML force, expected "
            "dynamics: train it longer, or give another --force"
        )
    return Ensemble(
        topology=reference.ensemble.topology,
        frame_interval=interval,
        positions=list(np.array(kept).swapaxes(0, 1)),
    )

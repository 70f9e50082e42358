"""
Predict 100 fs from 50 (GeoTDM's protocol), beside controls: ADE and FDE in Angstrom.

Ten frames 5 fs apart are known, the next twenty are predicted, five times; the
contiguous last fifth of the data is used. Compared are the frames that are whole lags
of the model, for all rows alike: all twenty at a lag of 5 fs, every second at 10 fs.

- Without ``--data`` the truth is the reference's own force without friction, from
  frames of a thermostatted reference that the model was not trained on. Published
  numbers are shown for context only: they are of other data.
- With ``--data md17_MOLECULE.npz`` the truth is original MD17, and the published rows
  of that molecule are comparable. The force that the model was trained on starts from
  the same frames: what a model of it cannot do better. Of a file that the model saw
  nothing of, more than the last fifth may be used (``--test-fraction``).

Writes ``short_horizon.json``:

    OMP_NUM_THREADS=1 python benchmarks/short_horizon.py --models ethanol
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from bundled_reference import reference_of
from command_line import one_line_errors, write_results
from displacement_errors import PUBLISHED, displacement_errors
from held_out_bursts import run_force
from machine import describe_run
from numpy.typing import NDArray
from openmm import unit
from short_horizon_cases import (
    FRAME_INTERVAL_FS,
    NUM_PREDICTED,
    TEST_FRACTION,
    Cases,
    md17_cases,
    reference_cases,
)

from openmm_diffmd.analysis.report import format_columns, to_plain
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator import create_system, replicate
from openmm_diffmd.integrator.guards import LagRefusedError
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.outputs import make_folder
from openmm_diffmd.threads import set_threads
from openmm_diffmd.units import FS_PER_PS

Array = NDArray[np.float64]
ANGSTROM_PER_NM = 10.0
MAX_RESAMPLES = 100


def frames_per_lag(model: DiffusionModel, spacing_fs: float) -> int:
    """Say which frames are whole lags: every how many-th."""
    lag = model.metadata.lag_time_fs
    each = round(lag / spacing_fs)
    if each < 1 or abs(each * spacing_fs - lag) > 1e-6 or NUM_PREDICTED % each:
        raise ValueError(
            f"found a lag of {lag:g} fs and {NUM_PREDICTED} frames each "
            f"{spacing_fs:g} fs, expected a lag of a whole number of frames that "
            f"divides {NUM_PREDICTED}"
        )
    return each


def run_model(
    model: DiffusionModel, cases: Cases, samples: int, steps: int | None, seed: int
) -> Array:
    """
    Predict with a model, without a bath.

    Returns
    -------
    ndarray, shape (n_cases, n_samples, n_lags, n_atoms, 3), nm
        Positions after each lag.
    """
    n_cases, n_atoms = cases.positions.shape[:2]
    number = n_cases * samples
    one = cases.positions[0] * unit.nanometer
    replicas = replicate(cases.topology, create_system(cases.topology), one, number)
    flow = model.metadata.dynamics == "flow"
    settings = resolve_settings(
        model.metadata,
        friction=0.0 if flow else None,
        num_sampling_steps=steps,
        max_resamples=MAX_RESAMPLES,
    )
    molecules = describe_molecules(
        replicas.topology, model.metadata, replicas.molecules
    )
    propagator = Propagator(model, molecules, settings, seed)
    x, v = (
        np.repeat(a, samples, axis=0).reshape(-1, 3)
        for a in (cases.positions, cases.velocities)
    )
    each = frames_per_lag(model, cases.spacing_fs)
    found = []
    for _ in range(NUM_PREDICTED // each):
        x, v = propagator.step(x, v)
        found.append(x.reshape(n_cases, samples, n_atoms, 3))
    return np.stack(found, axis=2)


def run_trained_force(
    model: DiffusionModel, cases: Cases
) -> tuple[str | None, Array | None]:
    """
    Predict with the force that the model was trained on, without a bath.

    Returns
    -------
    name : str or None
        The force; none where the model file does not name one.
    positions : ndarray, shape (n_cases, 1, n_lags, n_atoms, 3), nm, or None
        Positions after each lag.
    """
    learned = model.metadata.learned_force()
    if learned is None:
        return None, None
    provenances = (d.get("provenance", {}) for d in model.metadata.reference["data"])
    made = next(p for p in provenances if p.get("potential") == learned.potential)
    each = frames_per_lag(model, cases.spacing_fs)
    bursts = run_force(
        cases.topology,
        made,
        cases.positions,
        cases.velocities,
        NUM_PREDICTED,
        cases.spacing_fs,
    )
    frames = [[frame.positions for frame in burst] for burst in bursts]
    return learned.potential, np.array(frames)[:, None, each - 1 :: each]


def predict(
    model: DiffusionModel, cases: Cases, samples: int, seed: int, *, real: bool
) -> dict[str, Array]:
    """
    Predict with the model and with the controls, at the frames that are lags.

    On real frames the force that the model was trained on is one of the controls; on
    frames of its own it is the truth.
    """
    each = frames_per_lag(model, cases.spacing_fs)
    lags = NUM_PREDICTED // each
    rows = {}
    if model.metadata.sampler["num_steps"]:
        rows["diffmd"] = run_model(model, cases, samples, None, seed)
    rows["mean only"] = run_model(model, cases, 1, 0, seed)
    x, v = cases.positions[:, None, None], cases.velocities[:, None, None]
    times = cases.spacing_fs / FS_PER_PS * each
    times = times * np.arange(1, lags + 1)[:, None, None]
    rows["persistence"] = np.repeat(x, lags, axis=2)
    rows["constant velocity"] = x + times * v
    if real:
        name, found = run_trained_force(model, cases)
        if found is None:
            print(
                f"{model.metadata.name} does not name the force it was trained on: no "
                "row of it"
            )
        else:
            rows[f"{name}, its reference"] = found
    return rows


def measure(
    model: DiffusionModel, cases: Cases, samples: int, seed: int, *, real: bool
) -> dict[str, Any]:
    """Measure ADE and FDE of every row."""
    each = frames_per_lag(model, cases.spacing_fs)
    truth = ANGSTROM_PER_NM * cases.truth[:, each - 1 :: each]
    result = {}
    for name, found in predict(model, cases, samples, seed, real=real).items():
        predicted = ANGSTROM_PER_NM * found
        errors = displacement_errors(predicted, truth, cases.num_independent)
        distance = np.linalg.norm(predicted - truth[:, None], axis=-1)
        result[name] = to_plain(errors) | {
            "samples": predicted.shape[1],
            "by_frame": distance.mean(axis=(0, 1, 3)).tolist(),
        }
    return result


def with_error(value: float, error: float | None) -> str:
    """Write a number with its error; None is an unknown one."""
    return f"{value:.4f} +- {'-' if error is None else f'{error:.4f}'}"


def print_rows(
    cases: Cases, rows: dict[str, Any], model: DiffusionModel, *, real: bool
) -> None:
    """Print a table."""
    each = frames_per_lag(model, cases.spacing_fs)
    horizon = NUM_PREDICTED * cases.spacing_fs
    apart = f"{cases.num_independent:.2g} that do not overlap"
    overlap = f", together as long as {apart}" if real else ""
    print(
        f"\n{model.metadata.name}, {cases.molecule}: {len(cases.positions)} cases"
        f"{overlap}, {horizon:g} fs ahead, compared at {NUM_PREDICTED // each} of "
        f"{NUM_PREDICTED} frames, each {each * cases.spacing_fs:g} fs\n"
    )
    lines = [
        [
            row,
            with_error(r["ade"], r["ade_error"]),
            with_error(r["fde"], r["fde_error"]),
            f"{r['min_ade']:.4f} / {r['min_fde']:.4f}" if r["samples"] > 1 else "",
        ]
        for row, r in rows.items()
    ]
    if not real:
        lines.append(["floor (no friction: the state decides)", "0", "0", ""])
    print(format_columns(["Angstrom", "ADE", "FDE", "best of the draws"], lines))
    published = {
        method: table[cases.molecule]
        for method, table in PUBLISHED.items()
        if cases.molecule in table
    }
    if not published:
        print(f"no published row is of {cases.molecule!r}")
        return
    text = ", ".join(f"{m} {a:.3f}/{f:.3f}" for m, (a, f) in published.items())
    if real:
        print(f"published on the whole file, ADE/FDE over all 20 frames: {text}")
        print(
            "They see ten frames 5 fs apart; ours sees the last one and its velocity, "
            "the backward difference over one frame and half a kick of its force."
        )
    else:
        print(f"context only, of original MD17 and not of this data: {text}")


def main(words: Sequence[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["ethanol"])
    parser.add_argument(
        "--references", type=Path, nargs="+", help="one a model; ethanol's is bundled"
    )
    parser.add_argument("--data", type=Path, help="md17_MOLECULE.npz")
    parser.add_argument(
        "--frame-interval-fs", type=float, help=f"of it; {FRAME_INTERVAL_FS:g}"
    )
    parser.add_argument(
        "--test-fraction", type=float, help=f"of it, at its end; {TEST_FRACTION:g}"
    )
    parser.add_argument("--cases", type=int, default=64)
    parser.add_argument("--samples", type=int, default=5)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("rollout"))
    arguments = parser.parse_args(words)
    references = arguments.references or [None] * len(arguments.models)
    if len(references) != len(arguments.models):
        parser.error(
            f"found {len(references)} references and {len(arguments.models)} models, "
            "expected one reference for each model"
        )
    with one_line_errors("short_horizon"):
        run(arguments, references)


def run(arguments: argparse.Namespace, given: Sequence[Path | None]) -> None:
    """Measure each model, and write after each."""
    real = arguments.data is not None
    if real and arguments.references:
        raise ValueError(
            "found --data and --references, expected one or the other: windows are of "
            "the real frames, or of references"
        )
    for option in ("frame_interval_fs", "test_fraction"):
        if not real and getattr(arguments, option) is not None:
            raise ValueError(
                f"found --{option.replace('_', '-')} without --data, which it is of: "
                "leave it out"
            )
    at_least(1, cases=arguments.cases, samples=arguments.samples)
    at_least(0, seed=arguments.seed)
    above(
        0,
        frame_interval_fs=arguments.frame_interval_fs,
        test_fraction=arguments.test_fraction,
    )
    interval_fs = arguments.frame_interval_fs or FRAME_INTERVAL_FS
    fraction = arguments.test_fraction or TEST_FRACTION
    if fraction > 1:
        raise ValueError(f"found --test-fraction {fraction:g}, expected at most 1")
    set_threads(arguments.threads)
    make_folder(arguments.output)
    # Before the first is measured: the last one's name may be wrong.
    models = [load_model(path) for path in arguments.models]
    references = [
        arguments.data or reference_of(*pair)
        for pair in zip(models, given, strict=True)
    ]
    for reference in references:
        if not reference.is_file():
            raise FileNotFoundError(f"found no file {reference}, expected a reference")
    written: dict[str, Any] = {
        **describe_run(__file__),
        "original_md17": real,
        "seed": arguments.seed,
        "published": PUBLISHED,
        "results": [],
    }
    path = arguments.output / "short_horizon.json"
    for model, reference in zip(models, references, strict=True):
        try:
            if real:
                cases = md17_cases(
                    model,
                    arguments.data,
                    interval_fs,
                    arguments.cases,
                    fraction,
                )
            else:
                cases = reference_cases(
                    model, reference, arguments.cases, arguments.output
                )
            rows = measure(model, cases, arguments.samples, arguments.seed, real=real)
        except (ValueError, LagRefusedError, openmm.OpenMMException) as error:
            raise ValueError(f"{model.metadata.name}, {reference}: {error}") from error
        print_rows(cases, rows, model, real=real)
        written["results"].append(
            {
                "model": {"name": model.metadata.name, "sha256": model.sha256},
                "molecule": cases.molecule,
                "lag_time_fs": model.metadata.lag_time_fs,
                "cases": len(cases.positions),
                "spacing_fs": cases.spacing_fs,
                "frames_per_lag": frames_per_lag(model, cases.spacing_fs),
                "source": cases.source,
                "rows": rows,
            }
        )
        write_results(path, written)
    print(f"\nIn {arguments.output}: short_horizon.json")


if __name__ == "__main__":
    main()

"""
Bias ethanol by umbrellas: the model's replicas beside the reference's own dynamics.

Two weak umbrellas act at once: a `openmm.CustomBondForce` on the distance of the outer
heavy atoms, C and O, and a `openmm.CustomTorsionForce` that favours the trans form of
C-C-O-H. Compared are the histograms under the umbrellas, and those reweighted back to
none, of:

- the model's replicas with the umbrellas in their System;
- the reference force with the same umbrellas, steps of 0.5 fs;
- the bundled unbiased reference, reweighted.

Coordinates are kept in ``umbrella_*.npz``, which are read the next time: making them
takes minutes. Prints a table, writes a picture and JSON:

    OMP_NUM_THREADS=1 python benchmarks/umbrella.py
"""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from bundled_reference import BUNDLED_REFERENCE
from command_line import one_line_errors, print_goals, write_results
from machine import describe_run
from matplotlib.figure import Figure
from numpy.typing import NDArray
from umbrella_histograms import Sample, difference, permutation_test
from umbrella_runs import (
    Umbrella,
    keep,
    run_model,
    run_reference,
)

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.checks import at_least
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.outputs import make_folder
from openmm_diffmd.threads import set_threads

UMBRELLA = Umbrella((0, 2), 2000.0, 0.19, (0, 1, 2, 3), 4.0)
GROUP_PS = 10.0
TRANS = np.deg2rad(120.0)
EDGES = (np.linspace(0.215, 0.275, 31), np.linspace(0.0, np.pi, 19))
MAX_Z = 2.5
MIN_P = 0.01
COLORS = {"model": "#0f7ba0", "reference": "#3c3c3c", "unbiased reference": "#d9722e"}


def summarize(sample: Sample) -> dict[str, tuple[float, float]]:
    """Mean distance (nm) and fraction of the trans form, each with its error."""
    r, phi = sample.coordinates[..., 0], sample.coordinates[..., 1]
    values = {"distance_nm": r, "trans": (phi > TRANS).astype(float)}
    result = {}
    for name, value in values.items():
        mean, error = sample.average(value)
        result[name] = float(mean), float(error)
    return result


def reweight(coordinates: NDArray[np.float64], sign: int, temperature: float) -> Sample:
    """Give frames weight exp(sign U/kT); sign 0 leaves them as they are."""
    exponent = sign * UMBRELLA.exponent(coordinates, temperature)
    return Sample(coordinates, np.exp(exponent - exponent.max()))


def compare(
    samples: dict[str, Sample], biased: dict[str, Any], seed: int
) -> tuple[dict[str, Any], dict[str, bool]]:
    """Compare the model with both references, under the umbrellas and without."""
    rows = {name: summarize(sample) for name, sample in samples.items()}
    comparisons: dict[str, Any] = {}
    goals = {}
    for state in ("umbrella", "no umbrella"):
        for other in ("reference", "unbiased reference"):
            ours, theirs = samples[f"model, {state}"], samples[f"{other}, {state}"]
            found = {
                name: float(
                    difference(
                        rows[f"model, {state}"][name], rows[f"{other}, {state}"][name]
                    )
                )
                for name in ("distance_nm", "trans")
            }
            for axis, name in enumerate(("distance", "torsion")):
                z = difference(
                    ours.histogram(axis, EDGES[axis]),
                    theirs.histogram(axis, EDGES[axis]),
                )
                found[f"rms_z_of_{name}_histogram"] = float(np.sqrt((z**2).mean()))
            comparisons[f"{state}: model - {other}"] = found
            good = all(abs(found[name]) <= MAX_Z for name in ("distance_nm", "trans"))
            goals[f"{state}: means within {MAX_Z:g} errors of the {other}'s"] = good
    for axis, name in enumerate(("distance", "torsion")):
        p = permutation_test(
            biased["model"][..., axis],
            biased["reference"][..., axis],
            EDGES[axis],
            seed,
        )
        comparisons[f"p of the {name} histograms under the umbrella"] = p
        goals[f"{name} histograms under the umbrella from one distribution"] = (
            p >= MIN_P
        )
    return {"rows": rows, "comparisons": comparisons}, goals


def draw(samples: dict[str, Sample], path: Path, title: str) -> None:
    """Draw the histograms with bands of one standard error."""
    figure = Figure(figsize=(10.0, 6.6), layout="constrained", facecolor="white")
    figure.suptitle(title, fontsize=11, x=0.01, ha="left", weight="bold")
    panels = figure.subplots(2, 2)
    labels = ("C-C-O: distance C...O, nm", "torsion C-C-O-H, degrees")
    for row, state in enumerate(("umbrella", "no umbrella")):
        for axis, label in enumerate(labels):
            panel, scale = panels[row, axis], (1.0, 180.0 / np.pi)[axis]
            for name, color in COLORS.items():
                density, error = samples[f"{name}, {state}"].histogram(
                    axis, EDGES[axis]
                )
                middle = scale * 0.5 * (EDGES[axis][1:] + EDGES[axis][:-1])
                density, error = density / scale, error / scale
                reweighted = (name == "unbiased reference") == (state == "umbrella")
                text = f"{name}, reweighted" if reweighted else name
                panel.plot(middle, density, color=color, lw=1.4, label=text)
                panel.fill_between(
                    middle, density - error, density + error, color=color, alpha=0.25
                )
            if state == "umbrella":
                free = samples["unbiased reference, no umbrella"]
                density, _ = free.histogram(axis, EDGES[axis])
                label_free = "reference without umbrellas"
                panel.plot(middle, density / scale, "k:", lw=1.0, label=label_free)
            panel.set_title(f"{'under' if row == 0 else 'without'} the umbrellas")
            panel.set_xlabel(label)
            panel.set_yticks([])
            panel.spines[["top", "left", "right"]].set_visible(False)
    for panel in panels[:, 0]:
        panel.legend(frameon=False, fontsize=8, loc="upper left")
    figure.savefig(path, dpi=130)


def print_comparison(result: dict[str, Any], goals: dict[str, bool]) -> None:
    """Print what was found."""
    print(f"\n{'':34}{'distance, nm':>22}{'trans':>18}")
    for name, row in result["rows"].items():
        (r, r_error), (t, t_error) = row["distance_nm"], row["trans"]
        print(f"{name:34}{r:12.5f} +- {r_error:.5f}{t:9.3f} +- {t_error:.3f}")
    print()
    for name, found in result["comparisons"].items():
        if isinstance(found, dict):
            text = ", ".join(f"{key} {z:+.2f}" for key, z in found.items())
        else:
            text = f"p = {found:.3f}"
        print(f"{name}: {text}")
    print()
    print_goals(goals)


def make_runs(
    arguments: argparse.Namespace,
    ensemble: Ensemble,
    provenance: dict[str, Any],
    model: DiffusionModel,
) -> dict[str, NDArray[np.float64]]:
    """Run reference and model, or read what an earlier call kept."""

    def reference() -> NDArray[np.float64]:
        return run_reference(
            UMBRELLA,
            provenance,
            ensemble,
            float(provenance["temperature_K"]),
            num_segments=arguments.segments,
            segment_ps=GROUP_PS,
            equilibration_ps=arguments.equilibration_ps,
            seed=arguments.seed,
        )

    def replicas() -> NDArray[np.float64]:
        return run_model(
            UMBRELLA,
            model,
            ensemble,
            num_replicas=arguments.replicas,
            length_ps=arguments.length_ps,
            equilibration_ps=arguments.equilibration_ps,
            seed=arguments.seed,
        )

    common = f"{UMBRELLA}, equilibration {arguments.equilibration_ps} ps"
    common += f", seed {arguments.seed}"
    of_reference = f"{common}, {arguments.segments} segments"
    of_model = f"{common}, {arguments.replicas} x {arguments.length_ps} ps"
    of_model += f", model {model.sha256}"
    output = arguments.output
    return {
        "reference": keep(output / "umbrella_reference.npz", of_reference, reference),
        "model": keep(output / "umbrella_model.npz", of_model, replicas),
    }


def main(words: Sequence[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--replicas", type=int, default=64)
    parser.add_argument("--length-ps", type=float, default=10.0, help="of a replica")
    parser.add_argument("--segments", type=int, default=20, help="of the reference")
    parser.add_argument("--equilibration-ps", type=float, default=2.0, help="of each")
    parser.add_argument("--seed", type=int, default=11)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("rollout"))
    arguments = parser.parse_args(words)
    with one_line_errors("umbrella"):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Compare what the command line says."""
    at_least(1, replicas=arguments.replicas)
    # Errors are those of groups: of one alone nothing is known.
    at_least(2, segments=arguments.segments)
    at_least(0, equilibration_ps=arguments.equilibration_ps)
    at_least(0, seed=arguments.seed)
    groups = arguments.length_ps / GROUP_PS
    if not (groups >= 1 and groups.is_integer() and groups * arguments.replicas > 1):
        raise ValueError(
            f"found {arguments.replicas} replicas of {arguments.length_ps:g} ps, "
            f"expected a multiple of {GROUP_PS:g} ps, what is taken as independent, "
            "and two of them at least"
        )
    set_threads(arguments.threads)
    make_folder(arguments.output)
    ensemble, provenance = load_reference(BUNDLED_REFERENCE)
    temperature = float(provenance["temperature_K"])
    model = load_model("ethanol")
    runs = make_runs(arguments, ensemble, dict(provenance), model)
    group = round(GROUP_PS / ensemble.frame_interval)
    unbiased = np.concatenate(
        [
            UMBRELLA.coordinates(x[: len(x) // group * group]).reshape(-1, group, 2)
            for x in ensemble.positions
        ]
    )
    biased = {name: run.reshape(-1, group, 2) for name, run in runs.items()}
    samples = {}
    for name, coordinates in biased.items():
        samples[f"{name}, umbrella"] = reweight(coordinates, 0, temperature)
        samples[f"{name}, no umbrella"] = reweight(coordinates, 1, temperature)
    samples["unbiased reference, umbrella"] = reweight(unbiased, -1, temperature)
    samples["unbiased reference, no umbrella"] = reweight(unbiased, 0, temperature)
    result, goals = compare(samples, biased, arguments.seed)
    print_comparison(result, goals)
    lengths = {name: len(c) * GROUP_PS for name, c in biased.items()}
    title = (
        f"Umbrellas on ethanol at {temperature:g} K: {lengths['model']:g} ps of the "
        f"model beside {lengths['reference']:g} ps of {provenance['potential']}"
    )
    draw(samples, arguments.output / "umbrella.png", title)
    written = {
        **describe_run(__file__),
        "model_sha256": model.sha256,
        "umbrella": str(UMBRELLA),
        "temperature_K": temperature,
        "lengths_ps": lengths | {"unbiased reference": len(unbiased) * GROUP_PS},
        **result,
        "goals": goals,
    }
    path = arguments.output / "umbrella.json"
    write_results(path, written)
    print(f"\nIn {arguments.output}: umbrella.png, umbrella.json")


if __name__ == "__main__":
    main()

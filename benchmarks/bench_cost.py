"""
Speed and truth of learned dynamics beside an ML force and beside the reference's force.

The ML force is the gradient of an `EnergyModel`: the encoder's layers, channels and
edge features, trained on energies and forces of the same potential
(``openmm-diffmd force``). It runs in OpenMM through PythonForce at 0.5 fs, all replicas
in one batch, in the quickest of ``--forms``. Two parts, each with its own command and
machine in the JSON file, where what is not made anew stays:

- *cost*: time of a step, the smallest of several rounds, for each number of replicas;
  each row with one thread or with ``--threads``, whichever is quicker.
- *rollouts*: h(r) error of each against the reference, same starting frames and length.

    python benchmarks/bench_cost.py --output benchmarks/results/bench_cost.json
"""

import argparse
import json
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from bundled_reference import BUNDLED_REFERENCE
from command_line import (
    one_line_errors,
    output_file,
    print_goals,
    read_results,
    require_same_molecule,
    write_results,
)
from cost_rollouts import ML_FORCE, measure_rollouts
from machine import describe_run
from ml_force import STEP_FS, Molecule, load_ml_force
from rollout_cost import Cost, cost_table
from step_costs import (
    OURS,
    ml_cost,
    our_cost,
    reference_costs,
    with_quickest_threads,
)

from openmm_diffmd.analysis.comparable import check_temperature
from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.analysis.report import format_columns, to_plain
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.export.update import update_model
from openmm_diffmd.reference.trained_force import FORMS
from openmm_diffmd.threads import set_threads

SPEED_GOAL = 20.0
PLAIN = "plain torch"
PARTS = ("cost", "rollouts")
FORCE_FILE = Path(__file__).parent / "ethanol_force.pt"


def measure_costs(
    arguments: argparse.Namespace, molecule: Molecule
) -> dict[str, dict[str, Any]]:
    """Time all for each number of replicas."""
    with tempfile.TemporaryDirectory() as folder:
        # Layers as those of the ML force are.
        path = update_model(molecule.model.path, Path(folder) / PLAIN, operators=False)
        plain_model = load_model(path)
        return {
            str(count): measure_cost(arguments, molecule, plain_model, count)
            for count in arguments.replicas
        }


def measure_cost(
    arguments: argparse.Namespace,
    molecule: Molecule,
    plain_model: DiffusionModel,
    count: int,
) -> dict[str, Any]:
    """Time all for one number of replicas, and print a table."""
    seconds, model = arguments.seconds, molecule.model
    own_k = model.metadata.sampler["num_steps"]
    measured: list[Callable[[], Cost]] = [
        partial(our_cost, model, count, k, seconds) for k in arguments.k
    ]
    measured.append(partial(our_cost, plain_model, count, own_k, seconds, PLAIN))
    measured += [
        partial(ml_cost, molecule, count, form, seconds) for form in arguments.forms
    ]
    costs = []
    for measure in measured:
        costs.append(with_quickest_threads(arguments.threads, measure))
        report(costs[-1])
    costs += reference_costs(arguments.reference, count, arguments.threads)
    print("\n" + cost_table(costs), end="\n\n")
    compared = compare(costs)
    print_comparison(compared)
    return {
        "rows": [to_plain(c) | {"ns_per_day": c.ns_per_day} for c in costs],
        "comparison": compared,
    }


def report(cost: Cost) -> None:
    """Say how far the measurement has come."""
    print(
        f"{cost.name}, {cost.n_trajectories} replicas, {cost.threads} threads: "
        f"{1000 * cost.step_seconds:.2f} ms a step",
        file=sys.stderr,
        flush=True,
    )


def compare(costs: Sequence[Cost]) -> dict[str, Any]:
    """Say how much quicker ours is than the ML force, and where it stops being so."""
    forms = [cost for cost in costs if cost.name.startswith(ML_FORCE)]
    force = min(forms, key=lambda cost: cost.step_seconds)
    ours = {c.evaluations - 1: c for c in costs if c.name.startswith(OURS)}
    plain_ours = next(cost for cost in costs if cost.name.startswith(PLAIN))
    per_fs = force.step_seconds / force.step_fs
    budget = per_fs * next(iter(ours.values())).step_fs
    slope, constant = 0.0, next(iter(ours.values())).step_seconds
    if len(ours) > 1:
        slope, constant = np.polyfit(
            list(ours), [c.step_seconds for c in ours.values()], 1
        )
    most = {
        name: None if slope <= 0 else float((budget / goal - constant) / slope)
        for name, goal in (("as_quick", 1.0), ("goal", SPEED_GOAL))
    }
    return {
        "replicas": force.n_trajectories,
        "times_the_ML_force": {
            k: c.ns_per_day / force.ns_per_day for k, c in ours.items()
        },
        "times_the_ML_force_in_plain_torch": plain_ours.ns_per_day / force.ns_per_day,
        # The same network at another lag costs the same.
        "lag_fs_of_equal_speed": {k: c.step_seconds / per_fs for k, c in ours.items()},
        "largest_K": most,
    }


def print_comparison(found: dict[str, Any]) -> None:
    """Print where ours stops winning."""
    print(
        f"\n{found['replicas']} replicas, ours beside the ML force in its quickest "
        f"form at {STEP_FS} fs:"
    )
    lags = found["lag_fs_of_equal_speed"]
    rows = [
        [str(k), f"{times:.1f}", f"{lags[k]:.2f}", f"{SPEED_GOAL * lags[k]:.1f}"]
        for k, times in found["times_the_ML_force"].items()
    ]
    without = found["times_the_ML_force_in_plain_torch"]
    print(f"{without:.1f} times its ns/day by the same network in plain torch")
    goal = f"{SPEED_GOAL:g} x from\na lag of, fs"
    print(
        format_columns(
            ["K", "times its\nns/day", "as quick at\na lag of, fs", goal], rows
        )
    )
    for name, goal in (
        ("as_quick", "as quick"),
        ("goal", f"{SPEED_GOAL:g} x as quick"),
    ):
        most = found["largest_K"][name]
        if most is not None:
            so = f"up to K = {most:.1f}" if most >= 0 else "at no K"
            print(f"{goal} at this lag {so} (straight line through the K measured)")


def judge(result: dict[str, Any], k: int) -> dict[str, bool]:
    """Say which goals are met, by the model with its own number of sampling steps."""
    goals = {}
    for replicas, found in result.get("cost", {}).items():
        # Keys of JSON objects are strings.
        times = found["comparison"]["times_the_ML_force"].get(str(k))
        if times is not None:
            name = f"{SPEED_GOAL:g} x the ML force, {replicas} replicas, K = {k}"
            goals[name] = times >= SPEED_GOAL
    rows = result.get("rollouts", {}).get("rows", {})
    if f"diffmd, K = {k}" in rows:
        ours, theirs = (
            rows[name]["h_r_error"] for name in (f"diffmd, K = {k}", ML_FORCE)
        )
        by_sampling = rows[f"diffmd, K = {k}"]["h_r_expected"]
        # None: nothing outlived the first picoseconds, or too little did for halves.
        limits = [error for error in (theirs, by_sampling) if error is not None]
        met = ours is not None and (theirs is None or ours <= max(limits))
        name = "error of h(r) no larger than the ML force's or than sampling explains"
        goals[f"{name}, K = {k}"] = met
    return goals


def parse(words: Sequence[str] | None) -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--model", default="ethanol", help="bundled name or file")
    add("--force", type=Path, default=FORCE_FILE, help="file of openmm-diffmd force")
    add("--reference", type=Path, default=BUNDLED_REFERENCE)
    add("--parts", nargs="+", choices=PARTS, default=PARTS)
    add("--replicas", type=int, nargs="+", default=[1, 64])
    add("--k", type=int, nargs="+", help="sampling steps; 0, 1, 2, 4, 8 and its own")
    add("--forms", nargs="+", choices=FORMS, default=FORMS)
    add("--threads", type=int, default=2, help="most of a row")
    add("--seconds", type=float, default=2.0, help="for each row")
    add("--rollout-replicas", type=int, default=64)
    add("--rollout-k", type=int, nargs="+", help="0 and the model's own")
    add("--rollout-form", choices=FORMS, default="scripted")
    add("--length-ps", type=float, default=20.0, help="of each replica")
    add("--output", type=output_file, help="JSON file to write")
    return parser.parse_args(words)


def print_errors(description: dict[str, Any]) -> None:
    """Print the ML force's errors on frames left out of its training."""
    for entry in description["data"]:
        errors = ", ".join(f"{name} {v:.1f}" for name, v in entry["test"].items())
        print(f"ML force on left-out frames of {entry['file']}: {errors}")


def plain(found: dict[str, Any]) -> dict[str, Any]:
    """Make of values what reading them back from JSON would."""
    return json.loads(json.dumps(found))


def main(words: Sequence[str] | None = None) -> None:
    """Run the benchmark."""
    arguments = parse(words)
    # TorchScript is deprecated upstream.
    warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
    with one_line_errors("bench_cost"):
        run(arguments)


def check(arguments: argparse.Namespace, model: DiffusionModel) -> None:
    """Refuse what would end the command after minutes of work."""
    for count in (*arguments.replicas, arguments.rollout_replicas):
        at_least(1, replicas=count)
    for k in (*arguments.k, *arguments.rollout_k):
        at_least(0, k=k)
    above(0, seconds=arguments.seconds, length_ps=arguments.length_ps)
    frames, provenance = load_reference(arguments.reference)
    topology, _ = model.example()
    example = [atom.element.symbol for atom in topology.atoms()]
    require_same_molecule(str(arguments.reference), frames.symbols, example)
    if "temperature_K" not in provenance:
        raise ValueError(
            f"found {arguments.reference} without its temperature, expected a file of "
            "openmm-diffmd reference"
        )
    check_temperature(provenance, model.metadata.temperature_K)


def run(arguments: argparse.Namespace) -> None:
    """Measure what the command line says."""
    set_threads(arguments.threads)
    output = arguments.output
    result: dict[str, Any] = {}
    if output and output.is_file():
        result = read_results(output)
    model = load_model(arguments.model)
    own = model.metadata.sampler["num_steps"]
    arguments.k = arguments.k or sorted({0, 1, 2, 4, 8, own})
    arguments.rollout_k = arguments.rollout_k or sorted({0, own})
    molecule = load_ml_force(model, arguments.force)
    description = molecule.force.description
    check(arguments, model)
    size = sum(weight.numel() for weight in molecule.force.model.parameters())
    result["ML_force"] = description | {"parameters": size}
    print_errors(description)
    stamp = {
        **describe_run(__file__),
        "model": model.sha256,
    }
    if "cost" in arguments.parts:
        costs = measure_costs(arguments, molecule)
        result.setdefault("cost", {}).update(
            {replicas: plain(found | stamp) for replicas, found in costs.items()}
        )
        write(output, result)
    if "rollouts" in arguments.parts:
        set_threads(arguments.threads)
        result["rollouts"] = plain(measure_rollouts(arguments, molecule) | stamp)
    result["goals"] = judge(result, own)
    print()
    print_goals(result["goals"])
    write(output, result)


def write(output: Path | None, result: dict[str, Any]) -> None:
    """Keep what has been measured, at once or not at all."""
    if output:
        write_results(output, result)


if __name__ == "__main__":
    main()

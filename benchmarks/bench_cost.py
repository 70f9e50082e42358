"""
Speed and truth of learned dynamics beside an ML force and beside the reference's force.

The ML force is the gradient of an `EnergyModel`: the encoder's layers, channels and
edge features, trained on energies and forces of the same potential
(``openmm-diffmd force``). It runs in OpenMM through PythonForce at 0.5 fs, all replicas
in one batch, in the quickest of ``--forms``. Two parts, each with its own command and
machine in the JSON file, where what is not made anew stays:

- *cost*: wall time of a step, the smallest of several rounds, for each number of
  replicas.
- *rollouts*: h(r) error of each against the reference, same starting frames and length.

    python benchmarks/bench_cost.py --output benchmarks/results/bench_cost.json
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from bundled_reference import BUNDLED_REFERENCE
from command_line import (
    one_line_errors,
    output_file,
    print_goals,
    read_results,
    require_same_molecule,
    write_results,
)
from controls import starting_frames
from cost_rollouts import ML_FORCE, measure_rollouts
from machine import describe_run
from ml_force import (
    STEP_FS,
    Molecule,
    langevin,
    load_ml_force,
    start,
)
from openmm import unit
from rollout_cost import Cost, cost_table, force_cost

from openmm_diffmd.analysis.comparable import check_temperature
from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.analysis.report import format_columns, to_plain
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.export.export import update_model
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator import DiffusionIntegrator, create_system, replicate
from openmm_diffmd.reference.trained_force import FORMS, Evaluate
from openmm_diffmd.threads import set_threads

SPEED_GOAL = 20.0
OURS = "diffmd"
PLAIN = "plain torch"
PARTS = ("cost", "rollouts")
FORCE_FILE = Path(__file__).parent / "ethanol_force.pt"


def quickest(run: Callable[[int], Any], seconds: float) -> float:
    """
    Time rounds of equal length for about some seconds; least time of one, s.

    With one thread it is the process's CPU time, in which others do not count.
    """
    clock = time.process_time if torch.get_num_threads() == 1 else time.perf_counter
    run(3)
    begin = clock()
    run(3)
    count = max(1, round(3 * seconds / 10 / (clock() - begin)))
    rounds: list[float] = []
    end = clock() + seconds
    while len(rounds) < 3 or clock() < end:
        begin = clock()
        run(count)
        rounds.append((clock() - begin) / count)
    return min(rounds)


def our_cost(
    model: DiffusionModel, replicas: int, k: int, seconds: float, name: str = OURS
) -> Cost:
    """Time a lag with K sampling steps."""
    topology, positions = model.example()
    copies = replicate(topology, create_system(topology), positions, replicas)
    integrator = DiffusionIntegrator(
        model,
        copies.topology,
        molecules=copies.molecules,
        sampler="exponential",
        num_sampling_steps=k,
    )
    integrator.setRandomNumberSeed(1)
    context = start(copies.system, integrator, copies.positions, model)
    lag_fs = integrator.getStepSize().value_in_unit(unit.femtosecond)
    step = quickest(integrator.step, seconds)
    del context
    return Cost(f"{name}, K = {k}", replicas, lag_fs, step, 1 + k)


def ml_cost(
    molecule: Molecule, replicas: int, forms: Sequence[str], seconds: float
) -> tuple[Cost, dict[str, float]]:
    """Time a step of the ML force in its quickest form, and an evaluation in each."""
    model = molecule.model
    _, one = model.example()
    positions = np.tile(one.value_in_unit(unit.nanometer), (replicas, 1))
    batch = torch.tensor(positions, dtype=torch.float32).view(replicas, -1, 3)
    functions = {form: molecule.evaluate(replicas, form) for form in forms}
    evaluations = {}
    for form, function in functions.items():

        def run(count: int, function: Evaluate = function) -> None:
            with torch.no_grad():
                for _ in range(count):
                    function(batch)

        evaluations[form] = quickest(run, seconds / 2)
    best = min(evaluations, key=lambda form: evaluations[form])
    integrator = langevin(model, seed=1)
    system = molecule.system(replicas, functions[best])
    context = start(system, integrator, positions * unit.nanometer, model)
    step = quickest(integrator.step, seconds)
    del context
    name = f"{ML_FORCE} ({best})"
    return Cost(name, replicas, STEP_FS, step, 1), evaluations


def reference_cost(reference: Path, replicas: int, cores: int) -> list[Cost]:
    """
    Time the reference's force: many molecules as many at once as there are cores.

    One molecule has one thread, or all where these are quicker: few atoms gain little,
    and lose much where another process takes a core.
    """

    def run(processes: int, threads: int) -> list[dict[str, Any]]:
        words = [sys.executable, __file__, "--xtb", "--reference", str(reference)]
        words += ["--threads", str(cores)]
        environment = os.environ | {"OMP_NUM_THREADS": str(threads)}
        started = [
            subprocess.Popen(words, env=environment, stdout=subprocess.PIPE)
            for _ in range(processes)
        ]
        return [json.loads(process.communicate()[0]) for process in started]

    together = cores if replicas > 1 else 1
    found = run(together, 1)
    if "reason" in found[0]:
        print(found[0]["reason"])
        return []
    seconds = float(np.mean([cost["step_seconds"] for cost in found]))
    seconds *= replicas / together
    if together < cores:
        seconds = min(seconds, run(1, cores)[0]["step_seconds"])
    return [Cost(found[0]["name"], replicas, found[0]["step_fs"], seconds)]


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
    costs = []
    for k in arguments.k:
        costs.append(our_cost(model, count, k, seconds))
        report(costs[-1])
    own_k = model.metadata.sampler["num_steps"]
    costs.append(our_cost(plain_model, count, own_k, seconds, PLAIN))
    report(costs[-1])
    force, evaluations = ml_cost(molecule, count, arguments.forms, seconds)
    costs.append(force)
    report(force)
    costs += reference_cost(arguments.reference, count, arguments.threads)
    print("\n" + cost_table(costs), end="\n\n")
    each = ", ".join(f"{form} {1000 * s:.2f} ms" for form, s in evaluations.items())
    print(f"an evaluation of the ML force: {each}")
    compared = compare(costs)
    print_comparison(compared)
    return {
        "rows": [to_plain(c) | {"ns_per_day": c.ns_per_day} for c in costs],
        "evaluation_seconds": evaluations,
        "comparison": compared,
    }


def report(cost: Cost) -> None:
    """Say how far the measurement has come."""
    print(
        f"{cost.name}, {cost.n_trajectories} replicas: "
        f"{1000 * cost.step_seconds:.2f} ms a step",
        file=sys.stderr,
        flush=True,
    )


def compare(costs: Sequence[Cost]) -> dict[str, Any]:
    """Say how much quicker ours is than the ML force, and where it stops being so."""
    force = next(cost for cost in costs if cost.name.startswith(ML_FORCE))
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
    print(f"\n{found['replicas']} replicas, ours beside the ML force at {STEP_FS} fs:")
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
    add("--forms", nargs="+", choices=FORMS, default=["eager", "scripted"])
    add("--threads", type=int, default=2)
    add("--seconds", type=float, default=2.0, help="for each row")
    add("--rollout-replicas", type=int, default=64)
    add("--rollout-k", type=int, nargs="+", help="0 and the model's own")
    add("--rollout-form", choices=FORMS, default="scripted")
    add("--length-ps", type=float, default=20.0, help="of each replica")
    add("--output", type=output_file, help="JSON file to write")
    add("--xtb", action="store_true", help=argparse.SUPPRESS)
    return parser.parse_args(words)


def time_reference(reference: Path, threads: int) -> None:
    """Time the reference's force by the clock of the other rows; print it as JSON."""
    frames, provenance = load_reference(reference)
    positions, _ = starting_frames(frames, 1)
    clock = time.process_time if threads == 1 else time.perf_counter
    topology = frames.topology.to_openmm()
    cost, reason = force_cost(topology, positions[0], provenance, clock)
    print(json.dumps({"reason": reason} if cost is None else asdict(cost)))


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
        if arguments.xtb:
            time_reference(arguments.reference, arguments.threads)
        else:
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

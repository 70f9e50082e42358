"""
Compare the spread that a model predicts with its true error, and see if it warns.

Two parts:

- *Reliability.* For frames that the model was not trained on, a lag is drawn many times
  from each state. The standard deviation of the draws stands beside the distance of
  their mean from the reference's next frame, atom by atom, in bins of the former.
- *Warning.* Replicas are driven out of what the model knows (hot baths, too little
  friction, none at all), until the guards refuse draws. The spread of the lags before
  a refusal, of the atom for which it is largest beside its element's ordinary one,
  stands beside that of all lags far from any refusal in the same run.

Without ``--data`` the reference's force makes the frames, in seconds to minutes: 150 fs
without friction from frames of the reference's last fifth. Writes ``reliability.json``
and ``reliability.png``:

    OMP_NUM_THREADS=1 python benchmarks/reliability.py --output rollout
"""

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import atomic_numbers
from bundled_reference import reference_of
from command_line import one_line_errors, write_results
from controls import starting_frames
from early_warning import measure_warning, split_by_events
from held_out_bursts import make_bursts, unseen_pieces
from machine import describe_run
from numpy.typing import NDArray
from provoked_runs import Provocation, Run
from reliability_curve import Reliability, measure_reliability
from reliability_report import QUANTITIES, draw, print_tables, without_values
from spread import SpreadPredictor

from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.data.pairs import LaggedPairs, encode_pairs, evenly_spread
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.outputs import make_folder
from openmm_diffmd.threads import set_threads
from openmm_diffmd.units import FS_PER_PS

Array = NDArray[np.float64]
BATCH = 256
WINDOW, DISTANCE = 20, 50
"""Lags before a refusal that are looked at; how far off they are ordinary."""
HOT_K = (1000.0, 1500.0, 2000.0)


def predict(
    model: DiffusionModel, trajectories: Sequence[Trajectory], pairs: int, draws: int
) -> tuple[Array, Array, list[str], int]:
    """
    Predict spreads of pairs that were left out, and find the true errors.

    Returns
    -------
    spreads : ndarray, shape (n_atoms_of_all, 2)
        Standard deviation of the error of a mean of draws, nm and nm/ps.
    errors : ndarray, shape (n_atoms_of_all, 2, 3)
        True error of it.
    symbols : list of str
        Element of each atom.
    n_pairs : int
        Pairs that were drawn.

    Raises
    ------
    ValueError
        If the model has seen all of a file.
    """
    metadata = model.metadata
    lag_time = metadata.lag_time_fs / FS_PER_PS
    pieces = [p for t in trajectories for p in unseen_pieces(t, metadata)]
    elements = [atomic_numbers[symbol] for symbol in metadata.elements]
    found = LaggedPairs(
        [t for t, _ in pieces], [r for _, r in pieces], elements, lag_time
    )
    chosen = evenly_spread(len(found), pairs)
    predictor = SpreadPredictor(model, draws, seed=1)
    spreads, errors, species = [], [], []
    for indices in chosen.split(BATCH):
        batch = found.batch(indices)
        with torch.inference_mode():
            condition = encode_pairs(model.module, batch)
        prediction = predictor.predict(condition, batch.species)
        state = torch.stack([batch.positions, batch.velocities], dim=2)
        error = (batch.following - state).double() - prediction.mean
        real = batch.species >= 0
        # The mean of n draws is itself off by spread/sqrt(n).
        widened = prediction.spread * (1.0 + 1.0 / draws) ** 0.5
        spreads.append(widened[real])
        errors.append(error[real])
        species.append(batch.species[real])
    symbols = [metadata.elements[int(index)] for index in torch.cat(species)]
    values = torch.cat(spreads).numpy(), torch.cat(errors).numpy()
    return *values, symbols, len(chosen)


def measure_elements(
    spreads: Array, errors: Array, symbols: Sequence[str]
) -> dict[str, dict[str, Reliability]]:
    """Measure each element's positions and velocities."""
    found = np.array(symbols)
    return {
        symbol: {
            name: measure_reliability(
                spreads[found == symbol, index], errors[found == symbol, index]
            )
            for index, name in enumerate(QUANTITIES)
        }
        for symbol in sorted(set(symbols))
    }


def largest_spread(
    run: Run, symbols: Sequence[str], ordinary: dict[str, Array]
) -> Array:
    """Largest spread of a molecule, in ordinary spreads of the atom's element."""
    scale = np.array([ordinary[symbol] for symbol in symbols])
    result: Array = (run.spreads / scale).max(axis=(2, 3))
    return result


def ways_to_provoke(
    model: DiffusionModel, arguments: argparse.Namespace
) -> dict[str, tuple[float, float]]:
    """
    List temperature (K) and friction (1/ps) of each provoked run by its name.

    Raises
    ------
    ValueError
        If two would have one name.
    """
    own = model.metadata.temperature_K
    usual = model.metadata.friction_per_ps
    ways = [(f"{own:g} K", (own, usual))]
    ways += [(f"{own:g} K, {f:g}/ps", (own, f)) for f in arguments.frictions_per_ps]
    ways += [(f"{t:g} K", (t, 1.0)) for t in arguments.temperatures_K]
    ways += [(f"{t:g} K, no bath", (t, 0.0)) for t in arguments.free_temperatures_K]
    names = [name for name, _ in ways]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(
            f"found the runs {'; '.join(twice)} twice, expected each once: name no "
            f"temperature twice, nor {own:g} K, which is always run"
        )
    return dict(ways)


def provoke(
    model: DiffusionModel,
    reference: Path,
    ordinary: dict[str, Array],
    arguments: argparse.Namespace,
) -> dict[str, dict[str, Any]]:
    """Drive replicas to refusals in several ways, and see whether the spread warns."""
    ensemble, _ = load_reference(reference)
    starts, _ = starting_frames(ensemble, arguments.replicas)
    results = {}
    for name, way in ways_to_provoke(model, arguments).items():
        temperature, friction = way
        run = Provocation(
            model,
            ensemble.topology.to_openmm(),
            starts,
            temperature=temperature,
            friction=friction,
            num_draws=arguments.run_draws,
            seed=arguments.seed,
        ).run(arguments.lags, name)
        values = largest_spread(run, ensemble.symbols, ordinary)
        calm, before = split_by_events(values, run.events, WINDOW, DISTANCE, run.breaks)
        warning = None
        if len(before) and len(calm):
            warning = measure_warning(calm, before, arguments.false_alarms)
        results[name] = {
            "temperature_K": temperature,
            "friction_per_ps": friction,
            "refused": len(run.events),
            "broken": len(run.breaks),
            "calm": calm,
            "before": before,
            "warning": warning,
        }
    return results


def main(words: Sequence[str] | None = None) -> None:
    """Run the measurements."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="ethanol")
    parser.add_argument(
        "--reference", type=Path, help="starts of runs and bursts; ethanol's is bundled"
    )
    parser.add_argument(
        "--data", type=Path, nargs="+", help="frictionless bursts; made unless given"
    )
    parser.add_argument("--bursts", type=int, default=64, help="to make")
    parser.add_argument("--pairs", type=int, default=2048)
    parser.add_argument("--draws", type=int, default=32, help="of a lag of a pair")
    parser.add_argument("--replicas", type=int, default=32, help="of provoked runs")
    parser.add_argument("--lags", type=int, default=500, help="0: no provoked runs")
    parser.add_argument("--run-draws", type=int, default=8, help="of a lag of a run")
    parser.add_argument(
        "--temperatures-K",
        type=float,
        nargs="*",
        help="K, of baths of 1/ps; 1000, 1500, 2000 but the model's own unless given",
    )
    parser.add_argument(
        "--free-temperatures-K", type=float, nargs="*", default=[1000.0], help="no bath"
    )
    parser.add_argument(
        "--frictions-per-ps",
        type=float,
        nargs="*",
        default=[],
        help="1/ps, of baths at the model's own temperature",
    )
    parser.add_argument("--false-alarms", type=float, default=1e-2, help="of a lag")
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("rollout"))
    arguments = parser.parse_args(words)
    with one_line_errors("reliability"):
        run(arguments)


def check(arguments: argparse.Namespace, model: DiffusionModel) -> None:
    """Refuse what would end the command after minutes of work."""
    at_least(1, bursts=arguments.bursts, pairs=arguments.pairs)
    at_least(2, draws=arguments.draws)
    at_least(0, lags=arguments.lags)
    if not 0 < arguments.false_alarms < 1:
        raise ValueError(
            f"found false-alarms {arguments.false_alarms:g}, expected a share between "
            "0 and 1"
        )
    if arguments.lags:
        at_least(1, replicas=arguments.replicas)
        at_least(2, run_draws=arguments.run_draws)
        for temperature in (*arguments.temperatures_K, *arguments.free_temperatures_K):
            at_least(0, temperature=temperature)
        for friction in arguments.frictions_per_ps:
            above(0, friction=friction)
        ways_to_provoke(model, arguments)
    if arguments.lags or not arguments.data:
        reference, _ = load_reference(arguments.reference)
        describe_molecules(reference.topology.to_openmm(), model.metadata)


def run(arguments: argparse.Namespace) -> None:
    """Measure what the command line says."""
    set_threads(arguments.threads)
    model = load_model(arguments.model)
    if arguments.temperatures_K is None:
        own = model.metadata.temperature_K
        arguments.temperatures_K = [t for t in HOT_K if t != own]
    if arguments.lags or not arguments.data:
        arguments.reference = reference_of(model, arguments.reference)
    check(arguments, model)
    make_folder(arguments.output)
    if arguments.data:
        data = [read_reference(path) for path in arguments.data]
    else:
        bursts = make_bursts(
            arguments.reference, model.metadata, arguments.bursts, arguments.output
        )
        data = [bursts]
    spreads, errors, symbols, n_pairs = predict(
        model, data, arguments.pairs, arguments.draws
    )
    rows = measure_elements(spreads, errors, symbols)
    found = np.array(symbols)
    ordinary = {
        symbol: np.sqrt((spreads[found == symbol] ** 2).mean(axis=0)) for symbol in rows
    }
    runs = {}
    if arguments.lags:
        runs = provoke(model, arguments.reference, ordinary, arguments)
    print_tables(rows, runs)
    title = (
        f"{model.metadata.name}, lag {model.metadata.lag_time_fs:g} fs: "
        "predicted spread beside true error"
    )
    draw(rows, runs, arguments.output / "reliability.png", title)
    written = {
        **describe_run(__file__),
        "model": {"name": model.metadata.name, "sha256": model.sha256},
        "data": [dict(t.provenance) for t in data],
        "pairs": n_pairs,
        "draws": arguments.draws,
        "reliability": {
            symbol: {name: asdict(r) for name, r in quantities.items()}
            for symbol, quantities in rows.items()
        },
        "ordinary_spread": ordinary,
        "replicas": arguments.replicas,
        "lags": arguments.lags,
        "warning": without_values(runs),
    }
    path = arguments.output / "reliability.json"
    write_results(path, written)
    print(f"In {arguments.output}: reliability.png, reliability.json")


if __name__ == "__main__":
    main()

r"""
One-lag errors of models on frames that they were not trained on.

Each model moves frames of each file by one lag, without heat bath and guards, and is
compared with what the reference's force did. ``{molecule}`` in the name of a model
stands for the molecule of the file. Writes ``one_lag.json``:

    openmm-diffmd reference --config reference_md17 --molecule aspirin --length_ps 5 \
        --seed 777 --output data/aspirin
    python benchmarks/one_lag.py --data data/aspirin/bursts.h5
"""

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ase.data import chemical_symbols
from command_line import one_line_errors, write_results
from held_out_bursts import unseen_pieces
from machine import describe_run
from one_lag_errors import model_change, relative_errors, sample_pairs

from openmm_diffmd.analysis.report import format_columns
from openmm_diffmd.checks import at_least
from openmm_diffmd.data.pairs import PairBatch
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.outputs import make_folder
from openmm_diffmd.threads import set_threads

GROUPS = 10


def measure(
    model: DiffusionModel, trajectory: Trajectory, count: int
) -> dict[str, Any]:
    """
    Measure the one-lag errors of a model on what it has not seen of a file.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    trajectory : Trajectory
        Frames of a run without friction, or of chained bursts.
    count : int
        Pairs.

    Returns
    -------
    dict
        ``pairs``; ``mean`` and, where the model draws, ``draw``: errors relative to
        what the lag changes, by element, of positions and velocities, ``average``, of
        all, and ``error``, the standard error of that from ten groups of pairs.

    Raises
    ------
    ValueError
        If the model has seen all but a few pairs.
    """
    metadata = model.metadata
    symbols = symbols_of(trajectory)
    pieces = unseen_pieces(trajectory, metadata)
    batch, scales = sample_pairs(pieces, symbols, metadata.lag_time_fs, count)
    if len(batch.species) < GROUPS:
        raise ValueError(
            f"found {len(batch.species)} pairs of frames that the model was not "
            f"trained on, expected at least {GROUPS}: give a longer run"
        )
    found: dict[str, Any] = {"pairs": len(batch.species)}
    # Errors of neighbours in time are alike: groups are in the order of time.
    groups = [
        PairBatch(*(values[own] for values in batch))
        for own in torch.arange(len(batch.species)).tensor_split(GROUPS)
    ]
    steps = int(metadata.sampler["num_steps"])
    for name, k in {"mean": 0, "draw": steps}.items():
        if name == "draw" and not steps:
            continue
        change = model_change(model, symbols, metadata.sampler["name"], k)
        errors = torch.stack([relative_errors(change, own, scales) for own in groups])
        whole = errors.square().mean(0).sqrt()
        found[name] = {
            "average": float(whole.mean()),
            "error": float(errors.mean((1, 2)).std() / GROUPS**0.5),
            "elements": dict(zip(symbols, whole.tolist(), strict=True)),
        }
    return found


def symbols_of(trajectory: Trajectory) -> list[str]:
    """List the elements of a trajectory."""
    return [chemical_symbols[z] for z in np.unique(trajectory.atomic_numbers)]


def check(model: DiffusionModel, trajectory: Trajectory) -> None:
    """Refuse a file that a model cannot be compared with."""
    metadata, provenance = model.metadata, trajectory.provenance
    unknown = set(symbols_of(trajectory)) - set(metadata.elements)
    if unknown:
        raise ValueError(
            f"found elements {sorted(unknown)}, expected some of {metadata.elements}"
        )
    with_bath = (
        provenance.get("kind") == "thermostatted"
        or provenance.get("friction_per_ps", 0.0) > 0
    )
    if metadata.dynamics == "flow" and with_bath:
        raise ValueError(
            "found frames of a run in a heat bath, whose noise would pass for an error "
            "of the model, expected frictionless ones: give the bursts.h5 beside it"
        )


def rows_of(
    models: Sequence[str], files: Sequence[Path], count: int
) -> Iterator[dict[str, Any]]:
    """Measure each model on each file, once all are known to fit."""
    pairs = []
    for path in files:
        trajectory = read_reference(path)
        molecule = Path(str(trajectory.provenance.get("molecule", path.parent))).stem
        for pattern in models:
            name = pattern.replace("{molecule}", molecule)
            try:
                model = load_model(name)
                check(model, trajectory)
            except (FileNotFoundError, ValueError) as error:
                raise ValueError(f"{name}, {path}: {error}") from error
            pairs.append((name, model, path, trajectory, molecule))
    for name, model, path, trajectory, molecule in pairs:
        try:
            errors = measure(model, trajectory, count)
        except ValueError as error:
            raise ValueError(f"{name}, {path}: {error}") from error
        yield {
            "molecule": molecule,
            "provenance": dict(trajectory.provenance),
            "model": {"name": model.metadata.name, "sha256": model.sha256},
            "lag_time_fs": model.metadata.lag_time_fs,
            **errors,
        }


def percent(errors: dict[str, Any] | None) -> str:
    """Format an average and its standard error, in per cent."""
    if errors is None:
        return "-"
    return f"{100 * errors['average']:.2f} +- {100 * errors['error']:.2f}"


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Format errors in per cent of what the lag changes."""
    header = [
        "%",
        "model",
        "lag, fs",
        "pairs",
        "mean",
        "one draw",
        "of the mean: positions / velocities",
    ]
    lines = [
        [
            f"{row['molecule']}, {row['provenance'].get('temperature_K', '-')} K",
            row["model"]["name"],
            f"{row['lag_time_fs']:g}",
            str(row["pairs"]),
            *(percent(row.get(name)) for name in ("mean", "draw")),
            ", ".join(
                f"{symbol} {100 * x:.2f} / {100 * v:.2f}"
                for symbol, (x, v) in row["mean"]["elements"].items()
            ),
        ]
        for row in rows
    ]
    return str(format_columns(header, lines))


def main(words: Sequence[str] | None = None) -> None:
    """Measure, print and write."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", default=["{molecule}", "md17"])
    parser.add_argument(
        "--data", type=Path, nargs="+", required=True, help="bursts.h5 of references"
    )
    parser.add_argument("--pairs", type=int, default=2048, help="of each file")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("rollout"))
    arguments = parser.parse_args(words)
    with one_line_errors("one_lag"):
        at_least(GROUPS, pairs=arguments.pairs)
        set_threads(arguments.threads)
        make_folder(arguments.output)
        rows = list(rows_of(arguments.models, arguments.data, arguments.pairs))
        print(table(rows))
        written = {
            **describe_run(__file__),
            "rows": rows,
        }
        path = arguments.output / "one_lag.json"
        write_results(path, written)
        print(f"\nIn {arguments.output}: one_lag.json")


if __name__ == "__main__":
    main()

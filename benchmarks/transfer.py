"""
Isomers that a model has never seen: one model of most, rolled out on the rest.

Of the isomers of one file some are drawn to be unseen. GFN2-xTB makes a short
reference of each; one model is trained on those of all others, from the weights of a
bundled one, and rolled out on the unseen, beside the bundled model as it is and beside
models trained on an unseen isomer each. ``table.txt`` and ``results.json`` are written
after each rollout: kill the command when time is up, run it again to go on.

    python benchmarks/transfer.py --isomers c7o2h10_equilibrium_40.xyz
"""

import json
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from ablation_training import model_error
from command_line import read_results, run_command, write_results
from machine import describe_run
from md17_rollout import NoFirstFrameError, md17_rollout
from transfer_isomers import (
    BURSTS,
    RUN,
    ReferenceBudget,
    make_references,
    read_isomers,
    split_isomers,
)
from transfer_models import TrainingBudget, check_lengths, train_model
from transfer_table import make_table, summarize

from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.analysis.report import to_plain
from openmm_diffmd.analysis.stability import bond_lengths, stability
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.outputs import file_sha256, make_folder, written_whole
from openmm_diffmd.threads import set_threads
from openmm_diffmd.training.config import ModelConfig

OWN = "own"


def transfer(
    isomers: Path,
    output: Path = Path("rollout/transfer"),
    num_unseen: int = 8,
    num_train: int | None = None,
    split_seed: int = 1,
    references: ReferenceBudget = ReferenceBudget(),  # noqa: B008
    training: TrainingBudget = TrainingBudget(),  # noqa: B008
    network: ModelConfig = ModelConfig(),  # noqa: B008
    own: int | None = None,
    replicas: int = 4,
    length_ps: float = 50.0,
    seed: int = 1,
    threads: int | None = None,
) -> None:
    """
    Train one model on most isomers and roll it out on the others.

    Parameters
    ----------
    isomers : path-like
        Geometries of isomers, one after the other, in a format that ASE reads.
    output : path-like
        Folder for references, trainings, rollouts, ``table.txt`` and
        ``results.json``.
    num_unseen : int
        Isomers that the model is not trained on.
    num_train : int, optional
        Isomers that it is trained on, the first ones of the others; all unless given.
    split_seed : int
        Seed of the draw that decides which.
    references : ReferenceBudget
        References of the isomers.
    training : TrainingBudget
        What each training gets.
    network : ModelConfig
        The network; that of `training.initialize_from`.
    own : int, optional
        Unseen isomers that get a model of their own as well, the first ones; all
        unless given.
    replicas : int
        Replicas of a rollout, from evenly spaced frames of the isomer's reference.
    length_ps : float
        Length of each replica, ps.
    seed : int
        Seed of first velocities and noise.
    threads : int, optional
        Threads of PyTorch; its own choice unless given.

    Raises
    ------
    FileNotFoundError
        If there is no such file or model.
    ValueError
        If isomers or lengths do not fit, or `output` holds results of other settings.
    """
    at_least(1, replicas=replicas, num_train=num_train)
    at_least(0, own=own, seed=seed)
    above(0, length_ps=length_ps)
    set_threads(threads)
    check_lengths(references)
    geometries = read_isomers(isomers)
    train, unseen = split_isomers(list(geometries), num_unseen, split_seed)
    train = train[:num_train]
    symbols = sorted(set(geometries[unseen[0]].get_chemical_symbols()))
    models: dict[str, DiffusionModel] = {}
    start = training.initialize_from
    if start is not None:
        models[f"{Path(start).stem}_as_is"] = _knows(load_model(start), symbols)
    output = make_folder(output)
    # Whoever repeats it has the file elsewhere.
    described = describe_run(__file__)
    described["command"] = described["command"].replace(
        str(isomers), Path(isomers).name
    )
    results: dict[str, Any] = {
        **described,
        "train": train,
        "references": {},
        "cells": {},
    }
    results["settings"] = _kept_settings(
        output / "settings.json",
        {
            "isomers": file_sha256(isomers),
            "split": {"seed": split_seed, "unseen": unseen},
            "references": to_plain(references),
            "training": to_plain(training),
            "network": to_plain(network),
        },
    )

    def reference_folders(names: Sequence[str]) -> list[Path]:
        chosen = {name: geometries[name] for name in names}
        made = make_references(chosen, unseen, references, output / "references")
        for name, folder in made.items():
            if name not in results["references"]:
                results["references"][name] = _look_at(folder)
        return list(made.values())

    def trained(name: str, names: Sequence[str], *steps: int) -> DiffusionModel:
        return train_model(
            name,
            reference_folders(names),
            references.unseen_ps if names[0] in unseen else references.train_ps,
            (steps[0], steps[1]),
            references,
            training,
            network,
            output / "trainings" / name,
        )

    models[f"{len(train)}_isomers"] = trained(
        f"{len(train)}_isomers", train, training.num_steps, training.noise_steps
    )
    for index, name in enumerate(unseen):
        (folder,) = reference_folders([name])
        of_this = dict(models)
        if own is None or index < own:
            of_this[OWN] = trained(
                f"{OWN}_{name}", [name], training.own_steps, training.own_noise_steps
            )
        for row, model in of_this.items():
            result = _rolled_out(
                model,
                folder / RUN,
                output / "rollouts" / row / name,
                replicas=replicas,
                length_ps=length_ps,
                temperature_K=references.temperature,
                friction_per_ps=references.friction,
                seed=seed,
                threads=threads,
                progress=False,
            )
            error = model_error(model, folder / BURSTS, symbols, "exponential", 0)
            results["cells"].setdefault(row, {})[name] = summarize(result, error)
            _write(output, results)
    print((output / "table.txt").read_text())


def _knows(model: DiffusionModel, symbols: Sequence[str]) -> DiffusionModel:
    """Refuse a model of other elements before references are made for hours."""
    unknown = sorted(set(symbols) - set(model.metadata.elements))
    if unknown:
        raise ValueError(
            f"found isomers with {', '.join(unknown)}, expected some of "
            f"{', '.join(model.metadata.elements)}, which model "
            f"{model.metadata.name!r} knows: give another training.initialize_from"
        )
    return model


def _look_at(folder: Path) -> dict[str, Any]:
    """Say how long a reference is, and whether a bond broke in it."""
    frames, provenance = load_reference(folder / RUN)
    stable = stability(frames, bond_lengths(frames)[0].mean(axis=0))
    return {
        "length_ps": frames.length,
        "seed": provenance["seed"],
        "n_bonds": len(frames.bonds),
        "broken_at_ps": None if not stable.n_broken else float(stable.break_times[0]),
    }


def _rolled_out(
    model: DiffusionModel, reference: Path, output: Path, **settings: Any
) -> dict[str, Any]:
    """Run, or find it run with the same settings; keep why it could not begin."""
    path = output / "results.json"
    expected = {
        "model": model.sha256,
        "reference": file_sha256(reference),
        **{k: v for k, v in settings.items() if k not in ("threads", "progress")},
    }
    asked = output / "asked.json"
    if path.is_file() and asked.is_file() and json.loads(asked.read_text()) == expected:
        found: dict[str, Any] = json.loads(path.read_text())
        return found
    output.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    try:
        with warnings.catch_warnings():
            # Of molecules that it was not trained on: what is measured here.
            warnings.filterwarnings("ignore", "found .* bonded as no molecule")
            md17_rollout(str(model.path), reference, output, **settings)
    except NoFirstFrameError as error:
        # The guards refused the first frame of a rollout: that is a result.
        failed = {"error": str(error), "replicas": settings["replicas"]}
        write_results(path, failed)
    write_results(asked, expected)
    made: dict[str, Any] = json.loads(path.read_text())
    return made


def _kept_settings(path: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """Write what a folder is of, or refuse a folder of something else."""
    if path.is_file():
        before = read_results(path)
        changed = [key for key, value in settings.items() if before.get(key) != value]
        if changed:
            raise ValueError(
                f"found {path} of another {', '.join(changed)}, expected that of this "
                "command; choose another --output"
            )
    else:
        write_results(path, settings)
    return settings


def _write(output: Path, results: Mapping[str, Any]) -> None:
    with written_whole(output / "table.txt") as part:
        part.write_text(make_table(results["cells"]) + "\n")
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
    run_command(transfer, arguments)


if __name__ == "__main__":
    main()

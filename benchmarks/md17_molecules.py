"""
The molecules of MD17, by one model or each by its own: `md17_rollout.py` and one table.

References are those of ``make references``; a molecule whose reference is absent is
left out, and the output says so. Each molecule's results are kept in a folder of its
own, and a molecule that has been run is not run again; results of another model, of
another reference or of other options are refused:

    python benchmarks/md17_molecules.py --length-ps 20
    python benchmarks/md17_molecules.py --length-ps 20 --model '{molecule}'
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from command_line import read_results, run_command, whole_frames, write_results
from md17_rollout import (
    LENGTH_PS,
    OURS,
    REGRESSION,
    NoFirstFrameError,
    md17_rollout,
)
from molecules_figure import draw
from molecules_table import EVENT_HEADER, HEADER, event_rows, rows_of, table

from openmm_diffmd.checks import above, at_least
from openmm_diffmd.model_files import find_model
from openmm_diffmd.outputs import file_sha256, make_folder, written_whole
from openmm_diffmd.units import FS_PER_PS

MOLECULES = (
    "ethanol",
    "malonaldehyde",
    "benzene",
    "uracil",
    "toluene",
    "salicylic",
    "naphthalene",
    "aspirin",
)


def md17_molecules(
    model: str = "md17",
    references: Path = Path("data/md17"),
    molecules: Sequence[str] = MOLECULES,
    output: Path = Path("rollout/md17"),
    replicas: int = 16,
    length_ps: float | None = None,
    temperature_K: float = 500.0,
    friction_per_ps: float | None = None,
    start_temperature_K: float | None = None,
    regression: bool = True,
    seed: int = 1,
    threads: int | None = None,
) -> None:
    """
    Run models of several molecules beside their references and print one table.

    Parameters
    ----------
    model : str
        Name of a bundled model, or the path of a model file; ``{molecule}`` in it
        stands for the name of each molecule.
    references : path-like
        Folder with ``MOLECULE_500K/thermostatted.h5``, by the temperature.
    molecules : sequence of str
        Names of the molecules.
    output : path-like
        Folder for a folder of each molecule, ``table.txt``, ``table.json`` and
        ``table.png``.
    replicas : int
        Replicas of each molecule.
    length_ps : float, optional
        Length of each replica, ps, in whole frames; 20, to the nearest whole frame,
        unless given.
    temperature_K : float
        Temperature of the references and of the heat bath, K.
    friction_per_ps : float, optional
        Collision rate, 1/ps; the model's unless given.
    start_temperature_K : float, optional
        Temperature of the first velocities, K; the heat bath's unless given.
    regression : bool
        Run the mean alone too.
    seed : int
        Seed of velocities and noise.
    threads : int, optional
        Threads of PyTorch; its own choice unless given.

    Raises
    ------
    FileNotFoundError
        If there is no such model, or no reference of any molecule.
    ValueError
        If a number is out of range, a molecule unknown, or `output` holds results of
        another model, of another reference or of other options.
    """
    at_least(1, replicas=replicas)
    at_least(0, temperature_K=temperature_K, friction_per_ps=friction_per_ps, seed=seed)
    at_least(0, start_temperature_K=start_temperature_K)
    above(0, length_ps=length_ps)
    found = {
        name: path
        for name in molecules
        if (
            path := references / f"{name}_{temperature_K:g}K" / "thermostatted.h5"
        ).is_file()
    }
    unknown = sorted(set(molecules) - set(MOLECULES) - set(found))
    if unknown:
        raise ValueError(
            f"found molecules {unknown}, expected some of {', '.join(MOLECULES)}, or "
            f"others with a reference in {references}"
        )
    if not found:
        raise FileNotFoundError(
            f"found no reference of {list(molecules)} in {references}; make them: "
            "make references"
        )
    models = {name: model.replace("{molecule}", name) for name in found}
    hashes = {name: find_sha256(own) for name, own in models.items()}
    asked = {
        "replicas": replicas,
        "length_ps": length_ps,
        "temperature_K": temperature_K,
        "friction_per_ps": friction_per_ps,
        "start_temperature_K": start_temperature_K,
        "seed": seed,
    }
    make_folder(output)
    results, failed = {}, {}
    for name, reference in found.items():
        folder = output / name
        if (folder / "results.json").is_file():
            check_kept(
                folder / "results.json",
                {
                    "model": hashes[name],
                    "reference": file_sha256(reference),
                    **asked,
                },
                regression,
            )
        else:
            try:
                md17_rollout(
                    model=models[name],
                    reference=reference,
                    output=folder,
                    replicas=replicas,
                    length_ps=length_ps,
                    temperature_K=temperature_K,
                    friction_per_ps=friction_per_ps,
                    start_temperature_K=start_temperature_K,
                    regression=regression,
                    seed=seed,
                    threads=threads,
                )
            except NoFirstFrameError as error:
                # The others are run all the same.
                failed[name] = str(error)
                continue
        results[name] = json.loads((folder / "results.json").read_text())
    lines = table(
        [HEADER, *(line for item in results.items() for line in rows_of(*item))]
    )
    lines += [f"{name} ended before its first frame: {e}" for name, e in failed.items()]
    lines += [
        f"{REGRESSION} of {name} ended before its first frame: {e}"
        for name, result in results.items()
        if (e := result.get("not_begun", {}).get(REGRESSION)) is not None
    ]
    events = [line for item in results.items() for line in event_rows(*item)]
    if events:
        lines += ["", *table([EVENT_HEADER, *events])]
    missing = sorted(set(molecules) - set(found))
    if missing:
        lines.append(f"left out, for lack of a reference: {', '.join(missing)}")
    text = "\n".join(lines)
    print(f"\n{text}")
    with written_whole(output / "table.txt") as part:
        part.write_text(text + "\n")
    write_results(output / "table.json", results)
    if results:
        draw({model: results}, output / "table.png")


def find_sha256(model: str) -> str:
    """Hash a model's file as `DiffusionModel.sha256` does."""
    return file_sha256(find_model(model))


def check_kept(path: Path, asked: Mapping[str, Any], regression: bool) -> None:
    """
    Refuse results of other files or of other options than those asked for.

    Parameters
    ----------
    path : path-like
        Results of a molecule.
    asked : mapping
        Hashes of ``model`` and ``reference``, ``replicas``, and settings of the
        rollout; a ``length_ps`` of None is the default.
    regression : bool
        Whether the mean alone must have been run too; results that have it without
        need are kept.

    Raises
    ------
    ValueError
        If they differ.
    """
    kept = read_results(
        path, "model", "reference", "replicas", "settings", "rows", "rollouts"
    )
    settings = kept["settings"]
    if asked["length_ps"] is None:
        interval = settings["frame_interval_fs"] / FS_PER_PS
        asked = {**asked, "length_ps": whole_frames(None, LENGTH_PS, interval)}
    found = {
        "model": kept["model"]["sha256"],
        "reference": kept["reference"]["sha256"],
        "replicas": kept["replicas"],
    }
    found |= {name: settings.get(name) for name in asked if name not in found}
    changed = [f"{k} {found[k]}, not {v}" for k, v in asked.items() if found[k] != v]
    tried = {*kept["rows"], *kept.get("not_begun", {})}
    draws = kept["rollouts"][OURS]["num_sampling_steps"] > 0
    if regression and draws and REGRESSION not in tried:
        changed.append("regression False, not True")
    if changed:
        raise ValueError(
            f"found {path} of {'; '.join(changed)}: choose another --output, or remove "
            "that folder"
        )


def main(arguments: Sequence[str] | None = None) -> None:
    """
    Read the command line and run.

    Parameters
    ----------
    arguments : sequence of str, optional
        Command line without the program; the process's own unless given.
    """
    run_command(md17_molecules, arguments)


if __name__ == "__main__":
    main()

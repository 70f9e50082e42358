"""
The molecules of MD17, by one model or each by its own: `md17_rollout.py` and one table.

References are those of ``make references``; a molecule whose reference is absent is
left out, and the output says so. Each molecule's results are kept in a folder of its
own, and a molecule that has been run is not run again; results of another model or of
other options are refused:

    python benchmarks/md17_molecules.py --length-ps 20
    python benchmarks/md17_molecules.py --length-ps 20 --model '{molecule}'
"""

import json
import math
import sys
from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from typing import Any

import openmm
from command_line import one_line_errors, read_results, require, require_positive
from jsonargparse import auto_cli
from md17_rollout import OURS, REGRESSION, dashes_to_underscores, md17_rollout

from openmm_diffmd.model_files import find_model
from openmm_diffmd.outputs import make_folder

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
HEADER = (
    "molecule",
    "steps",
    "broken",
    "redrawn",
    "h(r) error",
    "by sampling",
    "floor",
    "temperature, % of equipartition's",
    "reference's",
    "JSD b/a/d, 1e-3 bit",
    "by sampling",
    "spectrum",
    "by sampling",
    "kin. energy: mean, width; p",
    "ns/day",
)
EVENT_HEADER = (
    "molecule",
    "events of one group, 1/ns",
    "ours",
    "mean only",
    "reference's",
    "ours off by, errors",
)


def md17_molecules(
    model: str = "md17",
    references: Path = Path("data/md17"),
    molecules: Sequence[str] = MOLECULES,
    output: Path = Path("rollout/md17"),
    replicas: int = 16,
    length_ps: float = 20.0,
    temperature: float = 500.0,
    friction: float | None = None,
    start_temperature: float | None = None,
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
        Folder for a folder of each molecule, ``table.txt`` and ``table.json``.
    replicas : int
        Replicas of each molecule.
    length_ps : float
        Length of each replica, ps.
    temperature : float
        Temperature of the references and of the heat bath, K.
    friction : float, optional
        Collision rate, 1/ps; the model's unless given.
    start_temperature : float, optional
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
        another model or of other options.
    """
    require(1, replicas=replicas)
    require(0, temperature=temperature, friction=friction, seed=seed)
    require(0, start_temperature=start_temperature)
    require_positive(length_ps=length_ps)
    found = {
        name: path
        for name in molecules
        if (
            path := references / f"{name}_{temperature:g}K" / "thermostatted.h5"
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
        "temperature_K": temperature,
        "friction_per_ps": friction,
        "start_temperature_K": start_temperature,
        "seed": seed,
    }
    make_folder(output)
    results, failed = {}, {}
    for name, reference in found.items():
        folder = output / name
        if (folder / "results.json").is_file():
            check_kept(folder / "results.json", {"model": hashes[name], **asked})
        else:
            try:
                md17_rollout(
                    model=models[name],
                    reference=reference,
                    output=folder,
                    replicas=replicas,
                    length_ps=length_ps,
                    temperature=temperature,
                    friction=friction,
                    start_temperature=start_temperature,
                    regression=regression,
                    seed=seed,
                    threads=threads,
                )
            except openmm.OpenMMException as error:
                # The others are run all the same.
                failed[name] = str(error)
                continue
        results[name] = json.loads((folder / "results.json").read_text())
    lines = table(
        [HEADER, *(line for item in results.items() for line in rows_of(*item))]
    )
    lines += [f"{name} ended before its first frame: {e}" for name, e in failed.items()]
    events = [line for item in results.items() for line in event_rows(*item)]
    if events:
        lines += ["", *table([EVENT_HEADER, *events])]
    missing = sorted(set(molecules) - set(found))
    if missing:
        lines.append(f"left out, for lack of a reference: {', '.join(missing)}")
    text = "\n".join(lines)
    print(f"\n{text}")
    (output / "table.txt").write_text(text + "\n")
    (output / "table.json").write_text(json.dumps(results, indent=1) + "\n")


def find_sha256(model: str) -> str:
    """Hash a model's file as `DiffusionModel.sha256` does."""
    return sha256(find_model(model).read_bytes()).hexdigest()


def check_kept(path: Path, asked: Mapping[str, Any]) -> None:
    """Refuse results of another model or of other options than those asked for."""
    kept = read_results(path, "model", "replicas", "settings", "rows", "rollouts")
    found = {"model": kept["model"]["sha256"], "replicas": kept["replicas"]}
    found |= {name: kept["settings"].get(name) for name in asked if name not in found}
    changed = [f"{k} {found[k]}, not {v}" for k, v in asked.items() if found[k] != v]
    if changed:
        raise ValueError(
            f"found {path} of {'; '.join(changed)}: choose another --output, or remove "
            "that folder"
        )


def rows_of(name: str, result: Mapping[str, Any]) -> list[list[str]]:
    """Make the rows of a molecule: the model with its K steps, and its mean (K = 0)."""
    floor = result["floor"]
    rows = []
    for row in (OURS, REGRESSION):
        figures = result["rows"].get(row)
        if figures is None:
            continue
        speed = next(
            (c["ns_per_day"] for c in result["cost"] if c["name"] == row), None
        )
        sidecar = result["rollouts"][row]
        frames = sidecar["num_frames"] * sidecar["num_replicas"]
        lags = frames * sidecar["frame_interval_fs"] / sidecar["lag_time_fs"]
        ended = sidecar["error"] is not None
        rows.append(
            [
                name,
                f"K={sidecar['num_sampling_steps']}",
                f"{figures['n_broken']}/{figures['n_replicas']}"
                + (" ended" if ended else ""),
                f"{sidecar['resamples'] / max(lags, 1):.0e}",
                number(figures["h_r_error"], 3),
                number(figures["h_r_expected"], 3),
                number(floor["h_r_halves"], 3),
                temperatures(figures, 1),
                temperatures(floor, 1),
                divergences(figures["divergences"]),
                divergences(figures["divergences_expected"]),
                number(figures["spectrum_overlap"], 3),
                number(figures["spectrum_expected"], 3),
                kinetic_energy(figures),
                number(speed and speed * sidecar["num_replicas"], 0),
            ]
        )
    return rows


def event_rows(name: str, result: Mapping[str, Any]) -> list[list[str]]:
    """Make the rows of a molecule's rare events: none where it has no such group."""
    reference = result["floor"]["events"] or {}
    rows = []
    for kind, expected in reference.items():
        found = [
            (result["rows"].get(row) or {}).get("events") for row in (OURS, REGRESSION)
        ]
        rates = [events and events[kind] for events in found]
        deviation = rates[0] and (rates[0]["rate"] - expected["rate"]) / math.hypot(
            rates[0]["error"], expected["error"]
        )
        rows.append(
            [
                name,
                f"{kind} (x {expected['n_groups']})",
                *(rate_cell(rate) for rate in (*rates, expected)),
                "-" if deviation is None else f"{deviation:+.1f}",
            ]
        )
    return rows


def rate_cell(rate: Mapping[str, Any] | None) -> str:
    """Format a rate, +- one error."""
    return "-" if rate is None else f"{rate['rate']:.0f}({rate['error']:.0f})"


def kinetic_energy(figures: Mapping[str, Any]) -> str:
    """Format the test of kinetic energies: mean and width off by errors; p."""
    test = figures["kinetic_energy"]
    if test is None:
        return "-"
    return "{mean_deviation:.1f}, {width_deviation:.1f}; {p_value:.2g}".format(**test)


def temperatures(figures: Mapping[str, Any], digits: int = 0) -> str:
    """Compare each element's temperature with equipartition's, +- one error, in %."""
    if figures["temperatures"] is None:
        return "-"
    return " ".join(
        f"{symbol} {100 * (found['value'] / found['expected'] - 1):+.{digits}f}"
        f"({100 * found['error'] / found['expected']:.{digits}f})"
        for symbol, found in figures["temperatures"].items()
    )


def divergences(found: Mapping[str, Any] | None) -> str:
    """Format mean Jensen-Shannon divergences of bonds, angles and dihedrals."""
    if found is None:
        return "-"
    return " / ".join(
        number(1e3 * sum(kinds.values()) / len(kinds), 1) if kinds else "-"
        for kinds in found.values()
    )


def number(value: float | None, digits: int) -> str:
    """Format a figure, or what could not be measured."""
    return "-" if value is None else f"{value:.{digits}f}"


def table(rows: Sequence[Sequence[str]]) -> list[str]:
    """Align columns."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        "  ".join(word.ljust(width) for word, width in zip(row, widths, strict=True))
        for row in rows
    ]


def main(arguments: Sequence[str] | None = None) -> None:
    """Read the command line and run."""
    words = dashes_to_underscores(sys.argv[1:] if arguments is None else arguments)
    with one_line_errors("md17_molecules"):
        auto_cli(md17_molecules, args=words, as_positional=False)


if __name__ == "__main__":
    main()

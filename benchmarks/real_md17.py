"""
Compare a rollout with real frames, and say how much of the difference is the force's.

Two or three sets of frames are compared in pairs: the rollout, the real ones and, where
there is one, the reference, by h(r) and by the distributions of bonds, angles and
dihedrals; beside them what chance alone makes, by halves of each. The reference is
of the force that the model was trained on, which need not be that of the real frames:
GFN2-xTB beside the PBE of MD17. How much wider or narrower bonds and angles of the real
frames are than the reference's tells of their temperature, which need not be what is
said of them.
The user brings the real frames, in MD17's or rMD17's form, or another that is read:

    OMP_NUM_THREADS=1 python benchmarks/real_md17.py --data rmd17_ethanol.npz

Runs the model (``real_md17_rollout.json``, with a DCD) from evenly spread frames of the
reference, or of the real ones without a reference, unless ``--rollout`` names one that
was made. Writes ``real_md17.json`` and ``real_md17.png``.
"""

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from bundled_reference import BUNDLED_REFERENCE, knows_bundled, reference_of
from command_line import (
    one_line_errors,
    require_same_molecule,
    whole_frames,
    write_results,
)
from controls import starting_positions
from machine import describe_run
from real_md17_figure import draw
from shape_comparison import compare_all, shapes_of, variance_ratios

from openmm_diffmd.analysis.comparable import check_temperature, common_interval
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import load_reference, load_rollout, topology_of
from openmm_diffmd.analysis.report import KINDS, format_columns, to_plain
from openmm_diffmd.analysis.stability import bond_lengths, stability
from openmm_diffmd.bond_graphs import bond_graph, is_same_molecule
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.data.readers import WITHOUT_TIMES, read_trajectory
from openmm_diffmd.elements import formula_of
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.integrator.molecules import trained_molecules
from openmm_diffmd.integrator.rollout import RolloutSettings, roll_out
from openmm_diffmd.outputs import file_sha256, make_folder
from openmm_diffmd.threads import set_threads
from openmm_diffmd.units import FS_PER_PS

EQUILIBRATION_PS = 2.0
MIN_FRAMES = 100
"""Fewer real frames say nothing of how widely bonds vary."""
REPLICAS, LENGTH_PS, SEED = 16, 25.0, 1
OF_THE_RUN = ("temperature_K", "replicas", "length_ps", "seed")
"""Options that have no meaning for a rollout that was made."""


def load_frames(path: str | Path) -> tuple[Ensemble, Mapping[str, Any]]:
    """
    Read frames of one molecule for their structure, whatever their times.

    Parameters
    ----------
    path : path-like
        In any form that `read_trajectory` reads.

    Returns
    -------
    ensemble : Ensemble
        One replica in the order of time, without velocities; its frame interval is
        the mean one, and may hide gaps.
    provenance : mapping
        What made the frames.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is of no supported kind, or has fewer than two frames.
    """
    # Any interval does for a file without times.
    untimed = Path(path).suffix.lower() in WITHOUT_TIMES
    data = read_trajectory(path, 1.0 if untimed else None)
    if data.n_frames < 2:
        raise ValueError(f"found {data.n_frames} frame in {path}, expected two or more")
    ensemble = Ensemble(
        topology=topology_of(data),
        frame_interval=float(data.times[-1] - data.times[0]) / (data.n_frames - 1),
        positions=[data.positions],
    )
    return ensemble, data.provenance


def find_reference(
    model: DiffusionModel, given: Path | None, real: Ensemble, temperature: float
) -> tuple[Ensemble | None, Mapping[str, Any]]:
    """Load the given reference, or the bundled one where it is of model and run."""
    known = trained_molecules(model.metadata)
    molecule = bond_graph(real.symbols, real.bonds.tolist())
    if known and not any(is_same_molecule(molecule, one) for one in known):
        raise ValueError(
            f"found real frames of {formula_of(real.symbols)}, bonded as no molecule "
            f"that model {model.metadata.name!r} was trained on, expected one of them"
        )
    if given is None:
        if not knows_bundled(model):
            return None, {}
        bundled, provenance = load_reference(BUNDLED_REFERENCE)
        if (
            sorted(bundled.symbols) == sorted(real.symbols)
            and abs(float(provenance["temperature_K"]) - temperature) <= 1
        ):
            return bundled, provenance
        return None, {}
    reference, provenance = load_reference(reference_of(model, given))
    check_temperature(provenance, temperature)
    require_same_molecule(
        "real frames", real.symbols, reference.symbols, any_order=True
    )
    return reference, provenance


def roll_model(
    model: DiffusionModel,
    frames: Ensemble,
    interval: float,
    temperature: float,
    arguments: argparse.Namespace,
) -> Path:
    """Run the model from evenly spread frames."""
    length_ps = whole_frames(arguments.length_ps, LENGTH_PS, interval)
    return roll_out(
        model,
        frames.topology.to_openmm(),
        starting_positions(frames, arguments.replicas or REPLICAS),
        arguments.output / "real_md17_rollout",
        RolloutSettings(
            length_ps=length_ps,
            frame_interval_fs=round(interval * FS_PER_PS, 6),
            temperature_K=temperature,
            seed=SEED if arguments.seed is None else arguments.seed,
        ),
    ).path


def without_breaks(ensemble: Ensemble, reference: Ensemble) -> tuple[Ensemble, int]:
    """Cut the equilibration and what comes after a broken bond."""
    means = np.concatenate(bond_lengths(reference)).mean(axis=0)
    stable = stability(ensemble, means)
    longest = max(len(p) for p in ensemble.positions)
    skipped = round(EQUILIBRATION_PS / ensemble.frame_interval)
    skipped = min(skipped, longest // 4)
    starts = [skipped] * ensemble.n_replicas
    return ensemble.window(starts, list(stable.stable_frames)), stable.n_broken


def cells(row: Mapping[str, Any]) -> list[str]:
    """Write h(r) and divergences of a row, and how much of each sampling explains."""
    by_sampling = row.get("by_sampling")

    def told(value: float | None, by_chance: float | None, digits: int) -> str:
        if value is None:
            return "-"
        chance = "" if by_chance is None else f" ({by_chance:.{digits}f})"
        return f"{value:.{digits}f}{chance}"

    found = [told(row["h_r_error"], by_sampling and by_sampling["h_r_error"], 3)]
    for kind, value in row["divergences"].items():
        found.append(told(value, by_sampling and by_sampling["divergences"][kind], 4))
    return found


def print_table(result: dict[str, Any]) -> None:
    """Print what was found."""
    columns = ("h(r) error", *(f"JSD {kind}, bits" for kind in KINDS))
    header = ["", *(f"{column}\n(by sampling)" for column in columns)]
    lines = [[name, *cells(row)] for name, row in result["rows"].items()]
    print(format_columns(header, lines))
    rows = result["rows"]
    apart = rows["rollout - real"]
    against = "rollout" if result["share"] is None else "reference"
    if against == "rollout":
        print(
            "\nWithout a reference, a run of the force that the model was trained on, "
            "nothing tells which part of the difference is the model's."
        )
    elif apart["h_r_error"] <= apart["by_sampling"]["h_r_error"]:
        print(
            "\nThe rollout is no farther from the real frames than chance takes sets "
            "of such sizes: more frames would tell whose the difference is."
        )
    else:
        share = 100 * result["share"]
        print(
            f"\nOf the rollout's difference to the real frames {share:.0f} % is the "
            "reference's: at the same distances, of the same sign."
        )
    if result["frames"] < MIN_FRAMES:
        return
    if ratios := list(result["variance_ratios"].values()):
        middle, temperature = median(ratios), result["temperature_K"]
        print(
            f"Bonds and angles of the real frames vary {middle:.2f} times as much as "
            f"the {against}'s (median of {len(ratios)} groups, {min(ratios):.2f} to "
            f"{max(ratios):.2f}): with a force as stiff as its, at {temperature:g} K, "
            f"they would be at {middle * temperature:.0f} K."
        )


def main(words: Sequence[str] | None = None) -> None:
    """Run the comparison."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--data", type=Path, required=True, help="real frames")
    parser.add_argument("--model", default="ethanol")
    parser.add_argument(
        "--reference",
        type=Path,
        help="of the model's force at the run's temperature; ethanol's of GFN2-xTB at "
        "500 K is bundled, else there is none unless given",
    )
    parser.add_argument("--rollout", type=Path, help=".json of one that was made")
    parser.add_argument(
        "--temperature-K",
        type=float,
        help="K, of the run's bath and the reference; the model's own unless given",
    )
    parser.add_argument("--replicas", type=int, help=f"{REPLICAS} unless given")
    parser.add_argument(
        "--length-ps",
        type=float,
        help=f"of a replica; {LENGTH_PS:g}, to the nearest frame, unless given",
    )
    parser.add_argument("--seed", type=int, help=f"{SEED} unless given")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output", type=Path, default=Path("rollout"))
    arguments = parser.parse_args(words)
    with one_line_errors("real_md17"):
        run(arguments)


def run(arguments: argparse.Namespace) -> None:
    """Compare what the command line says."""
    at_least(1, replicas=arguments.replicas)
    above(0, length_ps=arguments.length_ps, temperature_K=arguments.temperature_K)
    at_least(0, seed=arguments.seed)
    given = [name for name in OF_THE_RUN if getattr(arguments, name) is not None]
    if arguments.rollout is not None and given:
        options = ", ".join(f"--{name.replace('_', '-')}" for name in given)
        raise ValueError(
            f"found --rollout and {options}, expected one or the other: such options "
            "are of the run that is made without --rollout"
        )
    set_threads(arguments.threads)
    make_folder(arguments.output)
    real, of_real = load_frames(arguments.data)
    model = load_model(arguments.model)
    made = None if arguments.rollout is None else load_rollout(arguments.rollout)
    temperature = made[1].temperature_K if made else arguments.temperature_K
    if temperature is None:
        temperature = model.metadata.temperature_K
    reference, provenance = find_reference(
        model, arguments.reference, real, temperature
    )
    # Where there is no reference, what the rollout starts from.
    frames = real if reference is None else reference
    if made is None:
        lag = model.metadata.lag_time_fs / FS_PER_PS
        interval = (
            lag if reference is None else common_interval(reference.frame_interval, lag)
        )
        made = load_rollout(roll_model(model, frames, interval, temperature, arguments))
    rollout, sidecar = made
    rollout, n_broken = without_breaks(rollout.in_order_of(frames), frames)
    sets = {"rollout": rollout, "real": real}
    if reference is not None:
        sets["reference"] = reference
    shapes = shapes_of(sets)
    result = compare_all(shapes)
    result["temperature_K"] = sidecar.temperature_K
    result["frames"] = real.n_frames
    result["variance_ratios"] = variance_ratios(real, sets.get("reference", rollout))
    force = provenance.get("potential", "the reference")
    beside = "" if reference is None else f"{reference.length:g} ps of {force}, "
    title = (
        f"{sidecar.model_name}: {rollout.length:g} ps of the model ({n_broken} of "
        f"{sidecar.num_replicas} replicas broke), {beside}{real.n_frames} frames of "
        f"{of_real.get('data', arguments.data.name)}"
    )
    print(f"\n{title}\n")
    print_table(result)
    draw(shapes, arguments.output / "real_md17.png", title)
    written = {
        **describe_run(__file__),
        "data": dict(of_real) | {"sha256": file_sha256(arguments.data)},
        "reference": dict(provenance),
        "rollout": to_plain(sidecar),
        "broken": n_broken,
        **result,
    }
    path = arguments.output / "real_md17.json"
    write_results(path, written)
    print(f"\nIn {arguments.output}: real_md17.json, real_md17.png")


if __name__ == "__main__":
    main()

"""The verb ``analyze``: rollouts on disk to a table, JSON and a picture."""

import json
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from openmm_diffmd.analysis.comparable import (
    at_interval,
    check_temperature,
    common_interval,
    has_friction_of,
)
from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.goals import judge
from openmm_diffmd.analysis.loading import load_reference
from openmm_diffmd.analysis.measure import measure, prepare_reference
from openmm_diffmd.analysis.modes import vibrational_temperature
from openmm_diffmd.analysis.plots import plot_rows
from openmm_diffmd.analysis.report import (
    event_table,
    goal_lines,
    mode_table,
    structure_table,
    temperature_table,
    to_plain,
)
from openmm_diffmd.analysis.rollouts import Rollout, read_rollout, row_names
from openmm_diffmd.checks import above, at_least
from openmm_diffmd.outputs import check_output_folder, make_folder, written_whole
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.units import FS_PER_PS

MAX_VIBRATION_DEVIATION = 0.05


def analyze(
    rollouts: list[Path] | Path,
    reference: Path,
    output: Path = Path("analysis"),
    equilibration_ps: float = 0.0,
    window_ps: float = 2.56,
    frame_interval_fs: float | None = None,
    rollout_interval_fs: float | None = None,
    rollout_temperature_K: float | None = None,
) -> Path:
    """
    Compare rollouts, of this package or from elsewhere, with a reference.

    Parameters
    ----------
    rollouts : list of path-like, or one
        Rollouts: the ``.json`` or ``.dcd`` of each, with its ``.pdb`` beside it; or
        trajectories of other programs, in any form that `reference` may have. All of
        one temperature, atoms in any order. Rows are called by the file's name, with
        its folder's where two have one name.
    reference : path-like
        Reference trajectory at that temperature: ``thermostatted.h5``, not the bursts,
        another MDTraj HDF5 file, original MD17 (npz), extended xyz, DCD with the PDB
        file of its name beside it, or ``ethanol``, which comes with the package.
    output : path-like
        Folder for ``report.txt``, ``report.json`` and ``report.png``; those of an
        earlier comparison are replaced.
    equilibration_ps : float
        Time at the start of each replica that the distributions leave out, ps; more
        than 0 for a run that started at another temperature than its heat bath's, or
        from the geometry of a molecule.
    window_ps : float
        Window of the velocity spectra, ps.
    frame_interval_fs : float, optional
        Time between frames of a reference of MD17 (npz), fs, 0.5 unless given, or of
        extended xyz and DCD, which need it.
    rollout_interval_fs : float, optional
        The same of trajectories of other programs.
    rollout_temperature_K : float, optional
        Temperature of the heat bath of trajectories of other programs, K, which have
        to be told where the files do not.

    Returns
    -------
    Path
        ``report.json``.

    Warns
    -----
    UserWarning
        If a rollout was stopped, or is still running: it is judged as far as it went.
        If forces of its System acted too, or its friction is not the reference's, or
        the vibrations of the reference are hotter or colder than the heat bath.

    Raises
    ------
    FileNotFoundError
        If a file is missing.
    OSError
        If `output` is a file, or cannot be made or written in.
    ValueError
        If the molecule, the temperature or the frames do not fit the reference, it
        holds frictionless bursts, a time is out of range, two rollouts cannot be told
        by name and folder, a trajectory from elsewhere is of unknown temperature, or a
        rollout is the reference itself.

    Notes
    -----
    Rollouts and reference are compared at the least common multiple of their
    intervals; broken bonds are looked for in all frames of a rollout. What is not
    known of a trajectory from elsewhere, as its redraws, is not judged.
    """
    at_least(0, equilibration_ps=equilibration_ps)
    above(0, window_ps=window_ps)
    rollouts = [rollouts] if isinstance(rollouts, str | Path) else rollouts
    if not rollouts:
        raise ValueError("found no rollout, expected at least one")
    names = row_names([Path(path) for path in rollouts])
    check_output_folder(output)
    loaded = [
        read_rollout(path, rollout_interval_fs, rollout_temperature_K)
        for path in rollouts
    ]
    temperatures = sorted({rollout.temperature for rollout in loaded})
    if len(temperatures) > 1:
        raise ValueError(
            f"found rollouts at {temperatures} K, expected one temperature; analyze "
            "them one by one"
        )
    for name, rollout in zip(names, loaded, strict=True):
        _check_equilibration(name, rollout, equilibration_ps)
        sidecar = rollout.sidecar
        if sidecar is not None and sidecar.error and not sidecar.gave_up:
            _warn_of_stop(name, sidecar)
        if sidecar is not None and sidecar.forces:
            _warn_of_forces(name, sidecar)
    frames, provenance = load_reference(reference, frame_interval_fs)
    check_temperature(provenance, temperatures[0])
    for name, rollout in zip(names, loaded, strict=True):
        _check_another(name, rollout.ensemble, reference, frames)
        known = rollout.friction is not None
        if known and not has_friction_of(provenance, rollout.friction):
            _warn_of_friction(name, rollout, provenance["friction_per_ps"])
    _compare_vibrations(frames, provenance, temperatures[0])
    ensembles = [rollout.ensemble.in_order_of(frames) for rollout in loaded]
    interval = common_interval(
        frames.frame_interval, *(rollout.ensemble.frame_interval for rollout in loaded)
    )
    prepared = prepare_reference(
        at_interval(frames, interval), temperatures[0], window_ps
    )
    rows, verdicts = [], []
    for name, rollout, ensemble in zip(names, loaded, ensembles, strict=True):
        row = measure(name, ensemble, prepared, equilibration_ps)
        rows.append(row)
        verdicts.append(
            judge(
                row.figures,
                prepared.figures,
                rollout.redraws,
                rollout.gave_up,
                same_friction=has_friction_of(provenance, rollout.friction),
                rescues=rollout.rescues,
            )
        )
    output = make_folder(output)
    title = (
        f"{loaded[0].maker}, {temperatures[0]:g} K, "
        f"compared each {FS_PER_PS * interval:g} fs"
    )
    text = "\n\n".join(
        [
            title,
            structure_table(prepared, rows),
            temperature_table(prepared, rows),
            *filter(None, [mode_table(prepared, rows)]),
            *filter(None, [event_table(prepared, rows)]),
            *_remarks(names, loaded, ensembles),
            *(
                f"{name}\n{goal_lines(goals)}"
                for name, goals in zip(names, verdicts, strict=True)
            ),
        ]
    )
    with written_whole(output / "report.txt") as part:
        part.write_text(text + "\n")
    plot_rows(prepared, rows, output / "report.png", title)
    result = output / "report.json"
    content = {
        "reference": str(reference),
        "equilibration_ps": equilibration_ps,
        "frame_interval_ps": interval,
        "floor": to_plain(prepared.figures),
        "rollouts": {
            row.name: {
                "figures": to_plain(row.figures),
                "sidecar": to_plain(rollout.sidecar),
                "goals": to_plain(goals),
            }
            for row, rollout, goals in zip(rows, loaded, verdicts, strict=True)
        },
    }
    with written_whole(result) as part:
        part.write_text(json.dumps(content, indent=1) + "\n")
    return result


def _remarks(
    names: Sequence[str], loaded: Sequence[Rollout], ensembles: Sequence[Ensemble]
) -> Iterator[str]:
    """Tell what of the rollouts no figure tells."""
    for name, rollout, ensemble in zip(names, loaded, ensembles, strict=True):
        if ensemble is not rollout.ensemble:
            yield f"{name}: atoms are named by their order in the reference"
        if rollout.sidecar is None:
            yield f"{name}: from elsewhere, so that its redraws, if any, are not known"
        if rollout.friction is None:
            yield (
                f"{name}: its friction is not known, so that spectra and rates are not "
                "missed beside a reference of known friction"
            )
        if rollout.rescues:
            yield (
                f"{name}: {rollout.rescues} lags that could not be drawn were run with "
                "the reference force"
            )


def _check_another(
    name: str, ensemble: Ensemble, path: Path, reference: Ensemble
) -> None:
    """Refuse to compare a run with itself."""
    if np.array_equal(ensemble.positions[0], reference.positions[0]):
        raise ValueError(
            f"found the frames of {name} in the reference {path} too, expected another "
            "run"
        )


def _check_equilibration(name: str, rollout: Rollout, equilibration_ps: float) -> None:
    length, sidecar = rollout.length_ps, rollout.sidecar
    # A run that the guards ended is as long as it is.
    if equilibration_ps >= length and not rollout.gave_up:
        raise ValueError(
            f"found equilibration_ps {equilibration_ps:g} for {name}, which is "
            f"{length:g} ps long, expected less than that: leave out less, or run "
            "longer"
        )
    # Without a heat bath there is no other temperature to come to.
    if sidecar is None or equilibration_ps > 0 or sidecar.friction_per_ps == 0:
        return
    start = sidecar.start_temperature_K
    if sidecar.from_geometry:
        raise ValueError(
            f"found equilibration_ps 0 for {name}, which started from the geometry of "
            "a molecule, cold in all but its velocities, expected time for the heat to "
            "spread: some multiples of 1/friction, 2 ps at least"
        )
    if start is not None and start != sidecar.temperature_K:
        raise ValueError(
            f"found equilibration_ps 0 for {name}, which started at {start:g} K in a "
            f"heat bath of {sidecar.temperature_K:g} K, expected time to come to it: "
            "some multiples of 1/friction, 8 ps at 1/ps"
        )


def _warn_of_stop(name: str, sidecar: RolloutSidecar) -> None:
    length = sidecar.length_ps
    warnings.warn(
        f"found {name} stopped after {length:g} ps ({sidecar.error}), expected a whole "
        "run: it is judged as far as it went",
        stacklevel=3,
    )


def _warn_of_forces(name: str, sidecar: RolloutSidecar) -> None:
    warnings.warn(
        f"found {name} with forces of its System ({', '.join(sidecar.forces)}), "
        "expected none: a bias moves distributions and rates away from the "
        "reference's, however good the model is",
        stacklevel=3,
    )


def _warn_of_friction(name: str, rollout: Rollout, reference: float) -> None:
    warnings.warn(
        f"found {name} at a friction of {rollout.friction:g}/ps, expected "
        f"{reference:g}/ps, that of the reference: friction widens the lines of "
        "velocity spectra and changes rates, which may differ where the model is "
        f"right; make a reference with --friction_per_ps {rollout.friction:g}",
        stacklevel=3,
    )


def _compare_vibrations(
    reference: Ensemble, provenance: Mapping[str, Any], heat_bath: float
) -> None:
    """Warn of a reference that is not as hot as is said."""
    if reference.velocities is None:
        return
    temperature, error = vibrational_temperature(reference)
    apart = abs(temperature - heat_bath)
    # An unknown error is of too short a reference.
    limit = max(MAX_VIBRATION_DEVIATION * heat_bath, 4 * error)
    if math.isnan(error) or apart <= limit:
        return
    why = "if its velocities and the time between its frames are in the file's units"
    n_atoms = len(reference.symbols)
    if provenance.get("data") == "MD17" and n_atoms > 2:
        why = (
            "MD17's thermostats hold 3N degrees of freedom at 500 K, of which 3N - 6 "
            f"move: {500 * n_atoms / (n_atoms - 2):.0f} K for {n_atoms} atoms; if it "
            "is far from that, are forces in kcal/mol/Angstrom?"
        )
    warnings.warn(
        f"found vibrations of the reference at {temperature:.0f} +- {error:.0f} K, "
        f"expected {heat_bath:g} K, the heat bath of the run: distributions may differ "
        f"where the model is right; run it at the temperature of the reference ({why})",
        stacklevel=3,
    )

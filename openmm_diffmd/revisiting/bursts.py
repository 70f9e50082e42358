"""Run the reference force from frames of rollouts: data to train on."""

import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import mdtraj
import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from openmm_diffmd.analysis.ensemble import Ensemble
from openmm_diffmd.analysis.loading import (
    after_equilibration,
    check_different,
    load_rollout,
)
from openmm_diffmd.checks import at_least, to_int
from openmm_diffmd.elements import formula_of
from openmm_diffmd.outputs import check_output_file, file_sha256, make_folder
from openmm_diffmd.reference.contexts import check_first_force, reference_context
from openmm_diffmd.reference.dynamics import DynamicsError, ReferenceFrame
from openmm_diffmd.reference.potentials import (
    FILES,
    create_reference_system,
    particle_masses,
)
from openmm_diffmd.reference.provenance import describe_run
from openmm_diffmd.reference.recording import Recording, run_burst
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.revisiting.outermost import near_pairs, outermost_frames
from openmm_diffmd.sidecar import RolloutSidecar
from openmm_diffmd.units import FS_PER_PS


def revisit(
    rollouts: list[Path] | Path,
    output: Path,
    potential: str | None = None,
    num_frames: int = 8,
    distances: list[list[int]] | None = None,
    equilibration_ps: float = 1.0,
    burst_length_ps: float = 0.03,
    burst_frame_interval_fs: float = 1.0,
    step_size_fs: float = 0.5,
    platform: str = "Reference",
    progress: bool = True,
    potential_options: dict[str, Any] | None = None,
) -> Path:
    """
    Run the reference force from the frames of rollouts that are furthest out.

    A rollout goes where its training has not been: a bond or a bend a little further
    out than the reference ever was, where the mean knows no wall, and from there on.
    Bursts of the force from such frames, beside the data of before, teach it the wall
    (`train --initialize_from` the model). Rollouts that the guards ended tell most:
    their last frames are among the outermost.

    Parameters
    ----------
    rollouts : list of path-like, or one
        Rollouts of one molecule with velocities; their ``.json``, as `run` writes it.
    output : path-like
        Folder for ``bursts.h5``; made if absent.
    potential : str or path-like, optional
        The force that the model learned, as of `reference`; unless given what the
        rollouts say of it, or GFN2-xTB where they are of before they said so.
    num_frames : int
        Frames at each end of each distance; a burst starts from each.
    distances : list of pairs of int, optional
        Atoms whose distance is looked at, counted from 0 in one molecule, such as the
        two that the guards named; all that one bond or two part unless given.
    equilibration_ps : float
        Time left out at the start of each replica, ps.
    burst_length_ps : float
        Length of a burst, ps: more than a lag.
    burst_frame_interval_fs : float
        Time between frames of a burst, fs.
    step_size_fs : float
        Step size, fs.
    platform : str
        OpenMM platform; ``Reference`` is the fastest for a small molecule.
    progress : bool
        Show a progress bar, if in a terminal.
    potential_options : dict, optional
        Keyword arguments of the ASE calculator; those of the rollouts where neither
        they nor `potential` is given.

    Returns
    -------
    Path
        The file written, MDTraj HDF5.

    Raises
    ------
    FileExistsError
        If it exists.
    FileNotFoundError
        If a rollout, or a potential that is a file, does not exist.
    ValueError
        If rollouts are of several molecules, temperatures or forces, or of a force
        that is a file and was not given, have no velocities or are
        too short or one is given twice, a distance is not of two atoms of the molecule,
        or a burst is no longer than a lag, or not a whole number of frames, or frames
        of steps.
    DynamicsError
        If the force fails at an ordinary frame, or from all that were chosen.

    Warns
    -----
    UserWarning
        If the force failed from some of the frames; what was written is kept.

    Notes
    -----
    Data where the learner goes rather than where the teacher does: Ross, Gordon and
    Bagnell, AISTATS 2011 (DAgger).
    """
    num_frames = to_int("num_frames", num_frames)
    at_least(1, num_frames=num_frames)
    at_least(0, equilibration_ps=equilibration_ps)
    burst = Recording.lasting(
        burst_length_ps, burst_frame_interval_fs, step_size_fs, "burst_"
    )
    file = Path(output) / "bursts.h5"
    check_output_file(file, overwrite=False)
    several = [rollouts] if isinstance(rollouts, str | Path) else rollouts
    found = [Path(path) for path in several]
    ensemble, sidecars = _load(found, equilibration_ps)
    lag = max(sidecar.lag_time_fs for sidecar in sidecars)
    if burst_length_ps * FS_PER_PS <= lag:
        raise ValueError(
            f"found burst_length_ps {burst_length_ps:g}, expected more than a lag of "
            f"the rollouts, {lag:g} fs: shorter bursts hold no pair to train on"
        )
    if potential is None:
        potential, learned = _learned_force(sidecars)
        potential_options = learned if potential_options is None else potential_options
    potential = str(potential)
    topology = ensemble.topology.to_openmm()
    system = create_reference_system(topology, potential, potential_options)
    temperature = sidecars[0].temperature_K
    context = reference_context(system, temperature, 0.0, step_size_fs, 1, platform)
    pairs = _pairs(ensemble.topology, distances)
    starts = _starts(ensemble, outermost_frames(ensemble, pairs, num_frames))
    context.setPositions(ensemble.positions[0][0].astype(np.float64))
    check_first_force(context, potential, potential_options)
    masses = particle_masses(system)
    formula = formula_of(ensemble.symbols)
    described = describe_run(formula, potential, potential_options, masses)
    described["sha256"] |= {path.name: file_sha256(path) for path in found}
    described |= {
        "kind": "bursts",
        "temperature_K": temperature,
        "friction_per_ps": 0.0,
        "step_size_fs": step_size_fs,
        "frame_interval_fs": burst_frame_interval_fs,
        "platform": platform,
        "distances": pairs.tolist(),
        "revisited": [
            {
                "model_name": sidecar.model_name,
                "model_sha256": sidecar.model_sha256,
                "seed": sidecar.seed,
                "num_frames": sidecar.num_frames,
            }
            for sidecar in sidecars
        ],
    }
    make_folder(file.parent)
    frames = len(starts) * burst.num_frames
    with ReferenceWriter(file, topology, masses, described, frames) as writer:
        failures = []
        shown = tqdm(starts, "bursts", unit="burst", disable=None if progress else True)
        for segment, start in enumerate(shown):
            try:
                run_burst(context, burst, writer, segment, start)
            except DynamicsError as error:
                failures.append(error)
    if len(failures) == len(starts):
        raise failures[0]
    if failures:
        warnings.warn(
            f"found {len(failures)} of {len(starts)} frames from which the force "
            f"failed (the first: {failures[0]}), expected none: their bursts end there",
            stacklevel=2,
        )
    return file


def _load(
    paths: Sequence[Path], equilibration_ps: float
) -> tuple[Ensemble, list[RolloutSidecar]]:
    """Join rollouts of one molecule at one temperature."""
    if not paths:
        raise ValueError("found no rollout, expected at least one")
    loaded = [load_rollout(path) for path in paths]
    first, of_first = loaded[0]
    late = []
    for path, (ensemble, sidecar) in zip(paths, loaded, strict=True):
        late.append(after_equilibration(path, ensemble, equilibration_ps))
        if ensemble.symbols != first.symbols or not np.array_equal(
            ensemble.bonds, first.bonds
        ):
            raise ValueError(
                f"found another molecule in {path} than in {paths[0]}, expected one: "
                "make a file for each"
            )
        settings = [(s.temperature_K, s.frame_interval_fs) for s in (of_first, sidecar)]
        if settings[0] != settings[1]:
            raise ValueError(
                f"found {path} at {settings[1][0]:g} K with frames each "
                f"{settings[1][1]:g} fs, expected {settings[0][0]:g} K and "
                f"{settings[0][1]:g} fs, those of {paths[0]}"
            )
    check_different(paths, [ensemble for ensemble, _ in loaded])
    joined = replace(
        first,
        positions=[x for ensemble in late for x in ensemble.positions],
        velocities=[v for ensemble in late for v in ensemble.velocities or ()],
    )
    return joined, [sidecar for _, sidecar in loaded]


def _learned_force(sidecars: Sequence[RolloutSidecar]) -> tuple[str, dict[str, Any]]:
    """Name the force that the models of all rollouts learned, and its options."""
    forces = {
        (sidecar.potential, json.dumps(sidecar.potential_options, sort_keys=True))
        for sidecar in sidecars
        if sidecar.potential is not None
    }
    if len(forces) > 1:
        raise ValueError(
            f"found rollouts by models of several forces ({sorted(forces)}), expected "
            "one: make a file for each, or give potential"
        )
    if not forces:
        return "GFN2-xTB", {}
    potential, options = forces.pop()
    if potential.endswith(FILES):
        raise ValueError(
            f"found rollouts by a model that learned the force {potential}, expected "
            "its path: give --potential"
        )
    return potential, json.loads(options)


def _pairs(
    topology: mdtraj.Topology, distances: list[list[int]] | None
) -> NDArray[np.int64]:
    if distances is None:
        return near_pairs(topology)
    if not distances:
        raise ValueError("found no distance, expected one or more, or none given")
    for pair in distances:
        known = all(0 <= atom < topology.n_atoms for atom in pair)
        if not known or len(pair) != 2 or pair[0] == pair[1]:
            raise ValueError(
                f"found distance {pair}, expected two atoms from 0 to "
                f"{topology.n_atoms - 1}, counted in one molecule"
            )
    return np.array(distances, dtype=np.int64)


def _starts(ensemble: Ensemble, frames: NDArray[np.int64]) -> list[ReferenceFrame]:
    """Take frames, replica after replica, as places to start from."""
    positions = np.concatenate(ensemble.positions)[frames].astype(np.float64)
    velocities = np.concatenate(ensemble.velocities or ())[frames].astype(np.float64)
    return [
        ReferenceFrame(0.0, x, v, np.zeros_like(x), 0.0)
        for x, v in zip(positions, velocities, strict=True)
    ]

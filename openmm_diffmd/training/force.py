"""Train a conservative ML force: what learned dynamics are measured against."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch.utils.data import DataLoader

from openmm_diffmd.data.forces import check_forces
from openmm_diffmd.data.labelled import LabelledBatch, LabelledFrames
from openmm_diffmd.data.pairs import evenly_spread
from openmm_diffmd.data.readers import (
    WITHOUT_TIMES,
    read_rmd17,
    read_trajectory,
)
from openmm_diffmd.data.splits import Split, contiguous_split
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.models.energy import EnergyModel, save_force
from openmm_diffmd.outputs import file_sha256, make_folder
from openmm_diffmd.threads import set_threads
from openmm_diffmd.training.config import EnergyModelConfig, OptimizerConfig
from openmm_diffmd.training.description import check_same_training, read_checkpoint
from openmm_diffmd.training.force_module import (
    DESCRIPTION,
    ForceTraining,
    RandomFrames,
    force_errors,
)
from openmm_diffmd.training.initialize import FORCE_FILE, initialize_force
from openmm_diffmd.training.trainer import (
    check_num_steps,
    find_checkpoint,
    fit,
    list_files,
)

FRACTIONS = (0.9, 0.05, 0.05)
NUM_VALIDATION_FRAMES = 512


def train_force(
    data: list[Path] | Path,
    output: Path,
    model: EnergyModelConfig = EnergyModelConfig(),  # noqa: B008
    optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008
    energy_weight: float = 0.01,
    initialize_from: Path | None = None,
    old_forces: bool = False,
    seed: int = 1,
    resume: bool = False,
    threads: int | None = None,
    accelerator: str = "cpu",
    progress: bool = True,
) -> Path:
    """
    Train an energy and its forces on reference files.

    Parameters
    ----------
    data : list of path-like, or one
        Files with energies and forces, of one or more molecules: of ``openmm-diffmd
        reference``; npz with MD17's keys R, E, F and z, or rMD17's (Angstrom,
        kcal/mol, kcal/mol/Angstrom); or extxyz (Angstrom, eV, eV/Angstrom).
    output : path-like
        Folder for checkpoints and logs, and for ``force.pt``, which `load_force` reads.
    model : EnergyModelConfig
        Options of the network.
    optimizer : OptimizerConfig
        Options of the optimisation.
    energy_weight : float
        Weight of energies in the loss, see `ForceTraining`.
    initialize_from : path-like, optional
        Another training's ``force.pt``, or its folder, to start from, with the same
        network and some of the elements.
    old_forces : bool
        Of rMD17 files, which all have to be then, take MD17's own energies and forces
        (E and F of an original MD17 file), see `read_rmd17`.
    seed : int
        Seed of weights and batches.
    resume : bool
        Go on from the last checkpoint in `output`, up to `optimizer.num_steps`, with
        other batches.
    threads : int, optional
        Threads of PyTorch; its own choice unless given.
    accelerator : str
        Lightning's name of the device: ``cpu`` or ``gpu``, of which one is used.
    progress : bool
        Show a progress bar, if in a terminal.

    Returns
    -------
    Path
        The file ``force.pt``.

    Raises
    ------
    FileExistsError
        If `output` holds a training and `resume` is off.
    FileNotFoundError
        If `resume` is on and there is no checkpoint, or there is nothing at
        `initialize_from`.
    OSError
        If `output` is a file, or cannot be made or written in.
    ValueError
        If data do not fit or, on resuming, the training, or the other training does
        not fit this one, or the training diverges.

    Warns
    -----
    UserWarning
        If forces hold bonds softer or stiffer than bonds are.
    """
    output = Path(output)
    checkpoint = find_checkpoint(output, resume)
    data = list_files(data)
    set_threads(threads)
    trajectories = [_read(path, old_forces) for path in data]
    splits = [_split(*found) for found in zip(data, trajectories, strict=True)]
    elements = sorted({int(z) for t in trajectories for z in t.atomic_numbers})
    symbols = [chemical_symbols[number] for number in elements]
    options = {
        "model": dataclasses.asdict(model),
        "optimizer": dataclasses.asdict(optimizer),
    }
    current: dict[str, Any] = {
        "elements": symbols,
        "history": [],
        "config": {"data": {}, **options},
        "sha256": [file_sha256(path) for path in data],
        "old_forces": old_forces,
    }
    first_step = 0
    if resume:
        first_step, current["history"] = _go_on(checkpoint, current)
    frames = LabelledFrames(trajectories, [s.train for s in splits], elements)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = EnergyModel(len(elements), **dataclasses.asdict(model))
    module = ForceTraining(network, optimizer, energy_weight, current)
    calibrate(module.model, frames)
    if initialize_from is not None and not resume:
        current["history"] = initialize_force(
            module.model, options["model"], symbols, Path(initialize_from)
        )
    make_folder(output)

    def spread(part: str) -> list[LabelledBatch]:
        return [
            _spread(LabelledFrames([t], [getattr(s, part)], elements, energy))
            for t, s in zip(trajectories, splits, strict=True)
        ]

    energy = frames.element_energy
    batches = RandomFrames(frames, optimizer.batch_size, seed + first_step)
    fit(
        module,
        DataLoader(batches, batch_size=None),
        [
            DataLoader([batch], batch_size=None)  # type: ignore[arg-type]
            for batch in spread("validation")
        ],
        output,
        optimizer,
        resume,
        accelerator,
        progress,
    )
    saved = read_checkpoint(checkpoint)
    module.load_state_dict(saved["state_dict"])
    description = {
        **options,
        "energy_weight": energy_weight,
        "old_forces": old_forces,
        "seed": seed,
        "steps": saved["global_step"],
        "history": current["history"],
        "elements": symbols,
        "data": [
            {
                "file": "/".join(Path(path).parts[-2:]),
                "sha256": file_sha256(path),
                "n_frames": trajectory.n_frames,
                "elements": [chemical_symbols[z] for z in trajectory.atomic_numbers],
                "bonds": trajectory.bonds.tolist(),
                "temperature_K": trajectory.provenance.get("temperature_K"),
                "test": force_errors(module.model.eval(), test),
            }
            for path, trajectory, test in zip(
                data, trajectories, spread("test"), strict=True
            )
        ],
    }
    return save_force(module.model, description, output / FORCE_FILE)


def _split(path: Path, trajectory: Trajectory) -> Split:
    try:
        return contiguous_split(trajectory.segments, 1, FRACTIONS)
    except ValueError as error:
        raise ValueError(
            f"found {path} of {trajectory.n_frames} frames, expected more: training, "
            f"validation and test take {FRACTIONS} of them, apart from each other "
            f"({error})"
        ) from error


def _read(path: Path, old_forces: bool) -> Trajectory:
    if old_forces:
        trajectory = read_rmd17(path, old_forces=True)
    else:
        # Any interval does for a file without times: forces need none.
        untimed = Path(path).suffix.lower() in WITHOUT_TIMES
        trajectory = read_trajectory(path, 1.0 if untimed else None)
    if trajectory.forces is None or trajectory.potential_energies is None:
        reason = trajectory.provenance.get("forces", "the file has none")
        raise ValueError(
            f"found {path} without energies or forces ({reason}), expected both: "
            "bring a reference of openmm-diffmd reference, MD17, or extxyz with both "
            "in every frame"
        )
    if trajectory.is_foreign:
        check_forces(path, trajectory)
    return trajectory


def _go_on(
    checkpoint: Path, description: dict[str, Any]
) -> tuple[int, list[dict[str, Any]]]:
    """Read the steps of a training and those before, if it is the one described."""
    saved = read_checkpoint(checkpoint)
    before = saved[DESCRIPTION]
    check_same_training(before, description)
    # One of before this was kept has none.
    if before.get("sha256", description["sha256"]) != description["sha256"]:
        raise ValueError(
            "found other data files, or in another order, expected those of the "
            "training to resume; give the same, or choose another folder"
        )
    if before.get("old_forces", False) != description["old_forces"]:
        raise ValueError(
            f"found old_forces {description['old_forces']}, expected the forces of the "
            "training to resume; give the same, or choose another folder"
        )
    steps: int = saved["global_step"]
    check_num_steps(description["config"]["optimizer"]["num_steps"], steps)
    return steps, before.get("history", [])


def calibrate(model: EnergyModel, frames: LabelledFrames) -> None:
    """
    Set the network's scales from the training split.

    Parameters
    ----------
    model : EnergyModel
        What is to be trained.
    frames : LabelledFrames
        Frames of the training split.
    """
    batch = _spread(frames)
    model.element_energy[:-1] = frames.element_energy
    model.force_scale.copy_(batch.forces[batch.species >= 0].square().mean().sqrt())
    with torch.no_grad():
        geometry = model.edge_features(batch.positions, batch.species)
        radial = geometry.invariants[geometry.envelope > 0]
        model.radial_scale.copy_(radial.square().mean(0).sqrt() + 1e-6)


def _spread(frames: LabelledFrames) -> LabelledBatch:
    """Evenly spread frames, the same each time, in one batch."""
    return frames[evenly_spread(len(frames), NUM_VALIDATION_FRAMES)]

"""Train a transition model from reference files."""

import json
from pathlib import Path
from typing import Any

import torch
from ase.data import chemical_symbols
from torch.utils.data import DataLoader

from openmm_diffmd.data.pairs import (
    LaggedPairs,
    encode_pairs,
    evenly_spread,
)
from openmm_diffmd.data.readers import frame_intervals
from openmm_diffmd.data.runs import check_overlap
from openmm_diffmd.data.scales import Scales, residual_scales
from openmm_diffmd.outputs import make_folder
from openmm_diffmd.threads import set_threads
from openmm_diffmd.training.config import (
    DataConfig,
    ModelConfig,
    TrainConfig,
    TransitionOptimizerConfig,
)
from openmm_diffmd.training.datamodule import (
    NUM_VALIDATION_PAIRS,
    RandomBatches,
    validation_loader,
)
from openmm_diffmd.training.description import (
    check_same_training,
    describe,
    read_checkpoint,
    read_description,
    write_description,
)
from openmm_diffmd.training.initialize import initialize
from openmm_diffmd.training.module import TransitionTraining
from openmm_diffmd.training.trainer import (
    check_num_steps,
    find_checkpoint,
    fit,
    list_files,
)
from openmm_diffmd.training.transition_data import (
    read_dynamics,
    split_trajectories,
    validation_pairs,
    warn_of_several_forces,
)
from openmm_diffmd.units import FS_PER_PS


def train(
    data: list[Path] | Path,
    output: Path,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    pairs: DataConfig = DataConfig(),  # noqa: B008
    optimizer: TransitionOptimizerConfig = TransitionOptimizerConfig(),  # noqa: B008
    seed: int = 1,
    initialize_from: Path | None = None,
    resume: bool = False,
    threads: int | None = None,
    accelerator: str = "cpu",
    progress: bool = True,
) -> Path:
    """
    Train a transition model.

    Parameters
    ----------
    data : list of path-like, or one
        Reference files of one or more molecules: MDTraj HDF5 with velocities, original
        MD17 (npz), or extended xyz with momenta.
    output : path-like
        Folder for checkpoints, logs and ``training.json``.
    model : ModelConfig
        Options of the network.
    pairs : DataConfig
        Options of the data.
    optimizer : TransitionOptimizerConfig
        Options of the optimisation.
    seed : int
        Seed of weights, batches and noise.
    initialize_from : path-like, optional
        Folder of a training, model file or name of a bundled model, with the same
        network and some of the elements, whose averaged weights and scales to
        start from; without effect on resuming.
    resume : bool
        Go on from the last checkpoint in `output`, up to `optimizer.num_steps`.
    threads : int, optional
        Threads of PyTorch; its own choice unless given.
    accelerator : str
        Lightning's name of the device: ``cpu`` or ``gpu``, of which one is used.
    progress : bool
        Show a progress bar, if in a terminal.

    Returns
    -------
    Path
        The last checkpoint.

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
        If data and options do not fit each other or, on resuming, the training; if two
        files hold one run of a seed; or if the training diverges.

    Warns
    -----
    UserWarning
        If files of one molecule are of several forces, or charges.

    Notes
    -----
    A resumed training goes on with the weights, their average, the optimizer and
    the noise generator of the checkpoint; its batches are drawn anew, so that it is
    as good as the uninterrupted one, not equal to it.
    """
    output = Path(output)
    checkpoint = find_checkpoint(output, resume)
    data = list_files(data)
    config = TrainConfig(model, pairs, optimizer)
    _check_options(config, resume or initialize_from is not None)
    set_threads(threads)
    intervals = frame_intervals(data, pairs.frame_interval_fs)
    trajectories = [
        read_dynamics(path, interval, pairs.dynamics)
        for path, interval in zip(data, intervals, strict=True)
    ]
    warn_of_several_forces(data, trajectories)
    check_overlap(data, trajectories)
    splits = split_trajectories(data, trajectories, config)
    elements = sorted({int(z) for t in trajectories for z in t.atomic_numbers})
    lag_time = pairs.lag_time_fs / FS_PER_PS
    training_pairs = LaggedPairs(
        trajectories,
        [split.train for split in splits],
        elements,
        lag_time,
        pairs.unrolled_lags,
    )
    scales = residual_scales(training_pairs, len(elements))
    symbols = [chemical_symbols[number] for number in elements]
    description = describe(config, seed, data, trajectories, splits, symbols)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        module = TransitionTraining(config, symbols, seed)
    first_step = 0
    if resume:
        first_step = read_checkpoint(checkpoint)["global_step"]
        description["history"] = _history(output, description, first_step)
    else:
        calibrate(module, training_pairs, scales)
        if initialize_from is not None:
            description["history"] = initialize(module, Path(initialize_from))
    _check_left_out(description)
    validation = validation_pairs(data, trajectories, splits, elements, lag_time)
    make_folder(output)
    # For export; model files do not say where files were.
    description["paths"] = [str(Path(path).absolute()) for path in data]
    batches = RandomBatches(
        training_pairs, optimizer.batch_size, pairs.time_reversal, seed + first_step
    )
    return fit(
        module,
        DataLoader(batches, batch_size=None),
        [validation_loader(found) for found in validation],
        output,
        optimizer,
        resume,
        accelerator,
        progress,
        lambda: write_description(description, output),
    )


def _check_options(config: TrainConfig, has_weights: bool) -> None:
    if config.data.dynamics == "thermostatted" and config.data.time_reversal:
        raise ValueError(
            "found time_reversal with thermostatted dynamics, whose transitions are "
            "not reversible; switch it off"
        )
    if config.data.unrolled_lags > 1 and (
        config.data.dynamics != "flow" or config.model.prior != "learned"
    ):
        raise ValueError(
            f"found unrolled_lags {config.data.unrolled_lags} with dynamics "
            f"{config.data.dynamics!r} and prior {config.model.prior!r}, expected "
            "'flow' and 'learned': only these have a mean that may be rolled out"
        )
    if config.optimizer.freeze_encoder and not has_weights:
        raise ValueError(
            "found freeze_encoder without initialize_from, expected the folder of a "
            "training whose encoder to keep"
        )


def _check_left_out(description: dict[str, Any]) -> None:
    """Refuse a smaller share of a file than the weights have seen."""
    seen: dict[str, int] = {}
    for training in description.get("history", []):
        for file in training.get("files", []):
            known = seen.get(file["sha256"], 0)
            seen[file["sha256"]] = max(known, file["train_frames"])
    for file in description["data"]:
        expected = seen.get(file["sha256"], 0)
        if file["train_frames"] < expected:
            raise ValueError(
                f"found {file['train_frames']} frames of {file['file']} to train on, "
                f"expected at least the {expected} that these weights were trained on: "
                "frames left out would be none; give the fractions of before "
                "(--pairs.fractions)"
            )


def _history(
    output: Path, description: dict[str, Any], first_step: int
) -> list[dict[str, Any]]:
    """List the configurations before this one of a training that goes on."""
    check_num_steps(description["config"]["optimizer"]["num_steps"], first_step)
    before = read_description(output)
    check_same_training(before, description)
    history: list[dict[str, Any]] = before.get("history", [])
    now = json.loads(json.dumps(description))
    if any(before[name] != now[name] for name in ("config", "data")):
        history.append({**before["config"], "files": before["data"]})
    return history


def calibrate(module: TransitionTraining, pairs: LaggedPairs, scales: Scales) -> None:
    """
    Set the network's scales from the training split.

    Parameters
    ----------
    module : TransitionTraining
        What is to be trained.
    pairs : LaggedPairs
        Pairs of the training split.
    scales : Scales
        The elements' scales.
    """
    model = module.model
    model.set_scales(scales.position, scales.velocity, scales.acceleration)
    batch = pairs.batch(evenly_spread(len(pairs), NUM_VALIDATION_PAIRS))
    with torch.no_grad():
        model.encoder.set_invariant_scale(
            batch.positions, batch.velocities, batch.species, batch.masses
        )
        if module.config.model.prior == "learned":
            return
        # A learned mean's errors are whitened as they shrink; about a fixed prior the
        # residual's size is known, and only the ballistic one's is about 1.
        condition = encode_pairs(model, batch)
        scaled = model.error(batch.following, condition)
        known_scale = condition["scale"] / condition["spread"]
        scaled = scaled / known_scale[:, :, None, None]
        for index in range(len(module.elements)):
            square = scaled[batch.species == index].square().mean((0, 2))
            model.residual_cholesky[index] = square.sqrt().diag()

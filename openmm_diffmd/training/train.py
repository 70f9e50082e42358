"""Train a transition model from reference files."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning
import torch
from ase.data import chemical_symbols
from torch.utils.data import DataLoader

from openmm_diffmd.data.pairs import LaggedPairs, lag_in_frames
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.scales import Scales, residual_scales
from openmm_diffmd.data.splits import Split, contiguous_split
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.model_files import find_model, read_weights
from openmm_diffmd.training.config import (
    DataConfig,
    ModelConfig,
    OptimizerConfig,
    TrainConfig,
)
from openmm_diffmd.training.datamodule import RandomBatches, validation_loader
from openmm_diffmd.training.description import (
    check_same_training,
    describe,
    stochastic_floor,
)
from openmm_diffmd.training.module import TransitionTraining
from openmm_diffmd.training.trainer import LAST_CHECKPOINT, fit

DESCRIPTION_FILE = "training.json"
PER_ELEMENT = (
    "elements.weight",
    "position_scale",
    "velocity_scale",
    "thermal_acceleration",
    "residual_cholesky",
    "covariance",
)
"""Ends of the names of tensors that have one row an element."""


def train(
    data: list[Path],
    output: Path,
    model: ModelConfig = ModelConfig(),  # noqa: B008
    pairs: DataConfig = DataConfig(),  # noqa: B008
    optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008
    seed: int = 1,
    initialize_from: Path | None = None,
    resume: bool = False,
    num_threads: int = 0,
    accelerator: str = "cpu",
    progress: bool = True,
) -> Path:
    """
    Train a transition model.

    Parameters
    ----------
    data : list of path-like
        Reference files of one or more molecules, MDTraj HDF5 with velocities.
    output : path-like
        Folder for checkpoints, logs and ``training.json``.
    model : ModelConfig
        Options of the network.
    pairs : DataConfig
        Options of the data.
    optimizer : OptimizerConfig
        Options of the optimisation.
    seed : int
        Seed of weights, batches and noise.
    initialize_from : path-like, optional
        Folder of a training, model file or name of a bundled model, with the same
        network and the same or fewer elements, whose averaged weights and scales to
        start from.
    resume : bool
        Go on from the last checkpoint in `output`, up to `optimizer.num_steps`.
    num_threads : int
        Threads of PyTorch; 0 leaves its own choice.
    accelerator : str
        Lightning's name of the device: ``cpu`` or ``gpu``, of which one is used.
    progress : bool
        Show a progress bar.

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
    ValueError
        If data and options do not fit each other or, on resuming, the training.

    Notes
    -----
    A resumed training goes on with the weights, their average, the optimizer and
    the noise generator of the checkpoint; its batches are drawn anew, so that it is
    as good as the uninterrupted one, not equal to it.
    """
    output = Path(output)
    checkpoint = output / LAST_CHECKPOINT
    if checkpoint.exists() and not resume:
        raise FileExistsError(
            f"found a training in {output}; set resume, or choose another folder"
        )
    if resume and not checkpoint.exists():
        raise FileNotFoundError(f"found no {checkpoint} to resume from")
    if num_threads:
        torch.set_num_threads(num_threads)
    config = TrainConfig(model, pairs, optimizer)
    if pairs.dynamics == "thermostatted" and pairs.time_reversal:
        raise ValueError(
            "found time_reversal with thermostatted dynamics, whose transitions are "
            "not reversible; switch it off"
        )
    if optimizer.freeze_encoder and initialize_from is None and not resume:
        raise ValueError(
            "found freeze_encoder without initialize_from, expected the folder of a "
            "training whose encoder to keep"
        )
    lightning.seed_everything(seed, verbose=False)
    trajectories = [read_reference(path) for path in data]
    splits = split_trajectories(trajectories, config)
    elements = sorted({int(z) for t in trajectories for z in t.atomic_numbers})
    lag_time = pairs.lag_time_fs / 1000
    training_pairs = LaggedPairs(
        trajectories, [split.train for split in splits], elements, lag_time
    )
    scales = residual_scales(training_pairs, len(elements))
    symbols = [chemical_symbols[number] for number in elements]
    description = describe(config, seed, data, trajectories, splits, symbols)
    module = TransitionTraining(
        config, symbols, stochastic_floor(trajectories, symbols, scales, config), seed
    )
    if not resume:
        calibrate(module, training_pairs, scales)
    if initialize_from is not None:
        description["history"] = initialize(module, Path(initialize_from))
    if resume:
        before = json.loads((output / DESCRIPTION_FILE).read_text())
        check_same_training(before, description)
        description["history"] = before.get("history", [])
        if before["config"] != json.loads(json.dumps(description["config"])):
            description["history"].append(before["config"])
    output.mkdir(parents=True, exist_ok=True)
    (output / DESCRIPTION_FILE).write_text(json.dumps(description, indent=1))
    first_step = torch.load(checkpoint)["global_step"] if resume else 0
    batches = RandomBatches(
        training_pairs, optimizer.batch_size, pairs.time_reversal, seed + first_step
    )
    return fit(
        module,
        DataLoader(batches, batch_size=None),
        [
            validation_loader(
                LaggedPairs([trajectory], [split.validation], elements, lag_time)
            )
            for trajectory, split in zip(trajectories, splits, strict=True)
        ],
        output,
        optimizer,
        resume,
        accelerator,
        progress,
    )


def split_trajectories(
    trajectories: Sequence[Trajectory], config: TrainConfig
) -> list[Split]:
    """
    Split each trajectory, with a gap of a lag at least.

    Parameters
    ----------
    trajectories : sequence of Trajectory
        The data.
    config : TrainConfig
        All options.

    Returns
    -------
    list of Split
        One a trajectory.
    """
    lag_time = config.data.lag_time_fs / 1000
    return [
        contiguous_split(
            trajectory.segments,
            lag_in_frames(trajectory, lag_time),
            config.data.fractions,
        )
        for trajectory in trajectories
    ]


def initialize(module: TransitionTraining, source: Path) -> list[dict[str, Any]]:
    """
    Start from the averaged weights and the scales of another training.

    Elements that it did not know begin between their neighbours by atomic number,
    and keep the scales they have.

    Parameters
    ----------
    module : TransitionTraining
        What is to be trained; its scales are set.
    source : path-like
        Folder of the other training, a model file, or the name of a bundled model.

    Returns
    -------
    list of dict
        Configurations of the trainings before this one, the first one first.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, file or bundled model.
    ValueError
        If its network is another, it knows elements that are not trained now, or the
        file holds no weights.
    """
    if source.is_dir():
        description, weights = _read_training(source)
        history = description.get("history", [])
    else:
        description, weights = read_weights(find_model(source))
        history = description["config"].pop("history", [])
        weights = {f"model.{name}": value for name, value in weights.items()}
    known = description["elements"]
    # Options that the other training did not know have their defaults.
    found = dataclasses.asdict(ModelConfig(**description["config"]["model"]))
    expected = dataclasses.asdict(module.config.model)
    if found != expected or not set(known) <= set(module.elements):
        raise ValueError(
            f"found a training of another network in {source}: {found}, {known}, "
            f"expected {expected}, elements among {module.elements}; give the same "
            "options, or start anew"
        )
    cholesky = weights["model.residual_cholesky"][: len(known)]
    weights.setdefault("covariance", cholesky @ cholesky.mT)
    rows = torch.tensor([module.elements.index(symbol) for symbol in known])
    for name, value in module.state_dict().items():
        if name.startswith("model.spread."):
            # Trainings from before there was a learned spread: it begins at 1.
            weights.setdefault(name, value)
        elif name.endswith(PER_ELEMENT) and known != module.elements:
            weights[name] = _more_elements(weights[name], value, rows)
    embedding = weights["model.encoder.elements.weight"]
    for index in set(range(len(module.elements))) - set(rows.tolist()):
        nearest = rows[(rows - index).abs().argsort(stable=True)[:2]]
        embedding[index] = embedding[nearest].mean(0)
    module.load_state_dict(weights)
    return [*history, description["config"]]


def _read_training(folder: Path) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    checkpoint = folder / LAST_CHECKPOINT
    if not checkpoint.is_file():
        raise FileNotFoundError(f"found no {checkpoint} to start from")
    saved = torch.load(checkpoint, map_location="cpu", weights_only=False)
    return json.loads((folder / DESCRIPTION_FILE).read_text()), saved["state_dict"]


def _more_elements(old: torch.Tensor, new: torch.Tensor, rows: torch.Tensor) -> Any:
    more = new.clone()
    more[rows] = old[: len(rows)]
    # The row of padding, where there is one.
    more[len(new) - len(old) + len(rows) :] = old[len(rows) :]
    return more


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
    count = min(512, len(pairs))
    batch = pairs.batch(torch.linspace(0, len(pairs) - 1, count).long())
    with torch.no_grad():
        model.encoder.set_invariant_scale(
            batch.positions, batch.velocities, batch.species, batch.masses
        )
        if module.config.model.prior == "learned":
            return
        # A learned mean's errors are whitened as they shrink; about a fixed prior the
        # residual's size is known, and only the ballistic one's is about 1.
        condition = model.encode(*batch[:6], torch.zeros(count))
        scaled = model.error(batch.following, condition)
        known_scale = condition["scale"] / condition["spread"]
        scaled = scaled / known_scale[:, :, None, None]
        for index in range(len(module.elements)):
            square = scaled[batch.species == index].square().mean((0, 2))
            model.residual_cholesky[index] = square.sqrt().diag()

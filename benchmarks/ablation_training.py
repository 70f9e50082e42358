"""Train a variant on a budget, export it for a sampler, take its one-lag error."""

import dataclasses
import json
import re
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tables
import torch
from ablation_cells import Cell, Variant
from mdtraj.formats import HDF5TrajectoryFile
from one_lag_errors import model_change, relative_errors, sample_pairs
from torch import Tensor

from openmm_diffmd.data.pairs import PairBatch, lag_in_frames
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.reference_files import PROVENANCE_ATTRIBUTE
from openmm_diffmd.data.splits import contiguous_split
from openmm_diffmd.export.export import export_model
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.outputs import file_sha256, written_whole
from openmm_diffmd.training.config import (
    DataConfig,
    ModelConfig,
    TrainConfig,
    TransitionOptimizerConfig,
)
from openmm_diffmd.training.description import DESCRIPTION_FILE, read_description
from openmm_diffmd.training.module import build_model
from openmm_diffmd.training.train import train
from openmm_diffmd.training.trainer import LAST_CHECKPOINT
from openmm_diffmd.units import FS_PER_PS

FRACTIONS = (0.9, 0.05, 0.05)
DONE = "trained.json"
ONE_LAG_PAIRS = 512


@dataclass(frozen=True)
class Budget:
    """
    What every variant gets.

    Attributes
    ----------
    num_steps, batch_size : int
        Optimizer steps, and pairs a step.
    learning_rate : float
        Highest learning rate.
    perturbed : float
        Share of pairs whose state is perturbed; the guards' redraws need some.
    compile : bool
        Compile the network; worth it from some thousand steps on.
    """

    num_steps: int = 1500
    batch_size: int = 32
    learning_rate: float = 2e-3
    perturbed: float = 0.1
    compile: bool = False

    def optimizer(self) -> TransitionOptimizerConfig:
        """
        Options of a training that is over soon.

        Returns
        -------
        TransitionOptimizerConfig
            Half of the steps at falling rate; a running average that forgets the
            first weights, which one of 0.999 keeps for 5000 steps.
        """
        return TransitionOptimizerConfig(
            num_steps=self.num_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            warmup_steps=max(1, self.num_steps // 15),
            decay_fraction=0.5,
            ema_decay=0.99,
            num_noise_draws=1,
            compile=self.compile,
            validation_interval=self.num_steps,
            checkpoint_interval=max(1, self.num_steps // 6),
        )


def train_variant(
    variant: Variant,
    seed: int,
    data: Sequence[Path],
    network: ModelConfig,
    budget: Budget,
    folder: Path,
) -> tuple[Path, dict[str, Any]]:
    """
    Train a variant, or go on with it, or find it trained.

    Parameters
    ----------
    variant : Variant
        What to train.
    seed : int
        Seed of weights, batches and noise.
    data : sequence of path-like
        Reference files of its dynamics.
    network : ModelConfig
        Options of the network that the variant starts from.
    budget : Budget
        All other options.
    folder : path-like
        Folder of all trainings.

    Returns
    -------
    training : Path
        Folder of this one.
    summary : dict
        Parameters, and CPU seconds since the last resumption.

    Raises
    ------
    ValueError
        If the folder holds a training, finished or not, of another budget, network or
        data.
    """
    output = Path(folder) / f"{_file_name(variant.trained_as or variant.name)}_{seed}"
    done = output / DONE
    config = TrainConfig(
        dataclasses.replace(network, **variant.model),
        dataclasses.replace(
            DataConfig(
                lag_time_fs=variant.lag_time_fs,
                dynamics=variant.dynamics,
                fractions=FRACTIONS,
                time_reversal=variant.dynamics == "flow",
                perturbed=budget.perturbed,
            ),
            **variant.data,
        ),
        budget.optimizer(),
    )
    if (output / DESCRIPTION_FILE).is_file():
        _check_same(output, config, data)
    if not done.is_file():
        begin = time.process_time()
        train(
            list(data),
            output,
            config.model,
            config.data,
            config.optimizer,
            seed=seed,
            resume=(output / LAST_CHECKPOINT).is_file(),
            threads=torch.get_num_threads(),
            progress=False,
        )
        cpu = time.process_time() - begin
        elements = read_description(output)["elements"]
        model = build_model(config.model, config.data.lag_time_fs, len(elements))
        sizes = [weight.numel() for weight in model.parameters()]
        with written_whole(done) as part:
            part.write_text(json.dumps({"parameters": sum(sizes), "cpu_s": cpu}) + "\n")
    found: dict[str, Any] = json.loads(done.read_text())
    return output, found


def _file_name(variant: str) -> str:
    return re.sub(r"\W+", "_", variant)


def _check_same(folder: Path, config: TrainConfig, data: Sequence[Path]) -> None:
    """Refuse a training of other options or of other files."""
    made = read_description(folder)
    changed = [
        f"{part}.{key} {made['config'][part].get(key)!r}, not {value!r}"
        for part, options in json.loads(json.dumps(dataclasses.asdict(config))).items()
        for key, value in options.items()
        if made["config"][part].get(key) != value
    ]
    hashes = [file_sha256(file) for file in data]
    if [file["sha256"] for file in made["data"]] != hashes:
        changed.append("other data")
    if changed:
        raise ValueError(
            f"found a training of {'; '.join(changed)} in {folder}, expected that "
            "of this command: choose another --output, or remove that folder"
        )


def export_cell(
    cell: Cell,
    variant: Variant,
    training: Path,
    data: Sequence[Path],
    temperature: float,
    friction: float,
) -> DiffusionModel:
    """
    Export a training for the sampler of a cell, its spread calibrated with it.

    Parameters
    ----------
    cell : Cell
        The cell.
    variant : Variant
        What it runs.
    training : path-like
        Folder of the training.
    data : sequence of path-like
        What it was trained on.
    temperature, friction : float
        Of the heat bath, K and 1/ps.

    Returns
    -------
    DiffusionModel
        The model, loaded from its file.
    """
    # Variants may share a training.
    name = _file_name(variant.name)
    path = export_model(
        training,
        training / f"{name}_{cell.sampler}_{cell.num_sampling_steps}.pt",
        name,
        list(data),
        temperature_K=temperature,
        friction_per_ps=friction,
        sampler=cell.sampler,
        num_sampling_steps=cell.num_sampling_steps,
        refit_pairs=variant.refit_pairs,
        balance_pairs=variant.balance_pairs,
        overwrite=True,
    )
    return load_model(path)


def left_out_pairs(
    path: Path, symbols: Sequence[str], lag_time_fs: float
) -> tuple[PairBatch, Tensor]:
    """
    Pairs that no variant is trained or calibrated on, and their elements' scales.

    Parameters
    ----------
    path : path-like
        Reference file; its test part is used.
    symbols : sequence of str
        Elements in the order of the model's species.
    lag_time_fs : float
        Lag, fs.

    Returns
    -------
    PairBatch, Tensor
        As `sample_pairs`.
    """
    trajectory = read_reference(path)
    lag = lag_in_frames(trajectory, lag_time_fs / FS_PER_PS)
    test = contiguous_split(trajectory.segments, lag, FRACTIONS).test
    return sample_pairs([(trajectory, test)], symbols, lag_time_fs, ONE_LAG_PAIRS)


def model_error(
    model: DiffusionModel,
    path: Path,
    symbols: Sequence[str],
    sampler: str,
    num_sampling_steps: int,
    seed: int = 1,
) -> float:
    """
    One-lag error of a model, on the test part of a reference.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    path : path-like
        Reference file, of whose end nothing is trained on.
    symbols : sequence of str
        Elements of its molecule, of which the model may know more.
    sampler : str
        Sampler.
    num_sampling_steps : int
        K; 0 is the mean.
    seed : int
        Seed of the draws.

    Returns
    -------
    float
        Averaged over elements, positions and velocities.
    """
    batch, scales = left_out_pairs(path, symbols, model.metadata.lag_time_fs)
    change = model_change(model, symbols, sampler, num_sampling_steps, seed)
    return float(relative_errors(change, batch, scales).mean())


def first_segment(source: Path, output: Path) -> Path:
    """
    Copy the first unbroken piece of a reference into a file of its own.

    Parameters
    ----------
    source : path-like
        Reference, MDTraj HDF5 with velocities.
    output : path-like
        File to write, unless it exists.

    Returns
    -------
    Path
        The file.
    """
    if output.is_file():
        return output
    trajectory = read_reference(source)
    assert trajectory.velocities is not None  # noqa: S101
    count = int(np.sum(trajectory.segments == trajectory.segments[0]))
    with HDF5TrajectoryFile(str(source), "r") as file:
        topology = file.topology
    with written_whole(output) as part:
        with HDF5TrajectoryFile(str(part), "w") as file:
            file.topology = topology
            file.write(
                coordinates=trajectory.positions[:count],
                velocities=trajectory.velocities[:count],
                time=trajectory.times[:count],
            )
        with tables.open_file(str(part), "a") as file:
            said = json.dumps(dict(trajectory.provenance))
            setattr(file.root._v_attrs, PROVENANCE_ATTRIBUTE, said)
    return output

"""Train a variant on a budget, export it for a sampler, take its one-lag error."""

import dataclasses
import json
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tables
import torch
from ablation_cells import Cell, Variant
from mdtraj.formats import HDF5TrajectoryFile
from torch import Tensor

from openmm_diffmd.data.pairs import LaggedPairs, PairBatch, lag_in_frames
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.scales import residual_scales
from openmm_diffmd.data.splits import contiguous_split
from openmm_diffmd.diffusion.noise_schedule import karras_noise_levels
from openmm_diffmd.diffusion.samplers import num_extra_draws, sample
from openmm_diffmd.export.export import export_model
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.training.config import DataConfig, ModelConfig, OptimizerConfig
from openmm_diffmd.training.description import DESCRIPTION_FILE
from openmm_diffmd.training.train import train
from openmm_diffmd.training.trainer import LAST_CHECKPOINT
from openmm_diffmd.units import FEMTOSECONDS_PER_PICOSECOND

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

    def optimizer(self) -> OptimizerConfig:
        """
        Options of a training that is over soon.

        Returns
        -------
        OptimizerConfig
            Half of the steps at falling rate; a running average that forgets the
            first weights, which one of 0.999 keeps for 5000 steps.
        """
        return OptimizerConfig(
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
        Steps and batch size.
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
        If the folder holds a finished training of another budget.
    """
    name = re.sub(r"\W+", "_", variant.trained_as or variant.name)
    output = Path(folder) / f"{name}_{seed}"
    done = output / DONE
    if not done.is_file():
        begin = time.process_time()
        checkpoint = train(
            list(data),
            output,
            dataclasses.replace(network, **variant.model),
            DataConfig(
                lag_time_fs=variant.lag_time_fs,
                dynamics=variant.dynamics,
                fractions=FRACTIONS,
                time_reversal=variant.dynamics == "flow",
                perturbed=budget.perturbed,
            ),
            budget.optimizer(),
            seed=seed,
            resume=(output / LAST_CHECKPOINT).is_file(),
            num_threads=torch.get_num_threads(),
            progress=False,
        )
        weights = torch.load(checkpoint, weights_only=False)["state_dict"]
        sizes = [w.numel() for k, w in weights.items() if k.startswith("model.")]
        summary = {"parameters": sum(sizes), "cpu_s": time.process_time() - begin}
        done.write_text(json.dumps(summary) + "\n")
    made = json.loads((output / DESCRIPTION_FILE).read_text())["config"]["optimizer"]
    for name, asked in (
        ("num_steps", budget.num_steps),
        ("batch_size", budget.batch_size),
    ):
        if made[name] != asked:
            raise ValueError(
                f"found a training of {name} {made[name]} in {output}, expected "
                f"{asked}: choose another --output, or remove that folder"
            )
    found: dict[str, Any] = json.loads(done.read_text())
    return output, found


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
    path = export_model(
        training,
        training / f"{cell.sampler}_{cell.num_sampling_steps}.pt",
        "ethanol",
        list(data),
        temperature_K=temperature,
        friction_per_ps=friction,
        sampler=cell.sampler,
        num_sampling_steps=cell.num_sampling_steps,
        refit_pairs=variant.refit_pairs,
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
    batch : PairBatch
        At most 512 pairs, evenly spread.
    scales : Tensor, shape (n_elements, 2)
        Root mean square of x' - x - tau v (nm) and of v' - v (nm/ps), a component.
    """
    from ase.data import atomic_numbers

    lag_time = lag_time_fs / FEMTOSECONDS_PER_PICOSECOND
    trajectory = read_reference(path)
    test = contiguous_split(
        trajectory.segments, lag_in_frames(trajectory, lag_time), FRACTIONS
    ).test
    pairs = LaggedPairs(
        [trajectory], [test], [*map(atomic_numbers.get, symbols)], lag_time
    )
    scales = residual_scales(pairs, len(symbols))
    indices = torch.linspace(0, len(pairs) - 1, min(ONE_LAG_PAIRS, len(pairs))).long()
    return pairs.batch(indices), torch.stack([scales.position, scales.velocity], dim=1)


@torch.inference_mode()
def one_lag_error(
    change: Callable[[PairBatch], Tensor], batch: PairBatch, scales: Tensor
) -> float:
    """
    Root mean square error of what stands after one lag.

    Parameters
    ----------
    change : callable
        Pairs to displacements (nm) and changes of velocity (nm/ps), shape
        (B, A, 2, 3).
    batch : PairBatch
        Pairs.
    scales : Tensor, shape (n_elements, 2), nm and nm/ps
        What the errors are relative to.

    Returns
    -------
    float
        Averaged over elements, positions and velocities.
    """
    before = torch.stack([batch.positions, batch.velocities], dim=2)
    error = before + change(batch) - batch.following
    relative = [
        error[batch.species == index].square().mean((0, 2)).sqrt() / scales[index]
        for index in range(len(scales))
    ]
    return float(torch.stack(relative).mean())


def model_change(
    model: DiffusionModel, sampler: str, num_sampling_steps: int, seed: int
) -> Callable[[PairBatch], Tensor]:
    """
    One lag of a model without heat bath and guards.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    sampler : str
        Sampler.
    num_sampling_steps : int
        K.
    seed : int
        Seed of the draws.

    Returns
    -------
    callable
        For `one_lag_error`.
    """

    def change(batch: PairBatch) -> Tensor:
        count = len(batch.species)
        condition = model.module.encode(*batch[:6], torch.zeros(count))
        residual = torch.zeros((*batch.species.shape, 2, 3))
        if num_sampling_steps:
            draws = 1 + num_extra_draws(sampler, num_sampling_steps)
            noise = torch.randn(
                (draws, *residual.shape),
                generator=torch.Generator().manual_seed(seed),
            )
            residual = sample(
                sampler,
                lambda u, s: model.module.denoise(
                    u, torch.full((count,), s), condition
                ),
                noise * (batch.species >= 0)[None, :, :, None, None],
                karras_noise_levels(num_sampling_steps, **model.metadata.noise),
            )
        drawn: Tensor = model.module.decode(residual, condition, False)
        return drawn

    return change


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
    with HDF5TrajectoryFile(str(output), "w") as file:
        file.topology = topology
        file.write(
            coordinates=trajectory.positions[:count],
            velocities=trajectory.velocities[:count],
            time=trajectory.times[:count],
        )
    with tables.open_file(str(output), "a") as file:
        file.root._v_attrs.diffmd_provenance = json.dumps(dict(trajectory.provenance))
    return output

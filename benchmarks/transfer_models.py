"""One model of some isomers: trained in two parts, and exported."""

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from transfer_isomers import BURST_PS, BURSTS, HOT_BONDS, ReferenceBudget

from openmm_diffmd.export.export import export_model
from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.outputs import written_whole
from openmm_diffmd.training.config import (
    DataConfig,
    ModelConfig,
    TransitionOptimizerConfig,
)
from openmm_diffmd.training.train import train
from openmm_diffmd.training.trainer import LAST_CHECKPOINT
from openmm_diffmd.units import FS_PER_PS

DONE = "trained.json"
NUM_SAMPLING_STEPS = 4


@dataclass(frozen=True)
class TrainingBudget:
    """
    What a training gets: the mean first, then denoiser and spread on its encoder.

    Attributes
    ----------
    initialize_from : str or None
        Bundled model or model file to start from; None starts anew.
    num_steps, noise_steps : int
        Optimizer steps of the two parts, for the model of many isomers.
    own_steps, own_noise_steps : int
        The same for the model of one isomer.
    batch_size : int
        Pairs a step.
    algorithm : str
        ``adamw`` or ``muon``.
    learning_rate : float
        Highest learning rate.
    compile : bool
        Compile the network for the first part; worth it from some thousand steps on.
    seed : int
        Seed of batches and noise.
    """

    initialize_from: str | None = "md17"
    num_steps: int = 12000
    noise_steps: int = 1000
    own_steps: int = 1500
    own_noise_steps: int = 300
    batch_size: int = 32
    algorithm: Literal["adamw", "muon"] = "muon"
    learning_rate: float = 1e-3
    compile: bool = True
    seed: int = 1

    def optimizer(self, num_steps: int, **changes: Any) -> TransitionOptimizerConfig:
        """
        Options of a part.

        Parameters
        ----------
        num_steps : int
            Its steps.
        **changes
            Other options.

        Returns
        -------
        TransitionOptimizerConfig
            Half of the steps at falling rate; a running average short enough for
            few steps.
        """
        return TransitionOptimizerConfig(
            num_steps=num_steps,
            batch_size=self.batch_size,
            algorithm=self.algorithm,
            learning_rate=self.learning_rate,
            warmup_steps=max(1, num_steps // 15),
            decay_fraction=0.5,
            ema_decay=0.999 if num_steps >= 5000 else 0.99,
            validation_interval=max(1, num_steps // 3),
            checkpoint_interval=max(1, num_steps // 12),
            **changes,
        )


def train_model(
    name: str,
    references: Sequence[Path],
    length_ps: float,
    num_steps: tuple[int, int],
    made: ReferenceBudget,
    budget: TrainingBudget,
    network: ModelConfig,
    output: Path,
) -> DiffusionModel:
    """
    Train and export a model, go on with that, or find it done.

    Parameters
    ----------
    name : str
        Name of the model.
    references : sequence of path-like
        Folders of the references to train on. Of the bursts of the shorter of their
        two files the last but one is a gap, and the last one validates and
        calibrates; of the longer one the same share.
    length_ps : float
        Length of each reference, ps.
    num_steps : tuple of int
        Steps of the mean, and of denoiser and spread.
    made : ReferenceBudget
        How the references were made, for temperature and friction.
    budget : TrainingBudget
        All else.
    network : ModelConfig
        Options of the network; those of `initialize_from`.
    output : path-like
        Folder for a folder of each part and for the model file.

    Returns
    -------
    DiffusionModel
        The model, loaded from its file.
    """
    data = [Path(folder) / BURSTS for folder in references]
    if made.hot_bursts:
        data += [Path(folder) / HOT_BONDS / BURSTS for folder in references]
        length_ps = min(length_ps, made.hot_ps)
    one_burst = BURST_PS / length_ps
    pairs = DataConfig(fractions=(1 - 2 * one_burst, 2 * one_burst, 0.0), perturbed=0.0)
    mean = _train_part(
        data,
        output / "mean",
        network,
        pairs,
        budget.optimizer(
            num_steps[0],
            num_noise_draws=0,
            compile=budget.compile,
        ),
        budget.seed,
        budget.initialize_from,
    )
    noise = _train_part(
        data,
        output / "noise",
        network,
        pairs,
        budget.optimizer(num_steps[1], num_noise_draws=2, freeze_encoder=True),
        budget.seed + 1,
        mean,
    )
    path = output / f"{name}.pt"
    if not path.is_file():
        export_model(
            noise,
            path,
            name,
            data,
            temperature_K=made.temperature,
            friction_per_ps=made.friction,
            num_sampling_steps=NUM_SAMPLING_STEPS,
            calibration_fraction=one_burst,
        )
    return load_model(path)


def _train_part(
    data: list[Path],
    output: Path,
    network: ModelConfig,
    pairs: DataConfig,
    optimizer: TransitionOptimizerConfig,
    seed: int,
    initialize_from: str | Path | None,
) -> Path:
    done = output / DONE
    if done.is_file():
        return output
    resume = (output / LAST_CHECKPOINT).is_file()
    begin = time.process_time()
    train(
        data,
        output,
        network,
        pairs,
        optimizer,
        seed=seed,
        initialize_from=None
        if resume or initialize_from is None
        else Path(initialize_from),
        resume=resume,
        threads=torch.get_num_threads(),
        progress=False,
    )
    cpu = round(time.process_time() - begin)
    print(f"trained {output}: {optimizer.num_steps} steps, {cpu} s of CPU", flush=True)
    with written_whole(done) as part:
        part.write_text(json.dumps({"cpu_s": cpu, "resumed": resume}) + "\n")
    return output


def check_lengths(made: ReferenceBudget) -> None:
    """
    Refuse references that leave nothing to test on.

    Parameters
    ----------
    made : ReferenceBudget
        How the references are made.

    Raises
    ------
    ValueError
        If there are too few bursts.
    """
    shortest = {"train_ps": 3 * BURST_PS, "unseen_ps": 2.5}
    if made.hot_bursts:
        shortest["hot_ps"] = 3 * BURST_PS
    for name, least in shortest.items():
        found = getattr(made, name)
        if found < least - 1e-9:
            raise ValueError(
                f"found {name} of {found:g} ps, expected at least {least:g}: bursts of "
                f"{BURST_PS * FS_PER_PS:g} fs to train, test, and a "
                "gap between"
            )

"""Train a conservative ML force: what learned dynamics are measured against."""

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning
import torch
from ase.data import chemical_symbols
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import DataLoader, IterableDataset

from openmm_diffmd.data.labelled import LabelledBatch, LabelledFrames
from openmm_diffmd.data.readers import read_trajectory
from openmm_diffmd.data.splits import contiguous_split
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.models.energy import EnergyModel, save_force
from openmm_diffmd.outputs import make_folder
from openmm_diffmd.threads import set_threads
from openmm_diffmd.training.config import EnergyModelConfig, OptimizerConfig
from openmm_diffmd.training.description import check_same_training, read_checkpoint
from openmm_diffmd.training.trainer import (
    check_num_steps,
    find_checkpoint,
    fit,
    list_files,
    make_optimizer,
)
from openmm_diffmd.units import ANGSTROM, EV

FRACTIONS = (0.9, 0.05, 0.05)
NUM_VALIDATION_FRAMES = 512
MEV_PER_ANGSTROM = 1000 / (EV / ANGSTROM)
"""Of 1 kJ/mol/nm."""
DESCRIPTION = "force_training"
"""Of a checkpoint: network, optimizer and elements."""


class RandomFrames(IterableDataset[LabelledBatch]):
    """
    Endless random batches.

    Parameters
    ----------
    frames : LabelledFrames
        Where to draw from.
    batch_size : int
        Frames a batch.
    seed : int
        Seed of the draws.
    """

    def __init__(self, frames: LabelledFrames, batch_size: int, seed: int) -> None:
        super().__init__()
        self._frames = frames
        self._size = (batch_size,)
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[LabelledBatch]:
        while True:
            yield self._frames[
                torch.randint(len(self._frames), self._size, generator=self._generator)
            ]


class ForceTraining(lightning.LightningModule):
    """
    Train an `EnergyModel` on energies and forces.

    Parameters
    ----------
    model : EnergyModel
        The network.
    options : OptimizerConfig
        Options of the optimisation; those of noise, and `compile`, are not used.
    energy_weight : float
        Weight of the energy's error, in units of the force scale over 0.1 nm, beside
        that of the forces, in units of the force scale.
    description : dict
        What a training that goes on from a checkpoint is compared with, kept in it.
    """

    def __init__(
        self,
        model: EnergyModel,
        options: OptimizerConfig,
        energy_weight: float,
        description: dict[str, Any],
    ) -> None:
        super().__init__()
        self.model = model
        self.options = options
        self.energy_weight = energy_weight
        self.description = description

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """
        Keep what the weights mean beside them.

        Parameters
        ----------
        checkpoint : dict
            What is saved.
        """
        checkpoint[DESCRIPTION] = self.description

    def training_step(self, batch: LabelledBatch, batch_index: int) -> Tensor:
        """
        Compute the loss of a batch.

        Parameters
        ----------
        batch : LabelledBatch
            Frames.
        batch_index : int
            Not used.

        Returns
        -------
        Tensor
            The loss.
        """
        energies, forces = self.model.energy_and_forces(batch.positions, batch.species)
        scale = self.model.force_scale
        # Norms, not their squares: a few hot frames do not rule the gradient.
        error = (forces - batch.forces) / scale
        force = (error.square().sum(-1) + 1e-8).sqrt()[batch.species >= 0].mean()
        energy = ((energies - batch.energies) / (0.1 * scale)).abs().mean()
        self.log("train/force", force)
        return force + self.energy_weight * energy

    def validation_step(
        self, batch: LabelledBatch, batch_index: int, dataloader_idx: int = 0
    ) -> None:
        """
        Log errors of forces and energies.

        Parameters
        ----------
        batch : LabelledBatch
            Frames.
        batch_index, dataloader_idx : int
            Number of the batch and of the data file.
        """
        self.log_dict(force_errors(self.model, batch), batch_size=len(batch.energies))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """
        Make the optimizer of all trainings.

        Returns
        -------
        dict
            Lightning's optimizer and scheduler configuration.
        """
        return make_optimizer(self.parameters(), self.options)


def force_errors(model: EnergyModel, batch: LabelledBatch) -> dict[str, float]:
    """
    Errors of forces, a component, and of energies.

    Parameters
    ----------
    model : EnergyModel
        The network.
    batch : LabelledBatch
        Frames.

    Returns
    -------
    dict of str to float
        Mean absolute and root-mean-square errors of forces (meV/Angstrom) and mean
        absolute error of energies (meV), an unknown constant taken out.
    """
    energies, forces = model.energy_and_forces(batch.positions, batch.species)
    error = (forces - batch.forces).detach()[batch.species >= 0] * MEV_PER_ANGSTROM
    offset = (energies - batch.energies).detach() * (1000 / EV)
    return {
        "force_mae_meV_per_A": error.abs().mean().item(),
        "force_rmse_meV_per_A": error.square().mean().sqrt().item(),
        "energy_mae_meV": (offset - offset.median()).abs().mean().item(),
    }


def train_force(
    data: list[Path] | Path,
    output: Path,
    model: EnergyModelConfig = EnergyModelConfig(),  # noqa: B008
    optimizer: OptimizerConfig = OptimizerConfig(),  # noqa: B008
    energy_weight: float = 0.01,
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
        Files with energies and forces, of one or more molecules.
    output : path-like
        Folder for checkpoints and logs, and for ``force.pt``, which `load_force` reads.
    model : EnergyModelConfig
        Options of the network.
    optimizer : OptimizerConfig
        Options of the optimisation; those of noise, and `compile`, are not used.
    energy_weight : float
        Weight of energies in the loss, see `ForceTraining`.
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
        Show a progress bar.

    Returns
    -------
    Path
        The file ``force.pt``.

    Raises
    ------
    FileExistsError
        If `output` holds a training and `resume` is off.
    FileNotFoundError
        If `resume` is on and there is no checkpoint.
    OSError
        If `output` is a file, or cannot be made or written in.
    ValueError
        If data do not fit or, on resuming, the training.
    """
    output = Path(output)
    checkpoint = find_checkpoint(output, resume)
    data = list_files(data)
    set_threads(threads)
    lightning.seed_everything(seed, verbose=False)
    trajectories = [_read(path) for path in data]
    splits = [contiguous_split(t.segments, 1, FRACTIONS) for t in trajectories]
    elements = sorted({int(z) for t in trajectories for z in t.atomic_numbers})
    symbols = [chemical_symbols[number] for number in elements]
    options = {
        "model": dataclasses.asdict(model),
        "optimizer": dataclasses.asdict(optimizer),
    }
    current = {"elements": symbols, "config": {"data": {}, **options}}
    first_step = _first_step(checkpoint, current) if resume else 0
    frames = LabelledFrames(trajectories, [s.train for s in splits], elements)
    module = ForceTraining(
        EnergyModel(len(elements), **dataclasses.asdict(model)),
        optimizer,
        energy_weight,
        current,
    )
    calibrate(module.model, frames)
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
        "seed": seed,
        "steps": saved["global_step"],
        "elements": symbols,
        "data": [
            {
                "file": "/".join(Path(path).parts[-2:]),
                "sha256": hashlib.sha256(Path(path).read_bytes()).hexdigest(),
                "n_frames": trajectory.n_frames,
                "temperature_K": trajectory.provenance.get("temperature_K"),
                "test": force_errors(module.model.eval(), test),
            }
            for path, trajectory, test in zip(
                data, trajectories, spread("test"), strict=True
            )
        ],
    }
    return save_force(module.model, description, output / "force.pt")


def _read(path: Path) -> Trajectory:
    # Any interval does for a file without times: forces need none.
    untimed = Path(path).suffix.lower() in (".xyz", ".extxyz")
    trajectory = read_trajectory(path, 1.0 if untimed else None)
    if trajectory.forces is None or trajectory.potential_energies is None:
        raise ValueError(
            f"found {path} without energies or forces, expected both: bring a "
            "reference of openmm-diffmd reference, MD17, or extxyz with both in "
            "every frame"
        )
    return trajectory


def _first_step(checkpoint: Path, description: dict[str, Any]) -> int:
    """Read how many steps a training made, if it is the one described."""
    saved = read_checkpoint(checkpoint)
    # Checkpoints from before it was kept say nothing.
    if DESCRIPTION in saved:
        check_same_training(saved[DESCRIPTION], description)
    steps: int = saved["global_step"]
    check_num_steps(description["config"]["optimizer"]["num_steps"], steps)
    return steps


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
    count = min(NUM_VALIDATION_FRAMES, len(frames))
    return frames[torch.linspace(0, len(frames) - 1, count).long()]

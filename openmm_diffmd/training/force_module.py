"""The Lightning module of a force: its batches, loss and errors."""

from collections.abc import Iterator
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor
from torch.utils.data import IterableDataset

from openmm_diffmd.data.labelled import LabelledBatch, LabelledFrames
from openmm_diffmd.models.energy import EnergyModel
from openmm_diffmd.training.config import OptimizerConfig
from openmm_diffmd.training.optimizer import make_optimizer
from openmm_diffmd.training.trainer import check_finite
from openmm_diffmd.units import ANGSTROM, EV

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
        Options of the optimisation.
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
        check_finite(force, self.global_step)
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

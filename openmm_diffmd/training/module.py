"""The Lightning module: losses, running whitening, optimizer, validation."""

import dataclasses
from typing import Any

import lightning
import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig
from torch import Tensor

from openmm_diffmd.data.pairs import PairBatch, encode_pairs
from openmm_diffmd.diffusion.noise_schedule import log_uniform_noise_levels
from openmm_diffmd.diffusion.preconditioning import denoising_loss_weight
from openmm_diffmd.diffusion.residuals import (
    limit_outliers,
    residual_covariance,
    spread_loss,
)
from openmm_diffmd.models import TransitionModel
from openmm_diffmd.training.config import ModelConfig, TrainConfig
from openmm_diffmd.training.optimizer import make_optimizer
from openmm_diffmd.training.trainer import check_finite
from openmm_diffmd.units import FS_PER_PS

WHITENING_MOMENTUM = 0.01


class TransitionTraining(lightning.LightningModule):
    """
    Train a `TransitionModel`: its mean by regression, its denoiser by EDM's loss.

    The residual's spread is fitted by `spread_loss`. With the
    learned prior the denoiser sees the encoder's features detached, so that
    the encoder serves the mean; with the other priors it is trained through.

    Parameters
    ----------
    config : TrainConfig
        All options.
    elements : list of str
        Symbols in the order of the species index.
    seed : int
        Seed of noise and perturbations.
    """

    covariance: Tensor

    def __init__(
        self,
        config: TrainConfig,
        elements: list[str],
        seed: int,
    ) -> None:
        super().__init__()
        self.config = config
        self.elements = elements
        self.model = build_model(config.model, config.data.lag_time_fs, len(elements))
        self.model.encoder.requires_grad_(not config.optimizer.freeze_encoder)
        if config.optimizer.compile:
            # Once for each size of molecules: symbolic sizes take far longer to trace.
            self.model.encoder.compile(dynamic=False)
            self.model.denoiser.compile(dynamic=False)
        self.register_buffer("covariance", torch.eye(2).repeat(len(elements), 1, 1))
        self.generator = torch.Generator().manual_seed(seed)

    def training_step(self, batch: PairBatch, batch_index: int) -> Tensor:
        """
        Compute the loss of a batch.

        Parameters
        ----------
        batch : PairBatch
            Pairs.
        batch_index : int
            Not used.

        Returns
        -------
        Tensor
            The loss.
        """
        level, positions, velocities = self._perturb(batch)
        known = batch.has_acceleration & (
            self._uniform(len(level)) >= self.config.data.drop_acceleration
        )
        condition = self.model.encode(
            positions,
            velocities,
            batch.acceleration,
            known,
            batch.species,
            batch.masses,
            level,
        )
        real = batch.species >= 0
        error = self.model.error(batch.following, condition)
        loss = error.new_zeros(())
        learned = self.config.model.prior == "learned"
        if learned:
            # The norm, not its square: a few hot pairs do not rule the gradient.
            loss = _mean_norm(error[real])
            self.log("train/mean_error", loss)
            if self.config.data.unrolled_lags > 1:
                loss = self._unrolled_loss(loss, batch, condition)
                self.log("train/unrolled_error", loss)
            # Before the whitening, which takes no nan.
            check_finite(loss, self.global_step)
        detached = {name: value.detach() for name, value in condition.items()}
        residual = self.model.whiten(batch.following, detached)
        unspread = residual * detached["spread"][:, :, None, None]
        if learned:
            clean = real & (level == 0)[:, None]
            self._update_whitening(unspread, batch.species, clean)
        spread = spread_loss(unspread, condition["spread"].log())[real].mean()
        self.log("train/spread", spread)
        if not self.config.optimizer.num_noise_draws:
            return loss + spread
        denoising = self._denoising_loss(
            limit_outliers(residual),
            detached if learned else condition,
            real,
            self.generator,
        )
        self.log("train/denoising", denoising)
        check_finite(denoising, self.global_step)
        return loss + spread + denoising

    def validation_step(
        self, batch: PairBatch, batch_index: int, dataloader_idx: int = 0
    ) -> None:
        """
        Log one-lag errors of the mean per element.

        Parameters
        ----------
        batch : PairBatch
            Pairs.
        batch_index, dataloader_idx : int
            Number of the batch and of the data file.
        """
        # Batches of other sizes, without gradient: not worth a compilation each.
        with torch.compiler.set_stance("force_eager"):
            self._validate(batch)

    def _unrolled_loss(
        self, loss: Tensor, batch: PairBatch, condition: dict[str, Tensor]
    ) -> Tensor:
        """
        Average the loss of the first lag with those of lags from the mean's own states.

        What is in phase in each lag, as the error of a bond whose period is the lag,
        adds up there, and one lag does not show it.
        """
        real = batch.species >= 0
        for following in batch.later.unbind(1):
            still = torch.zeros_like(following)
            change = self.model.decode(still, condition, False)
            condition = self.model.encode(
                condition["positions"] + change[:, :, 0],
                condition["velocities"] + change[:, :, 1],
                torch.zeros_like(batch.positions),
                torch.zeros_like(batch.has_acceleration),
                batch.species,
                batch.masses,
                torch.zeros_like(batch.masses[:, 0]),
            )
            loss = loss + _mean_norm(self.model.error(following, condition)[real])
        return loss / (1 + batch.later.shape[1])

    def _validate(self, batch: PairBatch) -> None:
        condition = encode_pairs(self.model, batch)
        square = self.model.error(batch.following, condition).square().mean(-1)
        values: dict[str, Any] = {}
        for index, symbol in enumerate(self.elements):
            own = square[batch.species == index]
            if len(own) == 0:
                continue
            chosen = own.mean(0).sqrt()
            values[f"validation/{symbol}_position"] = chosen[0]
            values[f"validation/{symbol}_velocity"] = chosen[1]
        residual = self.model.whiten(batch.following, condition)
        real = batch.species >= 0
        values["validation/residual_std"] = residual[real].std()
        values["validation/error"] = square[real].mean().sqrt()
        # The same noise each time: losses differ by the weights alone, and training
        # goes on as if nothing had been validated.
        noise = torch.Generator().manual_seed(0)
        denoising = self._denoising_loss(residual, condition, real, noise)
        values["validation/denoising"] = denoising
        self.log_dict(values, add_dataloader_idx=True, batch_size=len(batch.species))

    def configure_optimizers(self) -> OptimizerLRSchedulerConfig:
        """
        Make AdamW or Muon with warm-up, constant rate and linear decay.

        Returns
        -------
        dict
            Lightning's optimizer and scheduler configuration.
        """
        return make_optimizer(self.parameters(), self.config.optimizer)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """
        Keep the generator's state.

        Parameters
        ----------
        checkpoint : dict
            The checkpoint being written.
        """
        checkpoint["generator"] = self.generator.get_state()

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """
        Take the generator's state back.

        Parameters
        ----------
        checkpoint : dict
            The checkpoint being read.
        """
        self.generator.set_state(checkpoint["generator"])

    # Drawn on the CPU, so that a seed means the same on every device.
    def _uniform(self, count: int) -> Tensor:
        return torch.rand(count, generator=self.generator).to(self.device)

    def _normal(self, shape: torch.Size, generator: torch.Generator) -> Tensor:
        return torch.randn(shape, generator=generator).to(self.device)

    def _perturb(self, batch: PairBatch) -> tuple[Tensor, Tensor, Tensor]:
        options = self.config.data
        count = len(batch.species)
        chosen = self._uniform(count) < options.perturbed
        level = torch.where(chosen, self._uniform(count), 0.0)
        shape = torch.Size((*batch.species.shape, 2, 3))
        noise = self._normal(shape, self.generator)
        noise = noise * level[:, None, None, None]
        noise[batch.species < 0] = 0.0
        scale = self.model.position_scale[batch.species][..., None]
        positions = batch.positions + options.perturbation[0] * scale * noise[:, :, 0]
        scale = self.model.velocity_scale[batch.species][..., None]
        velocities = batch.velocities + options.perturbation[1] * scale * noise[:, :, 1]
        return level, positions, velocities

    @torch.no_grad()
    def _update_whitening(
        self, residual: Tensor, species: Tensor, chosen: Tensor
    ) -> None:
        # Whitened without the learned spread, or the two would share one freedom.
        cholesky = self.model.residual_cholesky
        for index in range(len(self.elements)):
            own = residual[chosen & (species == index)]
            if len(own):
                found = residual_covariance(own, cholesky[index])
                self.covariance[index].lerp_(found, WHITENING_MOMENTUM)
        # A floor, so that a mean that is exact in training can be whitened.
        floor = 1e-10 * torch.eye(2, device=self.device)
        cholesky[: len(self.elements)] = torch.linalg.cholesky(self.covariance + floor)

    def _denoising_loss(
        self,
        residual: Tensor,
        condition: dict[str, Tensor],
        chosen: Tensor,
        generator: torch.Generator,
    ) -> Tensor:
        options = self.config.optimizer
        loss = residual.new_zeros(())
        num_draws = max(1, options.num_noise_draws)
        for _ in range(num_draws):
            sigma = log_uniform_noise_levels(
                (len(residual),), options.sigma_min, options.sigma_max, generator
            ).to(self.device)
            noise = self._normal(residual.shape, generator)
            noisy = residual + sigma[:, None, None, None] * noise
            denoised = self.model.denoise(noisy, sigma, condition)
            square = (denoised - residual).square().mean((-2, -1))
            weighted = denoising_loss_weight(sigma)[:, None] * square
            loss = loss + weighted[chosen].mean()
        return loss / num_draws


def _mean_norm(errors: Tensor) -> Tensor:
    """Mean of the norms of positions' and velocities' errors, (n, 2, 3)."""
    return (errors.square().sum(-1) + 1e-8).sqrt().mean()


def build_model(
    config: ModelConfig, lag_time_fs: float, n_elements: int
) -> TransitionModel:
    """
    Make the network a configuration describes.

    Parameters
    ----------
    config : ModelConfig
        Options of the network.
    lag_time_fs : float
        Lag, fs.
    n_elements : int
        Number of elements.

    Returns
    -------
    TransitionModel
        With initial weights.
    """
    # The options of the network are its keywords.
    return TransitionModel(
        n_elements,
        lag_time_fs / FS_PER_PS,
        **dataclasses.asdict(config),
    )

"""Optimizer and learning rate of every training."""

from collections.abc import Iterable

import torch
from lightning.pytorch.utilities.types import OptimizerLRSchedulerConfig

from openmm_diffmd.training.config import OptimizerConfig
from openmm_diffmd.training.muon import Muon


def make_optimizer(
    weights: Iterable[torch.nn.Parameter], options: OptimizerConfig
) -> OptimizerLRSchedulerConfig:
    """
    Make AdamW or Muon with warm-up, constant rate and linear decay.

    Parameters
    ----------
    weights : iterable of Parameter
        All weights; those without a gradient are left out.
    options : OptimizerConfig
        Options of the optimisation.

    Returns
    -------
    dict
        Lightning's optimizer and scheduler configuration.
    """
    chosen = [weight for weight in weights if weight.requires_grad]
    rate, weight_decay = options.learning_rate, options.weight_decay
    optimizer = (
        Muon(chosen, rate, weight_decay)
        if options.algorithm == "muon"
        else torch.optim.AdamW(chosen, rate, weight_decay=weight_decay, fused=True)
    )
    decay = max(1, round(options.decay_fraction * options.num_steps))

    def factor(step: int) -> float:
        rising = (step + 1) / max(1, options.warmup_steps)
        falling = (options.num_steps - step) / decay
        return max(0.0, min(1.0, rising, falling))

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, factor)
    return {
        "optimizer": optimizer,
        "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
    }

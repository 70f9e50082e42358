"""Calibrate what a model draws against its true one-lag error, on frames left out."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from openmm_diffmd.data.pairs import PairBatch, encode_pairs
from openmm_diffmd.diffusion.noise_schedule import karras_noise_levels
from openmm_diffmd.diffusion.residuals import residual_covariance
from openmm_diffmd.diffusion.samplers import draw
from openmm_diffmd.models import TransitionModel

SEED = 1


@torch.no_grad()
def calibrate_spread(
    model: TransitionModel,
    batch: PairBatch,
    sampler: str,
    num_sampling_steps: int,
    noise_levels: Mapping[str, float],
) -> Tensor:
    """
    Scale the drawn residuals until their covariance is that of the true errors.

    A sampler of few steps draws residuals whose covariance is off. With C the
    covariance of the true residuals and S that of the drawn ones, of an element, the
    decoder's factor L becomes L chol(C) chol(S)^-1.

    Parameters
    ----------
    model : TransitionModel
        The model; `residual_cholesky` is changed, for the learned prior.
    batch : PairBatch
        Pairs that the model was not trained on.
    sampler : str
        Name of the sampler.
    num_sampling_steps : int
        Denoising steps K; 0 changes nothing.
    noise_levels : mapping of str to float
        ``sigma_min``, ``sigma_max`` and ``rho``, those of the model file.

    Returns
    -------
    Tensor, shape (n_elements, 2)
        Root mean square of the drawn residuals over that of the true ones, before
        calibration, for position and velocity (nan for K = 0).
    """
    spread = torch.full((model.n_elements, 2), torch.nan)
    if num_sampling_steps == 0:
        return spread
    condition = encode_pairs(model, batch)
    drawn = draw(
        sampler,
        lambda u, sigma: model.denoise(u, sigma, condition),
        batch.species,
        karras_noise_levels(num_sampling_steps, **noise_levels),
        torch.Generator().manual_seed(SEED),
    )
    residual = model.whiten(batch.following, condition)
    identity = torch.eye(2)
    for index in range(model.n_elements):
        own = batch.species == index
        if not own.any():
            continue
        true = residual_covariance(residual[own], identity)
        found = residual_covariance(drawn[own], identity)
        spread[index] = (found.diagonal() / true.diagonal()).sqrt()
        if model.prior == "learned":
            scaling = torch.linalg.cholesky(true) @ torch.linalg.inv(
                torch.linalg.cholesky(found)
            )
            model.residual_cholesky[index] = model.residual_cholesky[index] @ scaling
    return spread


@torch.no_grad()
def mean_errors(model: TransitionModel, batch: PairBatch) -> Tensor:
    """
    Compute the errors of the mean over one lag.

    Parameters
    ----------
    model : TransitionModel
        The model.
    batch : PairBatch
        The pairs.

    Returns
    -------
    Tensor, shape (B, A, 2, 3)
        Errors of positions and velocities, in units of the elements' scales.
    """
    error: Tensor = model.error(batch.following, encode_pairs(model, batch))
    return error


def one_lag_figures(
    model: TransitionModel,
    batch: PairBatch,
    symbols: Sequence[str],
    error: Tensor,
    spread: Tensor,
) -> dict[str, Any]:
    """
    Summarise one-lag errors per element.

    Parameters
    ----------
    model : TransitionModel
        The model.
    batch : PairBatch
        The pairs.
    symbols : sequence of str
        The elements.
    error : Tensor, shape (B, A, 2, 3)
        From `mean_errors`.
    spread : Tensor, shape (n_elements, 2)
        From `calibrate_spread`.

    Returns
    -------
    dict
        Root mean square error of the mean, in nm and nm/ps and relative to the
        elements' scales (of a training that began from another, those of the first);
        the drawn spread over the true one before calibration, or None.
    """
    figures: dict[str, Any] = {"n_pairs": len(batch.species)}
    for index, symbol in enumerate(symbols):
        own = error[batch.species == index]
        if not len(own):
            continue
        relative = own.square().mean((0, 2)).sqrt()
        drawn = spread[index]
        figures[symbol] = {
            "position_relative": float(relative[0]),
            "velocity_relative": float(relative[1]),
            "position_nm": float(relative[0] * model.position_scale[index]),
            "velocity_nm_per_ps": float(relative[1] * model.velocity_scale[index]),
            "drawn_over_true_spread": None if drawn.isnan().any() else drawn.tolist(),
        }
    return figures

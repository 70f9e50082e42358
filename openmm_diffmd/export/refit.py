"""Refit the last layer of the mean, exactly."""

import torch

from openmm_diffmd.data.pairs import LaggedPairs, encode_pairs, evenly_spread
from openmm_diffmd.models import TransitionModel

BATCH = 256
RIDGE = 1e-3
"""Of the mean diagonal of the normal equations."""


@torch.no_grad()
def refit_mean(model: TransitionModel, pairs: LaggedPairs, num_pairs: int) -> int:
    """
    Fit the weights of the last kick to pairs, by least squares.

    Training on perturbed states, or a short one from weights of another lag, leaves an
    error that is not chance: it is aligned with what is predicted, as bonds of hydrogen
    that swing a little too little. One-lag errors of 1 % hardly show it, but it is the
    same in every lag, and cools a rollout by as much as 20 %. The predicted state is
    linear in the last weights; with those that least squares give, the error that is
    left is orthogonal to all features of the last layer.

    Parameters
    ----------
    model : TransitionModel
        The model, of the learned prior; weights of ``encoder.kick[-1]`` are changed.
    pairs : LaggedPairs
        Pairs of the training part, best at the temperature of the runs.
    num_pairs : int
        So many of them, evenly spread, or all where they are fewer; at least 1.

    Returns
    -------
    int
        Pairs that it was fitted to.

    Notes
    -----
    Errors are weighed by the scales of the elements, as in training; a ridge of 1e-3
    of the mean diagonal keeps what the pairs do not determine where it was.
    """
    weights = model.encoder.kick[-1].get_parameter("weight")
    size = weights.numel()
    normal = torch.zeros(size, size, dtype=torch.float64)
    target = torch.zeros(size, dtype=torch.float64)
    chosen = evenly_spread(len(pairs), num_pairs)
    for indices in chosen.split(BATCH):
        batch = pairs.batch(indices)
        condition = encode_pairs(model, batch)
        real = batch.species >= 0
        error = model.error(batch.following, condition)[real].flatten().double()
        species = torch.where(real, batch.species, model.n_elements)
        response = model.encoder.kick_response(condition["features"], species)
        response = response / condition["unit"][..., None]
        response = response[real].flatten(0, 2).double()
        normal += response.T @ response
        target += response.T @ error
    normal += RIDGE * normal.diagonal().mean() * torch.eye(size, dtype=torch.float64)
    change = torch.linalg.solve(normal, target)
    weights.add_(change.view_as(weights).to(weights.dtype))
    return len(chosen)

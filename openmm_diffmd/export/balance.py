"""Take away the heat that a model adds to bonds and elements in the mean of a lag."""

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from ase.data import chemical_symbols
from torch import Tensor

from openmm_diffmd.data.pairs import LaggedPairs, PairBatch, encode_pairs, evenly_spread
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.diffusion.noise_schedule import karras_noise_levels
from openmm_diffmd.diffusion.samplers import draw
from openmm_diffmd.elements import formula_of
from openmm_diffmd.export.heat import (
    BATCH,
    Modes,
    heat_slopes,
    known_heat,
    take_heat,
)
from openmm_diffmd.models import TransitionModel

BLOCKS = 20
GRADIENT_PAIRS = 2048
"""Pairs, over all molecules, for the gradient of the heat: each takes a pass backwards
for each bond and element, and what they miss the second step takes."""
STEPS = 2
SEED = 2


def balance_heat(
    model: TransitionModel,
    trajectories: Sequence[Trajectory],
    ranges: Sequence[range],
    elements: Sequence[int],
    temperature: float,
    num_pairs: int,
    sampler: str,
    num_sampling_steps: int,
    noise_levels: Mapping[str, float],
) -> list[dict[str, Any]]:
    """
    Change the mean's weights as little as possible so that a drawn lag adds no heat.

    A lag that heats a kind of bond by 5e-4 of its temperature, a tenth of what the
    one-lag error is, heats it by 5 % in a bath that takes back 1e-2 of an excess a lag
    (10 fs at 1/ps). Least squares hardly see it; it is measured here, in the mean over
    pairs of frames in equilibrium, beside what the true lag does, with what the draws
    add, and taken away by steps of Gauss and Newton: the smallest change of the weights
    that does so to first order. Heat h of standard error e is left at e^2/h, all of it
    where that is more: what chance lets expect.

    Parameters
    ----------
    model : TransitionModel
        The model, of the learned prior and the frictionless flow, its draws
        calibrated; weights of its encoder are changed.
    trajectories : sequence of Trajectory
        Frames at the temperature, of one or many molecules, with velocities.
    ranges : sequence of range
        Frames of each that may be used.
    elements : sequence of int
        Atomic numbers in the order of the species index.
    temperature : float
        Temperature of the frames, K.
    num_pairs : int
        Pairs of each molecule, or all where they are fewer.
    sampler : str
        Name of the sampler.
    num_sampling_steps : int
        Denoising steps K; 0 balances the mean alone.
    noise_levels : mapping of str to float
        ``sigma_min``, ``sigma_max`` and ``rho``, those of the model file.

    Returns
    -------
    list of dict
        For each molecule its ``formula``, ``pairs`` used, and ``heat``: for each kind
        of bond and element ``before``, ``error`` (a standard error) and ``after``, what
        a drawn lag adds to the temperature, relative to it. A step that makes it
        worse is taken back: the model is too far off for the first order.

    Raises
    ------
    ValueError
        If there is but one pair of a molecule, or `num_pairs` is 1.
    """
    molecules = [
        (
            Modes(
                own[0].positions[parts[0].start : parts[0].stop],
                own[0].atomic_numbers,
                own[0].masses,
                own[0].bonds,
                temperature,
            ),
            LaggedPairs(own, parts, elements, model.lag_time),
            formula_of([chemical_symbols[z] for z in own[0].atomic_numbers]),
        )
        for own, parts in _by_molecule(trajectories, ranges)
    ]
    for _, pairs, formula in molecules:
        if min(num_pairs, len(pairs)) < 2:
            raise ValueError(
                f"found {min(num_pairs, len(pairs))} pair of {formula} to balance on, "
                "expected two or more, whose scatter is the error of the heat; "
                "balance_pairs of 0 does not balance"
            )
    before, errors, drawn, slopes = [], [], [], []
    for modes, pairs, _ in molecules:
        gains = _gains_of_mean(model, modes, pairs, num_pairs)
        before.append(gains.mean(0))
        errors.append(_standard_error(gains))
        drawn.append(
            _gains_of_draws(
                model,
                modes,
                pairs,
                num_pairs,
                sampler,
                num_sampling_steps,
                noise_levels,
            )
        )
        count = max(GRADIENT_PAIRS // len(molecules), BATCH)
        some = pairs.batch(evenly_spread(len(pairs), count))
        slopes.append(
            heat_slopes(
                model, modes, some.positions, some.velocities, some.species, some.masses
            )
        )
    slope, added = torch.cat(slopes), torch.cat(drawn)
    drawn_heat = torch.cat(before) + added
    excess = known_heat(drawn_heat, torch.cat(errors))
    chance = drawn_heat - excess
    after = before
    for _ in range(STEPS):
        weights = [weight.detach().clone() for weight in model.encoder.parameters()]
        take_heat(model, slope, excess)
        now = [
            _gains_of_mean(model, modes, pairs, num_pairs).mean(0)
            for modes, pairs, _ in molecules
        ]
        left = torch.cat(now) + added - chance
        # Not a number, too, is no improvement.
        if not left.norm() < excess.norm():
            for weight, last in zip(model.encoder.parameters(), weights, strict=True):
                weight.detach().copy_(last)
            break
        after, excess = now, left
    found = []
    for (modes, pairs, formula), *columns in zip(
        molecules, before, errors, after, drawn, strict=True
    ):
        mean, error, last, noise = columns
        heat = {
            name: dict(zip(("before", "error", "after"), row, strict=True))
            for name, row in zip(
                modes.names,
                torch.stack([mean + noise, error, last + noise], dim=1).tolist(),
                strict=True,
            )
        }
        count = min(num_pairs, len(pairs))
        found.append({"formula": formula, "pairs": count, "heat": heat})
    return found


def _by_molecule(
    trajectories: Sequence[Trajectory], ranges: Sequence[range]
) -> list[tuple[list[Trajectory], list[range]]]:
    """Put the files of one molecule together."""
    found: dict[bytes, tuple[list[Trajectory], list[range]]] = {}
    for trajectory, part in zip(trajectories, ranges, strict=True):
        key = trajectory.atomic_numbers.tobytes() + trajectory.bonds.tobytes()
        own, parts = found.setdefault(key, ([], []))
        own.append(trajectory)
        parts.append(part)
    return list(found.values())


def _mean_and_condition(
    model: TransitionModel, batch: PairBatch
) -> tuple[Tensor, Tensor, dict[str, Tensor]]:
    """State before the lag, what the mean makes of it, and what it is encoded as."""
    condition = encode_pairs(model, batch)
    state = torch.stack([batch.positions, batch.velocities], dim=2)
    change = model.decode(torch.zeros_like(state), condition, False)
    return state, state + change, condition


@torch.no_grad()
def _gains_of_mean(
    model: TransitionModel, modes: Modes, pairs: LaggedPairs, num_pairs: int
) -> Tensor:
    """Relative temperature that the mean has beyond the true state: (pairs, names)."""
    gains = []
    for indices in evenly_spread(len(pairs), num_pairs).split(BATCH):
        batch = pairs.batch(indices)
        _, mean, _ = _mean_and_condition(model, batch)
        gains.append(modes.temperatures(mean) - modes.temperatures(batch.following))
    return torch.cat(gains)


@torch.no_grad()
def _gains_of_draws(
    model: TransitionModel,
    modes: Modes,
    pairs: LaggedPairs,
    num_pairs: int,
    sampler: str,
    num_sampling_steps: int,
    noise_levels: Mapping[str, float],
) -> Tensor:
    """Relative temperature that the draws about the mean add: (names,)."""
    total = torch.zeros(len(modes.names)).double()
    if num_sampling_steps == 0:
        return total
    generator = torch.Generator().manual_seed(SEED)
    levels = karras_noise_levels(num_sampling_steps, **noise_levels)
    chosen = evenly_spread(len(pairs), num_pairs)
    for indices in chosen.split(BATCH):
        batch = pairs.batch(indices)
        state, mean, condition = _mean_and_condition(model, batch)
        residual = draw(
            sampler,
            # Called before the next batch replaces the condition.
            lambda u, sigma: model.denoise(u, sigma, condition),  # noqa: B023
            batch.species,
            levels,
            generator,
        )
        drawn = state + model.decode(residual, condition, False)
        total += torch.stack(
            [
                (q - q_mean).square().mean(1).sum()
                for q, q_mean in zip(modes(drawn), modes(mean), strict=True)
            ]
        )
    return total / len(chosen)


def _standard_error(gains: Tensor) -> Tensor:
    """Of the mean over pairs in the order of time, from blocks of them: (names,)."""
    blocks = [block.mean(0) for block in gains.tensor_split(min(BLOCKS, len(gains)))]
    error: Tensor = torch.stack(blocks).std(0) / len(blocks) ** 0.5
    return error

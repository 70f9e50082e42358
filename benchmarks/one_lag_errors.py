"""How far off one lag is, relative to what the lag changes."""

from collections.abc import Callable, Sequence

import torch
from ase.data import atomic_numbers
from torch import Tensor

from openmm_diffmd.data.pairs import LaggedPairs, PairBatch, encode_pairs, evenly_spread
from openmm_diffmd.data.scales import residual_scales
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.diffusion.noise_schedule import karras_noise_levels
from openmm_diffmd.diffusion.samplers import draw
from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.units import FS_PER_PS

BATCH = 256


def sample_pairs(
    pieces: Sequence[tuple[Trajectory, range]],
    symbols: Sequence[str],
    lag_time_fs: float,
    count: int,
) -> tuple[PairBatch, Tensor]:
    """
    Evenly spread pairs of frames one lag apart, and their elements' scales.

    Parameters
    ----------
    pieces : sequence of (Trajectory, range)
        Frames of one molecule.
    symbols : sequence of str
        Its elements, in the order in which species are to be numbered.
    lag_time_fs : float
        Lag, fs.
    count : int
        Pairs, or fewer where there are no more.

    Returns
    -------
    batch : PairBatch
        The pairs.
    scales : Tensor, shape (n_elements, 2)
        Root mean square of x' - x - tau v (nm) and of v' - v (nm/ps), a component,
        over all pairs.

    Raises
    ------
    ValueError
        If there is no pair.
    """
    trajectories, ranges = zip(*pieces, strict=True)
    pairs = LaggedPairs(
        trajectories,
        ranges,
        [atomic_numbers[symbol] for symbol in symbols],
        lag_time_fs / FS_PER_PS,
    )
    scales = residual_scales(pairs, len(symbols))
    indices = evenly_spread(len(pairs), count)
    return pairs.batch(indices), torch.stack([scales.position, scales.velocity], dim=1)


@torch.inference_mode()
def relative_errors(
    change: Callable[[PairBatch], Tensor], batch: PairBatch, scales: Tensor
) -> Tensor:
    """
    Root mean square errors of what stands after one lag.

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
    Tensor, shape (n_elements, 2)
        Of positions and velocities.
    """
    before = torch.stack([batch.positions, batch.velocities], dim=2)
    error = before + change(batch) - batch.following
    return torch.stack(
        [
            error[batch.species == index].square().mean((0, 2)).sqrt() / scales[index]
            for index in range(len(scales))
        ]
    )


def model_change(
    model: DiffusionModel,
    symbols: Sequence[str],
    sampler: str,
    num_sampling_steps: int,
    seed: int = 1,
) -> Callable[[PairBatch], Tensor]:
    """
    One lag of a model without heat bath and guards.

    Parameters
    ----------
    model : DiffusionModel
        The model.
    symbols : sequence of str
        Elements of the pairs, in the order of their species; the model may know more.
    sampler : str
        Sampler.
    num_sampling_steps : int
        K; 0 is the mean.
    seed : int
        Seed of the draws.

    Returns
    -------
    callable
        For `relative_errors`.
    """
    # The model numbers its own elements, and -1 is padding.
    numbers = [model.metadata.elements.index(symbol) for symbol in symbols]
    known = torch.tensor([*numbers, -1])

    generator = torch.Generator().manual_seed(seed)

    def change(pairs: PairBatch) -> Tensor:
        parts = [
            PairBatch(*(values[own] for values in pairs))
            for own in torch.arange(len(pairs.species)).split(BATCH)
        ]
        return torch.cat([change_part(part) for part in parts])

    def change_part(pairs: PairBatch) -> Tensor:
        batch = pairs._replace(species=known[pairs.species])
        condition = encode_pairs(model.module, batch)
        residual = torch.zeros((*batch.species.shape, 2, 3))
        if num_sampling_steps:
            residual = draw(
                sampler,
                lambda u, sigma: model.module.denoise(u, sigma, condition),
                batch.species,
                karras_noise_levels(num_sampling_steps, **model.metadata.noise),
                generator,
            )
        drawn: Tensor = model.module.decode(residual, condition, False)
        return drawn

    return change

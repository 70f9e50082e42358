"""Pairs of frames one lag apart, of one or many molecules, as padded tensors."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from ase.data import chemical_symbols
from torch import Tensor

from openmm_diffmd.data.trajectory import Trajectory, time_rounding
from openmm_diffmd.units import FS_PER_PS

GROUP_SIZE_RATIO = 1.1
"""Atoms of the largest molecule in a batch over those of the smallest, at most: the
network is dense over pairs of atoms, padding included."""


class PairBatch(NamedTuple):
    """
    A batch of B pairs padded to A atoms, in each molecule's centre-of-mass frame.

    Attributes
    ----------
    positions, velocities : Tensor, shape (B, A, 3), nm and nm/ps
        State before the lag.
    acceleration : Tensor, shape (B, A, 3), nm/ps^2
        Change of velocity over the lag before this one, divided by the lag.
    has_acceleration : Tensor of bool, shape (B,)
        False where the segment holds no earlier frame.
    species : Tensor of int, shape (B, A)
        Index of the element, -1 for padding.
    masses : Tensor, shape (B, A), Da
        Masses, 0 for padding.
    following : Tensor, shape (B, A, 2, 3)
        Positions and velocities after the lag.
    later : Tensor, shape (B, L - 1, A, 2, 3)
        The same after two lags, up to the L that `LaggedPairs` was asked for.
    """

    positions: Tensor
    velocities: Tensor
    acceleration: Tensor
    has_acceleration: Tensor
    species: Tensor
    masses: Tensor
    following: Tensor
    later: Tensor


class NoPairError(ValueError):
    """No two frames are one lag apart."""


class LaggedPairs:
    """
    All pairs (t, t + lag) within unbroken segments of some trajectories.

    With more than one lag, all that have frames after each of so many.

    Parameters
    ----------
    trajectories : sequence of Trajectory
        Frames with velocities, one molecule each.
    ranges : sequence of range
        Frames of each trajectory that may be used; a pair lies wholly inside.
    elements : sequence of int
        Atomic numbers in the order of the species index.
    lag_time : float
        Lag, ps.
    num_lags : int
        Lags L that are known of what follows a state.

    Raises
    ------
    ValueError
        If velocities are missing, an element is unknown, or the lag is no whole number
        of frames.
    NoPairError
        If no pair is left.
    """

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        ranges: Sequence[range],
        elements: Sequence[int],
        lag_time: float,
        num_lags: int = 1,
    ) -> None:
        self.lag_time = lag_time
        self.num_lags = num_lags
        n_atoms = max(trajectory.n_atoms for trajectory in trajectories)
        positions: list[Tensor] = []
        velocities: list[Tensor] = []
        molecules, starts, lags, known = [], [], [], []
        self._species = torch.full((len(trajectories), n_atoms), -1, dtype=torch.long)
        self._masses = torch.zeros(len(trajectories), n_atoms)
        offset = 0
        pairs = zip(trajectories, ranges, strict=True)
        for index, (trajectory, frames) in enumerate(pairs):
            used = slice(frames.start, frames.stop)
            lag = lag_in_frames(trajectory, lag_time)
            self._fill_molecule(index, trajectory, elements)
            for store, values in (
                (positions, trajectory.positions),
                (velocities, trajectory.velocities),
            ):
                if values is None:
                    raise ValueError(
                        "found a trajectory without velocities, expected velocities: "
                        "use a reference of your own, or backward differences"
                    )
                store.append(_centred(values[used], trajectory.masses, n_atoms))
            segments = trajectory.segments[used]
            count = len(segments)
            span = num_lags * lag
            start = np.flatnonzero(segments[: max(count - span, 0)] == segments[span:])
            earlier = np.maximum(start - lag, 0)
            has_earlier = (start >= lag) & (segments[earlier] == segments[start])
            starts.append(start + offset)
            known.append(has_earlier)
            lags.append(np.full(len(start), lag))
            molecules.append(np.full(count, index))
            offset += count
        self._positions = torch.cat(positions)
        self._velocities = torch.cat(velocities)
        self._molecules = torch.from_numpy(np.concatenate(molecules))
        self._n_atoms = (self._species >= 0).sum(1)
        self._starts = torch.from_numpy(np.concatenate(starts))
        self._lags = torch.from_numpy(np.concatenate(lags))
        self._has_earlier = torch.from_numpy(np.concatenate(known))
        # A reversed pair has a history where another pair starts at its end.
        is_start = torch.zeros(offset, dtype=torch.bool)
        is_start[self._starts] = True
        self._has_later = is_start[self._starts + self._lags]
        if len(self._starts) == 0:
            raise NoPairError(
                f"found no pair of frames {FS_PER_PS * num_lags * lag_time:g} fs apart "
                "in an unbroken segment; bring longer segments, or a shorter lag or "
                "fewer of them"
            )

    def __len__(self) -> int:
        return len(self._starts)

    def size_groups(self) -> list[tuple[Tensor, int]]:
        """
        Group the pairs by the size of their molecules, so that little is padded.

        Returns
        -------
        list of (Tensor of int, int)
            Indices of the pairs of a group, and how many different molecules it has,
            told apart by their elements in order.
            The largest molecule has at most `GROUP_SIZE_RATIO` times the atoms of the
            smallest.
        """
        molecule = self._molecules[self._starts]
        sizes = self._n_atoms[molecule]
        groups = []
        smallest = 0
        for size in sorted(set(self._n_atoms.tolist())):
            if size <= GROUP_SIZE_RATIO * smallest:
                continue
            smallest = size
            within = (sizes >= smallest) & (sizes <= GROUP_SIZE_RATIO * smallest)
            indices = torch.nonzero(within)[:, 0]
            if len(indices):
                members = self._species[molecule[indices].unique()]
                groups.append((indices, len(members.unique(dim=0))))
        return groups

    def batch(self, indices: Tensor, reverse: Tensor | None = None) -> PairBatch:
        """
        Gather pairs, padded to the largest molecule among them.

        Parameters
        ----------
        indices : Tensor of int, shape (B,)
            Which pairs.
        reverse : Tensor of bool, shape (B,), optional
            Pairs to run backwards in time: frames swapped, velocities negated. Right
            for frictionless dynamics only.

        Returns
        -------
        PairBatch
            The pairs.
        """
        first = self._starts[indices]
        lag = self._lags[indices]
        if reverse is None:
            reverse = torch.zeros_like(first, dtype=torch.bool)
        sign = torch.where(reverse, -1, 1)
        start = torch.where(reverse, first + self.num_lags * lag, first)
        has_acceleration = torch.where(
            reverse, self._has_later[indices], self._has_earlier[indices]
        )
        earlier = torch.where(has_acceleration, start - sign * lag, start)
        direction = sign[:, None, None].to(self._velocities.dtype)
        velocities = direction * self._velocities[start]
        acceleration = velocities - direction * self._velocities[earlier]
        molecule = self._molecules[first]
        atoms = slice(int(self._n_atoms[molecule].max()))
        following = []
        for number in range(1, self.num_lags + 1):
            end = start + number * sign * lag
            state = [self._positions[end], direction * self._velocities[end]]
            following.append(torch.stack(state, dim=2)[:, atoms])
        return PairBatch(
            positions=self._positions[start, atoms],
            velocities=velocities[:, atoms],
            acceleration=acceleration[:, atoms] / self.lag_time,
            has_acceleration=has_acceleration,
            species=self._species[molecule, atoms],
            masses=self._masses[molecule, atoms],
            following=following[0],
            later=torch.stack(following, dim=1)[:, 1:],
        )

    def _fill_molecule(
        self, index: int, trajectory: Trajectory, elements: Sequence[int]
    ) -> None:
        unknown = sorted(set(trajectory.atomic_numbers.tolist()) - set(elements))
        if unknown:
            raise ValueError(
                f"found elements {', '.join(chemical_symbols[z] for z in unknown)}, "
                f"expected only {', '.join(chemical_symbols[z] for z in elements)}"
            )
        order = [list(elements).index(number) for number in trajectory.atomic_numbers]
        self._species[index, : len(order)] = torch.tensor(order)
        self._masses[index, : len(order)] = torch.tensor(
            trajectory.masses, dtype=torch.float32
        )


def encode_pairs(model: Any, batch: PairBatch) -> dict[str, Tensor]:
    """
    Encode the first states of some pairs, which are clean.

    Parameters
    ----------
    model : TransitionModel, or the module of a `DiffusionModel`
        The network, or the scripted one of a model file.
    batch : PairBatch
        The pairs.

    Returns
    -------
    dict of str to Tensor
        The condition, as `TransitionModel.encode` gives it.
    """
    level = batch.positions.new_zeros(len(batch.species))
    # All but what follows, in the order of `encode`.
    condition: dict[str, Tensor] = model.encode(*batch[:-2], level)
    return condition


def lag_in_frames(trajectory: Trajectory, lag_time: float) -> int:
    """
    Express a lag in frames of a trajectory.

    Parameters
    ----------
    trajectory : Trajectory
        Evenly spaced frames.
    lag_time : float
        Lag, ps.

    Returns
    -------
    int
        Frames, at least 1.

    Raises
    ------
    ValueError
        If the frames are not evenly spaced or the lag is no whole number of them.
    """
    times = trajectory.times.astype(np.float64)
    steps = np.diff(times)[np.diff(trajectory.segments) == 0]
    if len(steps) == 0:
        raise ValueError("found segments of one frame, expected at least two")
    # Rounded times are off at either end of a segment, not in its mean step.
    step = float(steps.mean())
    if not np.allclose(steps, step, rtol=1e-2, atol=time_rounding(times)):
        raise ValueError(
            f"found frames between {FS_PER_PS * steps.min():g} and "
            f"{FS_PER_PS * steps.max():g} fs apart in one segment, expected even "
            "spacing"
        )
    lag = round(lag_time / step)
    if lag < 1 or abs(lag * step - lag_time) > 1e-2 * step:
        raise ValueError(
            f"found a lag of {FS_PER_PS * lag_time:g} fs and frames every "
            f"{FS_PER_PS * step:g} fs, expected a whole number of frames"
        )
    return lag


def evenly_spread(total: int, count: int) -> Tensor:
    """
    Choose some of many, evenly spread and the same each time.

    Parameters
    ----------
    total : int
        How many there are.
    count : int
        How many to choose; all where there are no more.

    Returns
    -------
    Tensor of int, shape (min(count, total),)
        Their indices, ascending.
    """
    number = min(count, total)
    return torch.linspace(0, total - 1, number, dtype=torch.float64).long()


def _centred(values: np.ndarray, masses: np.ndarray, n_atoms: int) -> Tensor:
    weights = masses / masses.sum()
    centre = np.einsum("a,fax->fx", weights, values.astype(np.float64))
    relative = torch.from_numpy((values - centre[:, None]).astype(np.float32))
    return torch.nn.functional.pad(relative, (0, 0, 0, n_atoms - relative.shape[1]))

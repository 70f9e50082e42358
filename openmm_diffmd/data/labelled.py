"""Frames with energies and forces, of one or many molecules, as padded tensors."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from openmm_diffmd.data.trajectory import Trajectory


class LabelledBatch(NamedTuple):
    """
    A batch of B frames padded to A atoms.

    Attributes
    ----------
    positions : Tensor, shape (B, A, 3), nm
        Positions about their mean; 0 for padding.
    species : Tensor of int, shape (B, A)
        Index of the element, -1 for padding.
    energies : Tensor, shape (B,), kJ/mol
        Potential energies less the sum of the elements' energies.
    forces : Tensor, shape (B, A, 3), kJ/mol/nm
        Forces; 0 for padding.
    """

    positions: Tensor
    species: Tensor
    energies: Tensor
    forces: Tensor


class LabelledFrames:
    """
    Frames of some trajectories with energies and forces; indices give a batch.

    Parameters
    ----------
    trajectories : sequence of Trajectory
        Frames with energies and forces, one molecule each.
    ranges : sequence of range
        Frames of each trajectory that may be used.
    elements : sequence of int
        Atomic numbers in the order of the species index.
    element_energy : Tensor, shape (n_elements,), kJ/mol, optional
        Energy of an atom of each element; fitted to the frames' unless given.

    Raises
    ------
    ValueError
        If energies or forces are missing.
    """

    def __init__(
        self,
        trajectories: Sequence[Trajectory],
        ranges: Sequence[range],
        elements: Sequence[int],
        element_energy: Tensor | None = None,
    ) -> None:
        n_atoms = max(trajectory.n_atoms for trajectory in trajectories)
        parts: list[LabelledBatch] = []
        counts: list[Tensor] = []
        for trajectory, frames in zip(trajectories, ranges, strict=True):
            if trajectory.forces is None or trajectory.potential_energies is None:
                raise ValueError(
                    "found a trajectory without energies or forces, expected both: use "
                    "a reference of your own, or MD17 files"
                )
            used = slice(frames.start, frames.stop)
            positions = trajectory.positions[used]
            positions = positions - positions.mean(1, keepdims=True)
            index = [list(elements).index(int(z)) for z in trajectory.atomic_numbers]
            count = torch.bincount(torch.tensor(index), minlength=len(elements))
            energies = torch.from_numpy(
                np.asarray(trajectory.potential_energies[used], dtype=np.float64)
            )
            missing = n_atoms - trajectory.n_atoms
            species = torch.tensor(index + missing * [-1])
            parts.append(
                LabelledBatch(
                    _padded(positions, missing),
                    species.expand(len(energies), -1),
                    energies,
                    _padded(trajectory.forces[used], missing),
                )
            )
            counts.append(count.double().expand(len(energies), -1))
        composition = torch.cat(counts)
        columns = [torch.cat(column) for column in zip(*parts, strict=True)]
        if element_energy is None:
            # The shortest of all that fit: of one molecule only their sum is known.
            element_energy = torch.linalg.lstsq(
                composition, columns[2][:, None], driver="gelsd"
            ).solution[:, 0]
        self.element_energy = element_energy
        columns[2] = (columns[2] - composition @ element_energy).float()
        self._frames = LabelledBatch(*columns)

    def __len__(self) -> int:
        return len(self._frames.energies)

    def __getitem__(self, indices: Sequence[int] | Tensor) -> LabelledBatch:
        chosen = torch.as_tensor(indices)
        return LabelledBatch(*(column[chosen] for column in self._frames))


def _padded(values: NDArray[np.floating], missing: int) -> Tensor:
    tensor = torch.from_numpy(values.astype(np.float32))
    return torch.nn.functional.pad(tensor, (0, 0, 0, missing))

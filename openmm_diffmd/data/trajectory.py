"""The form every reader returns: frames of one molecule, in nm, ps, Da, kJ/mol."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.units import FS_PER_PS


def time_rounding(times: NDArray[np.floating]) -> float:
    """
    Say by how much differences of times may be off that were kept in single precision.

    MDTraj HDF5 files of other programs keep them so, and those of rollouts.

    Parameters
    ----------
    times : ndarray, shape (n_frames,), ps
        Times, in any precision.

    Returns
    -------
    float
        Twice the spacing of single precision at the last of them, ps.
    """
    return 2.0 * float(np.spacing(np.float32(np.abs(times).max(initial=0.0))))


@dataclass(frozen=True)
class Trajectory:
    """
    Frames of one molecule, in unbroken segments.

    Attributes
    ----------
    positions : ndarray, shape (n_frames, n_atoms, 3), nm
        Positions.
    velocities : ndarray, shape (n_frames, n_atoms, 3), nm/ps, or None
        Velocities at the times of the positions; None where the source has none.
    times : ndarray, shape (n_frames,), ps
        Time of each frame since the start of its segment.
    segments : ndarray of int, shape (n_frames,)
        The unbroken piece of dynamics a frame belongs to.
    atomic_numbers : ndarray of int, shape (n_atoms,)
        Atomic numbers.
    masses : ndarray, shape (n_atoms,), Da
        Masses.
    bonds : ndarray of int, shape (n_bonds, 2)
        Bonded pairs; empty where the source has none.
    potential_energies : ndarray, shape (n_frames,), kJ/mol, or None
        Potential energies.
    forces : ndarray, shape (n_frames, n_atoms, 3), kJ/mol/nm, or None
        Forces.
    provenance : mapping
        What made the frames.

    Raises
    ------
    ValueError
        If shapes disagree or a number is not finite.
    """

    positions: NDArray[np.floating]
    velocities: NDArray[np.floating] | None
    times: NDArray[np.floating]
    segments: NDArray[np.integer]
    atomic_numbers: NDArray[np.integer]
    masses: NDArray[np.floating]
    bonds: NDArray[np.integer]
    potential_energies: NDArray[np.floating] | None = None
    forces: NDArray[np.floating] | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        frames, atoms = len(self.positions), len(self.atomic_numbers)
        expected = {
            "positions": (frames, atoms, 3),
            "velocities": (frames, atoms, 3),
            "times": (frames,),
            "segments": (frames,),
            "masses": (atoms,),
            "bonds": (len(self.bonds), 2),
            "potential_energies": (frames,),
            "forces": (frames, atoms, 3),
        }
        for name, shape in expected.items():
            value = getattr(self, name)
            if value is None:
                continue
            if value.shape != shape:
                raise ValueError(f"found {name} {value.shape}, expected {shape}")
            if not np.isfinite(value).all():
                bad = int(np.argwhere(~np.isfinite(value))[0, 0])
                raise ValueError(
                    f"found a value that is not finite in {name}[{bad}]; "
                    "remove or repair that frame"
                )

    @property
    def is_foreign(self) -> bool:
        """Whether another program made the frames: their units are not known."""
        return not {"friction_per_ps", "potential"} & self.provenance.keys()

    @property
    def n_frames(self) -> int:
        """Number of frames."""
        return len(self.positions)

    @property
    def n_atoms(self) -> int:
        """Number of atoms."""
        return len(self.atomic_numbers)


def interval_ps(frame_interval_fs: float) -> float:
    """
    Convert the time between frames, which must be above 0.

    Parameters
    ----------
    frame_interval_fs : float
        Time between frames, fs.

    Returns
    -------
    float
        The same, ps.

    Raises
    ------
    ValueError
        If it is not above 0, or not finite.
    """
    if not 0 < frame_interval_fs < math.inf:
        raise ValueError(
            f"found frame_interval_fs {frame_interval_fs:g}, expected above 0: give "
            "the time between frames"
        )
    return frame_interval_fs / FS_PER_PS

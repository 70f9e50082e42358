"""Readers: every supported file becomes a `Trajectory` in nm, ps, Da, kJ/mol."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from openmm_diffmd.data.dcd import read_dcd
from openmm_diffmd.data.extxyz import read_extxyz
from openmm_diffmd.data.md17 import read_md17
from openmm_diffmd.data.npz import MD17_KEYS, RMD17_KEYS, npz_keys
from openmm_diffmd.data.reference_files import read_reference
from openmm_diffmd.data.rmd17 import read_rmd17
from openmm_diffmd.data.single_molecule import as_molecule, check_whole
from openmm_diffmd.data.trajectory import Trajectory, interval_ps

__all__ = [
    "frame_intervals",
    "is_numbered",
    "read_dcd",
    "read_extxyz",
    "read_md17",
    "read_reference",
    "read_rmd17",
    "read_trajectory",
]

HDF5 = (".h5", ".hdf5")
DCD = ".dcd"
WITHOUT_TIMES = (".xyz", ".extxyz", DCD)
"""Files that need the time between their frames told."""


def read_trajectory(
    path: str | Path, frame_interval_fs: float | None = None, whole: bool = True
) -> Trajectory:
    """
    Read any supported file: the reader is chosen by suffix and contents.

    Parameters
    ----------
    path : path-like
        MDTraj HDF5 (``.h5``), MD17 or rMD17 (``.npz``), extxyz (``.xyz``,
        ``.extxyz``), or DCD (``.dcd``) with the PDB file of its name beside it.
    frame_interval_fs : float, optional
        Time between frames where the file does not tell, fs; default 0.5 for MD17
        and rMD17. Must be given for extxyz and DCD, must not for HDF5, but where its
        frames are numbered only.
    whole : bool
        Refuse frames of other programs in which a bond is far apart; else only the
        first is looked at, so that a molecule may break.

    Returns
    -------
    Trajectory
        The frames.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is of no supported kind, its reader refuses it, or other programs'
        frames are not of one molecule in one piece.
    """
    trajectory = _read(path, frame_interval_fs)
    if trajectory.is_foreign:
        check_whole(path, trajectory, None if whole else 1)
    return trajectory


def _read(path: str | Path, frame_interval_fs: float | None) -> Trajectory:
    """Read a file, the reader chosen by suffix and contents."""
    if not Path(path).is_file():
        raise FileNotFoundError(f"found no file {path}, expected frames of a molecule")
    suffix = Path(path).suffix.lower()
    if suffix in HDF5:
        return _read_hdf5(path, frame_interval_fs)
    if suffix == ".npz":
        return _read_npz(path, 0.5 if frame_interval_fs is None else frame_interval_fs)
    if suffix in WITHOUT_TIMES:
        if frame_interval_fs is None:
            raise ValueError(
                f"{path} has no times, expected frame_interval_fs: give the time "
                "between its frames"
            )
        read = read_dcd if suffix == DCD else read_extxyz
        return read(path, frame_interval_fs)
    raise ValueError(
        f"found {path}, expected one of .h5, .hdf5, .npz, .xyz, .extxyz, .dcd: convert "
        "it"
    )


def _read_hdf5(path: str | Path, frame_interval_fs: float | None) -> Trajectory:
    trajectory = read_reference(path)
    if trajectory.is_foreign:
        trajectory = as_molecule(path, trajectory)
    if frame_interval_fs is None:
        return trajectory
    if not is_numbered(trajectory):
        raise ValueError(
            f"found frame_interval_fs={frame_interval_fs:g} for {path}, expected none: "
            "the file has its own times"
        )
    return replace(trajectory, times=interval_ps(frame_interval_fs) * trajectory.times)


def _read_npz(path: str | Path, frame_interval_fs: float) -> Trajectory:
    keys = npz_keys(path)
    if keys >= MD17_KEYS:
        return read_md17(path, frame_interval_fs)
    if keys >= RMD17_KEYS:
        return read_rmd17(path, frame_interval_fs)
    raise ValueError(
        f"{path} has keys {sorted(keys)}, expected MD17's {sorted(MD17_KEYS)} or "
        f"rMD17's {sorted(RMD17_KEYS)}; where only old_indices is missing, rename "
        "coords, energies, forces and nuclear_charges to R, E, F and z"
    )


def frame_intervals(
    paths: Sequence[Path], frame_interval_fs: float | None
) -> list[float | None]:
    """
    Say which of several files a time between frames is for: those without times.

    Parameters
    ----------
    paths : sequence of Path
        Files.
    frame_interval_fs : float or None
        Time between frames where files do not tell, fs.

    Returns
    -------
    list of float or None
        For `read_trajectory`, of each file. Where all have times it is for all, which
        are refused with it.

    Raises
    ------
    FileNotFoundError
        If a file does not exist.
    ValueError
        If one is damaged.
    """
    if frame_interval_fs is None:
        return [None] * len(paths)
    timed = [
        Path(path).suffix.lower() in HDF5 and not is_numbered(read_reference(path))
        for path in paths
    ]
    return [None if t and not all(timed) else frame_interval_fs for t in timed]


def is_numbered(trajectory: Trajectory) -> bool:
    """
    Tell whether times are numbers of frames only, as MDTraj makes them up.

    Parameters
    ----------
    trajectory : Trajectory
        Of a file.

    Returns
    -------
    bool
        True if nothing says what made it and its times, in ps, are 0, 1, 2 and so on.
    """
    numbers = np.arange(trajectory.n_frames)
    return not trajectory.provenance and np.array_equal(trajectory.times, numbers)

"""Frames of rMD17: a sample of an MD17 run, in its order."""

from pathlib import Path

import numpy as np

from openmm_diffmd.data.npz import RMD17_KEYS, column_of, frames_of, load_arrays
from openmm_diffmd.data.single_molecule import single_molecule
from openmm_diffmd.data.trajectory import Trajectory, interval_ps


def read_rmd17(
    path: str | Path, frame_interval_fs: float = 0.5, old_forces: bool = False
) -> Trajectory:
    """
    Read an rMD17 npz file, in the order of the MD17 run its frames are from.

    rMD17 is a sample of the frames of one MD17 run: `old_indices` tells which. The
    frames are one segment with gaps, and `times` are their true times in that run:
    two frames are a pair of a given lag exactly if their times differ by it.

    Parameters
    ----------
    path : path-like
        Npz file: coords in Angstrom, energies in kcal/mol, forces in
        kcal/mol/Angstrom.
    frame_interval_fs : float
        Time between frames of the MD17 run, fs: 0.5, but 0.205 for benzene, by the
        old forces of neighbouring frames in its file.
    old_forces : bool
        Take MD17's energies and forces (PBE+TS, keys old_energies and old_forces),
        which moved the atoms, instead of rMD17's (PBE), which would hold C-H 1 pm
        longer than these frames have it.

    Returns
    -------
    Trajectory
        One segment, without velocities.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If keys are missing, shapes disagree, a number is not finite, an old index
        occurs twice, the file is damaged or mixes molecules, or the interval is not
        above 0.

    Notes
    -----
    Christensen and von Lilienfeld, Mach. Learn.: Sci. Technol. 1, 045018 (2020).
    """
    interval = interval_ps(frame_interval_fs)
    prefix = "old_" if old_forces else ""
    labels = (f"{prefix}energies", f"{prefix}forces")
    data = load_arrays(path, RMD17_KEYS | set(labels))
    frames = frames_of(path, data, "nuclear_charges", "coords", *labels)
    indices = column_of(path, "old_indices", data["old_indices"])
    if len(np.unique(indices)) != len(indices):
        raise ValueError(
            f"{path} has an old index twice, expected each frame of MD17 once"
        )
    n_frames = len(frames.positions)
    if len(indices) != n_frames:
        raise ValueError(
            f"{path} has {len(indices)} old_indices, expected {n_frames} as coords"
        )
    order = np.argsort(indices)
    return single_molecule(
        path,
        positions=frames.positions[order],
        velocities=None,
        times=interval * indices[order],
        segments=np.zeros(len(indices), dtype=np.int32),
        atomic_numbers=frames.atomic_numbers,
        potential_energies=frames.potential_energies[order],
        forces=frames.forces[order],
        provenance={
            "data": "rMD17",
            "file": Path(path).name,
            "frame_interval_fs": frame_interval_fs,
        },
    )

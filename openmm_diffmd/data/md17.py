"""Frames of an original MD17 run, with the velocities that they tell."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.data.npz import MD17_KEYS, frames_of, load_arrays
from openmm_diffmd.data.single_molecule import single_molecule
from openmm_diffmd.data.trajectory import Trajectory, interval_ps
from openmm_diffmd.units import FS_PER_PS

MAX_INTERVAL_ERROR = 0.2
"""Of a frame interval, beside the one that forces tell. Thermostats blur that by some
per cent; benzene2017 read at 0.5 fs is off by more than half."""
MIN_BEND_CORRELATION = 0.8
"""Of bends of the paths with the forces: 0.96 in MD17's ethanol up to 3 fs, 0.92 at 5,
0.67 at 10, and 0.21 where its frames are shuffled."""
MAX_INTERVAL_FS = 1.5
"""For differences to be velocities: vibrations of MD17's ethanol come out 2 % cold at 1
fs, 8 % at 2 and a quarter at 5."""


def read_md17(path: str | Path, frame_interval_fs: float = 0.5) -> Trajectory:
    """
    Read an MD17 npz file (keys R, E, F, z).

    MD17 stores no velocities. They are v_i = (x_i - x_(i-1))/dt + F_i/m dt/2, exactly
    those of velocity Verlet without a thermostat, which know nothing of the future
    (a backward difference alone is half a step late); the first frame, which has
    none, is dropped. Where second differences over forces say that frames are not
    `frame_interval_fs` apart (benzene2017 at 0.5 fs, or shuffled frames), there are
    none, and the provenance says so; nor are there where they are far apart.

    Parameters
    ----------
    path : path-like
        Npz file: R in Angstrom, E in kcal/mol, F in kcal/mol/Angstrom.
    frame_interval_fs : float
        Time between frames, fs: 0.5, but about 0.2 for benzene2017, and 1 for
        azobenzene and paracetamol.

    Returns
    -------
    Trajectory
        One segment.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If keys are missing, shapes disagree, a number is not finite, the file is
        damaged or mixes molecules, says that it has other units than kcal/mol and
        Angstrom, or the interval is not above 0.

    Notes
    -----
    Chmiela et al., Sci. Adv. 3, e1603015 (2017). Their runs have a thermostat: in the
    first picosecond of ethanol dv/dt - F/m is -xi(t) v to three digits, with one xi
    for all atoms that swings by some 70/ps (root mean square) each 20 fs, as of
    Nose and Hoover. Positions and velocities alone do not tell the next 10 fs. It
    holds 3N degrees of freedom at 500 K, of which 3N - 6 move, since the angular
    momentum is 0: vibrations of ethanol are at 643 K.
    """
    interval = interval_ps(frame_interval_fs)
    frames = frames_of(path, load_arrays(path, MD17_KEYS), "z", "R", "E", "F")
    if len(frames.positions) < 2:
        raise ValueError(
            f"{path} has one frame, expected two or more: velocities are differences"
        )
    n_frames = len(frames.positions) - 1
    trajectory = single_molecule(
        path,
        positions=frames.positions[1:],
        velocities=None,
        times=interval * np.arange(1, n_frames + 1),
        segments=np.zeros(n_frames, dtype=np.int32),
        atomic_numbers=frames.atomic_numbers,
        potential_energies=frames.potential_energies[1:],
        forces=frames.forces[1:],
        provenance={
            "data": "MD17",
            "kind": "thermostatted",
            "file": Path(path).name,
            "frame_interval_fs": frame_interval_fs,
        },
    )
    return _with_velocities(trajectory, frames.positions, interval)


def _with_velocities(
    trajectory: Trajectory, positions: NDArray[np.float64], interval: float
) -> Trajectory:
    """Add velocities, if frames are as close and as far apart as Newton's law says."""
    masses = trajectory.masses[:, None]
    accelerations = np.asarray(trajectory.forces) / masses
    bends = np.diff(positions, n=2, axis=0)
    projected = float((masses * bends * accelerations[:-1]).sum())
    squares = float((masses * accelerations[:-1] ** 2).sum())
    of_bends = float((masses * bends**2).sum())
    velocities, said = None, "none: too few frames, or no forces"
    interval_fs = FS_PER_PS * interval
    if squares > 0 and of_bends > 0:
        correlation = projected / math.sqrt(squares * of_bends)
        found = math.sqrt(max(projected, 0.0) / squares)
        if correlation < -MIN_BEND_CORRELATION:
            said = "none: atoms go against their forces: are these gradients?"
        elif correlation < MIN_BEND_CORRELATION:
            said = (
                f"none: paths do not bend as forces say (correlation {correlation:.2f},"
                f" expected {MIN_BEND_CORRELATION:g} at least): frames are not in "
                "order, or far apart"
            )
        elif abs(found / interval - 1) >= MAX_INTERVAL_ERROR:
            said = (
                "none: by their forces frames are "
                f"{FS_PER_PS * found:.2g} fs apart, not "
                f"{interval_fs:g}: give frame_interval_fs, or forces in kcal/mol/"
                "Angstrom"
            )
        elif interval_fs > MAX_INTERVAL_FS:
            said = (
                f"none: frames {interval_fs:g} fs apart are too far for differences to "
                f"be velocities, expected {MAX_INTERVAL_FS:g} at most"
            )
        else:
            velocities = np.diff(positions, axis=0) / interval
            velocities += accelerations * interval / 2
            said = "backward differences and half a kick"
    provenance = {**trajectory.provenance, "velocities": said}
    return replace(trajectory, velocities=velocities, provenance=provenance)

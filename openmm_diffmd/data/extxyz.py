"""Frames of extended xyz files, in ASE's units."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.io import iread
from ase.io.extxyz import XYZError

from openmm_diffmd.data.single_molecule import single_molecule
from openmm_diffmd.data.trajectory import Trajectory, interval_ps
from openmm_diffmd.elements import check_element_masses
from openmm_diffmd.units import ANGSTROM, EV, FS_PER_PS

XYZ_FORM = "a number of atoms, a comment, and a line of element, x, y, z for each atom"


def read_extxyz(path: str | Path, frame_interval_fs: float) -> Trajectory:
    """
    Read an extended xyz file of one molecule, in ASE's units (Angstrom, eV).

    Parameters
    ----------
    path : path-like
        File with one frame or more.
    frame_interval_fs : float
        Time between frames, fs.

    Returns
    -------
    Trajectory
        One segment; velocities where every frame has momenta, energies and forces
        where every frame has them.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If the file is damaged or holds no atom, frames have different atoms, or a
        periodic cell, a number is not finite, or the interval is not above 0.
    """
    interval = interval_ps(frame_interval_fs)
    frames = read_xyz_frames(path)
    if not frames or not len(frames[0]):
        raise ValueError(
            f"{path} holds no {'atom' if frames else 'frame'}, expected frames of one "
            f"molecule ({XYZ_FORM}): copy or make it again"
        )
    numbers = frames[0].numbers
    for index, frame in enumerate(frames):
        if not np.array_equal(frame.numbers, numbers):
            raise ValueError(
                f"{path}: frame {index} is {frame.symbols}, expected "
                f"{frames[0].symbols} as in frame 0: split the file"
            )
        if frame.pbc.any():
            raise ValueError(
                f"{path}: frame {index} has a periodic cell, expected an isolated "
                "molecule: unwrap it and set pbc to F F F"
            )
        if frame.has("masses"):
            check_element_masses(path, numbers, frame.get_masses())
    velocity_unit = ANGSTROM * units.fs * FS_PER_PS
    return single_molecule(
        path,
        positions=ANGSTROM * np.array([frame.positions for frame in frames]),
        velocities=velocity_unit
        * np.array([frame.get_velocities() for frame in frames])
        if all(frame.has("momenta") for frame in frames)
        else None,
        times=interval * np.arange(len(frames)),
        segments=np.zeros(len(frames), dtype=np.int32),
        atomic_numbers=numbers.astype(np.int64),
        potential_energies=_results(path, frames, "energy", EV),
        forces=_results(path, frames, "forces", EV / ANGSTROM),
        provenance={
            "data": "extxyz",
            "file": Path(path).name,
            "frame_interval_fs": frame_interval_fs,
            **_missing(frames),
        },
    )


def read_xyz_frames(path: str | Path) -> list[Atoms]:
    """
    Read the frames of an xyz or extended xyz file.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    list of ase.Atoms
        Its frames, in ASE's units; none where it is empty.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it cannot be read.
    """
    try:
        return list(iread(str(path), index=":", format="extxyz"))
    # What ASE raises for damaged files; RuntimeError where it expects more lines.
    except (AttributeError, KeyError, RuntimeError, ValueError, XYZError) as error:
        raise ValueError(
            f"{path} is no xyz file that can be read ({type(error).__name__}: "
            f"{str(error).strip()}); expected {XYZ_FORM}: repair or copy it again"
        ) from error


def _missing(frames: Sequence[Atoms]) -> dict[str, str]:
    """Say of what is missing what there is instead."""
    columns = sorted({*frames[0].arrays} - {"numbers", "positions"})
    told = f"columns: {', '.join(columns) or 'none'}"
    result = {}
    if not all(frame.has("momenta") for frame in frames):
        result["velocities"] = f"it needs momenta in every frame; {told}"
    results = [set(frame.calc.results) if frame.calc else set() for frame in frames]
    if not {"energy", "forces"} <= set.intersection(*results):
        values = ", ".join(sorted(map(str, frames[0].info))) or "none"
        result["forces"] = (
            f"it needs energy and forces in every frame; {told}, values: {values}"
        )
    return result


def _results(path: str | Path, frames: list[Atoms], name: str, unit: float) -> Any:
    values = [
        frame.calc.results[name]
        for frame in frames
        if frame.calc is not None and name in frame.calc.results
    ]
    if len(values) < len(frames):
        return None
    try:
        return unit * np.array(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"found {name} of {path} that cannot be read ({error}), expected numbers: "
            "repair or copy it again"
        ) from error

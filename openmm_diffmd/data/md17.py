"""Readers of MD17 and rMD17 npz files."""

import math
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.data.single_molecule import single_molecule
from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.units import (
    ANGSTROM,
    FEMTOSECONDS_PER_PICOSECOND,
    KILOCALORIE,
)

MD17_KEYS = frozenset({"R", "E", "F", "z"})
MD17_UNITS: Mapping[str, tuple[str, ...]] = {
    "e_unit": ("kcal/mol", "kcal/mole", "kcalmol^-1", "kcalmol-1"),
    "r_unit": ("Angstrom", "Angstroms", "Ang", "A", "Å"),
}
"""What files of sGDML's form may say of their units, blanks left out."""
RMD17_KEYS = frozenset(
    {"nuclear_charges", "coords", "energies", "forces", "old_indices"}
)

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
    data = _load(path, MD17_KEYS)
    numbers, positions = _molecule(path, data["z"], data["R"])
    if len(positions) < 2:
        raise ValueError(
            f"{path} has one frame, expected two or more: velocities are differences"
        )
    _check_frames(path, len(positions), "R", E=data["E"], F=data["F"])
    n_frames = len(positions) - 1
    trajectory = single_molecule(
        path,
        positions=positions[1:],
        velocities=None,
        times=interval * np.arange(1, n_frames + 1),
        segments=np.zeros(n_frames, dtype=np.int32),
        atomic_numbers=numbers,
        potential_energies=KILOCALORIE * _column(path, "E", data["E"])[1:],
        forces=KILOCALORIE / ANGSTROM * data["F"][1:],
        provenance={
            "data": "MD17",
            "kind": "thermostatted",
            "file": Path(path).name,
            "frame_interval_fs": frame_interval_fs,
        },
    )
    return _with_velocities(trajectory, positions, interval)


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
    of_energies, of_forces = f"{prefix}energies", f"{prefix}forces"
    data = _load(path, RMD17_KEYS | {of_energies, of_forces})
    numbers, positions = _molecule(path, data["nuclear_charges"], data["coords"])
    indices = _column(path, "old_indices", data["old_indices"])
    if len(np.unique(indices)) != len(indices):
        raise ValueError(
            f"{path} has an old index twice, expected each frame of MD17 once"
        )
    if len(indices) != len(positions):
        raise ValueError(
            f"{path} has {len(indices)} old_indices, expected {len(positions)} as "
            "coords"
        )
    energies, forces = _column(path, of_energies, data[of_energies]), data[of_forces]
    _check_frames(
        path, len(positions), "coords", **{of_energies: energies, of_forces: forces}
    )
    order = np.argsort(indices)
    return single_molecule(
        path,
        positions=positions[order],
        velocities=None,
        times=interval * indices[order],
        segments=np.zeros(len(indices), dtype=np.int32),
        atomic_numbers=numbers,
        potential_energies=KILOCALORIE * energies[order],
        forces=KILOCALORIE / ANGSTROM * forces[order],
        provenance={
            "data": "rMD17",
            "file": Path(path).name,
            "frame_interval_fs": frame_interval_fs,
        },
    )


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
    return frame_interval_fs / FEMTOSECONDS_PER_PICOSECOND


def npz_keys(path: str | Path) -> frozenset[str]:
    """
    List the arrays of an npz file.

    Parameters
    ----------
    path : path-like
        Npz file.

    Returns
    -------
    frozenset of str
        Names of its arrays.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is not an npz file, or damaged.
    """
    if not zipfile.is_zipfile(path):
        Path(path).open("rb").close()
        raise ValueError(
            f"{path} is not an npz file, or cut short; expected MD17 or rMD17: copy "
            "or download it again"
        )
    try:
        with zipfile.ZipFile(path) as archive:
            return frozenset(name.removesuffix(".npy") for name in archive.namelist())
    except (NotImplementedError, zipfile.BadZipFile) as error:
        raise _damaged(path, error) from error


def _load(path: str | Path, keys: frozenset[str]) -> Mapping[str, NDArray[Any]]:
    found = npz_keys(path)
    if keys == MD17_KEYS and not keys <= found and found >= RMD17_KEYS:
        raise ValueError(
            f"found {path}, an rMD17 file, whose frames are a sample of a run, "
            "expected an original MD17 file, whose frames are in the order of time"
        )
    if not keys <= found:
        raise ValueError(
            f"{path} lacks {sorted(keys - found)}, expected keys {sorted(keys)}; "
            f"found {sorted(found)}"
        )
    arrays = _arrays(path, keys)
    for key in MD17_UNITS.keys() & found:
        unit = _unit_of(path, key)
        known = {name.lower() for name in MD17_UNITS[key]}
        if unit is not None and "".join(unit.split()).lower() not in known:
            raise ValueError(
                f"{path} says {key}={unit!r}, expected {MD17_UNITS[key][0]!r}: convert "
                "E, F and R to kcal/mol, kcal/mol/Angstrom and Angstrom, and that text"
            )
    _check_numbers(path, arrays)
    return arrays


def _arrays(path: str | Path, keys: frozenset[str]) -> dict[str, NDArray[Any]]:
    try:
        with np.load(path) as archive:
            return {key: archive[key] for key in keys}
    except (
        EOFError,
        OSError,
        RuntimeError,
        ValueError,
        zipfile.BadZipFile,
        zlib.error,
    ) as error:
        if "allow_pickle" in str(error):
            raise ValueError(
                f"{path} has an array of pickled objects among {sorted(keys)}, "
                "expected arrays of numbers: write those"
            ) from error
        raise _damaged(path, error) from error


def _check_numbers(path: str | Path, arrays: Mapping[str, NDArray[Any]]) -> None:
    for key, values in arrays.items():
        kind = np.asarray(values).dtype.kind
        if kind == "U" and key in ("z", "nuclear_charges"):
            raise ValueError(
                f"{path} has texts as {key}, expected atomic numbers: write those"
            )
        # Without its signature an array is given as bytes.
        if kind not in "iuf":
            raise _damaged(path, f"{key} is no array of numbers")
        # Here, where frames are still numbered as in the file.
        bad = np.argwhere(~np.isfinite(values))
        if len(bad):
            raise ValueError(
                f"{path}: found a value that is not finite in {key}[{bad[0][0]}], "
                "expected numbers; remove or repair that frame"
            )


def _unit_of(path: str | Path, key: str) -> str | None:
    """Look up what a file says of a unit; None where that is no text."""
    try:
        with np.load(path) as archive:
            said = archive[key].ravel()[:1].tolist()
    except ValueError:
        return None
    text = said[0] if said else None
    if isinstance(text, bytes):
        text = text.decode("utf-8", "replace")
    return text if isinstance(text, str) else None


def _check_frames(
    path: str | Path, n_frames: int, of: str, **arrays: NDArray[Any]
) -> None:
    for key, values in arrays.items():
        if values.shape[:1] != (n_frames,):
            raise ValueError(
                f"{path} has {key} of shape {values.shape}, expected {n_frames} frames "
                f"as {of}: copy or download it again"
            )


def _damaged(path: str | Path, reason: Exception | str) -> ValueError:
    if isinstance(reason, Exception):
        reason = f"{type(reason).__name__}: {reason}"
    return ValueError(
        f"found {path} damaged ({reason}), expected a whole npz file of MD17 or rMD17: "
        "copy or download it again"
    )


def _molecule(
    path: str | Path, numbers: NDArray[Any], coordinates: NDArray[Any]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    if numbers.ndim != 1:
        raise ValueError(
            f"{path} has atomic numbers of shape {numbers.shape}, expected (n_atoms,): "
            "one molecule in each file"
        )
    if coordinates.shape[1:] != (len(numbers), 3):
        raise ValueError(
            f"{path} has coordinates {coordinates.shape}, expected (n_frames, "
            f"{len(numbers)}, 3) for its {len(numbers)} atomic numbers"
        )
    if len(coordinates) == 0:
        raise ValueError(f"{path} has no frames, expected at least one")
    return numbers.astype(np.int64), ANGSTROM * coordinates.astype(np.float64)


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
    interval_fs = FEMTOSECONDS_PER_PICOSECOND * interval
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
                f"{FEMTOSECONDS_PER_PICOSECOND * found:.2g} fs apart, not "
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


def _column(path: str | Path, key: str, values: NDArray[Any]) -> NDArray[Any]:
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"{path} has {key} {values.shape}, expected (n_frames,)")
    return values

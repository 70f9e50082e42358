"""Arrays of the npz files of MD17 and rMD17, checked."""

import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from openmm_diffmd.units import ANGSTROM, KILOCALORIE

MD17_KEYS = frozenset({"R", "E", "F", "z"})
MD17_UNITS: Mapping[str, tuple[str, ...]] = {
    "e_unit": ("kcal/mol", "kcal/mole", "kcalmol^-1", "kcalmol-1"),
    "r_unit": ("Angstrom", "Angstroms", "Ang", "A", "Å"),
}
"""What files of sGDML's form may say of their units, blanks left out."""
RMD17_KEYS = frozenset(
    {"nuclear_charges", "coords", "energies", "forces", "old_indices"}
)


class LabelledArrays(NamedTuple):
    """
    Frames of one molecule with energies and forces.

    Attributes
    ----------
    atomic_numbers : ndarray of int, shape (n_atoms,)
        Elements.
    positions : ndarray, shape (n_frames, n_atoms, 3), nm
        Positions.
    potential_energies : ndarray, shape (n_frames,), kJ/mol
        Potential energies.
    forces : ndarray, shape (n_frames, n_atoms, 3), kJ/mol/nm
        Forces.
    """

    atomic_numbers: NDArray[np.int64]
    positions: NDArray[np.float64]
    potential_energies: NDArray[np.floating]
    forces: NDArray[np.floating]


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


def load_arrays(path: str | Path, keys: frozenset[str]) -> Mapping[str, NDArray[Any]]:
    """
    Load arrays of numbers, in the units of MD17.

    Parameters
    ----------
    path : path-like
        Npz file.
    keys : frozenset of str
        Names of the arrays; `MD17_KEYS`, or those of rMD17 that are wanted.

    Returns
    -------
    mapping of str to ndarray
        The arrays.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If it is damaged, lacks one, says that it has other units than kcal/mol and
        Angstrom, or a number is not finite.
    """
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


def frames_of(
    path: str | Path,
    arrays: Mapping[str, NDArray[Any]],
    numbers: str,
    positions: str,
    energies: str,
    forces: str,
) -> LabelledArrays:
    """
    Take the frames of one molecule from arrays in Angstrom and kcal/mol.

    Parameters
    ----------
    path : path-like
        Where they are from, for messages.
    arrays : mapping of str to ndarray
        Of `load_arrays`.
    numbers, positions, energies, forces : str
        Names of the arrays.

    Returns
    -------
    LabelledArrays
        The same in the package's units.

    Raises
    ------
    ValueError
        If shapes disagree, or there is no frame.
    """
    z, x = arrays[numbers], arrays[positions]
    if z.ndim != 1:
        raise ValueError(
            f"{path} has atomic numbers of shape {z.shape}, expected (n_atoms,): "
            "one molecule in each file"
        )
    if x.shape[1:] != (len(z), 3):
        raise ValueError(
            f"{path} has coordinates {x.shape}, expected (n_frames, {len(z)}, 3) for "
            f"its {len(z)} atomic numbers"
        )
    if len(x) == 0:
        raise ValueError(f"{path} has no frames, expected at least one")
    for name in (energies, forces):
        if arrays[name].shape[:1] != (len(x),):
            raise ValueError(
                f"{path} has {name} of shape {arrays[name].shape}, expected {len(x)} "
                f"frames as {positions}: copy or download it again"
            )
    return LabelledArrays(
        atomic_numbers=z.astype(np.int64),
        positions=ANGSTROM * x.astype(np.float64),
        potential_energies=KILOCALORIE * column_of(path, energies, arrays[energies]),
        forces=KILOCALORIE / ANGSTROM * arrays[forces],
    )


def column_of(path: str | Path, key: str, values: NDArray[Any]) -> NDArray[Any]:
    """
    Take an array of one number a frame, of which MD17 makes columns.

    Parameters
    ----------
    path : path-like
        Where it is from, for the message.
    key : str
        Its name.
    values : ndarray, shape (n_frames,) or (n_frames, 1)
        The array.

    Returns
    -------
    ndarray, shape (n_frames,)
        The same numbers.

    Raises
    ------
    ValueError
        If it has another shape.
    """
    if values.ndim == 2 and values.shape[1] == 1:
        return values[:, 0]
    if values.ndim != 1:
        raise ValueError(f"{path} has {key} {values.shape}, expected (n_frames,)")
    return values


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


def _damaged(path: str | Path, reason: Exception | str) -> ValueError:
    if isinstance(reason, Exception):
        reason = f"{type(reason).__name__}: {reason}"
    return ValueError(
        f"found {path} damaged ({reason}), expected a whole npz file of MD17 or rMD17: "
        "copy or download it again"
    )

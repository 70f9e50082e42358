"""Find and load the compiled operators, libdiffmd_ops.so."""

import importlib.metadata
import os
import warnings
from pathlib import Path

import torch

from openmm_diffmd.rebuild import REBUILD

LIBRARY = "libdiffmd_ops.so"
VARIABLE = "DIFFMD_OPS_LIBRARY"
"""Environment variable: path of the library, or `none` for plain torch."""
MAX_LAYER_DEGREE = 3
"""Of the features that operators of the network take."""


def is_loaded() -> bool:
    """
    Say whether the operators are registered with this torch.

    Returns
    -------
    bool
        True once the library was loaded, by whomever.
    """
    return hasattr(torch.ops.diffmd, "spherical_fourier_bessel")


def is_registered(operator: str) -> bool:
    """
    Say whether the library that was loaded has an operator.

    Parameters
    ----------
    operator : str
        Its name, such as ``diffmd::solid_harmonics``.

    Returns
    -------
    bool
        True if TorchScript can call it.
    """
    return hasattr(torch.ops.diffmd, operator.removeprefix("diffmd::"))


def serves_layers(operator: str, l_max: int) -> bool:
    """
    Say whether the library has an operator for layers of this degree.

    Parameters
    ----------
    operator : str
        Its name, such as ``diffmd::equivariant_encoder``.
    l_max : int
        Highest degree of the features.

    Returns
    -------
    bool
        True if it is registered and takes such features.
    """
    return is_registered(operator) and 1 <= l_max <= MAX_LAYER_DEGREE


def find_library() -> Path | None:
    """
    Look for the library.

    Returns
    -------
    Path or None
        What the environment variable DIFFMD_OPS_LIBRARY names; else the file beside
        the package; else the one among the installed files of the distribution, where
        the package's sources are used in place. None if there is none, or if the
        variable says `none`.

    Raises
    ------
    ImportError
        If the variable names a file that does not exist.
    """
    named = os.environ.get(VARIABLE)
    if named == "none":
        return None
    if named:
        if not Path(named).is_file():
            raise ImportError(
                f"found no file {named}, expected the library that {VARIABLE} names; "
                "correct the variable or unset it"
            )
        return Path(named)
    beside = Path(__file__).parent.parent / "lib" / LIBRARY
    if beside.is_file():
        return beside
    try:
        files = importlib.metadata.files("openmm_diffmd") or []
    except importlib.metadata.PackageNotFoundError:
        return None
    paths = [Path(str(file.locate())) for file in files if file.name == LIBRARY]
    return next((path for path in paths if path.is_file()), None)


def load_library() -> bool:
    """
    Load the library, unless that was done before.

    Where it was not built a warning says so.

    Returns
    -------
    bool
        Whether the operators are registered.

    Raises
    ------
    ImportError
        If the library is there and torch cannot load it.
    """
    if is_loaded():
        return True
    path = find_library()
    if path is None:
        if os.environ.get(VARIABLE) != "none":
            warnings.warn(
                f"found no compiled operators ({LIBRARY}): their twins in plain torch "
                f"are used, many times slower; build them: {REBUILD}",
                RuntimeWarning,
                stacklevel=2,
            )
        return False
    try:
        torch.ops.load_library(path)
    except OSError as error:
        raise ImportError(
            f"found {path}, which torch {torch.__version__} cannot load ({error}); "
            f"rebuild it from its sources: {REBUILD}"
        ) from error
    return True

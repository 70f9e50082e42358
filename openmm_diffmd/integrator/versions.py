"""Whether the compiled extension fits the torch and OpenMM that are imported."""

import importlib

import openmm
import torch

from openmm_diffmd.rebuild import REBUILD


def check_versions() -> None:
    """
    Compare what the extension was built for with what is imported.

    Raises
    ------
    ImportError
        If there is no extension, or it was built for another torch or OpenMM.
    """
    try:
        built = importlib.import_module("openmm_diffmd.integrator._build_info")
    except ModuleNotFoundError as error:
        raise ImportError(
            "found no compiled extension of openmm_diffmd, expected it beside "
            f"{__file__} or in site-packages; build it: {REBUILD}"
        ) from error
    compare_versions("torch", built.TORCH_VERSION, torch.__version__)
    compare_versions("OpenMM", built.OPENMM_VERSION, openmm.version.short_version)


def built_with_cuda_graphs() -> bool:
    """
    Tell whether the plugin for CUDA can capture lags into graphs.

    Returns
    -------
    bool
        True if it was built, and for a torch with CUDA.
    """
    built = importlib.import_module("openmm_diffmd.integrator._build_info")
    return bool(built.CUDA_GRAPHS)


def compare_versions(library: str, built: str, found: str) -> None:
    """
    Refuse a library that the extension was not built for.

    The part after a plus sign (torch's ``+cpu``, ``+cu130``) does not count: the
    extension uses the CPU libraries, which all of them have. (The plugin for CUDA,
    which is loaded later, may use others.)

    Parameters
    ----------
    library : str
        Name of the library.
    built : str
        Version it was built for.
    found : str
        Version that is imported.

    Raises
    ------
    ImportError
        If they differ.
    """
    if built.partition("+")[0] != found.partition("+")[0]:
        raise ImportError(
            f"openmm_diffmd was built for {library} {built}, found {library} {found}; "
            f"rebuild it from its sources: {REBUILD}"
        )

"""The kernels of the integrator for OpenMM's GPU platforms."""

import warnings
from pathlib import Path

import torch
from openmm import OpenMMException, Platform

from openmm_diffmd.integrator import bindings
from openmm_diffmd.integrator.versions import built_with_cuda_graphs
from openmm_diffmd.rebuild import REBUILD
from openmm_diffmd.reference.platforms import platform_names

PLUGINS = {
    "CUDA": "libOpenMMDiffMDCUDA.so",
    "OpenCL": "libOpenMMDiffMDOpenCL.so",
}
"""Platform of OpenMM: the plugin with its kernels, where it was built."""

LIBRARIES = Path(bindings.__file__).parent.parent / "lib"
"""Where the libraries are that the package has built."""


def load_plugins() -> list[str]:
    """
    Load the plugins whose platforms OpenMM has here.

    A platform without one is served by way of the Context, with copies through main
    memory and the network on the CPU. A plugin that is there and cannot be loaded is
    warned of; so is a GPU that OpenMM and torch could both use and the package cannot.

    Returns
    -------
    list of str
        Paths of what was loaded.
    """
    platforms = platform_names()
    loaded, problems = [], {}
    for platform, library in PLUGINS.items():
        path = LIBRARIES / library
        if platform not in platforms or not path.is_file():
            continue
        try:
            Platform.loadPluginLibrary(str(path))
            loaded.append(str(path))
        except OpenMMException as error:
            problems[platform] = (
                f"found {path}, which cannot be loaded ({error}): on the platform "
                f"{platform} the network runs on the CPU. A plugin built for a CUDA "
                "build of torch does not fit a CPU build"
            )
    if "CUDA" in platforms and torch.cuda.is_available() and "CUDA" not in problems:
        problem = find_problem_of_cuda()
        if problem:
            problems["CUDA"] = problem
    for problem in problems.values():
        warnings.warn(
            f"{problem}; rebuild openmm_diffmd from its sources: {REBUILD}",
            stacklevel=2,
        )
    return loaded


def find_problem_of_cuda() -> str | None:
    """
    Look for why the GPU, which OpenMM and torch can use, is not used in full.

    Returns
    -------
    str or None
        What was found and what follows from it; None if all is well.
    """
    cuda = Platform.getPlatformByName("CUDA")
    if not cuda.supportsKernels(["IntegrateDiffusionStep"]):
        return (
            "found OpenMM's platform CUDA and a torch that can use the GPU, but no "
            f"kernels of openmm_diffmd for them in {LIBRARIES}: on the platform CUDA "
            "the network runs on the CPU, with copies at each lag. Install nvcc and "
            "openmm-cuda-13, and build again without isolation, as README says"
        )
    if not built_with_cuda_graphs():
        return (
            "openmm_diffmd was built for a torch without CUDA, found one with it: on "
            "the platform CUDA lags are launched kernel by kernel, not as graphs"
        )
    return None

"""The kernels of the integrator for OpenMM's GPU platforms."""

from pathlib import Path

from openmm import Platform

from openmm_diffmd.integrator import bindings

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
    memory and the network on the CPU.

    Returns
    -------
    list of str
        Paths of what was loaded.
    """
    platforms = [
        Platform.getPlatform(index).getName()
        for index in range(Platform.getNumPlatforms())
    ]
    paths = [
        str(LIBRARIES / library)
        for platform, library in PLUGINS.items()
        if platform in platforms and (LIBRARIES / library).is_file()
    ]
    for path in paths:
        Platform.loadPluginLibrary(path)
    return paths

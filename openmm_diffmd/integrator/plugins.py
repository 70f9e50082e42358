"""The kernels of the integrator for OpenMM's GPU platforms."""

from pathlib import Path

from openmm import Platform

from openmm_diffmd.integrator import bindings

PLUGINS = {"CUDA": "libOpenMMDiffMDCUDA.so"}
"""Platform of OpenMM: the plugin with its kernels, where it was built."""


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
    folder = Path(bindings.__file__).parent.parent / "lib"
    platforms = [
        Platform.getPlatform(index).getName()
        for index in range(Platform.getNumPlatforms())
    ]
    paths = [
        str(folder / library)
        for platform, library in PLUGINS.items()
        if platform in platforms and (folder / library).is_file()
    ]
    for path in paths:
        Platform.loadPluginLibrary(path)
    return paths

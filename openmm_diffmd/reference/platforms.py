"""OpenMM's platforms by their names."""

from openmm import Platform


def find_platform(name: str) -> Platform:
    """
    Find a platform of OpenMM.

    Parameters
    ----------
    name : str
        Its name, in any case.

    Returns
    -------
    openmm.Platform
        The platform.

    Raises
    ------
    ValueError
        If OpenMM has none of this name here.
    """
    names = [
        Platform.getPlatform(index).getName()
        for index in range(Platform.getNumPlatforms())
    ]
    for known in names:
        if known.lower() == name.lower():
            return Platform.getPlatform(known)
    raise ValueError(
        f"found platform {name!r}, expected one that OpenMM has here "
        f"({', '.join(names)}): install the package of another, openmm-cuda-13 for "
        "CUDA, with its driver"
    )

"""OpenMM's platforms by their names."""

from openmm import Platform


def platform_names() -> list[str]:
    """
    List the platforms that OpenMM has here.

    Returns
    -------
    list of str
        Their names.
    """
    return [
        Platform.getPlatform(index).getName()
        for index in range(Platform.getNumPlatforms())
    ]


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
    names = platform_names()
    for known in names:
        if known.lower() == name.lower():
            return Platform.getPlatform(known)
    raise ValueError(
        f"found platform {name!r}, expected one that OpenMM has here "
        f"({', '.join(names)}): install the package of another, openmm-cuda-13 for "
        "CUDA, with its driver"
    )

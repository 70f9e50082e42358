"""Contexts of reference dynamics, and whether there is a force in them."""

from typing import Any

import openmm

from openmm_diffmd.reference.dynamics import DynamicsError, baoab_integrator
from openmm_diffmd.reference.platforms import find_platform
from openmm_diffmd.units import FS_PER_PS


def reference_context(
    system: openmm.System,
    temperature_K: float,
    friction_per_ps: float,
    step_size_fs: float,
    seed: int,
    platform: str,
) -> openmm.Context:
    """
    Make a Context of reference dynamics.

    Parameters
    ----------
    system : openmm.System
        Masses and forces.
    temperature_K : float
        Bath temperature, K.
    friction_per_ps : float
        Collision rate, 1/ps; 0 for frictionless dynamics.
    step_size_fs : float
        Step size, fs.
    seed : int
        Seed of the random forces, positive.
    platform : str
        Name of an OpenMM platform.

    Returns
    -------
    openmm.Context
        Without positions, of a `baoab_integrator`.

    Raises
    ------
    ValueError
        If there is no such platform.
    """
    integrator = baoab_integrator(
        temperature_K, friction_per_ps, step_size_fs / FS_PER_PS, seed
    )
    return openmm.Context(system, integrator, find_platform(platform))


def check_first_force(
    context: openmm.Context, potential: str, options: dict[str, Any] | None
) -> None:
    """
    Find out before a file is made whether there is a force at all.

    Parameters
    ----------
    context : openmm.Context
        With positions.
    potential : str
        Name of its force, for the message.
    options : dict, optional
        Keyword arguments of the calculator, for the message.

    Raises
    ------
    DynamicsError
        If the force fails.
    """
    try:
        context.getState(forces=True)
    except openmm.OpenMMException as error:
        lines = str(error).strip().splitlines()
        raise DynamicsError(
            f"found no force at the first positions with potential {potential!r} and "
            f"options {options or {}}: {lines[-1] if lines else 'the force failed'}; "
            "use other options of the calculator, or a geometry nearer to a minimum"
        ) from error

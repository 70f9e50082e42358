"""Force providers for reference dynamics: an OpenMM System with one potential."""

from collections.abc import Collection, Mapping
from importlib import import_module
from inspect import signature
from pathlib import Path
from typing import Any

import numpy as np
import openmm
from ase.calculators.calculator import Calculator, FileIOCalculator
from numpy.typing import NDArray
from openmm import app, unit
from openmmml import MLPotential

from openmm_diffmd.elements import check_element_masses

TBLITE_METHODS = ("GFN2-xTB", "GFN1-xTB")
"""Methods of tblite's ASE calculator that are known by name."""
FILES = (".xml", ".pt")
"""Suffixes of potentials that are files."""
MOVERS = (
    openmm.AndersenThermostat,
    openmm.MonteCarloBarostat,
    openmm.MonteCarloAnisotropicBarostat,
    openmm.MonteCarloFlexibleBarostat,
    openmm.MonteCarloMembraneBarostat,
)
"""Forces of OpenMM that change the state by themselves."""


def create_reference_system(
    topology: app.Topology,
    potential: str | Path = "GFN2-xTB",
    options: Mapping[str, Any] | None = None,
) -> openmm.System:
    """
    Make the System whose forces the reference is made with.

    Parameters
    ----------
    topology : openmm.app.Topology
        The molecule.
    potential : str or path-like
        A tblite method of `TBLITE_METHODS`; the import path of any ASE calculator
        (``ase.calculators.emt.EMT``), run like tblite through openmmml's ``ase``
        potential; or the path of a trained force (``.pt``, of the verb ``force``) or of
        a serialized OpenMM System (``.xml``).
    options : mapping, optional
        Keyword arguments of the calculator.

    Returns
    -------
    openmm.System
        Masses and forces; centre-of-mass motion is not removed, also where a
        System XML asks for it.

    Raises
    ------
    FileNotFoundError
        If the file does not exist.
    ValueError
        If `potential` is none of these, the calculator does not know an option, an
        odd number of electrons has neither charge nor multiplicity given, the trained
        force does not know an element, or the System does not fit: another number of
        particles, other masses than the elements', constraints, a thermostat or a
        barostat.
    """
    name = str(potential)
    if name.endswith(FILES):
        if options:
            raise ValueError(
                f"found options {dict(options)} for {name}, expected none: they "
                "are for ASE calculators"
            )
        if name.endswith(".xml"):
            return _load_system(Path(name), topology)
        # Imported here: it loads PyTorch.
        from openmm_diffmd.reference.trained_force import trained_force_system

        return trained_force_system(Path(name), topology)
    if name in TBLITE_METHODS:
        _check_electrons(topology, name, options or {})
        _check_options("tblite.ase.TBLite", options or {}, without={"method"})
        options = {"method": name, "verbosity": 0, **(options or {})}
        name = "tblite.ase.TBLite"
    elif options:
        _check_options(name, options)
    return MLPotential("ase").createSystem(
        topology, removeCMMotion=False, calculator=_calculator(name, options or {})
    )


def particle_masses(system: openmm.System) -> NDArray[np.float64]:
    """
    List the masses of a System's particles.

    Parameters
    ----------
    system : openmm.System
        The System.

    Returns
    -------
    ndarray, shape (n_particles,), Da
        Masses.
    """
    return np.array(
        [
            system.getParticleMass(index).value_in_unit(unit.dalton)
            for index in range(system.getNumParticles())
        ]
    )


def _check_electrons(
    topology: app.Topology, method: str, options: Mapping[str, Any]
) -> None:
    """Refuse an ion or a radical that would pass for a neutral closed shell."""
    electrons = sum(atom.element.atomic_number for atom in topology.atoms())
    charge = options.get("charge") or 0
    if not isinstance(charge, int | float):
        raise ValueError(
            f"found charge {charge!r} for {method}, expected a number, such as "
            "{charge: 1}"
        )
    if not float(charge).is_integer():
        raise ValueError(
            f"found charge {charge:g} for {method}, expected a whole number of "
            "elementary charges"
        )
    electrons -= round(charge)
    if electrons % 2 and not options.get("multiplicity"):
        raise ValueError(
            f"found {electrons} electrons for {method} with options {dict(options)}, "
            "expected an even number: give an ion's charge or a radical's multiplicity "
            "as options of the potential, such as {charge: 1}"
        )


def _check_options(
    import_path: str, options: Mapping[str, Any], without: Collection[str] = ()
) -> None:
    """Refuse options that the calculator would keep and never read."""
    calculator = _load(import_path, options)
    if not isinstance(calculator, type) or not issubclass(calculator, Calculator):
        return
    # A FileIOCalculator writes whatever it is given into its program's input.
    if issubclass(calculator, FileIOCalculator) or not calculator.default_parameters:
        return
    own = [parent for parent in calculator.__mro__ if parent not in Calculator.__mro__]
    known = {
        name
        for parent in own
        if "__init__" in vars(parent)
        for name, parameter in signature(vars(parent)["__init__"]).parameters.items()
        if parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
    } | set(calculator.default_parameters)
    known -= {"self", "atoms", *without}
    unknown = sorted(set(options) - known)
    if unknown:
        raise ValueError(
            f"found options {unknown} for {calculator.__name__}, expected some of "
            f"{sorted(known)}"
        )


def _load(import_path: str, options: Mapping[str, Any]) -> Any:
    module_name, _, class_name = import_path.rpartition(".")
    if not module_name:
        raise _no_calculator(import_path, options, ImportError("no path of a module"))
    try:
        return getattr(import_module(module_name), class_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise _no_calculator(import_path, options, error) from error


def _calculator(import_path: str, options: Mapping[str, Any]) -> Any:
    calculator = _load(import_path, options)
    try:
        return calculator(**options)
    except (ImportError, AttributeError, ValueError, TypeError) as error:
        raise _no_calculator(import_path, options, error) from error


def _no_calculator(
    import_path: str, options: Mapping[str, Any], error: Exception
) -> ValueError:
    return ValueError(
        f"found potential {import_path!r} with options {dict(options)}, which "
        f"gives {type(error).__name__}: {error}; expected one of "
        f"{TBLITE_METHODS}, the import path of an ASE calculator with its "
        "keyword arguments, or the path of a trained force or a System XML"
    )


def _read_system(path: Path) -> openmm.System:
    if not path.is_file():
        raise FileNotFoundError(
            f"found no file {path}, expected a serialized System as the potential: "
            "give its path"
        )
    text = path.read_text()
    try:
        system = openmm.XmlSerializer.deserialize(text)
    except (openmm.OpenMMException, ValueError) as error:
        raise ValueError(
            f"{path} is not a serialized OpenMM object: {error}; expected a System "
            "written by XmlSerializer.serialize"
        ) from error
    if not isinstance(system, openmm.System):
        raise ValueError(
            f"{path} holds a {type(system).__name__}, expected a serialized System"
        )
    return system


def _load_system(path: Path, topology: app.Topology) -> openmm.System:
    system = _read_system(path)
    if system.getNumParticles() != topology.getNumAtoms():
        raise ValueError(
            f"{path} has {system.getNumParticles()} particles, expected "
            f"{topology.getNumAtoms()} as in the molecule"
        )
    masses = particle_masses(system)
    for index, mass in enumerate(masses):
        if system.isVirtualSite(index) or mass <= 0:
            raise ValueError(
                f"{path} has particle {index} without a mass, expected atoms only"
            )
    numbers = np.array([atom.element.atomic_number for atom in topology.atoms()])
    check_element_masses(path, numbers, masses)
    if system.getNumConstraints():
        raise ValueError(
            f"{path} has {system.getNumConstraints()} constraints, expected none: make "
            "the System with constraints=None, rigidWater=False"
        )
    for index in reversed(range(system.getNumForces())):
        force = system.getForce(index)
        if isinstance(force, MOVERS):
            raise ValueError(
                f"{path} has a {force.getName()}, expected forces that do not change "
                "the state: remove it"
            )
        if isinstance(force, openmm.CMMotionRemover):
            system.removeForce(index)
    return system

"""An integrator read from XML must be what its model file says."""

import math
from itertools import combinations_with_replacement
from typing import Any

from openmm import app, unit

from openmm_diffmd.export.torchscript import load_metadata
from openmm_diffmd.units import FEMTOSECONDS_PER_PICOSECOND, to_float


def check_consistency(integrator: Any) -> None:
    """
    Compare an integrator with the metadata of its model.

    Parameters
    ----------
    integrator : DiffusionIntegrator
        What was read, with whatever someone wrote into the file.

    Raises
    ------
    ValueError
        If lag time, dynamics, bath, hottest data, noise levels, elements, masses, bond
        ranges or contact limits are not the model's.
    """
    metadata = load_metadata(integrator.getModelFile())

    def expect(what: str, found: Any, expected: Any) -> None:
        equal = found == expected
        if isinstance(expected, float):
            equal = math.isclose(found, expected, rel_tol=1e-9)
        if not equal:
            raise ValueError(
                f"found {what} {found} in the XML, expected {expected} as model "
                f"{metadata.name!r} says: it is damaged, or of an integrator that was "
                "given other numbers than its model's, which copies do not take; "
                "write it again from one that was not"
            )

    learned_bath = metadata.dynamics == "thermostatted"
    lag_time = metadata.lag_time_fs / FEMTOSECONDS_PER_PICOSECOND
    temperature = to_float(integrator.getTemperature(), unit.kelvin)
    friction = to_float(integrator.getFriction(), unit.picosecond**-1)
    hottest = to_float(integrator.getMaxTemperature(), unit.kelvin)
    expect("lag time", to_float(integrator.getStepSize(), unit.picosecond), lag_time)
    expect("a learned heat bath:", integrator.getThermostatted(), learned_bath)
    if learned_bath:
        expect("temperature", temperature, float(metadata.temperature_K))
        expect("friction", friction, float(metadata.friction_per_ps))
    expect("hottest training data", hottest, float(metadata.max_temperature_K))
    names = ("sigma_min", "sigma_max", "rho")
    for name, found in zip(names, integrator.getNoiseLevels(), strict=True):
        expect(name, found, float(metadata.noise[name]))

    masses = [
        app.Element.getBySymbol(symbol).mass.value_in_unit(unit.dalton)
        for symbol in metadata.elements
    ]
    symbols = []
    for particle in range(integrator.getNumParticles()):
        species, mass, _ = integrator.getParticleParameters(particle)
        if not species < len(masses):
            raise ValueError(
                f"found species {species} of particle {particle} in the XML, expected "
                f"one below {len(masses)}, the number of elements of model "
                f"{metadata.name!r}; write the XML again from an integrator"
            )
        expect(f"mass of particle {particle}", mass, masses[species])
        symbols.append(metadata.elements[species])
    for bond in range(integrator.getNumBonds()):
        i, j, low, high = integrator.getBondParameters(bond)
        allowed = tuple(float(x) for x in metadata.bond_range(symbols[i], symbols[j]))
        expect(f"range of bond {i}-{j}", (low, high), allowed)
    elements = metadata.elements
    expected = {
        (i, j): metadata.contact_limit(elements[i], elements[j])
        for i, j in combinations_with_replacement(range(len(elements)), 2)
    }
    limits = {}
    for index in range(integrator.getNumContactLimits()):
        i, j, limit = integrator.getContactLimitParameters(index)
        limits[i, j] = limit
    expect("contact limits", limits, expected)

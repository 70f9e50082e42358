"""An integrator read from XML must be what its model file says."""

import math
from typing import Any

from openmm import app, unit

from openmm_diffmd.export.torchscript import load_metadata
from openmm_diffmd.units import FS_PER_PS, to_float


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
        If lag time, dynamics, the bath that a model has learned, elements or masses are
        not the model's. Noise levels and what the guards allow are the user's to set.
    """
    metadata = load_metadata(integrator.getModelFile())

    def expect(what: str, found: Any, expected: Any) -> None:
        equal = found == expected
        if isinstance(expected, float):
            equal = math.isclose(found, expected, rel_tol=1e-9)
        if not equal:
            raise ValueError(
                f"found {what} {found} in the XML, expected {expected} as model "
                f"{metadata.name!r} says: it is damaged; write it again"
            )

    learned_bath = metadata.dynamics == "thermostatted"
    lag_time = metadata.lag_time_fs / FS_PER_PS
    temperature = to_float(integrator.getTemperature(), unit.kelvin)
    friction = to_float(integrator.getFriction(), unit.picosecond**-1)
    expect("lag time", to_float(integrator.getStepSize(), unit.picosecond), lag_time)
    expect("a learned heat bath:", integrator.getThermostatted(), learned_bath)
    if learned_bath:
        expect("temperature", temperature, float(metadata.temperature_K))
        expect("friction", friction, float(metadata.friction_per_ps))

    masses = [
        app.Element.getBySymbol(symbol).mass.value_in_unit(unit.dalton)
        for symbol in metadata.elements
    ]
    for particle in range(integrator.getNumParticles()):
        species, mass, _ = integrator.getParticleParameters(particle)
        if not species < len(masses):
            raise ValueError(
                f"found species {species} of particle {particle} in the XML, expected "
                f"one below {len(masses)}, the number of elements of model "
                f"{metadata.name!r}; write the XML again from an integrator"
            )
        expect(f"mass of particle {particle}", mass, masses[species])

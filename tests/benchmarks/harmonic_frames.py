"""States of the harmonic stub, and references of them."""

from pathlib import Path

import numpy as np
import openmm
from openmm import app, unit

from openmm_diffmd.export.torchscript import DiffusionModel, load_model
from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.testing import (
    ETHANOL_ELEMENTS,
    HarmonicModel,
    save_stub_model,
)
from openmm_diffmd.units import BOLTZMANN

TEMPERATURE = 300.0
FREQUENCY = 400.0
ELEMENTS = [app.Element.getBySymbol(symbol) for symbol in ETHANOL_ELEMENTS]
NUMBERS = np.array([element.atomic_number for element in ELEMENTS])
MASSES = np.array([element.mass.value_in_unit(unit.dalton) for element in ELEMENTS])


def stub(path: Path, model: HarmonicModel) -> DiffusionModel:
    return load_model(save_stub_model(path, model))


def equilibrium(
    generator: np.random.Generator, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """States of the harmonic molecule, its centre of mass at rest."""
    speed = np.sqrt(BOLTZMANN * TEMPERATURE / MASSES)[:, None]
    weights = MASSES / MASSES.sum()
    states = []
    for scale in (speed / FREQUENCY, speed):
        values = scale * generator.normal(size=(n, 9, 3))
        states.append(values - np.einsum("a,fad->fd", weights, values)[:, None])
    return states[0], states[1]


def write_reference(path: Path, model: DiffusionModel, frames, provenance) -> Path:
    """Write (segment, time, positions, velocities) as a reference."""
    topology, _ = model.example()
    rows = list(frames)
    made = {"potential": "springs", **provenance}
    with ReferenceWriter(path, topology, MASSES, made, len(rows)) as writer:
        for segment, time, x, v in rows:
            writer.write(segment, ReferenceFrame(time, x, v, np.zeros_like(x), 0.0))
    return path


def exact_pairs(folder: Path) -> tuple[HarmonicModel, Path]:
    """Write exact.pt, and 600 pairs one lag apart that it draws from."""
    harmonic = HarmonicModel(
        FREQUENCY, friction=20.0, temperature=TEMPERATURE, lag_time=0.01
    )
    model = stub(folder / "exact.pt", harmonic)
    transition, factor = harmonic.exact_transition()
    generator = np.random.default_rng(1)
    x, v = equilibrium(generator, 600)
    noise = np.einsum("pq,qfad->pfad", factor, generator.normal(size=(2, *x.shape)))
    noise /= np.sqrt(MASSES)[:, None]
    noise -= np.einsum("a,pfad->pfd", MASSES / MASSES.sum(), noise)[:, :, None]
    after = np.einsum("pq,qfad->pfad", transition, np.stack([x, v])) + noise
    frames = [
        frame
        for k in range(600)
        for frame in ((k, 0.01, x[k], v[k]), (k, 0.02, after[0, k], after[1, k]))
    ]
    provenance = {"temperature_K": TEMPERATURE, "molecule": "exact"}
    return harmonic, write_reference(folder / "bursts.h5", model, frames, provenance)


def harmonic_xml(folder: Path, n_atoms: int) -> Path:
    """Atoms bound to the origin: the stub's potential, without the centre of mass."""
    system = openmm.System()
    spring = openmm.CustomExternalForce("0.5*k*(x^2+y^2+z^2)")
    spring.addPerParticleParameter("k")
    for index in range(n_atoms):
        system.addParticle(MASSES[index])
        spring.addParticle(index, [MASSES[index] * FREQUENCY**2])
    system.addForce(spring)
    path = folder / "spring.xml"
    path.write_text(openmm.XmlSerializer.serialize(system))
    return path

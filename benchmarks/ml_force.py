"""The ML force that learned dynamics are compared with, of one or more replicas."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit

from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.models.energy import EnergyModel, load_force
from openmm_diffmd.reference.trained_force import (
    Evaluate,
    force_function,
    force_system,
)

STEP_FS = 0.5


@dataclass(frozen=True)
class Molecule:
    """What both kinds of dynamics need to know of the molecule."""

    model: DiffusionModel
    force: EnergyModel
    species: torch.Tensor
    masses: NDArray[np.float64]

    def system(self, replicas: int, evaluate: Evaluate) -> openmm.System:
        """Make the ML force's System of some replicas."""
        return force_system(np.tile(self.masses, (replicas, 1)), evaluate)

    def evaluate(self, replicas: int, form: str) -> Evaluate:
        """Make the ML force's function of some replicas."""
        species = self.species.expand(replicas, -1).contiguous()
        return force_function(self.force, species, form)


def load_molecule(model: DiffusionModel, force_file: Path) -> tuple[Molecule, Any]:
    """Load the ML force and check that it knows the model's elements."""
    force, description = load_force(force_file)
    topology, _ = model.example()
    symbols = [atom.element.symbol for atom in topology.atoms()]
    unknown = set(symbols) - set(description["elements"])
    if unknown:
        raise ValueError(
            f"found elements {sorted(unknown)} that {force_file} does not know, "
            f"expected {description['elements']}"
        )
    species = torch.tensor([description["elements"].index(s) for s in symbols])
    masses = [a.element.mass.value_in_unit(unit.dalton) for a in topology.atoms()]
    return Molecule(model, force, species, np.array(masses)), description


def langevin(model: DiffusionModel, seed: int) -> openmm.LangevinMiddleIntegrator:
    """Make the ML force's integrator, at the model's temperature and friction."""
    integrator = openmm.LangevinMiddleIntegrator(
        model.temperature, model.friction, STEP_FS * unit.femtosecond
    )
    integrator.setRandomNumberSeed(seed)
    return integrator


def start(
    system: openmm.System,
    integrator: openmm.Integrator,
    positions: unit.Quantity,
    model: DiffusionModel,
) -> openmm.Context:
    """Make a Context with thermal velocities."""
    platform = openmm.Platform.getPlatformByName("Reference")
    context = openmm.Context(system, integrator, platform)
    context.setPositions(positions)
    context.setVelocitiesToTemperature(model.temperature, 1)
    return context

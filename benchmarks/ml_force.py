"""The ML force that learned dynamics are compared with, of one or more replicas."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import openmm
from openmm import unit

from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.reference.trained_force import (
    Evaluate,
    TrainedForce,
    force_function,
    force_system,
    read_trained_force,
)

STEP_FS = 0.5


@dataclass(frozen=True)
class Molecule:
    """What both kinds of dynamics need to know of the molecule."""

    model: DiffusionModel
    force: TrainedForce

    def system(self, replicas: int, evaluate: Evaluate) -> openmm.System:
        """Make the ML force's System of some replicas."""
        return force_system(np.tile(self.force.masses, (replicas, 1)), evaluate)

    def evaluate(self, replicas: int, form: str) -> Evaluate:
        """Make the ML force's function of some replicas."""
        species = self.force.species.expand(replicas, -1).contiguous()
        return force_function(self.force.model, species, form)


def load_ml_force(model: DiffusionModel, force_file: Path) -> Molecule:
    """Load the ML force and check that it knows the model's elements."""
    return Molecule(model, read_trained_force(force_file, model.example()[0]))


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

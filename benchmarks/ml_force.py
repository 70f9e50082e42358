"""An `EnergyModel` as a force of OpenMM, in the forms that can be fast."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import unit
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.models.energy import EnergyModel, load_force

STEP_FS = 0.5
FORMS = ("eager", "scripted", "compiled")

Evaluate = Callable[[Tensor], tuple[Tensor, Tensor]]


def force_function(model: EnergyModel, species: Tensor, form: str) -> Evaluate:
    """
    Make the function that a step calls, of positions alone.

    Parameters
    ----------
    model : EnergyModel
        The network, in evaluation mode; its weights are frozen.
    species : Tensor of int, shape (R, A)
        Elements of the molecules of a batch.
    form : str
        ``eager``: the module and autograd. ``scripted``: energy and gradient as one
        graph of operations, without autograd, scripted and frozen by TorchScript.
        ``compiled``: the same graph through torch.compile, which takes minutes.

    Returns
    -------
    callable
        From positions (R, A, 3), nm, to energies (R,), kJ/mol, and forces (R, A, 3),
        kJ/mol/nm.

    Raises
    ------
    ValueError
        If there is no such form.
    """
    model.requires_grad_(requires_grad=False)

    def eager(positions: Tensor) -> tuple[Tensor, Tensor]:
        return model.energy_and_forces(positions, species)

    if form == "eager":
        return eager
    if form not in FORMS:
        raise ValueError(f"found form {form!r}, expected one of {FORMS}")
    # Only the shape of the example matters, and that no two atoms coincide.
    example = torch.arange(species.numel() * 3.0).sqrt().view(*species.shape, 3)
    graph = make_fx(eager)(example)
    if form == "compiled":
        return torch.compile(graph)
    # TorchScript knows operators by their names, and picks the overload itself.
    graph.graph.eliminate_dead_code()
    for node in graph.graph.nodes:
        node.target = getattr(node.target, "overloadpacket", node.target)
    graph.recompile()
    with warnings.catch_warnings():
        # Of how fx generates the module.
        warnings.filterwarnings("ignore", ".*instance-level annotations", UserWarning)
        return torch.jit.freeze(torch.jit.script(graph.eval()))


def force_system(masses: NDArray[np.float64], evaluate: Evaluate) -> openmm.System:
    """
    Make the System of some molecules that do not see each other.

    Parameters
    ----------
    masses : ndarray, shape (R, A), Da
        Masses.
    evaluate : callable
        From `force_function`: all molecules in one batch.

    Returns
    -------
    openmm.System
        Masses and one PythonForce.
    """
    shape = (*masses.shape, 3)

    def compute(state: openmm.State) -> tuple[float, NDArray[np.float64]]:
        positions = state.getPositions(asNumpy=True).value_in_unit(unit.nanometer)
        batch = torch.from_numpy(positions.astype(np.float32).reshape(shape))
        with torch.no_grad():
            energies, forces = evaluate(batch)
        return energies.sum().item(), forces.reshape(-1, 3).double().numpy()

    system = openmm.System()
    for mass in masses.flatten():
        system.addParticle(mass)
    system.addForce(openmm.PythonForce(compute))
    return system


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

"""A trained energy as a force of OpenMM, in the forms that can be fast."""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import openmm
import torch
from numpy.typing import NDArray
from openmm import app, unit
from torch import Tensor
from torch.fx.experimental.proxy_tensor import make_fx

from openmm_diffmd.bond_graphs import bond_graph, is_same_molecule
from openmm_diffmd.models.energy import EnergyModel, load_force

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
        scripted: Evaluate = torch.jit.freeze(torch.jit.script(graph.eval()))
    return scripted


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
class TrainedForce:
    """
    A trained force, and a molecule in its terms.

    Attributes
    ----------
    model : EnergyModel
        The network.
    description : dict
        What the file says about itself.
    species : Tensor of int, shape (A,)
        Elements of the molecule, as the network numbers them.
    masses : ndarray, shape (A,), Da
        Their masses.
    """

    model: EnergyModel
    description: dict[str, Any]
    species: Tensor
    masses: NDArray[np.float64]


def read_trained_force(path: Path, topology: app.Topology) -> TrainedForce:
    """
    Read a trained force for a molecule.

    Parameters
    ----------
    path : path-like
        ``force.pt``, as ``openmm-diffmd force`` writes it.
    topology : openmm.app.Topology
        The molecule.

    Returns
    -------
    TrainedForce
        The force.

    Warns
    -----
    UserWarning
        If it was not trained on this molecule.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If it is something else, or was not trained on an element of the molecule.
    """
    model, description = load_force(path)
    elements = [atom.element for atom in topology.atoms()]
    known = description["elements"]
    unknown = sorted({element.symbol for element in elements} - set(known))
    if unknown:
        raise ValueError(
            f"found element {', '.join(unknown)}, expected one of {', '.join(known)}, "
            f"which {path} was trained on: train it on frames of this molecule"
        )
    bonds = [(bond[0].index, bond[1].index) for bond in topology.bonds()]
    molecule = bond_graph([element.symbol for element in elements], bonds)
    trained_on = [
        bond_graph(file["elements"], file["bonds"]) for file in description["data"]
    ]
    if trained_on and not any(is_same_molecule(molecule, one) for one in trained_on):
        warnings.warn(
            f"found a molecule that {path} was not trained on, expected one of its "
            "training: its forces on another are extrapolated; train it on frames of "
            "this molecule",
            stacklevel=2,
        )
    return TrainedForce(
        model,
        description,
        species=torch.tensor([known.index(element.symbol) for element in elements]),
        masses=np.array([e.mass.value_in_unit(unit.dalton) for e in elements]),
    )


def trained_force_system(path: Path, topology: app.Topology) -> openmm.System:
    """
    Make the System of one molecule with a trained force.

    Parameters
    ----------
    path : path-like
        As of `read_trained_force`, whose errors it raises.
    topology : openmm.app.Topology
        The molecule.

    Returns
    -------
    openmm.System
        Masses of the elements and one PythonForce.
    """
    force = read_trained_force(path, topology)
    evaluate = force_function(force.model, force.species[None], "scripted")
    return force_system(force.masses[None], evaluate)

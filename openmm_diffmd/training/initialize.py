"""Start a training from the weights of another, or of a model file."""

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openmm_diffmd.model_files import find_model, read_weights
from openmm_diffmd.models.energy import EnergyModel, load_force
from openmm_diffmd.training.config import EnergyModelConfig, ModelConfig
from openmm_diffmd.training.description import read_checkpoint, read_description
from openmm_diffmd.training.module import TransitionTraining
from openmm_diffmd.training.trainer import LAST_CHECKPOINT

PER_ELEMENT = (
    "elements.weight",
    "position_scale",
    "velocity_scale",
    "thermal_acceleration",
    "residual_cholesky",
    "covariance",
)
"""Ends of the names of tensors that have one row an element."""
FORCE_FILE = "force.pt"
"""What a training of a force leaves in its folder."""


def initialize(module: TransitionTraining, source: Path) -> list[dict[str, Any]]:
    """
    Start from the averaged weights and the scales of another training.

    Elements that it did not know begin between their neighbours by atomic number,
    and keep the scales they have; those that are not trained now are left out.

    Parameters
    ----------
    module : TransitionTraining
        What is to be trained; its scales are set.
    source : path-like
        Folder of the other training, a model file, or the name of a bundled model.

    Returns
    -------
    list of dict
        Configurations of the trainings before this one, the first one first, with the
        files of each as ``files``.

    Raises
    ------
    FileNotFoundError
        If there is no such folder, file or bundled model.
    ValueError
        If its network is another, it knows none of the elements, or the file holds no
        weights or is a checkpoint, whose folder is to be given.
    """
    if source.suffix == Path(LAST_CHECKPOINT).suffix and source.is_file():
        raise ValueError(
            f"found {source} to start from, expected the folder of that training: give "
            f"{source.parent}"
        )
    if (source / LAST_CHECKPOINT).is_file():
        description = read_description(source)
        weights = read_checkpoint(source / LAST_CHECKPOINT)["state_dict"]
        history, files = description.get("history", []), description["data"]
    else:
        try:
            description, weights = read_weights(find_model(source))
        except IsADirectoryError as error:
            raise FileNotFoundError(
                f"found no {source / LAST_CHECKPOINT} to start from, expected the "
                "folder of a training, a model file or the name of a bundled model"
            ) from error
        history = description["config"].pop("history", [])
        files = description["reference"].get("data", [])
        weights = {f"model.{name}": value for name, value in weights.items()}
    known = description["elements"]
    # Options that the other training did not know have their defaults.
    found = dataclasses.asdict(ModelConfig(**description["config"]["model"]))
    expected = dataclasses.asdict(module.config.model)
    _check_network(source, found, expected, known, module.elements)
    cholesky = weights["model.residual_cholesky"][: len(known)]
    weights.setdefault("covariance", cholesky @ cholesky.mT)
    state = module.state_dict()
    names = [name for name in state if name.endswith(PER_ELEMENT)]
    _rearrange(weights, state, names, known, module.elements)
    module.load_state_dict(weights)
    return [*history, {**description["config"], "files": files}]


def initialize_force(
    model: EnergyModel, options: dict[str, Any], elements: list[str], source: Path
) -> list[dict[str, Any]]:
    """
    Start a force from the averaged weights and the scales of another.

    Elements that it did not know begin between their neighbours by atomic number;
    energies of the elements stay those of `model`.

    Parameters
    ----------
    model : EnergyModel
        What is to be trained, its energies of elements set.
    options : dict
        Of the network.
    elements : list of str
        Symbols of its elements.
    source : path-like
        File ``force.pt`` of the other training, or its folder.

    Returns
    -------
    list of dict
        Descriptions of the trainings before this one, the first one first.

    Raises
    ------
    FileNotFoundError
        If there is no such file.
    ValueError
        If its network is another, it knows none of the elements, or it is no force.
    """
    source = source / FORCE_FILE if source.is_dir() else source
    before, description = load_force(source)
    known = description["elements"]
    found = dataclasses.asdict(EnergyModelConfig(**description["model"]))
    _check_network(source, found, options, known, elements)
    weights, state = before.state_dict(), model.state_dict()
    _rearrange(weights, state, ["elements.weight"], known, elements)
    weights["element_energy"] = state["element_energy"]
    model.load_state_dict(weights)
    return [*description.pop("history", []), description]


def _check_network(
    source: Path,
    found: dict[str, Any],
    expected: dict[str, Any],
    known: list[str],
    elements: list[str],
) -> None:
    other = sorted(name for name in expected if found[name] != expected[name])
    if other or not set(known) & set(elements):
        raise ValueError(
            f"found a training of another network in {source}: "
            f"{ {name: found[name] for name in other} }, elements {known}, "
            f"expected { {name: expected[name] for name in other} }, some of "
            f"the elements {elements}; give the same options, or start anew"
        )


def _rearrange(
    weights: dict[str, Tensor],
    state: dict[str, Tensor],
    names: list[str],
    known: list[str],
    elements: list[str],
) -> None:
    """Give the tensors `names` of `weights` the rows of `elements`, not of `known`."""
    shared = [symbol for symbol in known if symbol in elements]
    rows = torch.tensor([elements.index(symbol) for symbol in shared])
    kept = torch.tensor([known.index(symbol) for symbol in shared])
    for name in names:
        old, new = weights[name], state[name].clone()
        new[rows] = old[kept]
        # That of padding, where there is one.
        new[len(elements) :] = old[len(known) :]
        if name.endswith("elements.weight"):
            for index in set(range(len(elements))) - set(rows.tolist()):
                nearest = rows[(rows - index).abs().argsort(stable=True)[:2]]
                new[index] = new[nearest].mean(0)
        weights[name] = new

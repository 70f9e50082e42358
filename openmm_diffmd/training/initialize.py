"""Start a training from the weights of another, or of a model file."""

import dataclasses
from pathlib import Path
from typing import Any

import torch

from openmm_diffmd.model_files import find_model, read_weights
from openmm_diffmd.training.config import ModelConfig
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
        weights.
    """
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
    shared = [symbol for symbol in known if symbol in module.elements]
    if found != expected or not shared:
        other = {name for name in expected if found[name] != expected[name]}
        raise ValueError(
            f"found a training of another network in {source}: "
            f"{ {name: found[name] for name in sorted(other)} }, elements {known}, "
            f"expected { {name: expected[name] for name in sorted(other)} }, some of "
            f"the elements {module.elements}; give the same options, or start anew"
        )
    cholesky = weights["model.residual_cholesky"][: len(known)]
    weights.setdefault("covariance", cholesky @ cholesky.mT)
    rows = torch.tensor([module.elements.index(symbol) for symbol in shared])
    kept = torch.tensor([known.index(symbol) for symbol in shared])
    for name, value in module.state_dict().items():
        if name.endswith(PER_ELEMENT) and known != module.elements:
            padding = len(weights[name]) - len(known)
            weights[name] = _rearranged(weights[name], value, kept, rows, padding)
    embedding = weights["model.encoder.elements.weight"]
    for index in set(range(len(module.elements))) - set(rows.tolist()):
        nearest = rows[(rows - index).abs().argsort(stable=True)[:2]]
        embedding[index] = embedding[nearest].mean(0)
    module.load_state_dict(weights)
    return [*history, {**description["config"], "files": files}]


def _rearranged(
    old: torch.Tensor,
    new: torch.Tensor,
    kept: torch.Tensor,
    rows: torch.Tensor,
    padding: int,
) -> torch.Tensor:
    """Put rows `kept` of `old` into `rows` of `new`, and that of padding at its end."""
    result = new.clone()
    result[rows] = old[kept]
    if padding:
        result[-padding:] = old[-padding:]
    return result

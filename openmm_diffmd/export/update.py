"""Build the network of a model file anew, and write it again."""

import os
from dataclasses import replace
from pathlib import Path

from openmm_diffmd.export.provenance import provenance_of_now
from openmm_diffmd.export.torchscript import DiffusionModel, load_model, save_model
from openmm_diffmd.model_files import read_weights
from openmm_diffmd.models import TransitionModel
from openmm_diffmd.outputs import check_output_file, make_folder
from openmm_diffmd.training.config import ModelConfig
from openmm_diffmd.training.module import build_model


def update_model(
    name_or_path: str | os.PathLike[str],
    output: str | os.PathLike[str],
    operators: bool = True,
) -> Path:
    """
    Script a model's network again, as this version of the code does it.

    A file holds the program of the version that exported it. Weights, calibration and
    figures stay what they are; the program gains what has been made quicker since.

    Parameters
    ----------
    name_or_path : str or path-like
        Name of a bundled model, or the path of a file.
    output : path-like
        The file; replaced if it exists, may be the one that is read.
    operators : bool
        Call compiled operators for layers, where there are some; else plain torch,
        as forces that need a gradient have it: for comparisons.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileNotFoundError
        If there is no such model.
    ValueError
        If the file is damaged, or was exported without weights.
    OSError
        If the output cannot be written.
    """
    check_output_file(output)
    loaded = load_model(name_or_path)
    model = build_exported(loaded)
    if not operators:
        for part in model.modules():
            if hasattr(part, "has_operator"):
                part.has_operator = False  # type: ignore[assignment]
    make_folder(Path(output).parent)
    return save_model(model, replace(loaded.metadata, **provenance_of_now()), output)


def build_exported(loaded: DiffusionModel) -> TransitionModel:
    """
    Build the network of a model file anew, in plain PyTorch.

    Parameters
    ----------
    loaded : DiffusionModel
        The model.

    Returns
    -------
    TransitionModel
        The network with the weights of the file.

    Raises
    ------
    ValueError
        If the file is damaged, or was exported without weights or sizes.
    """
    metadata, (_, weights) = loaded.metadata, read_weights(loaded.path)
    network = ModelConfig(**metadata.config["model"])
    model = build_model(network, metadata.lag_time_fs, len(metadata.elements))
    model.load_state_dict(weights)
    return model.eval()

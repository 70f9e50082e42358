"""Where model files are and what they hold beside the exported network."""

import io
import json
import os
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from openmm_diffmd.bundled import PRETRAINED

METADATA_FILE = "metadata.json"
WEIGHTS_FILE = "weights.pt"
# What zipfile and torch raise for files that are damaged or something else;
# NotImplementedError is a RuntimeError.
DAMAGE = (EOFError, RuntimeError, ValueError, zipfile.BadZipFile, zlib.error)


def find_model(name_or_path: str | os.PathLike[str]) -> Path:
    """
    Find a bundled model or a model file.

    Parameters
    ----------
    name_or_path : str or path-like
        Name of a bundled model such as ``ethanol``, in any case, or the path of a file.

    Returns
    -------
    Path
        The file.

    Raises
    ------
    FileNotFoundError
        If there is neither.
    IsADirectoryError
        If it is a folder.
    TypeError
        If it is no name and no path.
    """
    if not isinstance(name_or_path, str | os.PathLike):
        raise TypeError(
            f"found a {type(name_or_path).__name__} as the model, expected a bundled "
            "name or the path of a model file (of one that is loaded, model.path)"
        )
    path = Path(name_or_path)
    bundled = PRETRAINED / f"{path.name.lower()}.pt"
    # A path with a folder is that file and no other.
    if path.name == str(name_or_path) and bundled.is_file():
        path = bundled
    if path.is_dir():
        raise IsADirectoryError(
            f"found the folder {path} as the model, expected a file or a bundled name: "
            "of a training openmm-diffmd export makes one"
        )
    if not path.is_file():
        known = sorted(entry.stem for entry in PRETRAINED.glob("*.pt"))
        raise FileNotFoundError(
            f"found no model {str(name_or_path)!r}, expected the path of a file or a "
            f"bundled name ({', '.join(known) or 'none in this installation'})"
        )
    return path


def read_extra(content: bytes, name: str) -> bytes | None:
    """
    Read one of the files that a model file holds beside the network.

    Parameters
    ----------
    content : bytes
        The model file.
    name : str
        `METADATA_FILE` or `WEIGHTS_FILE`.

    Returns
    -------
    bytes or None
        What it holds; None where it is absent.

    Raises
    ------
    zipfile.BadZipFile
        If the model file is no archive, or a checksum in it is wrong.
    """
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        # TorchScript loads a file with flipped bits; the archive's checksums tell.
        damaged = archive.testzip()
        if damaged:
            raise zipfile.BadZipFile(f"wrong checksum of {damaged}")
        for member in archive.namelist():
            if member.endswith(f"/extra/{name}"):
                return archive.read(member)
    return None


def pack_weights(weights: dict[str, Tensor]) -> bytes:
    """
    Turn weights into what a model file keeps of them.

    Parameters
    ----------
    weights : dict of str to Tensor
        State of the network.

    Returns
    -------
    bytes
        Read back by `read_weights`.
    """
    buffer = io.BytesIO()
    # Not the default, an archive: one inside another, cut short, would pass for it.
    torch.save(weights, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


def read_weights(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """
    Read the weights of a model file, to train them further.

    Parameters
    ----------
    path : path-like
        The model file.

    Returns
    -------
    metadata : dict
        What the file says about itself.
    weights : dict of str to Tensor
        State of the network.

    Raises
    ------
    ValueError
        If the file is damaged, or was exported without weights or the sizes of its
        network.
    """
    content = path.read_bytes()
    try:
        metadata, weights = (
            read_extra(content, name) for name in (METADATA_FILE, WEIGHTS_FILE)
        )
    except DAMAGE as error:
        raise ValueError(
            f"found {path}, which is no readable model file ({error}); copy or export "
            "the model again"
        ) from error
    if metadata is None or weights is None:
        raise ValueError(
            f"found {path} without {METADATA_FILE} and {WEIGHTS_FILE}, expected a file "
            "that openmm_diffmd exported; export the model again"
        )
    try:
        description = json.loads(metadata)
        sizes = description["config"]["model"]
    except (KeyError, TypeError, ValueError):
        sizes = None
    if not isinstance(sizes, dict):
        raise ValueError(
            f"found {path} without the sizes of its network, expected a file that "
            "export wrote"
        )
    loaded = torch.load(io.BytesIO(weights), map_location="cpu", weights_only=True)
    return description, loaded

"""Model files: TorchScript that carries its metadata, written and loaded."""

import hashlib
import io
import os
import re
import warnings
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from openmm_diffmd.export.metadata import ModelMetadata
from openmm_diffmd.model_files import (
    DAMAGE,
    METADATA_FILE,
    WEIGHTS_FILE,
    find_model,
    pack_weights,
    read_extra,
)
from openmm_diffmd.ops.library import is_registered, load_library
from openmm_diffmd.outputs import written_whole
from openmm_diffmd.rebuild import REBUILD

if TYPE_CHECKING:
    from openmm import app, unit

METHODS = ("encode", "denoise", "decode")


class DiffusionModel:
    """
    A model file, loaded and checked.

    Attributes
    ----------
    path : Path
        The file, absolute.
    sha256 : str
        SHA-256 of the file, hexadecimal.
    metadata : ModelMetadata
        What the file says about itself.
    module : torch.jit.ScriptModule
        Methods ``encode``, ``denoise`` and ``decode``; evaluation mode, on the CPU.
    """

    def __init__(
        self, path: Path, sha256: str, metadata: ModelMetadata, module: Any
    ) -> None:
        self.path = path
        self.sha256 = sha256
        self.metadata = metadata
        self.module = module

    def __repr__(self) -> str:
        m = self.metadata
        return (
            f"<DiffusionModel {m.name!r}: lag {m.lag_time_fs:g} fs, "
            f"{m.temperature_K:g} K, {m.friction_per_ps:g}/ps, elements "
            f"{' '.join(m.elements)}, {self.path}>"
        )

    # TorchScript's modules cannot be pickled; their file can be read again.
    def __reduce__(self) -> "tuple[Any, tuple[str, str]]":
        return _load_again, (str(self.path), self.sha256)

    @property
    def temperature(self) -> "unit.Quantity":
        """Temperature the model is meant for (Quantity, kelvin)."""
        from openmm import unit

        return self.metadata.temperature_K * unit.kelvin

    @property
    def lag_time(self) -> "unit.Quantity":
        """Time of one integrator step (Quantity, femtosecond)."""
        from openmm import unit

        return self.metadata.lag_time_fs * unit.femtosecond

    @property
    def friction(self) -> "unit.Quantity":
        """Friction the model is meant for (Quantity, 1/picosecond)."""
        from openmm import unit

        return self.metadata.friction_per_ps / unit.picosecond

    def example(self) -> "tuple[app.Topology, unit.Quantity]":
        """
        One molecule the model knows.

        Returns
        -------
        topology : openmm.app.Topology
            One chain of one residue.
        positions : Quantity, shape (n_atoms, 3)
            Positions, nm.

        Raises
        ------
        ValueError
            If the file holds no example.
        """
        import numpy as np
        from openmm import unit

        from openmm_diffmd.topologies import make_topology

        example = self.metadata.example
        if not example:
            raise ValueError(
                f"found no example in {self.path}, expected one; "
                "bring a topology and positions of your own"
            )
        topology = make_topology(example["elements"], example["bonds"]).to_openmm()
        positions = np.array(example["positions_nm"], dtype=np.float64)
        return topology, unit.Quantity(positions, unit.nanometer)


def load_model(name_or_path: str | os.PathLike[str]) -> DiffusionModel:
    """
    Load a bundled model or a model file.

    Parameters
    ----------
    name_or_path : str or path-like
        Name of a bundled model such as ``ethanol``, or the path of a file.

    Returns
    -------
    DiffusionModel
        The model, checked.

    Raises
    ------
    FileNotFoundError
        If there is neither such a bundled model nor such a file.
    TypeError
        If it is no name and no path.
    ValueError
        If the file is no model, its metadata do not fit, or the operators that it calls
        were not built.
    """
    path = find_model(name_or_path)
    content = path.read_bytes()
    metadata = _find_metadata(path, content)
    if metadata.operators and not load_library():
        raise ValueError(
            f"found {path}, which calls {', '.join(metadata.operators)}, but no "
            f"library of operators; build it: {REBUILD}, or export the model without it"
        )
    absent = [name for name in metadata.operators if not is_registered(name)]
    if absent:
        raise ValueError(
            f"found {path}, which calls {', '.join(absent)}, expected a library of "
            f"operators that has it: build it again: {REBUILD}"
        )
    try:
        with _without_deprecation():
            module = torch.jit.load(io.BytesIO(content), map_location="cpu")
    except DAMAGE as error:
        raise _unreadable(path, error) from error
    missing = [name for name in METHODS if not hasattr(module, name)]
    if missing:
        raise ValueError(
            f"found {path} without the methods {missing}, expected {METHODS}; "
            "export the model again"
        )
    module.eval()
    sha256 = hashlib.sha256(content).hexdigest()
    return DiffusionModel(path.resolve(), sha256, metadata, module)


def load_metadata(path: str | os.PathLike[str]) -> ModelMetadata:
    """
    Read what a model file says about itself, without its network.

    Parameters
    ----------
    path : path-like
        The file.

    Returns
    -------
    ModelMetadata
        Its metadata.

    Raises
    ------
    OSError
        If it cannot be read.
    ValueError
        If it is no model file, or its metadata do not fit.
    """
    return _find_metadata(Path(path), Path(path).read_bytes())


def _find_metadata(path: Path, content: bytes) -> ModelMetadata:
    try:
        found = read_extra(content, METADATA_FILE)
        text = found if found is None else found.decode()
    except DAMAGE as error:
        raise _unreadable(path, error) from error
    if text is None:
        raise ValueError(
            f"found {path} without {METADATA_FILE}, expected a file that "
            "openmm_diffmd exported; export the model again"
        )
    return ModelMetadata.from_json(text)


def _load_again(path: str, sha256: str) -> DiffusionModel:
    model = load_model(path)
    if model.sha256 != sha256:
        raise ValueError(
            f"found {path} of SHA-256 {model.sha256}, expected {sha256}, the file of "
            "the model that was pickled: put it back, or load the new one"
        )
    return model


@contextmanager
def _without_deprecation() -> Iterator[None]:
    """Keep from users what PyTorch says of TorchScript, which OpenMM's side needs."""
    with warnings.catch_warnings():
        warnings.filterwarnings(
            "ignore", r".*torch\.jit.*is deprecated", DeprecationWarning
        )
        yield


def _unreadable(path: Path, error: Exception) -> ValueError:
    reason = next(iter(str(error).splitlines()), type(error).__name__)
    return ValueError(
        f"found {path}, which is no readable TorchScript file ({reason}); "
        "copy or export the model again"
    )


def save_model(
    module: nn.Module, metadata: ModelMetadata, path: str | os.PathLike[str]
) -> Path:
    """
    Script and freeze a module, write it with its metadata, at once or not at all.

    Its weights are written beside it once more, for trainings that start from them:
    a frozen network has lost their names.

    Parameters
    ----------
    module : nn.Module
        Has the methods ``encode``, ``denoise`` and ``decode``; put in evaluation mode.
    metadata : ModelMetadata
        What the file is to say about itself; the operators it calls are filled in.
    path : path-like
        The file; replaced if it exists.

    Returns
    -------
    Path
        The file.
    """
    for name in METHODS:
        # nn.Module without a forward: each method is compiled by itself.
        torch.jit.export(getattr(type(module), name))
    # Frozen: a tenth faster on one molecule; rounding may differ from the eager module.
    with _without_deprecation():
        scripted = torch.jit.freeze(
            torch.jit.script(module.eval()), preserved_attrs=list(METHODS)
        )
    called: set[str] = set()
    for name in METHODS:
        called |= set(re.findall(r"diffmd::\w+", str(getattr(scripted, name).graph)))
    metadata = replace(metadata, operators=sorted(called))
    extra = {
        METADATA_FILE: metadata.to_json(),
        WEIGHTS_FILE: pack_weights(module.state_dict()),
    }
    path = Path(path)
    with written_whole(path) as part:
        scripted.save(str(part), _extra_files=extra)
        _leave_out_sources(part, path.stem)
    return path


def _leave_out_sources(path: Path, name: str) -> None:
    """Take out of a model file where its network's lines stood on this machine."""
    with zipfile.ZipFile(path) as archive:
        contents = {entry: archive.read(entry) for entry in archive.infolist()}
    with zipfile.ZipFile(path, "w") as archive:
        for entry, content in contents.items():
            if entry.filename.endswith(".debug_pkl"):
                continue
            # TorchScript named the folder of all as the part of a file that this was.
            _, _, member = entry.filename.partition("/")
            entry.filename = f"{name}/{member}"
            archive.writestr(entry, content)


def script(module: nn.Module) -> Any:
    """
    Script a module, for programs that run without Python.

    Parameters
    ----------
    module : nn.Module
        Has a ``forward``; put in evaluation mode. May hold a loaded model's module.

    Returns
    -------
    torch.jit.ScriptModule
        The same in TorchScript.
    """
    with _without_deprecation():
        return torch.jit.script(module.eval())

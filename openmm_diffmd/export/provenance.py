"""What a model file says about the code that wrote it."""

import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

VERSIONED = ("openmm_diffmd", "torch", "e3nn", "numpy")


def provenance_of_now() -> dict[str, Any]:
    """
    Collect what a model file says about the code that writes it.

    Returns
    -------
    dict
        ``versions`` and ``git_hash`` of `ModelMetadata`.
    """
    return {"versions": _versions(), "git_hash": _git_hash()}


def _versions() -> dict[str, str]:
    found = {}
    for name in VERSIONED:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def _git_hash() -> str:
    """Name the commit of this file, where it is one that git tracks."""
    file = Path(__file__)
    try:
        # Installed, it may lie in a repository of the user, whose HEAD says nothing.
        _git(file.parent, "ls-files", "--error-unmatch", file.name)
        return _git(file.parent, "rev-parse", "HEAD").strip()
    except (OSError, subprocess.CalledProcessError):
        return "unknown"


def _git(folder: Path, *words: str) -> str:
    result = subprocess.run(
        ["git", *words], cwd=folder, capture_output=True, text=True, check=True
    )
    return result.stdout

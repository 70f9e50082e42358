"""What may import what: data flows one way through the package."""

import ast
import re
from pathlib import Path

import pytest

import openmm_diffmd

BASE = "base"
PACKAGE = Path(openmm_diffmd.__file__).parent
LAYERS = {
    BASE: set(),
    "reference": {"data", "models"},
    "data": set(),
    "diffusion": set(),
    "ops": set(),
    "models": {"diffusion", "ops"},
    "training": {"data", "diffusion", "models", "ops"},
    "export": {"data", "diffusion", "models", "ops", "training"},
    "integrator": {"diffusion", "export", "reference"},
    "analysis": {"data"},
    "balancing": {"analysis", "data", "export", "models"},
    "revisiting": {"analysis", "reference"},
}
"""Folders, and which others each may import, of modules beside them those of `BASE`."""
ENDS = ("__init__.py", "__main__.py", "cli.py", "findings.py", "testing.py")
"""Modules beside the folders that use these; the others are used by them."""
FILES = sorted(PACKAGE.rglob("*.py"))


def layer_of(path):
    folder, *rest = path.relative_to(PACKAGE).parts
    if not rest:
        return None if folder in ENDS else BASE
    return folder if folder in LAYERS else None


def imports_of(path, top_level_only=False):
    tree = ast.parse(path.read_text())
    nodes = tree.body if top_level_only else ast.walk(tree)
    for node in nodes:
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_follow_the_layers(path):
    layer = layer_of(path)
    if layer is None:
        return
    used = {
        parts[1]
        for name in imports_of(path)
        if (parts := name.split("."))[0] == "openmm_diffmd" and len(parts) > 1
    }
    assert used & LAYERS.keys() <= LAYERS[layer] | {layer}


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_only_reference_and_integrator_need_openmm(path):
    if layer_of(path) in ("reference", "integrator") or path.name == "testing.py":
        return
    roots = {name.split(".")[0] for name in imports_of(path, top_level_only=True)}
    assert not roots & {"openmm", "openmmml"}


def test_one_module_for_each_network_names_torchscript():
    named = [path for path in FILES if re.search(r"torch\.jit", path.read_text())]
    assert [path.name for path in named] == ["torchscript.py", "trained_force.py"]


def test_folders_are_known():
    folders = {layer_of(path) for path in FILES} - {None}
    packages = {item.parent.name for item in PACKAGE.glob("*/__init__.py")}
    assert folders - {BASE} == packages == LAYERS.keys() - {BASE}

"""Public docstrings are numpydoc and say what the signature says."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
from numpydoc.validate import validate

import openmm_diffmd

PACKAGE = Path(openmm_diffmd.__file__).parent
CHECKED = {
    "GL08": "no docstring",
    "PR01": "a parameter is not documented",
    "PR02": "a parameter is documented that does not exist",
    "PR03": "parameters in another order",
    "PR04": "a parameter without its type",
    "PR07": "a parameter without a description",
    "RT01": "the result is not documented",
    "YD01": "what it yields is not documented",
}


def public_names():
    """Functions, and methods of classes, without a leading underscore."""
    for path in sorted(PACKAGE.rglob("*.py")):
        module = ".".join(("openmm_diffmd", *path.relative_to(PACKAGE).parts))[:-3]
        for node in ast.parse(path.read_text()).body:
            if not isinstance(node, ast.FunctionDef | ast.ClassDef):
                continue
            if node.name.startswith("_"):
                continue
            if isinstance(node, ast.FunctionDef):
                yield module, node.name
                continue
            for member in node.body:
                if not isinstance(member, ast.FunctionDef):
                    continue
                if not member.name.startswith("_"):
                    yield module, f"{node.name}.{member.name}"


@pytest.mark.parametrize(("module", "name"), list(public_names()))
def test_docstring_fits_the_signature(module, name):
    import_module(module)
    found = validate(f"{module}.{name}")
    errors = [text for code, text in found["errors"] if code in CHECKED]
    assert not errors

"""Print what CMake must know about the torch and openmm of this Python."""

import sysconfig
from pathlib import Path

import openmm
import torch
from openmm import _openmm

print(  # noqa: T201 (this is how CMake hears it)
    torch.__version__,
    Path(torch.__file__).parent,
    int(torch.compiled_with_cxx11_abi()),
    openmm.version.short_version,
    openmm.version.openmm_library_path,
    sysconfig.get_path("platlib"),
    sysconfig.get_path("scripts"),
    _openmm.__file__,
    torch.version.cuda or "none",
    sep=";",
)

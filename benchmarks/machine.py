"""What a measurement was made on."""

import os
import platform
import re
from pathlib import Path
from typing import Any

import openmm
import torch


def describe_machine() -> dict[str, Any]:
    """
    Describe processor, system, versions, and how busy the machine is.

    Returns
    -------
    dict
        Plain values; ``load`` is the mean number of running processes of a minute.
    """
    cpuinfo = Path("/proc/cpuinfo")
    text = cpuinfo.read_text() if cpuinfo.is_file() else ""
    names = re.findall(r"model name\s*: (.*)", text)
    return {
        "processor": names[0] if names else platform.processor(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "torch_threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "openmm": openmm.__version__,
    }

"""What a measurement was made on."""

import os
import platform
import re
import sys
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
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "torch_threads": torch.get_num_threads(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "openmm": openmm.__version__,
    }


def describe_run(script: str) -> dict[str, Any]:
    """
    Describe a run of a script: how it was called, and on what.

    Parameters
    ----------
    script : str
        Its ``__file__``, or its name without the suffix.

    Returns
    -------
    dict
        ``command``, with the words of the process's command line, and ``machine``.
    """
    words = ["python", f"benchmarks/{Path(script).stem}.py", *sys.argv[1:]]
    return {"command": " ".join(words), "machine": describe_machine()}

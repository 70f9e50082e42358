import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data():
    """Folder of real MD17, rMD17 and ISO17 frames; they are not in the project."""
    places = [
        Path(os.environ.get("DIFFMD_TEST_DATA", "")),
        Path(__file__).parents[2] / "shared" / "data",
    ]
    for place in places:
        if (place / "md17").is_dir():
            return place
    pytest.skip("no real MD17 frames here: set DIFFMD_TEST_DATA to a folder of them")


@pytest.fixture(params=["baseline", "avx2", "avx512"])
def kernels(request):
    """Each set of instructions that the kernels of the CPU are compiled for."""
    needed = {
        "baseline": (),
        "avx2": ("avx2", "fma"),
        "avx512": ("avx512f", "avx512vl", "avx512dq", "avx512bw"),
    }[request.param]
    cpu = Path("/proc/cpuinfo")
    flags = cpu.read_text().split() if cpu.is_file() else []
    lacking = [name for name in needed if name not in flags]
    if lacking:
        # Another set would be taken instead, without a word.
        pytest.skip(f"no {', '.join(lacking)}: this processor has no such instructions")
    return request.param

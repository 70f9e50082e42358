"""The CPU kernels are compiled for several instruction sets; each must be right."""

import os
import platform
import subprocess
import sys

import pytest

CHILD = """
import torch
from openmm_diffmd.ops import operators, reference

eps = {torch.float32: 2.0**-23, torch.float64: 2.0**-52}
for dtype in eps:
    for l_max, n_max in ((0, 1), (1, 3), (2, 4), (3, 8), (4, 7), (5, 9), (6, 16)):
        for edges in (1, 7, 64):
            torch.manual_seed(1)
            results = []
            vectors = 0.3 * torch.randn(edges, 3, dtype=dtype)
            start = vectors, torch.randn(5, 3, dtype=dtype)
            index = torch.randint(5, (2, edges))
            for home, kind in ((operators, dtype), (reference, torch.float64)):
                r, v = (x.to(kind).requires_grad_(True) for x in start)
                f = home.spherical_fourier_bessel(r, 1.0, l_max, n_max)
                a, u = home.fourier_bessel_invariants(
                    r, v, index, 1.0, 4.0, l_max, n_max
                )
                y = home.solid_harmonics(r, l_max)
                total = f.square().sum() + a.square().sum() + u.sum()
                total = total + y.square().sum() + 0.0 * r.sum()
                results.append((f, a, u, y, *torch.autograd.grad(total, (r, v))))
            for one, other in zip(*results, strict=True):
                # As far as z = 60 times eps, and sums of hundreds of terms.
                bound = 1000 * eps[dtype] * other.abs().max()
                assert (one.double() - other).abs().max() <= bound, (l_max, n_max)
print("right")
"""


def run(kernels):
    return subprocess.run(
        [sys.executable, "-c", CHILD],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "DIFFMD_CPU_KERNELS": kernels},
    )


def test_kernels_of_each_instruction_set_are_right(compiled, kernels):
    ran = run(kernels)
    assert ran.stdout == "right\n", ran.stderr


@pytest.mark.skipif(
    platform.machine() not in ("x86_64", "AMD64"), reason="one set of kernels only"
)
def test_unknown_instruction_set_is_refused(compiled):
    ran = run("sse9")
    assert "expected baseline, avx2 or avx512, got sse9" in ran.stderr

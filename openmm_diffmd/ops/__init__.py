"""
Spherical Fourier-Bessel features: compiled operators, or their twins in plain torch.

The first import loads the library and so decides which; a warning says where it is
missing. The functions' signatures are the same, and TorchScript takes both.
"""

from openmm_diffmd.ops.library import is_loaded, load_library

if load_library():
    from openmm_diffmd.ops.operators import (
        fourier_bessel_invariants,
        solid_harmonics,
        spherical_fourier_bessel,
    )
else:
    from openmm_diffmd.ops.reference import (
        fourier_bessel_invariants,
        solid_harmonics,
        spherical_fourier_bessel,
    )

__all__ = [
    "fourier_bessel_invariants",
    "is_loaded",
    "load_library",
    "solid_harmonics",
    "spherical_fourier_bessel",
]

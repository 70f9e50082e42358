"""Spherical Fourier-Bessel features: the one seam where a compiled kernel enters."""

from openmm_diffmd.ops.fourier_bessel import FourierBessel
from openmm_diffmd.ops.harmonics import spherical_harmonics

__all__ = ["FourierBessel", "spherical_harmonics"]

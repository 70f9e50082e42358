"""Both forms of the operators, on every device at hand, and exact numbers for them."""

from types import SimpleNamespace

import mpmath
import pytest
import torch

from openmm_diffmd.ops import is_loaded, operators, reference

DEVICES = ["cpu"]
if torch.cuda.is_available():
    DEVICES.append(pytest.param("cuda", marks=pytest.mark.gpu))
DIGITS = 40


@pytest.fixture(params=["compiled", "twin"])
def ops(request):
    """The three operators: compiled, and their twins in plain torch."""
    if request.param == "compiled" and not is_loaded():
        pytest.skip("the library was not built")
    home = operators if request.param == "compiled" else reference
    return SimpleNamespace(
        name=request.param,
        features=home.spherical_fourier_bessel,
        invariants=home.fourier_bessel_invariants,
        harmonics=home.solid_harmonics,
    )


@pytest.fixture
def compiled():
    """The compiled operators alone, for what plain torch has from torch."""
    if not is_loaded():
        pytest.skip("the library was not built")
    return torch.ops.diffmd


@pytest.fixture(params=DEVICES)
def device(request):
    return torch.device(request.param)


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


class ExactRadial:
    """u N_ln j_l(z_ln s) and its derivative by s, to 40 digits."""

    def __init__(self, l_max, n_max):
        with mpmath.workdps(DIGITS):
            # Zeros of J_(l+1/2) are those of j_l.
            self.roots = [
                [mpmath.besseljzero(degree + 0.5, n) for n in range(1, n_max + 1)]
                for degree in range(l_max + 1)
            ]
            self.norms = [
                [mpmath.sqrt(2) / abs(bessel(degree + 1, root)) for root in roots]
                for degree, roots in enumerate(self.roots)
            ]

    def value(self, degree, index, s):
        """Value, and the local amplitude of N j_l, at an mpmath number s."""
        with mpmath.workdps(DIGITS):
            root, norm = self.roots[degree][index], self.norms[degree][index]
            value = norm * envelope(s) * bessel(degree, root * s)
        return value, float(norm * amplitude(degree, root * s))

    def derivative(self, degree, index, s):
        """Derivative, and the local amplitude of N d(u j_l)/ds."""
        with mpmath.workdps(DIGITS):
            root, norm = self.roots[degree][index], self.norms[degree][index]
            x = root * s
            slope = -bessel(degree + 1, x) + (
                degree * bessel(degree, x) / x if x else 0
            )
            if degree == 1 and not x:
                slope = mpmath.mpf(1) / 3
            first = envelope_slope(s) * bessel(degree, x)
            value = norm * (first + envelope(s) * root * slope)
            below = amplitude(degree - 1, x) if degree else amplitude(1, x)
            size = root * below + abs(envelope_slope(s)) * amplitude(degree, x)
        return value, float(norm * size)


def bessel(degree, x):
    """j_l(x), by mpmath."""
    if x == 0:
        return mpmath.mpf(degree == 0)
    return mpmath.sqrt(mpmath.pi / (2 * x)) * mpmath.besselj(
        degree + mpmath.mpf("0.5"), x
    )


def amplitude(degree, x):
    """A bound on j_l(x) that follows it up to its oscillation."""
    start = x**degree / mpmath.fac2(2 * degree + 1)
    return min(start, 1 / x) if x else start


def envelope(s):
    return 1 - 28 * s**6 + 48 * s**7 - 21 * s**8 if s < 1 else mpmath.mpf(0)


def envelope_slope(s):
    return -168 * s**5 * (1 - s) ** 2 if s < 1 else mpmath.mpf(0)


@pytest.fixture(scope="session")
def exact():
    return ExactRadial(6, 16)

import math

import mpmath
import numpy as np
import pytest
import torch
from scipy.special import spherical_jn

from openmm_diffmd.ops import FourierBessel
from openmm_diffmd.ops.bessel import bessel_roots
from openmm_diffmd.ops.fourier_bessel import chebyshev_coefficients

CUTOFF = 0.5
SIZES = [(1, 8), (3, 8), (3, 16)]


@pytest.fixture
def double():
    """Make modules of this test in float64."""
    torch.set_default_dtype(torch.float64)
    yield
    torch.set_default_dtype(torch.float32)


def quotients(l_max, n_max, s):
    """N_ln j_l(z_ln s)/s^l from the coefficients, without the envelope."""
    basis = FourierBessel(1.0, l_max, n_max)
    coefficients = chebyshev_coefficients(l_max, n_max, basis.degree)
    return np.polynomial.chebyshev.chebval(2 * s**2 - 1, coefficients)


def norms(l_max, roots):
    orders = np.arange(l_max + 1)[:, None]
    return math.sqrt(2) / np.abs(spherical_jn(orders + 1, roots))


@pytest.mark.parametrize(("l_max", "n_max"), SIZES)
def test_roots_are_the_first_positive_ones_in_order(l_max, n_max):
    roots = bessel_roots(l_max, n_max)
    assert roots.shape == (l_max + 1, n_max)
    for degree in range(l_max + 1):
        for index in (0, n_max - 1):
            # Zeros of J_(l+1/2) are those of j_l.
            exact = float(mpmath.besseljzero(degree + 0.5, index + 1))
            assert roots[degree, index] == pytest.approx(exact, rel=1e-14)
    assert (np.diff(roots, axis=1) > 0).all()


@pytest.mark.parametrize(("l_max", "n_max"), SIZES)
def test_radial_functions_equal_scipy_at_moderate_and_large_argument(l_max, n_max):
    roots = bessel_roots(l_max, n_max)
    s = np.linspace(0.3, 1.0, 57)
    found = quotients(l_max, n_max, s)
    for degree in range(l_max + 1):
        argument = roots[degree][:, None] * s
        expected = norms(l_max, roots)[degree][:, None] * spherical_jn(degree, argument)
        error = np.abs(found[degree] * s**degree - expected).max(1)
        # The polynomials end where float32 does not see it; only the highest root's
        # error is above rounding.
        size = np.abs(expected).max(1)
        assert (error[:-2] < 1e-10 * size[:-2]).all()
        assert (error < 5e-8 * size).all()


@pytest.mark.parametrize("s", [0.0, 1e-8, 1e-3, 0.05])
def test_radial_functions_equal_mpmath_at_small_argument(s):
    l_max, n_max = 3, 8
    roots = bessel_roots(l_max, n_max)
    found = quotients(l_max, n_max, np.array([s]))[..., 0]
    for degree in range(l_max + 1):
        for index in range(n_max):
            with mpmath.workdps(40):
                root, at = mpmath.mpf(roots[degree, index]), mpmath.mpf(s)
                norm = mpmath.sqrt(2) / abs(_mp_spherical_jn(degree + 1, root))
                if s == 0.0:
                    quotient = root**degree / mpmath.fac2(2 * degree + 1)
                else:
                    quotient = _mp_spherical_jn(degree, root * at) / at**degree
                expected = float(norm * quotient)
            # The root's own rounding, amplified by z^l, included.
            assert found[degree, index] == pytest.approx(expected, rel=1e-11)


def _mp_spherical_jn(degree, argument):
    return mpmath.sqrt(mpmath.pi / (2 * argument)) * mpmath.besselj(
        degree + mpmath.mpf(1) / 2, argument
    )


@pytest.mark.parametrize(("l_max", "n_max"), SIZES)
def test_radial_functions_are_orthonormal_on_the_unit_ball(l_max, n_max):
    nodes, weights = np.polynomial.legendre.leggauss(80)
    s, weights = 0.5 * (nodes + 1), 0.5 * weights
    values = quotients(l_max, n_max, s)
    for degree in range(l_max + 1):
        radial = values[degree] * s**degree
        overlap = np.einsum("ns,ms,s->nm", radial, radial, weights * s**2)
        np.testing.assert_allclose(overlap, np.eye(n_max), rtol=0, atol=1e-10)


@pytest.mark.usefixtures("double")
def test_forward_is_envelope_times_radial_function():
    l_max, n_max = 3, 8
    basis = FourierBessel(CUTOFF, l_max, n_max)
    s = torch.linspace(0.01, 0.99, 50)
    radial, envelope = basis((CUTOFF * s) ** 2)
    # DimeNet's envelope, p = 6, as printed.
    expected = 1 - 28 * s**6 + 48 * s**7 - 21 * s**8
    torch.testing.assert_close(envelope, expected, rtol=0, atol=1e-10)
    quotient = torch.from_numpy(quotients(l_max, n_max, s.numpy())).permute(2, 0, 1)
    torch.testing.assert_close(
        radial, quotient * expected[:, None, None], rtol=1e-9, atol=1e-9
    )


@pytest.mark.usefixtures("double")
def test_envelope_starts_at_one_and_ends_at_zero_with_zero_slope():
    basis = FourierBessel(CUTOFF, 1, 4)
    # A length, so that slopes are those in r.
    lengths = torch.tensor([0.0, CUTOFF * (1 - 1e-7)], requires_grad=True)
    radial, envelope = basis(lengths**2)
    slopes = torch.autograd.grad(envelope.sum(), lengths)[0]
    assert envelope[0].item() == pytest.approx(1.0, abs=1e-12)
    # u ~ (1 - s)^3 p (p+1) (p+2)/6: both are far below rounding of u = 1.
    assert abs(envelope[1].item()) < 1e-10
    assert slopes.abs().max().item() < 1e-9
    assert radial[1].abs().max().item() < 1e-9


@pytest.mark.parametrize("factor", [1.0, 1.0 + 1e-6, 2.0, 100.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_features_are_exactly_zero_from_the_cutoff_on(factor, dtype):
    basis = FourierBessel(CUTOFF, 3, 8).to(dtype)
    squared = torch.tensor([(CUTOFF * factor) ** 2], dtype=dtype, requires_grad=True)
    # Rounding of the square may fall just below the cutoff's.
    squared.data.clamp_(min=CUTOFF * CUTOFF)
    radial, envelope = basis(squared)
    assert envelope.item() == 0.0
    assert (radial == 0.0).all()
    slope = torch.autograd.grad(radial.sum() + envelope.sum(), squared)[0]
    assert slope.item() == 0.0


@pytest.mark.usefixtures("double")
def test_gradcheck_holds_inside_near_zero_and_beyond():
    basis = FourierBessel(CUTOFF, 3, 4)
    squared = torch.tensor([1e-6, 0.04, 0.2, 0.4], requires_grad=True)
    assert torch.autograd.gradcheck(basis, squared, eps=1e-7, atol=1e-5, rtol=1e-5)


@pytest.mark.usefixtures("double")
def test_features_of_a_vector_are_smooth_through_zero():
    basis = FourierBessel(CUTOFF, 3, 4)
    vector = torch.zeros(1, 3, requires_grad=True)
    assert torch.autograd.gradcheck(
        lambda v: basis((v * v).sum(-1))[0], vector, eps=1e-6, atol=1e-6
    )
    radial, _ = basis((vector * vector).sum(-1))
    gradient = torch.autograd.grad(radial.sum(), vector)[0]
    assert (gradient == 0.0).all()


def test_float32_is_near_float64():
    double = FourierBessel(CUTOFF, 3, 8).double()
    double.coefficients = torch.from_numpy(
        chebyshev_coefficients(3, 8, double.degree)
    ).flatten(1)
    squared = (CUTOFF * torch.linspace(0, 1, 101, dtype=torch.float64)) ** 2
    expected, _ = double(squared)
    found, _ = FourierBessel(CUTOFF, 3, 8)(squared.float())
    error = (found.double() - expected).abs().amax((0, 2))
    # The values of degree l reach z^l N/(2l+1)!!; rounding goes with the largest.
    assert (error < 2e-5 * expected.abs().amax((0, 2))).all()

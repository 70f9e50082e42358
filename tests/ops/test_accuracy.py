"""Every radial function of every degree against 40 digits, at all arguments."""

import mpmath
import numpy as np
import pytest
import torch
from e3nn import o3
from scipy.special import spherical_jn

from openmm_diffmd.ops import reference

L_MAX, N_MAX = 6, 16
CUTOFF = 0.5
RATIOS = [0.0, 1e-8, 1e-3, 0.01, 0.05, 0.1, 0.2, 0.35, 0.5, 0.7, 0.9, 0.99, 1 - 1e-6, 1]
POLES = [degree * (degree + 1) for degree in range(L_MAX + 1)]
"""The component m = 0 of each degree: the only one of a vector along y."""
ROUNDINGS = 16
"""
Errors allowed, in eps of the local amplitude, by the arithmetic itself. To this comes
x/2 in float64: the rounding of s = length/cutoff, as a shift of j_l(x) with x = z s.
"""


def along_pole(ratios, dtype, device):
    """Vectors along y, and their exact s as mpmath numbers."""
    vectors = torch.zeros(len(ratios), 3, dtype=dtype, device=device)
    vectors[:, 1] = torch.tensor(ratios, dtype=torch.float64).to(vectors) * CUTOFF
    return vectors, [mpmath.mpf(float(v)) / CUTOFF for v in vectors[:, 1]]


def allowed(amplitude, root, s, dtype):
    shift = 0.5 * float(root * s) if dtype == torch.float64 else 0.0
    # s^l of a tiny s may be smaller than the smallest number.
    return (ROUNDINGS + shift) * eps_of(dtype) * amplitude + torch.finfo(dtype).tiny


@pytest.mark.parametrize("degree", range(L_MAX + 1))
def test_values_equal_mpmath_to_few_eps_of_the_amplitude(
    ops, exact, degree, dtype, device
):
    vectors, lengths = along_pole(RATIOS, dtype, device)
    found = ops.features(vectors, CUTOFF, L_MAX, N_MAX)[:, POLES[degree]].cpu()
    pole = mpmath.sqrt(2 * degree + 1)
    for row, s in zip(found.tolist(), lengths, strict=True):
        for index, value in enumerate(row):
            expected, amplitude = exact.value(degree, index, s)
            bound = allowed(amplitude, exact.roots[degree][index], s, dtype)
            assert abs(value - pole * expected) <= pole * bound, (index, float(s))


@pytest.mark.parametrize("degree", range(L_MAX + 1))
def test_derivatives_equal_mpmath_to_few_eps_of_the_amplitude(
    ops, exact, degree, dtype, device
):
    # One edge for each radial function and length: its gradient along y.
    vectors, lengths = along_pole(RATIOS * N_MAX, dtype, device)
    vectors.requires_grad_(True)
    index = torch.arange(N_MAX, device=device).repeat_interleave(len(RATIOS))
    features = ops.features(vectors, CUTOFF, L_MAX, N_MAX)[:, POLES[degree]]
    features.gather(1, index[:, None]).sum().backward()
    pole = mpmath.sqrt(2 * degree + 1)
    rows = zip(vectors.grad.tolist(), index.tolist(), lengths, strict=True)
    for (across, value, behind), n, s in rows:
        expected, amplitude = exact.derivative(degree, n, s)
        bound = allowed(amplitude, exact.roots[degree][n], s, dtype)
        assert abs(value * CUTOFF - pole * expected) <= pole * bound, (n, float(s))
        assert across == behind == 0.0


@pytest.mark.parametrize("degree", range(L_MAX + 1))
def test_float32_keeps_a_millionth_of_the_range_at_short_distance(
    ops, exact, degree, device
):
    # Upward recurrence and closed forms are wrong by up to the range itself here.
    vectors, (s,) = along_pole([0.05], torch.float32, device)
    found = ops.features(vectors, CUTOFF, L_MAX, N_MAX)[0, POLES[degree]].tolist()
    pole = mpmath.sqrt(2 * degree + 1)
    grid = np.linspace(0.0, 1.0, 4001)
    envelope = 1 - 28 * grid**6 + 48 * grid**7 - 21 * grid**8
    for index, value in enumerate(found):
        expected, _ = exact.value(degree, index, s)
        root, norm = exact.roots[degree][index], exact.norms[degree][index]
        wave = envelope * spherical_jn(degree, float(root) * grid)
        size = float(pole * norm) * np.abs(wave).max()
        assert abs(value - float(pole * expected)) <= 1e-6 * size


def test_features_in_all_directions_are_radial_parts_times_e3nns_harmonics(
    ops, exact, dtype, device
):
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(20, 3, generator=generator, dtype=dtype)
    vectors = (0.2 * vectors / vectors.norm(dim=1, keepdim=True)).to(dtype)
    found = ops.features(vectors.to(device), CUTOFF, L_MAX, N_MAX).cpu().double()
    y = o3.spherical_harmonics(
        list(range(L_MAX + 1)), vectors.double(), True, normalization="component"
    )
    for row, vector, harmonics in zip(found, vectors.tolist(), y, strict=True):
        s = mpmath.sqrt(sum(mpmath.mpf(c) ** 2 for c in vector)) / CUTOFF
        for degree in range(L_MAX + 1):
            block = slice(degree**2, (degree + 1) ** 2)
            for index in range(N_MAX):
                radial, amplitude = exact.value(degree, index, s)
                bound = allowed(amplitude, exact.roots[degree][index], s, dtype)
                expected = float(radial) * harmonics[block]
                error = (row[block, index] - expected).abs().max()
                # Harmonics add l roundings of their own, of size sqrt(2 l + 1).
                assert error <= (1 + degree) * (2 * degree + 1) ** 0.5 * bound


def test_features_vanish_exactly_from_the_cutoff_on(ops, dtype, device):
    vectors, _ = along_pole([1.0, 1.0 + 1e-6, 1.5, 1e6], dtype, device)
    vectors.requires_grad_(True)
    features = ops.features(vectors, CUTOFF, L_MAX, N_MAX)
    assert (features == 0).all()
    (grad,) = torch.autograd.grad(features.sum(), vectors)
    assert (grad == 0).all()


@pytest.mark.parametrize(("l_max", "n_max"), [(0, 1), (1, 3), (3, 8), (6, 6), (6, 16)])
def test_fewer_functions_are_the_first_of_more(ops, l_max, n_max, dtype, device):
    vectors = torch.rand(31, 3, dtype=dtype, device=device) * 0.3
    found = ops.features(vectors, CUTOFF, l_max, n_max)
    assert found.shape == (31, (l_max + 1) ** 2, n_max)
    assert found.dtype == dtype
    every = ops.features(vectors, CUTOFF, L_MAX, N_MAX)[:, : found.shape[1], :n_max]
    size = every.abs().amax()
    torch.testing.assert_close(found, every, rtol=0, atol=64 * eps_of(dtype) * size)


@pytest.mark.parametrize(("l_max", "n_max"), [(0, 1), (2, 5), (3, 8), (6, 6), (6, 16)])
def test_invariants_are_contractions_of_the_features(ops, l_max, n_max, dtype, device):
    generator = torch.Generator().manual_seed(5)
    vectors = 0.25 * torch.randn(64, 3, generator=generator, dtype=dtype)
    velocities = 1.5 * torch.randn(9, 3, generator=generator, dtype=dtype)
    velocities[0] = 0.0
    edges = torch.randint(9, (2, 64), generator=generator)
    found, envelope = ops.invariants(
        *(t.to(device) for t in (vectors, velocities, edges)), CUTOFF, 4.0, l_max, n_max
    )
    assert found.dtype == envelope.dtype == dtype
    # The twin in float64 of the same numbers: tested above against mpmath.
    phi = reference.spherical_fourier_bessel(vectors.double(), CUTOFF, l_max, n_max)
    psi = reference.spherical_fourier_bessel(velocities.double(), 4.0, l_max, n_max)
    expected, sizes = [phi[:, 0]], [phi[:, 0].abs().amax(0)]
    for degree in range(l_max + 1):
        block = slice(degree**2, (degree + 1) ** 2)
        size = phi[:, block].norm(dim=1).amax(0) * psi[:, block].norm(dim=1).amax(0)
        for nodes in edges:
            expected.append((phi[:, block] * psi[nodes, block]).sum(1))
            sizes.append(size)
    expected, sizes = torch.cat(expected, 1), torch.cat(sizes)
    assert found.shape == expected.shape == (64, n_max * (1 + 2 * (l_max + 1)))
    # 64 eps of the largest product of each kind: roundings of two features, and of two
    # arguments x/2 < 30 in float64.
    error = (found.cpu().double() - expected).abs()
    assert (error <= 64 * eps_of(dtype) * sizes).all()
    s = vectors.double().norm(dim=1) / CUTOFF
    u = torch.where(s < 1, 1 - 28 * s**6 + 48 * s**7 - 21 * s**8, torch.zeros_like(s))
    assert (envelope.cpu().double() - u).abs().max() <= 64 * eps_of(dtype)


def test_numbers_that_are_none_stay_visible(ops, dtype, device):
    vectors = torch.full((2, 3), torch.nan, dtype=dtype, device=device)
    assert ops.features(vectors, CUTOFF, 2, 4).isnan().all()
    assert ops.harmonics(vectors, 2)[:, 1:].isnan().all()
    edges = torch.zeros(2, 2, dtype=torch.int64, device=device)
    invariants, envelope = ops.invariants(vectors, vectors, edges, CUTOFF, 1.0, 2, 4)
    assert invariants.isnan().all()
    assert envelope.isnan().all()


def eps_of(dtype):
    return torch.finfo(dtype).eps

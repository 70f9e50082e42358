import pytest
import torch
from e3nn import o3

L_MAX = 6


def random_rotation(seed, improper):
    generator = torch.Generator().manual_seed(seed)
    matrix = torch.randn(3, 3, generator=generator, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(matrix)
    return rotation * torch.linalg.det(rotation).sign() * (-1 if improper else 1)


def wigner_matrix(rotation):
    """Wigner matrices of all degrees in float64; e3nn's own come from float32."""
    irreps = o3.Irreps("+".join(f"{k}{'eo'[k % 2]}" for k in range(L_MAX + 1)))
    points = random_vectors(torch.float64, "cpu", 400)
    before, after = (
        o3.spherical_harmonics(irreps, x, True, normalization="component")
        for x in (points, points @ rotation.T)
    )
    fitted = torch.linalg.lstsq(before, after).solution.T
    assert (fitted - irreps.D_from_matrix(rotation)).abs().max() < 1e-4
    return fitted


def random_vectors(dtype, device, count=100):
    generator = torch.Generator().manual_seed(11)
    return torch.randn(count, 3, generator=generator, dtype=dtype).to(device)


@pytest.mark.parametrize("l_max", range(L_MAX + 1))
def test_harmonics_are_e3nns(ops, l_max, dtype, device):
    vectors = random_vectors(dtype, device)
    found = ops.harmonics(vectors, l_max).cpu().double()
    expected = o3.spherical_harmonics(
        list(range(l_max + 1)),
        vectors.cpu().double(),
        normalize=False,
        normalization="component",
    )
    assert found.shape == expected.shape
    lengths = vectors.cpu().double().norm(dim=1)[:, None]
    for degree in range(l_max + 1):
        block = slice(degree**2, (degree + 1) ** 2)
        error = (found - expected)[:, block].abs()
        # The largest component is at most sqrt(2 l + 1) r^l, of l factors.
        size = (2 * degree + 1) ** 0.5 * lengths**degree
        assert (error <= 4 * (1 + degree) * torch.finfo(dtype).eps * size).all()


def test_squares_over_m_sum_to_the_addition_theorem(ops, dtype, device):
    vectors = random_vectors(dtype, device)
    squares = ops.harmonics(vectors, L_MAX).double() ** 2
    r2 = (vectors.double() ** 2).sum(1)
    for degree in range(L_MAX + 1):
        found = squares[:, degree**2 : (degree + 1) ** 2].sum(1)
        rtol = 8 * (1 + degree) * torch.finfo(dtype).eps
        expected = (2 * degree + 1) * r2**degree
        torch.testing.assert_close(found, expected, rtol=rtol, atol=0)


@pytest.mark.parametrize("improper", [False, True])
def test_features_turn_by_wigner_matrices(ops, improper, device):
    rotation = random_rotation(2, improper)
    wigner = wigner_matrix(rotation).to(device)
    vectors = 0.3 * random_vectors(torch.float64, device)
    turned = vectors @ rotation.T.to(device)
    features = ops.features(vectors, 1.0, L_MAX, 4)
    expected = torch.einsum("pq,eqn->epn", wigner, features)
    found = ops.features(turned, 1.0, L_MAX, 4)
    size = features.abs().amax()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-13 * float(size))
    harmonics = ops.harmonics(vectors, L_MAX)
    torch.testing.assert_close(
        ops.harmonics(turned, L_MAX), harmonics @ wigner.T, rtol=0, atol=1e-13
    )


@pytest.mark.parametrize("improper", [False, True])
def test_invariants_do_not_turn(ops, improper, device):
    rotation = random_rotation(4, improper).to(device)
    vectors = 0.3 * random_vectors(torch.float64, device)
    velocities = random_vectors(torch.float64, device, 10)
    edges = torch.arange(200, device=device).view(2, 100) % 10
    found = ops.invariants(
        vectors @ rotation.T, velocities @ rotation.T, edges, 1.0, 4.0, L_MAX, 4
    )
    expected = ops.invariants(vectors, velocities, edges, 1.0, 4.0, L_MAX, 4)
    for turned, original in zip(found, expected, strict=True):
        torch.testing.assert_close(turned, original, rtol=0, atol=1e-12)

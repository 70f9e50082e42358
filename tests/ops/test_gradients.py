"""First and second derivatives, and what is refused beyond them."""

import pytest
import torch
from torch.autograd import forward_ad, gradcheck, gradgradcheck

from openmm_diffmd.ops import reference

REFUSED = "derivative for diffmd::.* is not implemented"


def random(*shape, seed=0, dtype=torch.float64, device="cpu", scale=0.3):
    generator = torch.Generator().manual_seed(seed)
    out = scale * torch.randn(*shape, generator=generator, dtype=dtype)
    return out.to(device).requires_grad_(True)


def some_vectors(device="cpu", dtype=torch.float64):
    """Short and long ones, a zero, and one beyond a cutoff of 1."""
    vectors = random(6, 3, dtype=dtype, device=device)
    with torch.no_grad():
        vectors[0] = 0.0
        vectors[1] = torch.tensor([0.9, -0.6, 0.5])
        vectors[2] *= 1e-3
    return vectors


def some_edges(device="cpu"):
    return torch.tensor([[0, 1, 2, 3, 0, 1], [1, 0, 3, 2, 2, 0]], device=device)


@pytest.mark.parametrize(("l_max", "n_max"), [(0, 1), (3, 2), (6, 1)])
def test_features_pass_gradcheck_twice(ops, l_max, n_max, device):
    vectors = some_vectors(device)
    assert gradcheck(lambda r: ops.features(r, 1.0, l_max, n_max), vectors)
    assert gradgradcheck(
        lambda r: ops.features(r, 1.0, l_max, n_max), vectors, fast_mode=True
    )


@pytest.mark.parametrize("l_max", [1, 6])
def test_harmonics_pass_gradcheck_twice(ops, l_max, device):
    vectors = some_vectors(device)
    assert gradcheck(lambda r: ops.harmonics(r, l_max), vectors)
    assert gradgradcheck(lambda r: ops.harmonics(r, l_max), vectors, fast_mode=True)


@pytest.mark.parametrize(("l_max", "n_max"), [(0, 1), (3, 2), (6, 1)])
def test_invariants_pass_gradcheck(ops, l_max, n_max, device):
    velocities = random(4, 3, seed=1, device=device)
    with torch.no_grad():
        velocities[3] = 0.0
    edges = some_edges(device)
    inputs = (some_vectors(device), velocities)
    assert gradcheck(
        lambda r, v: ops.invariants(r, v, edges, 1.0, 1.5, l_max, n_max), inputs
    )


def test_gradients_of_the_compiled_equal_the_twins(compiled, dtype, device):
    # 200 eps: gradients are up to z = 25 times features, which err by 8 eps.
    eps = torch.finfo(dtype).eps
    edges = torch.randint(20, (2, 100), generator=torch.Generator().manual_seed(1))
    found, expected = [], []
    for home, kind, out in (
        (compiled, dtype, found),
        (reference, torch.float64, expected),
    ):
        vectors = random(100, 3, dtype=dtype, device=device).detach().to(kind)
        velocities = random(20, 3, seed=1, dtype=dtype, device=device)
        velocities = velocities.detach().to(kind)
        vectors.requires_grad_(True), velocities.requires_grad_(True)
        features = home.spherical_fourier_bessel(vectors, 1.0, 3, 8)
        invariants, envelope = home.fourier_bessel_invariants(
            vectors, velocities, edges.to(device), 1.0, 1.5, 3, 8
        )
        weight = random(100, 16, 8, seed=2, device=device).detach()
        (first,) = torch.autograd.grad((features * weight).sum(), vectors)
        weight = random(100, 72, seed=3, device=device).detach()
        out += [
            first,
            *torch.autograd.grad(
                (invariants * weight).sum() + envelope.sum(), (vectors, velocities)
            ),
        ]
    for one, other in zip(found, expected, strict=True):
        error = (one.double() - other).abs().max()
        assert error <= 200 * eps * other.abs().max()


def test_second_derivatives_of_the_compiled_equal_the_twins(compiled, dtype, device):
    products = []
    for home, kind in ((compiled, dtype), (reference, torch.float64)):
        vectors = random(50, 3, dtype=dtype, device=device).detach().to(kind)
        vectors.requires_grad_(True)
        features = home.spherical_fourier_bessel(vectors, 1.0, 3, 8)
        weight = random(50, 16, 8, seed=2, device=device)
        weight = weight.to(dtype).to(kind).detach().requires_grad_(True)
        (force,) = torch.autograd.grad(
            (features * weight).sum(), vectors, create_graph=True
        )
        products.append(torch.autograd.grad((force**2).sum(), (vectors, weight)))
    for one, other in zip(*products, strict=True):
        error = (one.double() - other).abs().max()
        assert error <= 400 * torch.finfo(dtype).eps * other.abs().max()


def test_gradients_are_exact_at_zero_length(ops, dtype, device):
    vectors = torch.zeros(1, 3, dtype=dtype, device=device, requires_grad=True)
    features = ops.features(vectors, 0.5, 6, 16)
    jacobian = torch.stack(
        [
            torch.autograd.grad(features[0, k, 3], vectors, retain_graph=True)[0][0]
            for k in range(49)
        ]
    )
    # Only degree 1 is linear: sqrt(3) N z/3 on the diagonal.
    assert (features[0, 1:] == 0).all()
    assert (jacobian[0] == 0).all()
    assert (jacobian[4:] == 0).all()
    slope = jacobian[1:4] / jacobian[1, 0]
    assert torch.equal(slope, torch.eye(3, dtype=dtype, device=device))


def test_unused_outputs_give_no_gradient(ops, dtype, device):
    vectors = some_vectors(device, dtype)
    velocities = random(4, 3, seed=1, device=device).detach().to(dtype)
    velocities.requires_grad_(True)
    args = (vectors, velocities, some_edges(device), 1.0, 1.5, 2, 3)
    invariants, envelope = ops.invariants(*args)
    first = torch.autograd.grad(
        envelope.sum(), (vectors, velocities), allow_unused=True, retain_graph=True
    )
    assert first[1] is None or (first[1] == 0).all()
    second = torch.autograd.grad(invariants[:, 5].sum(), (vectors, velocities))
    assert all(grad.isfinite().all() for grad in (first[0], *second))
    # One input alone.
    _, envelope = ops.invariants(vectors.detach(), *args[1:])
    assert envelope.shape == (6,)
    invariants, _ = ops.invariants(vectors, velocities.detach(), *args[2:])
    (only,) = torch.autograd.grad(invariants[:, 5].sum(), vectors)
    assert torch.equal(only, second[0])


def differentiate(value, vectors, times):
    for order in range(times):
        (value,) = torch.autograd.grad(
            value.sum(), vectors, create_graph=order < times - 1
        )
    return value


@pytest.mark.parametrize("times", [1, 2, 3])
def test_third_order_is_refused(compiled, device, times):
    vectors = some_vectors(device)
    for value in (
        compiled.spherical_fourier_bessel(vectors, 1.0, 2, 3),
        compiled.solid_harmonics(vectors, 3),
    ):
        if times == 3:
            with pytest.raises(RuntimeError, match=REFUSED):
                differentiate(value, vectors, times)
        else:
            assert differentiate(value, vectors, times).isfinite().all()


@pytest.mark.parametrize("times", [1, 2])
def test_second_order_of_invariants_is_refused(compiled, device, times):
    vectors, velocities = some_vectors(device), random(4, 3, seed=1, device=device)
    invariants, _ = compiled.fourier_bessel_invariants(
        vectors, velocities, some_edges(device), 1.0, 1.5, 2, 3
    )
    if times == 2:
        with pytest.raises(RuntimeError, match=REFUSED):
            differentiate(invariants, vectors, times)
    else:
        assert differentiate(invariants, vectors, times).isfinite().all()


def test_forward_mode_is_refused(compiled, device):
    vectors = some_vectors(device).detach()
    with forward_ad.dual_level():
        dual = forward_ad.make_dual(vectors, torch.ones_like(vectors))
        with pytest.raises(RuntimeError, match="jvp is not implemented"):
            compiled.spherical_fourier_bessel(dual, 1.0, 2, 3)

import numpy as np
import pytest
import torch

from openmm_diffmd.models.projection import (
    angular_momentum,
    inertia_tensor,
    invert_inertia,
    match_angular_momentum,
    remove_momentum,
)

ROUNDING = 1e-13


def test_momentum_is_removed_by_one_shift_of_all_atoms(make_state):
    state = make_state(3, 5)
    generator = torch.Generator().manual_seed(1)
    change = torch.randn(3, 5, 3, generator=generator)
    found = remove_momentum(change, state.masses)
    assert (state.masses[..., None] * found).sum(1).abs().max() < 100 * ROUNDING
    shift = change - found
    torch.testing.assert_close(shift, shift[:, :1].expand_as(shift))
    torch.testing.assert_close(remove_momentum(found, state.masses), found)


def test_inertia_tensor_is_the_sum_over_atoms(make_state):
    state = make_state(1, 4)
    found = inertia_tensor(state.positions, state.masses)[0]
    expected = np.zeros((3, 3))
    for x, m in zip(state.positions[0].numpy(), state.masses[0].numpy(), strict=True):
        expected += m * (x @ x * np.eye(3) - np.outer(x, x))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-15)


def test_angular_momentum_is_reached_with_least_kinetic_energy(make_state):
    state = make_state(1, 5)
    target = torch.tensor([[1.0, -2.0, 0.5]])
    turned = match_angular_momentum(
        state.positions, state.velocities, target, state.masses
    )
    reached = angular_momentum(state.positions, turned, state.masses)
    torch.testing.assert_close(reached, target, rtol=1e-12, atol=1e-12)
    # The linear problem itself: L(v + dv) = target with the least sum m |dv|^2.
    masses, x = state.masses[0].numpy(), state.positions[0].numpy()
    root = np.sqrt(masses)
    rows = np.zeros((3, 5, 3))
    for axis in range(3):
        unit = np.eye(3)[axis]
        # (x x dv)_axis = (unit x x) . dv
        rows[axis] = root[:, None] * np.cross(unit, x)
    before = angular_momentum(state.positions, state.velocities, state.masses)
    least = np.linalg.pinv(rows.reshape(3, 15)) @ (target - before)[0].numpy()
    expected = state.velocities[0].numpy() + least.reshape(5, 3) / root[:, None]
    np.testing.assert_allclose(turned[0].numpy(), expected, rtol=1e-9, atol=1e-11)


def test_turning_keeps_the_momentum(make_state):
    state = make_state(2, 4)
    turned = match_angular_momentum(
        state.positions, state.velocities, torch.ones(2, 3), state.masses
    )
    assert (state.masses[..., None] * turned).sum(1).abs().max() < 100 * ROUNDING


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("axis", [[1.0, 0.0, 0.0], [0.6, -0.48, 0.64]])
def test_linear_molecule_turns_about_two_axes_only(axis, dtype):
    axis = torch.tensor(axis, dtype=dtype)
    masses = torch.tensor([[16.0, 12.0, 16.0]], dtype=dtype)
    places = torch.tensor([-0.116, 0.0, 0.116], dtype=dtype)
    positions = places[None, :, None] * axis
    generator = torch.Generator().manual_seed(2)
    velocities = remove_momentum(
        torch.randn(1, 3, 3, generator=generator, dtype=dtype), masses
    )
    target = torch.randn(1, 3, generator=generator, dtype=dtype)
    turned = match_angular_momentum(positions, velocities, target, masses)
    assert turned.isfinite().all()
    reached = angular_momentum(positions, turned, masses)[0]
    # About its own axis a line of points has no angular momentum to give.
    expected = target[0] - (target[0] @ axis) * axis
    tolerance = 1e-5 if dtype == torch.float32 else 1e-11
    torch.testing.assert_close(reached, expected, rtol=0, atol=tolerance)
    assert turned.abs().max() < 100


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_inverse_of_the_inertia_is_the_pseudo_inverse(dtype):
    generator = torch.Generator().manual_seed(4)
    shapes = torch.randn(6, 5, 3, generator=generator, dtype=torch.float64)
    # Round, flat, nearly a line (the ratio of moments is 1e-4), a line, an atom.
    shapes[1, :, 2] = 0.0
    shapes[2, :, 1:] *= 1e-2
    shapes[3, :, 1:] = 0.0
    shapes[4] = shapes[4, :, :1] * torch.tensor([0.6, -0.48, 0.64])
    shapes[5] = 0.0
    masses = torch.rand(6, 5, generator=generator, dtype=torch.float64) + 1.0
    inertia = inertia_tensor(0.1 * shapes.to(dtype), masses.to(dtype))
    expected = torch.linalg.pinv(inertia.double(), rtol=1e-5, hermitian=True)
    found = invert_inertia(inertia)
    assert found.dtype == dtype
    largest = expected.abs().amax((1, 2), keepdim=True).clamp(min=1e-30)
    eps = torch.finfo(dtype).eps
    assert ((found - expected) / largest).abs().max() < 10 * eps


def test_single_atom_is_left_alone():
    velocities = torch.tensor([[[0.1, 0.2, 0.3]]])
    turned = match_angular_momentum(
        torch.zeros(1, 1, 3), velocities, torch.zeros(1, 3), torch.tensor([[12.0]])
    )
    torch.testing.assert_close(turned, velocities)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_lag_keeps_momentum_centre_and_angular_momentum(
    dtype, make_model, make_state, residual_of, one_lag
):
    state = make_state(3, 6)
    residual, sigma = residual_of(state)
    state = type(state)(
        *(value.to(dtype) if value.is_floating_point() else value for value in state)
    )
    model = make_model(2).to(dtype)
    _, change = one_lag(model, state, residual.to(dtype), sigma.to(dtype), True)
    masses, eps = state.masses[..., None], torch.finfo(dtype).eps
    x, v = state.positions + change[:, :, 0], state.velocities + change[:, :, 1]
    for moved in (change[:, :, 0], change[:, :, 1]):
        size = (masses * moved.abs()).sum(1).max()
        assert (masses * moved).sum(1).abs().max() < 10 * eps * size
    before = angular_momentum(state.positions, state.velocities, state.masses)
    after = angular_momentum(x, v, state.masses)
    size = (masses * x.abs().amax() * v.abs()).sum(1).max()
    assert (after - before).abs().max() < 30 * eps * size


def test_without_the_option_angular_momentum_changes(
    make_model, make_state, residual_of, one_lag
):
    """The check above can fail."""
    state = make_state(3, 6)
    _, change = one_lag(make_model(2), state, *residual_of(state), False)
    x, v = state.positions + change[:, :, 0], state.velocities + change[:, :, 1]
    before = angular_momentum(state.positions, state.velocities, state.masses)
    after = angular_momentum(x, v, state.masses)
    assert (after - before).abs().max() > 1e-4 * before.abs().max()


def test_linear_molecule_gives_no_nan(make_model, make_state, residual_of, one_lag):
    state = make_state(1, 3)
    residual, sigma = residual_of(state)
    line = torch.tensor([[[-0.116, 0.0, 0.0], [0.0, 0.0, 0.0], [0.116, 0.0, 0.0]]])
    for velocities in (state.velocities, torch.zeros_like(state.velocities)):
        straight = state._replace(positions=line, velocities=velocities)
        for value in one_lag(make_model(2), straight, residual, sigma, True):
            assert value.isfinite().all()

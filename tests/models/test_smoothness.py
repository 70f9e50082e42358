import pytest
import torch


def lag_numbers(model, state, residual, sigma, one_lag):
    """One number a molecule that mixes everything a lag gives."""
    denoised, change = one_lag(model, state, residual, sigma)
    generator = torch.Generator().manual_seed(5)
    weights = torch.randn(2, *change.shape[1:], generator=generator)
    # Orders of magnitude alike: displacements are about a thousandth of kicks.
    weights[1, :, 0] *= 1e3
    return (weights[0] * denoised + weights[1] * change).sum((1, 2, 3))


def repeated(state, count):
    return type(state)(*(value.expand(count, *value.shape[1:]) for value in state))


def along(model, state, residual, sigma, one_lag, name, atoms, steps):
    """Values and slopes where `atoms` are moved by each of `steps`."""
    steps = steps.clone().requires_grad_()
    count = len(steps)
    path = repeated(state, count)
    moved = getattr(path, name).clone()
    for atom, direction in atoms:
        moved[:, atom] = moved[:, atom] + steps[:, None] * direction
    values = lag_numbers(
        model,
        path._replace(**{name: moved}),
        residual.expand(count, *residual.shape[1:]),
        sigma.expand(count),
        one_lag,
    )
    return values.detach(), torch.autograd.grad(values.sum(), steps)[0]


@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_an_atom_crosses_the_cutoff_smoothly(
    l_max, make_model, make_state, residual_of, one_lag
):
    model = make_model(l_max, cutoff=0.5)
    state = make_state(1, 3)
    residual, sigma = residual_of(state)
    places = torch.tensor([[[0.0, 0.0, 0.0], [0.11, 0.02, 0.0], [0.4, 0.05, 0.0]]])
    state = state._replace(positions=places)
    # Atom 2 leaves atom 0 near a step of 0.1 and atom 1 near 0.21.
    direction = torch.tensor([1.0, 0.0, 0.0])
    jumps = []
    for count in (400, 800):
        steps = torch.linspace(0.0, 0.3, count)
        values, slopes = along(
            model, state, residual, sigma, one_lag, "positions", [(2, direction)], steps
        )
        jumps.append([values.diff().abs().max(), slopes.diff().abs().max()])
    assert values.std() > 1e-3 * values.abs().mean()
    for coarse, fine in zip(*jumps, strict=True):
        # Continuous: steps half as long jump half as far. A break would give 1.
        assert 0.4 < (fine / coarse).item() < 0.6


def test_an_atom_beyond_the_cutoff_is_not_seen(
    make_model, make_state, residual_of, one_lag
):
    model = make_model(2, cutoff=0.5)
    state = make_state(1, 3)
    residual, sigma = residual_of(state)
    near = torch.tensor([[[0.0, 0.0, 0.0], [0.11, 0.02, 0.0], [0.3, 0.0, 0.0]]])
    far, farther = near.clone(), near.clone()
    far[0, 2, 0], farther[0, 2, 0] = 0.8, 5.0
    ends = []
    for places in (near, far, farther):
        # Denoised residuals: projection of the change knows all atoms.
        denoised, _ = one_lag(model, state._replace(positions=places), residual, sigma)
        ends.append(denoised[0, :2])
    assert torch.equal(ends[1], ends[2])
    assert (ends[0] - ends[1]).abs().max() > 1e-6


@pytest.mark.parametrize("l_max", [1, 2, 3])
@pytest.mark.parametrize("others_rest", [False, True])
def test_lag_is_smooth_where_a_velocity_vanishes(
    l_max, others_rest, make_model, make_state, residual_of, one_lag
):
    # The learned spread is detached from the encoder: its slopes are left out.
    model = make_model(l_max, constant_spread=True)
    state = make_state(1, 4)
    residual, sigma = residual_of(state)
    velocities = state.velocities * (0.0 if others_rest else 1.0)
    velocities[0, 1] = 0.0
    state = state._replace(
        velocities=velocities, acceleration=torch.zeros_like(velocities)
    )
    direction = torch.tensor([0.3, -0.5, 0.8])
    small = 1e-7
    steps = torch.tensor([-2 * small, -small, 0.0, small, 2 * small])
    values, slopes = along(
        model, state, residual, sigma, one_lag, "velocities", [(1, direction)], steps
    )
    assert slopes.isfinite().all()
    left = (values[2] - values[1]) / small
    right = (values[3] - values[2]) / small
    # One-sided differences differ by small * f''; |v| instead of v^2 would show as
    # a difference of order one.
    size = slopes.abs().max()
    assert size > 0
    assert (left - right).abs() < 1e-3 * size
    torch.testing.assert_close(0.5 * (left + right), slopes[2], rtol=1e-5, atol=0)
    assert slopes.diff().abs().max() < 1e-3 * size


def test_scale_is_smooth_where_the_acceleration_vanishes(
    make_model, make_state, residual_of, one_lag
):
    model = make_model(1)
    state = make_state(1, 3)
    residual, sigma = residual_of(state)
    state = state._replace(acceleration=torch.zeros_like(state.acceleration))
    steps = torch.tensor([-1e-3, 0.0, 1e-3])
    direction = torch.tensor([1.0, 2.0, 0.0])
    values, slopes = along(
        model, state, residual, sigma, one_lag, "acceleration", [(0, direction)], steps
    )
    assert slopes[1] == 0.0
    # Even in a: the two sides mirror each other.
    torch.testing.assert_close(values[0], values[2], rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("l_max", "conserve"), [(1, False), (1, True), (2, False), (3, False)]
)
def test_gradcheck_of_a_lag(
    l_max, conserve, make_model, make_state, residual_of, one_lag
):
    model = make_model(
        l_max,
        n_max=2,
        channels=3,
        n_heads=1,
        edge_channels=3,
        n_layers=1,
        head_channels=2,
        constant_spread=True,
    )
    state = make_state(1, 3)
    residual, sigma = residual_of(state)
    inputs = [
        value.clone().requires_grad_()
        for value in (state.positions, state.velocities, state.acceleration, residual)
    ]
    # Bring the arguments to one order of magnitude, for one finite step.
    units = (0.1, 1.0, 100.0, 1.0)

    def lag(*scaled):
        x, v, a, r = (u * s for u, s in zip(units, scaled, strict=True))
        moved = state._replace(positions=x, velocities=v, acceleration=a)
        denoised, change = one_lag(model, moved, r, sigma, conserve)
        return denoised, change

    scaled = [
        (value.detach() / unit).requires_grad_()
        for value, unit in zip(inputs, units, strict=True)
    ]
    assert torch.autograd.gradcheck(lag, scaled, eps=1e-6, atol=1e-6, rtol=1e-5)


def test_gradients_reach_every_parameter_that_can_matter(
    make_model, make_state, residual_of, one_lag
):
    model = make_model(2)
    state = make_state(3, 5)
    residual, sigma = residual_of(state)
    lag_numbers(model, state, residual, sigma, one_lag).sum().backward()
    silent = {
        name
        for name, parameter in model.named_parameters()
        if parameter.grad is None or not parameter.grad.abs().sum() > 0
    }
    # Scalars are not multiplied with each other, and before the first message there
    # is nothing of degree 2. Part of saved models, so not to be removed in passing.
    updates = ["encoder.update.0", "encoder.update.1", "denoiser.update.0"]
    assert silent == {
        "encoder.attention.0.values.maps.2.weight",
        *(f"{update}.left.maps.0.weight" for update in updates),
        *(f"{update}.right.maps.0.weight" for update in updates),
    }

import pytest
import torch
from e3nn import o3

from openmm_diffmd.models.transition import NOISE_CONDITIONINGS, PRIORS

RELATIVE = 1e-9
"""Of the largest number: what float64 leaves after two layers and rsqrt's."""


def assert_near(found, expected):
    # Displacements and kicks differ by orders of magnitude: each to its own size.
    for axis in range(2):
        scale = expected[:, :, axis].abs().max()
        assert scale > 0
        error = (found[:, :, axis] - expected[:, :, axis]).abs().max()
        assert error < RELATIVE * scale


def orthogonal(improper):
    with torch.random.fork_rng():
        torch.manual_seed(11)
        matrix = o3.rand_matrix()
    return -matrix if improper else matrix


def check_orthogonal(model, state, residual, sigma, one_lag, improper, conserve):
    matrix = orthogonal(improper)
    assert torch.det(matrix).item() == pytest.approx(-1.0 if improper else 1.0)
    expected = one_lag(model, state, residual, sigma, conserve)
    found = one_lag(
        model, state.transformed(matrix), residual @ matrix.T, sigma, conserve
    )
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other @ matrix.T)


@pytest.mark.parametrize("improper", [False, True], ids=["rotation", "reflection"])
@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_lag_turns_with_the_molecule(
    l_max, improper, make_model, make_state, residual_of, one_lag
):
    state = make_state(3, 5)
    residual, sigma = residual_of(state)
    for conserve in (False, True):
        model = make_model(l_max)
        check_orthogonal(model, state, residual, sigma, one_lag, improper, conserve)


@pytest.mark.parametrize("noise_conditioning", NOISE_CONDITIONINGS)
@pytest.mark.parametrize("prior", PRIORS)
def test_lag_of_each_prior_turns_with_the_molecule(
    prior, noise_conditioning, make_model, make_state, residual_of, one_lag
):
    state = make_state(3, 5)
    model = make_model(1, prior=prior, noise_conditioning=noise_conditioning)
    residual, sigma = residual_of(state)
    check_orthogonal(model, state, residual, sigma, one_lag, True, False)


def test_lag_without_velocity_features_turns_with_the_molecule(
    make_model, make_state, residual_of, one_lag
):
    state = make_state(3, 5)
    model = make_model(2, velocity_features=False)
    residual, sigma = residual_of(state)
    check_orthogonal(model, state, residual, sigma, one_lag, True, False)


def test_a_mirror_image_is_not_mistaken_for_the_molecule(
    make_model, make_state, residual_of, one_lag
):
    """The check above can fail: without turning the answer, it does."""
    state = make_state(2, 5)
    residual, sigma = residual_of(state)
    matrix = orthogonal(improper=True)
    _, expected = one_lag(make_model(2), state, residual, sigma)
    _, found = one_lag(
        make_model(2), state.transformed(matrix), residual @ matrix.T, sigma
    )
    assert (found - expected).abs().max() > 1e-2 * expected.abs().max()


@pytest.mark.parametrize("prior", ["learned", "ballistic", "previous_frame"])
def test_network_sees_differences_of_positions_only(
    prior, make_model, make_state, residual_of, one_lag
):
    state = make_state(2, 5)
    residual, sigma = residual_of(state)
    model = make_model(2, prior=prior)
    shifted = state._replace(positions=state.positions + torch.tensor([1.0, -2.0, 0.5]))
    expected = one_lag(model, state, residual, sigma)
    found = one_lag(model, shifted, residual, sigma)
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other)


@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_order_of_atoms_does_not_matter(
    l_max, make_model, make_state, residual_of, one_lag
):
    state = make_state(3, 6)
    residual, sigma = residual_of(state)
    model = make_model(l_max)
    order = torch.tensor([3, 0, 5, 1, 4, 2])
    expected = one_lag(model, state, residual, sigma, True)
    found = one_lag(model, state.select(order), residual[:, order], sigma, True)
    for one, other in zip(found, expected, strict=True):
        assert_near(one, other[:, order])


def test_batch_equals_single_molecules(make_model, make_state, residual_of, one_lag):
    state = make_state(4, 5)
    residual, sigma = residual_of(state)
    model = make_model(2)
    together = one_lag(model, state, residual, sigma, True)
    for molecule in range(4):
        part = slice(molecule, molecule + 1)
        alone = one_lag(
            model,
            type(state)(*(value[part] for value in state)),
            residual[part],
            sigma[part],
            True,
        )
        for one, other in zip(alone, together, strict=True):
            assert_near(one, other[part])


@pytest.mark.parametrize(
    ("prior", "cutoff"), [*((prior, 0.5) for prior in PRIORS), ("learned", 1.5)]
)
def test_padding_changes_nothing_and_stays_zero(
    prior, cutoff, make_model, make_state, residual_of, one_lag
):
    state = make_state(3, 4)
    residual, sigma = residual_of(state)
    model = make_model(2, prior=prior, cutoff=cutoff)
    filler = {"species": -1}
    padded = type(state)(
        *(
            torch.nn.functional.pad(
                value, (0, 0, 0, 3) if value.dim() == 3 else (0, 3), value=fill
            )
            if value.dim() > 1
            else value
            for value, fill in (
                (value, filler.get(name, 0)) for name, value in state._asdict().items()
            )
        )
    )
    padded_residual = torch.nn.functional.pad(residual, (0, 0, 0, 0, 0, 3))
    for conserve in (False, True):
        expected = one_lag(model, state, residual, sigma, conserve)
        found = one_lag(model, padded, padded_residual, sigma, conserve)
        for one, other in zip(found, expected, strict=True):
            assert_near(one[:, :4], other)
            assert (one[:, 4:] == 0).all()

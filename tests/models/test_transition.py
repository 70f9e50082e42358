import math

import pytest
import torch

from openmm_diffmd.models import TransitionModel
from openmm_diffmd.models.geometry import edges_of
from openmm_diffmd.models.projection import remove_momentum
from openmm_diffmd.models.transition import NOISE_CONDITIONINGS, PRIORS

LAG_TIME = 0.01


def following_of(state, seed=3):
    generator = torch.Generator().manual_seed(seed)
    change = torch.randn(*state.species.shape, 2, 3, generator=generator)
    displacement = remove_momentum(0.01 * change[:, :, 0], state.masses)
    kick = remove_momentum(change[:, :, 1], state.masses)
    return torch.stack([state.positions + displacement, state.velocities + kick], dim=2)


@pytest.mark.parametrize("noise_conditioning", NOISE_CONDITIONINGS)
@pytest.mark.parametrize("prior", PRIORS)
def test_decode_undoes_whiten(prior, noise_conditioning, make_model, make_state):
    state = make_state(4, 5)
    model = make_model(1, prior=prior, noise_conditioning=noise_conditioning)
    condition = model.encode(*state)
    following = following_of(state)
    residual = model.whiten(following, condition)
    change = model.decode(residual, condition, False)
    before = torch.stack([state.positions, state.velocities], dim=2)
    torch.testing.assert_close(change, following - before, rtol=0, atol=1e-12)


@pytest.mark.parametrize("prior", PRIORS)
def test_whiten_undoes_decode_but_for_the_projection(prior, make_model, make_state):
    state = make_state(2, 5)
    model = make_model(1, prior=prior)
    condition = model.encode(*state)
    residual = torch.randn(2, 5, 2, 3, generator=torch.Generator().manual_seed(4))
    change = model.decode(residual, condition, False)
    before = torch.stack([state.positions, state.velocities], dim=2)
    found = model.whiten(before + change, condition)
    again = model.decode(found, condition, False)
    torch.testing.assert_close(again, change, rtol=0, atol=1e-12)


@pytest.mark.parametrize(
    ("prior", "expected"),
    [
        ("ballistic", lambda x, v: (LAG_TIME * v, torch.zeros_like(v))),
        ("previous_frame", lambda x, v: (torch.zeros_like(x), torch.zeros_like(v))),
        ("gaussian", lambda x, v: (-x, -v)),
    ],
)
def test_zero_residual_is_the_prior(prior, expected, make_model, make_state):
    state = make_state(2, 5)
    model = make_model(1, prior=prior)
    change = model.decode(torch.zeros(2, 5, 2, 3), model.encode(*state), False)
    displacement, kick = expected(state.positions, state.velocities)
    # The states are in their centre-of-mass frame: projection changes nothing.
    torch.testing.assert_close(change[:, :, 0], displacement, rtol=0, atol=1e-12)
    torch.testing.assert_close(change[:, :, 1], kick, rtol=0, atol=1e-12)


def test_zero_residual_of_the_learned_prior_is_what_the_encoder_carries(
    make_model, make_state
):
    state = make_state(2, 5)
    model = make_model(1)
    change = model.decode(torch.zeros(2, 5, 2, 3), model.encode(*state), False)
    _, x, v, _ = model.encoder(
        state.positions,
        state.velocities,
        state.species,
        state.masses,
        state.level,
    )
    torch.testing.assert_close(
        change[:, :, 0], remove_momentum(x - state.positions, state.masses)
    )
    torch.testing.assert_close(
        change[:, :, 1], remove_momentum(v - state.velocities, state.masses)
    )


def test_learned_prior_that_has_learned_nothing_is_free_flight(make_model, make_state):
    state = make_state(2, 5)
    model = make_model(1)
    for kick in model.encoder.kick:
        torch.nn.init.zeros_(kick.weight)
    change = model.decode(torch.zeros(2, 5, 2, 3), model.encode(*state), False)
    torch.testing.assert_close(
        change[:, :, 0], LAG_TIME * state.velocities, rtol=0, atol=1e-12
    )
    assert change[:, :, 1].abs().max() < 1e-12


def test_residual_is_scaled_by_cholesky_unit_and_acceleration(make_model, make_state):
    state = make_state(3, 1)
    state = state._replace(species=torch.tensor([[0], [1], [2]]))
    model = make_model(1, prior="ballistic", constant_spread=True)
    condition = model.encode(*state)
    unit = torch.stack([model.position_scale[:3], model.velocity_scale[:3]], dim=1)
    thermal = model.thermal_acceleration[:3]
    ratio = state.acceleration[:, 0].square().sum(1) / thermal**2
    scale = torch.sqrt((ratio + 1) / 2)
    # The third molecule is on its first step: the thermal constant.
    assert state.has_acceleration.tolist() == [True, True, False]
    scale[2] = 1.0
    # `error` undoes prior and unit: it is g L r.
    residual = torch.randn(3, 1, 2, 3, generator=torch.Generator().manual_seed(5))
    spread = scale[:, None, None] * (model.residual_cholesky[:3] @ residual[:, 0])
    prior = torch.stack(
        [state.positions + LAG_TIME * state.velocities, state.velocities], dim=2
    )
    following = prior + (unit[:, :, None] * spread)[:, None]
    torch.testing.assert_close(model.whiten(following, condition), residual)


def test_learned_spread_scales_both_noise_conditionings_within_limits(
    make_model, make_state
):
    state = make_state(3, 4)
    model = make_model(1, noise_conditioning="element")
    learned = model.encode(*state)["scale"]
    assert learned.std() > 1e-3
    model.noise_conditioning = "acceleration"
    both = model.encode(*state)["scale"]
    of_acceleration = make_model(1, constant_spread=True).encode(*state)["scale"]
    torch.testing.assert_close(both, learned * of_acceleration)
    # Confidence has an end: a scale between e^-3 and e^3.
    torch.nn.init.constant_(model.spread[-1].bias, 1e3)
    model.noise_conditioning = "element"
    scale = model.encode(*state)["scale"]
    torch.testing.assert_close(scale, torch.full_like(scale, math.e**3))


def test_learned_spread_does_not_train_the_encoder(make_model, make_state):
    model = make_model(1)
    model.encode(*make_state(2, 4))["scale"].sum().backward()
    assert all(weight.grad is None for weight in model.encoder.parameters())
    assert all(weight.grad is not None for weight in model.spread.parameters())


def test_element_noise_ignores_the_acceleration(make_model, make_state):
    state = make_state(2, 4)
    model = make_model(1, noise_conditioning="element")
    hotter = state._replace(acceleration=10 * state.acceleration)
    residual = torch.randn(2, 4, 2, 3, generator=torch.Generator().manual_seed(6))
    ends = [
        model.decode(residual, model.encode(*each), False) for each in (state, hotter)
    ]
    assert torch.equal(*ends)


def test_acceleration_without_history_is_not_looked_at(make_model, make_state):
    state = make_state(2, 4)
    state = state._replace(has_acceleration=torch.tensor([False, False]))
    model = make_model(1, constant_spread=True)
    other = state._replace(acceleration=torch.zeros_like(state.acceleration))
    conditions = [model.encode(*each) for each in (state, other)]
    assert torch.equal(conditions[0]["scale"], torch.ones(2, 4))
    assert torch.equal(conditions[0]["scale"], conditions[1]["scale"])


def test_untrained_head_returns_the_gaussian_denoiser(make_state, residual_of):
    state = make_state(2, 4)
    residual, sigma = residual_of(state)
    model = TransitionModel(3, LAG_TIME, n_layers=1, channels=8, n_heads=2)
    denoised = model.denoise(residual, sigma, model.encode(*state))
    expected = residual / (1 + sigma**2)[:, None, None, None]
    torch.testing.assert_close(denoised, expected, rtol=1e-12, atol=0)


def test_denoiser_sees_noise_level_residual_and_condition(
    make_model, make_state, residual_of
):
    state = make_state(2, 4)
    residual, sigma = residual_of(state)
    model = make_model(1)
    condition = model.encode(*state)

    def network(residual, sigma, condition):
        """F of D = c_skip u + c_out F."""
        s = sigma[:, None, None, None]
        denoised = model.denoise(residual, sigma, condition)
        return (denoised - residual / (1 + s * s)) * (1 + s * s).sqrt() / s

    base = network(residual, sigma, condition)
    assert base.abs().max() > 1e-3
    s, other = sigma[:, None, None, None], 2 * sigma
    # The same scaled input c_in u at another level: only the level's input differs.
    same = residual * (1 + 4 * s * s).sqrt() / (1 + s * s).sqrt()
    assert (network(same, other, condition) - base).abs().max() > 1e-4
    assert (network(0.5 * residual, sigma, condition) - base).abs().max() > 1e-4
    colder = model.encode(*state._replace(velocities=0.5 * state.velocities))
    assert (network(residual, sigma, colder) - base).abs().max() > 1e-4


def test_velocities_without_their_features_are_plain_vectors(make_model, make_state):
    state = make_state(1, 4)
    model = make_model(1, velocity_features=False)
    assert model.encoder.velocity_in.in_features == 1
    edges = edges_of(state.species)
    weighted = state.velocities * state.masses.sqrt()[..., None]
    args = (state.positions, weighted, edges)
    with_them = make_model(1).encoder.edge_features(*args)
    without = model.encoder.edge_features(*args)
    # n_max functions of the distance are what is left.
    assert with_them.invariants.shape[-1] == 5 * without.invariants.shape[-1] == 20
    torch.testing.assert_close(
        without.invariants, with_them.invariants[..., :4], rtol=1e-12, atol=1e-14
    )
    # They are seen all the same: their speeds change what is carried.
    kicks = [
        model.encode(*state._replace(velocities=factor * state.velocities))["mean"]
        for factor in (1.0, 0.5)
    ]
    assert (kicks[0][:, :, 1] - kicks[1][:, :, 1]).abs().max() > 1e-4


def test_level_of_perturbation_is_an_input(make_model, make_state):
    state = make_state(1, 4)
    model = make_model(1)
    means = [
        model.encode(*state._replace(level=torch.tensor([level])))["mean"]
        for level in (0.0, 1.0)
    ]
    assert (means[0] - means[1]).abs().max() > 1e-4


def test_invariants_have_unit_root_mean_square_after_calibration(
    make_model, make_state
):
    state = make_state(50, 4)
    model = make_model(1)
    model.encoder.set_invariant_scale(
        state.positions, state.velocities, state.species, state.masses
    )
    edges = edges_of(state.species)
    weighted = state.velocities * state.masses.sqrt()[..., None]
    geometry = model.encoder.edge_features(state.positions, weighted, edges)
    invariants = geometry.invariants[edges.pairs]
    rms = invariants.square().mean(0).sqrt()
    # 1e-6 keeps a feature that never appears from being divided by nothing.
    assert rms.max().item() == pytest.approx(1.0, abs=1e-3)
    assert rms.min().item() > 0.9


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"prior": "uniform"}, "found prior 'uniform', expected 'learned', "),
        (
            {"noise_conditioning": "mass"},
            "found noise_conditioning 'mass', expected 'acceleration' or 'element'",
        ),
        ({"l_max": 0}, "found l_max 0, expected 1 to 3"),
        ({"l_max": 4}, "found l_max 4, expected 1 to 3"),
        ({"n_heads": 5}, "found 48 edge_channels, expected a multiple of 5 heads"),
    ],
)
def test_bad_options_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        TransitionModel(3, LAG_TIME, **options)


@pytest.mark.parametrize("velocity_features", [True, False])
def test_a_lag_neither_reads_values_nor_stays_on_the_cpu(velocity_features):
    """What a capture into a CUDA graph asks: a meta tensor has a device, no values."""
    model = TransitionModel(3, 0.01, velocity_features=velocity_features).to("meta")
    with torch.inference_mode(), torch.device("meta"):
        state = torch.empty(2, 9, 3)
        known, level = torch.empty(2, dtype=torch.bool), torch.empty(2)
        species, masses = torch.empty(2, 9, dtype=torch.int64), torch.empty(2, 9)
        residual = torch.empty(2, 9, 2, 3)
    with torch.inference_mode():
        condition = model.encode(state, state, state, known, species, masses, level)
        denoised = model.denoise(residual, level, condition)
        change = model.decode(denoised, condition, True)
    assert {value.device.type for value in condition.values()} == {"meta"}
    assert change.device.type == "meta"
    assert change.shape == (2, 9, 2, 3)

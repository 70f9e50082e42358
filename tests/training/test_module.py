import dataclasses
import math

import pytest
import torch

from openmm_diffmd.data.pairs import LaggedPairs
from openmm_diffmd.data.readers import read_reference
from openmm_diffmd.data.scales import residual_scales
from openmm_diffmd.diffusion.residuals import OUTLIER_LIMIT
from openmm_diffmd.models.transition import PRIORS
from openmm_diffmd.training.config import (
    DataConfig,
    ModelConfig,
    TrainConfig,
    TransitionOptimizerConfig,
)
from openmm_diffmd.training.module import WHITENING_MOMENTUM, TransitionTraining
from openmm_diffmd.training.train import calibrate

SMALL = ModelConfig(
    n_max=4, channels=8, n_heads=2, edge_channels=8, n_layers=2, head_channels=6
)
CONFIG = TrainConfig(SMALL, DataConfig(), TransitionOptimizerConfig(num_steps=100))


@pytest.fixture(scope="module")
def pairs(bursts):
    trajectory = read_reference(bursts)
    return LaggedPairs([trajectory], [range(trajectory.n_frames)], [1, 8], 0.01)


@pytest.fixture(scope="module")
def unrolled(bursts):
    """Three lags of what follows."""
    trajectory = read_reference(bursts)
    frames = [range(trajectory.n_frames)]
    return LaggedPairs([trajectory], frames, [1, 8], 0.01, num_lags=3)


@pytest.fixture
def make_module(pairs):
    def make(config=CONFIG, seed=1):
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            module = TransitionTraining(config, ["H", "O"], seed)
        calibrate(module, pairs, residual_scales(pairs, 2))
        # Outside a Trainer there is nowhere to log to.
        module.logged = {}
        module.log = lambda name, value: module.logged.update(
            {name: float(value.detach())}
        )
        module.log_dict = lambda values, **_: module.logged.update(
            {name: float(torch.as_tensor(v).detach()) for name, v in values.items()}
        )
        return module

    return make


def with_data(config, **options):
    return dataclasses.replace(config, data=dataclasses.replace(config.data, **options))


def with_model(config, **options):
    model = dataclasses.replace(config.model, **options)
    return dataclasses.replace(config, model=model)


def fixed_batch(pairs, count=32):
    return pairs.batch(torch.linspace(0, len(pairs) - 1, count).long())


def fit(module, batch, steps, learning_rate=1e-2):
    weights = [weight for weight in module.parameters() if weight.requires_grad]
    optimizer = torch.optim.Adam(weights, lr=learning_rate)
    history = []
    for index in range(steps):
        optimizer.zero_grad()
        module.training_step(batch, index).backward()
        optimizer.step()
        history.append(dict(module.logged))
    return history


def mean_of(history, name):
    return sum(entry[name] for entry in history) / len(history)


def test_error_of_a_learned_mean_falls_on_a_fixed_batch(make_module, pairs):
    module = make_module()
    history = fit(module, fixed_batch(pairs), 80)
    first, last = history[:10], history[-10:]
    assert mean_of(last, "train/mean_error") < 0.6 * mean_of(first, "train/mean_error")


def test_unrolled_loss_is_the_mean_over_lags_of_the_means_own_path(
    make_module, unrolled
):
    module, batch = make_module(), fixed_batch(unrolled, 4)
    model, (x, v, *state) = module.model, batch[:6]
    losses = []
    for truth in (batch.following, *batch.later.unbind(1)):
        condition = model.encode(x, v, *state, torch.zeros(4))
        errors = model.error(truth, condition)
        losses.append(errors.norm(dim=-1).mean())
        change = model.decode(torch.zeros_like(truth), condition, False)
        x, v = x + change[:, :, 0], v + change[:, :, 1]
    first = model.encode(*batch[:6], torch.zeros(4))
    found = module._unrolled_loss(losses[0], batch, first)
    torch.testing.assert_close(found, torch.stack(losses).mean(), rtol=1e-4, atol=0)
    # The way to each state is trained, not only the lag from it.
    weights = model.encoder.kick[0].weight
    mean = torch.stack(losses).mean()
    (expected,) = torch.autograd.grad(mean, weights, retain_graph=True)
    (gradient,) = torch.autograd.grad(found, weights)
    torch.testing.assert_close(gradient, expected, rtol=1e-3, atol=1e-6)


def test_denoising_loss_falls_on_a_fixed_batch(make_module, pairs):
    # About a fixed prior: a learned mean moves what there is to denoise.
    module = make_module(with_model(CONFIG, prior="ballistic"))
    history = fit(module, fixed_batch(pairs), 80)
    first, last = history[:10], history[-10:]
    # The head starts as the denoiser of a unit Gaussian; the motion is deterministic.
    assert mean_of(last, "train/denoising") < 0.8 * mean_of(first, "train/denoising")


@pytest.mark.parametrize("prior", PRIORS)
def test_untrained_denoiser_starts_with_the_loss_of_unit_data(
    prior, make_module, pairs
):
    """Preconditioning presumes residuals of unit variance, whatever the prior."""
    module = make_module(with_model(CONFIG, prior=prior))
    module.validation_step(fixed_batch(pairs, 64), 0)
    residual_std = module.logged["validation/residual_std"]
    # The batch is not quite the one of the calibration; a learned mean starts off
    # with errors of one unit, and initial weights move it somewhat.
    assert residual_std == pytest.approx(1.0, abs=0.6 if prior == "learned" else 0.2)


def test_gradient_of_the_denoiser_does_not_reach_a_learned_mean(make_module, pairs):
    module = make_module()
    batch = fixed_batch(pairs)
    condition = module.model.encode(
        batch.positions,
        batch.velocities,
        batch.acceleration,
        batch.has_acceleration,
        batch.species,
        batch.masses,
        torch.zeros(len(batch.species)),
    )
    assert condition["features"].requires_grad
    module.training_step(batch, 0).backward()
    moved = [w.grad.clone() for w in module.model.encoder.kick.parameters()]
    # The same step, without a denoising loss.
    again = make_module()
    again._denoising_loss = lambda *_: torch.zeros(())
    again.training_step(batch, 0).backward()
    for one, other in zip(moved, again.model.encoder.kick.parameters(), strict=True):
        assert torch.equal(one, other.grad)


def test_whitening_follows_the_covariance_of_the_error(make_module, pairs):
    config = with_data(CONFIG, perturbed=0.0, drop_acceleration=0.0)
    module = make_module(config)
    batch = fixed_batch(pairs, 64)
    with torch.no_grad():
        for index in range(20):
            module.training_step(batch, index)
        condition = module.model.encode(*batch[:6], torch.zeros(64))
        scaled = module.model.error(batch.following, condition)
        known_scale = condition["scale"] / condition["spread"]
        scaled = scaled / known_scale[:, :, None, None]
    for element in range(2):
        own = scaled[batch.species == element]
        found = torch.einsum("nax,nbx->ab", own, own) / (3 * len(own))
        # The mean is held fixed: a share of 0.99^20 of the start, 1, is left.
        left = (1 - WHITENING_MOMENTUM) ** 20
        expected = left * torch.eye(2) + (1 - left) * found
        torch.testing.assert_close(
            module.covariance[element], expected, rtol=1e-4, atol=1e-6
        )
        factor = module.model.residual_cholesky[element]
        torch.testing.assert_close(factor @ factor.T, expected, rtol=1e-4, atol=1e-6)
        assert factor[0, 1] == 0


def test_perturbation_is_zero_on_clean_states_and_padding(make_module, pairs):
    module = make_module(with_data(CONFIG, perturbed=0.5))
    batch = fixed_batch(pairs, 64)
    level, positions, velocities = module._perturb(batch)
    clean = level == 0
    assert 10 < int(clean.sum()) < 54
    assert torch.equal(positions[clean], batch.positions[clean])
    assert torch.equal(velocities[clean], batch.velocities[clean])
    moved = (positions - batch.positions)[~clean]
    assert (moved.abs().amax((1, 2)) > 0).all()
    species = batch.species.clone()
    species[:, 2] = -1
    _, positions, velocities = module._perturb(batch._replace(species=species))
    assert torch.equal(positions[:, 2], batch.positions[:, 2])
    assert torch.equal(velocities[:, 2], batch.velocities[:, 2])


@pytest.mark.statistical
def test_perturbation_has_the_size_of_its_level(make_module, pairs):
    module = make_module(with_data(CONFIG, perturbed=1.0, perturbation=(0.1, 0.3)))
    batch = fixed_batch(pairs, 512)
    level, positions, velocities = module._perturb(batch)
    ratios = []
    for values, before, scale, size in (
        (positions, batch.positions, module.model.position_scale, 0.1),
        (velocities, batch.velocities, module.model.velocity_scale, 0.3),
    ):
        unit = size * scale[batch.species][..., None] * level[:, None, None]
        ratio = (values - before) / unit
        # Stochastic: variance of that many unit Gaussians, 4 standard errors.
        error = 4 * math.sqrt(2 / ratio.numel())
        assert ratio.var().item() == pytest.approx(1.0, abs=error + 1e-3)
        ratios.append(ratio)
    # Stochastic: positions and velocities have numbers of their own.
    correlation = (ratios[0] * ratios[1]).mean().item()
    assert abs(correlation) < 4 / math.sqrt(ratios[0].numel())


def test_perturbed_states_do_not_whiten(make_module, pairs):
    # They ask for more than the model has to say.
    module = make_module(with_data(CONFIG, perturbed=1.0))
    module.training_step(fixed_batch(pairs, 16), 0)
    torch.testing.assert_close(module.covariance, torch.eye(2).expand(2, 2, 2))


@pytest.mark.statistical
@pytest.mark.parametrize("num_noise_draws", [1, 3])
def test_denoising_loss_of_unit_data_is_one(make_module, pairs, num_noise_draws):
    # The untrained denoiser is u/(1 + sigma^2): its squared error of unit Gaussians is
    # sigma^2/(1 + sigma^2), whose weight is one over that.
    module = make_module(with_optimizer(CONFIG, num_noise_draws=num_noise_draws))
    batch = fixed_batch(pairs, 256)
    condition = module.model.encode(*batch[:6], torch.zeros(256))
    generator = torch.Generator().manual_seed(8)
    residual = torch.randn(256, 3, 2, 3, generator=generator)
    # Where an atom does not count its residual may be anything.
    chosen = torch.rand(256, 3, generator=generator) < 0.9
    residual[~chosen] = 1e6
    loss = module._denoising_loss(residual, condition, chosen, generator)
    # Stochastic: the mean of some 690 numbers, each of six squares, 4 standard errors.
    error = 4 * math.sqrt(2 / 6 / int(chosen.sum()))
    assert loss.item() == pytest.approx(1.0, abs=error)


def test_the_denoiser_learns_nothing_from_outliers(make_module, pairs):
    module = make_module()
    seen = []

    def record(residual, *_):
        seen.append(residual)
        return residual.sum() * 0.0

    module._denoising_loss = record
    batch = fixed_batch(pairs, 16)
    far = batch.following.clone()
    far[3, 1] += 1e3
    module.training_step(batch._replace(following=far), 0)
    size = seen[0].detach().square().mean((-2, -1)).sqrt()
    assert size[3, 1].item() == pytest.approx(OUTLIER_LIMIT, rel=1e-5)
    assert size.max() < 1.001 * OUTLIER_LIMIT


def test_validation_repeats_itself_and_leaves_the_noise_alone(make_module, pairs):
    module = make_module()
    before = module.generator.get_state()
    logs = []
    for _ in range(2):
        module.validation_step(fixed_batch(pairs, 16), 0)
        logs.append(dict(module.logged))
    assert logs[0] == logs[1]
    assert torch.equal(module.generator.get_state(), before)


@pytest.mark.parametrize("perturbed", [0.0, 1.0])
def test_loss_is_finite_whatever_is_perturbed(perturbed, make_module, pairs):
    module = make_module(with_data(CONFIG, perturbed=perturbed))
    for count in (1, 16):
        loss = module.training_step(fixed_batch(pairs, count), 0)
        assert loss.isfinite()
        loss.backward()


def test_padding_takes_no_part_in_the_losses(make_module, unrolled):
    config = with_data(CONFIG, perturbed=0.0, drop_acceleration=0.0, unrolled_lags=3)
    batch = fixed_batch(unrolled, 16)
    padded = type(batch)(
        *(
            torch.nn.functional.pad(
                value,
                [0, 0] * (value.dim() - (3 if name == "later" else 2)) + [0, 2],
                value=-1 if name == "species" else 0,
            )
            if value.dim() > 1
            else value
            for name, value in batch._asdict().items()
        )
    )
    logs = []
    for each in (batch, padded):
        module = make_module(config)
        module.training_step(each, 0)
        logs.append((module.logged, module.covariance))
    for name in ("train/mean_error", "train/unrolled_error", "train/spread"):
        assert logs[0][0][name] == pytest.approx(logs[1][0][name], rel=1e-5)
    torch.testing.assert_close(logs[0][1], logs[1][1], rtol=1e-5, atol=1e-7)


def test_validation_reports_errors_of_each_element(make_module, pairs):
    module = make_module()
    batch = fixed_batch(pairs, 64)
    module.validation_step(batch, 0)
    logged = module.logged
    assert {"validation/error", "validation/denoising"} <= logged.keys()
    condition = module.model.encode(*batch[:6], torch.zeros(64))
    error = module.model.error(batch.following, condition)
    for index, symbol in enumerate(["H", "O"]):
        own = error[batch.species == index]
        for axis, name in enumerate(("position", "velocity")):
            expected = own[:, axis].square().mean().sqrt().item()
            found = logged[f"validation/{symbol}_{name}"]
            assert found == pytest.approx(expected, rel=1e-5)


def test_validation_leaves_out_elements_that_a_file_lacks(make_module, pairs):
    module = make_module()
    batch = fixed_batch(pairs, 8)
    module.validation_step(batch._replace(species=torch.ones_like(batch.species)), 0)
    assert "validation/O_position" in module.logged
    assert not any("/H_" in name for name in module.logged)
    assert all(math.isfinite(value) for value in module.logged.values())


def test_learning_rate_rises_stays_and_falls(make_module):
    options = TransitionOptimizerConfig(
        num_steps=100, warmup_steps=10, decay_fraction=0.4, learning_rate=1e-3
    )
    module = make_module(dataclasses.replace(CONFIG, optimizer=options))
    configured = module.configure_optimizers()
    factor = configured["lr_scheduler"]["scheduler"].lr_lambdas[0]
    assert [factor(step) for step in (0, 4, 9)] == pytest.approx([0.1, 0.5, 1.0])
    assert [factor(step) for step in (30, 60)] == [1.0, 1.0]
    assert factor(80) == pytest.approx(0.5)
    assert factor(100) == 0.0
    assert configured["lr_scheduler"]["interval"] == "step"


def test_noise_generator_travels_with_the_checkpoint(make_module):
    module, other = make_module(), make_module(seed=2)
    module._uniform(5)
    checkpoint = {}
    module.on_save_checkpoint(checkpoint)
    other.on_load_checkpoint(checkpoint)
    assert torch.equal(module._uniform(7), other._uniform(7))


def with_optimizer(config, **options):
    optimizer = dataclasses.replace(config.optimizer, **options)
    return dataclasses.replace(config, optimizer=optimizer)


def test_without_noise_draws_the_denoiser_is_left_alone(make_module, pairs):
    module = make_module(with_optimizer(CONFIG, num_noise_draws=0))
    module.training_step(fixed_batch(pairs), 0).backward()
    assert all(weight.grad is None for weight in module.model.denoiser.parameters())
    assert module.model.encoder.kick[0].weight.grad.abs().max() > 0


@pytest.mark.slow
def test_compiled_network_has_the_loss_and_gradient_of_the_plain_one(
    make_module, pairs
):
    config = with_model(CONFIG, n_layers=1)
    batch = fixed_batch(pairs)
    plain, compiled = (
        make_module(with_optimizer(config, compile=choice)) for choice in (False, True)
    )
    losses = [module.training_step(batch, 0) for module in (plain, compiled)]
    torch.testing.assert_close(losses[1], losses[0], rtol=1e-5, atol=1e-6)
    for loss in losses:
        loss.backward()
    for name, weight in plain.named_parameters():
        if weight.grad is not None:
            gradient = compiled.get_parameter(name).grad
            torch.testing.assert_close(gradient, weight.grad, rtol=1e-3, atol=1e-5)

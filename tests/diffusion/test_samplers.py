import math

import numpy as np
import pytest
import torch

from openmm_diffmd.diffusion.noise_schedule import karras_noise_levels
from openmm_diffmd.diffusion.samplers import SAMPLERS, num_extra_draws, sample

SIGMA_MIN, SIGMA_MAX = 0.002, 40.0
ATOMS = {"predictor_corrector": 100}
"""Atoms of the test's molecules, else 2: see the note on the corrector's widening."""
FLOW_SAMPLERS = ("exponential", "euler", "heun")


def run(sampler, denoiser, draw, num_steps, count, seed=0):
    atoms = ATOMS.get(sampler, 2)
    draws = 1 + num_extra_draws(sampler, num_steps)
    noise = draw(draws, 2 * count // atoms, seed, atoms)
    levels = karras_noise_levels(num_steps, SIGMA_MIN, SIGMA_MAX)
    return sample(sampler, denoiser, noise, levels)


def assert_moments(values, mean, deviation, bias=0.0):
    """Mean and variance within four standard errors, and `bias` of each."""
    count = values.numel()
    tolerance = 4 * deviation / math.sqrt(count) + bias * deviation
    assert values.mean().item() == pytest.approx(mean, abs=tolerance), "stochastic"
    tolerance = (4 * math.sqrt(2 / count) + bias) * deviation**2
    assert values.var().item() == pytest.approx(deviation**2, abs=tolerance), (
        "stochastic"
    )


@pytest.mark.parametrize("num_steps", [1, 2, 3, 8])
@pytest.mark.parametrize("sampler", SAMPLERS)
def test_counts_of_evaluations_and_draws_are_as_expected(
    sampler, num_steps, gaussian, draw
):
    denoiser = gaussian(0.0, 1.0)
    extra = num_extra_draws(sampler, num_steps)
    run(sampler, denoiser, draw, num_steps, 100)
    second_order = sampler in ("heun", "predictor_corrector")
    expected = 2 * num_steps - 1 if second_order else num_steps
    assert len(denoiser.levels) == expected
    assert extra == (2 * (num_steps - 1) if sampler == "predictor_corrector" else 0)
    assert min(denoiser.levels) > 0.0


@pytest.mark.parametrize("sampler", SAMPLERS)
def test_no_steps_need_no_draws(sampler):
    assert num_extra_draws(sampler, 0) == 0


@pytest.mark.parametrize("num_steps", [1, 2, 5])
def test_exponential_is_exact_for_unit_variance_about_any_mean(
    num_steps, gaussian, draw
):
    denoiser = gaussian(mean=1.7, deviation=1.0)
    noise = draw(1, 50, 1)
    start = math.sqrt(SIGMA_MAX**2 + 1) * noise[0]
    levels = karras_noise_levels(num_steps, SIGMA_MIN, SIGMA_MAX)
    found = sample("exponential", denoiser, noise, levels)
    # Rounding of mu = ((1 + s^2) D - u)/s^2 at the lowest level, 1e-16/s^2.
    torch.testing.assert_close(
        found, denoiser.flow(start, SIGMA_MAX), rtol=0, atol=1e-9
    )


@pytest.mark.parametrize("sampler", FLOW_SAMPLERS)
def test_start_has_the_variance_of_noised_data(sampler, gaussian, draw):
    starts = []

    def denoiser(u, sigma):
        starts.append(u)
        return gaussian(0.0, 1.0)(u, sigma)

    noise = draw(1, 4, 2)
    sample(sampler, denoiser, noise, [SIGMA_MAX, 0.0])
    torch.testing.assert_close(
        starts[0], math.sqrt(SIGMA_MAX**2 + 1) * noise[0], rtol=1e-14, atol=0
    )


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("sampler", "num_steps", "bias"),
    [
        ("exponential", 256, 0.03),
        ("euler", 400, 0.03),
        ("heun", 64, 0.01),
        ("predictor_corrector", 300, 0.06),
    ],
)
def test_samples_of_a_narrow_gaussian_have_its_moments(
    sampler, num_steps, bias, gaussian, draw
):
    # `bias`: what the steps leave, first order in 1/K for all but Heun. The start has
    # mean 0, of which the flow leaves a share of 0.4/sigma_max, 1 % of a deviation.
    found = run(sampler, gaussian(0.5, 0.4), draw, num_steps, 2000, seed=3)
    assert_moments(found, 0.5 * (1 - 0.4 / SIGMA_MAX), 0.4, bias)


@pytest.mark.statistical
@pytest.mark.parametrize(
    ("sampler", "num_steps"),
    [
        ("exponential", 128),
        ("euler", 256),
        ("heun", 64),
        ("predictor_corrector", 256),
    ],
)
def test_samples_of_a_mixture_have_its_weights_means_and_variances(
    sampler, num_steps, mixture, draw
):
    found = run(sampler, mixture, draw, num_steps, 1500, seed=4).flatten()
    # Six deviations lie between the means: three to the point that parts them.
    lower = found < -0.3
    count = found.numel()
    error = 4 * math.sqrt(0.3 * 0.7 / count)
    assert lower.double().mean().item() == pytest.approx(0.3, abs=error + 0.01), (
        "stochastic"
    )
    assert_moments(found[lower], -1.2, 0.3, bias=0.06)
    assert_moments(found[~lower], 0.6, 0.3, bias=0.06)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence_is_the_theory_s(sampler, order, gaussian, draw):
    # rho = 1 and no level near 0: the step is uniform and small everywhere but last.
    denoiser = gaussian(0.3, 0.6)
    noise = draw(1, 20, 5)
    start = math.sqrt(SIGMA_MAX**2 + 1) * noise[0]
    exact = denoiser.flow(start, SIGMA_MAX)
    steps = np.array([64, 128, 256, 512])
    errors = []
    for num_steps in steps:
        levels = [
            SIGMA_MAX * (1 - index / num_steps) ** 3 for index in range(num_steps)
        ]
        found = sample(sampler, denoiser, noise, [*levels, 0.0])
        errors.append((found - exact).abs().max().item())
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.15)


@pytest.mark.parametrize(("sampler", "order"), [("euler", 1), ("heun", 2)])
def test_order_of_convergence_on_a_mixture_is_the_theory_s(
    sampler, order, mixture, draw
):
    noise = draw(1, 20, 6)

    def final(name, num_steps):
        levels = [
            SIGMA_MAX * (1 - index / num_steps) ** 3 for index in range(num_steps)
        ]
        return sample(name, mixture, noise, [*levels, 0.0])

    fine = final("heun", 4096)
    steps = np.array([128, 256, 512])
    errors = [(final(sampler, k) - fine).square().mean().sqrt().item() for k in steps]
    slope = np.polyfit(np.log(steps), np.log(errors), 1)[0]
    assert slope == pytest.approx(-order, abs=0.25)


def test_samplers_differ_where_steps_are_few(mixture, draw):
    ends = [run(name, mixture, draw, 4, 5, seed=7) for name in FLOW_SAMPLERS]
    assert not torch.allclose(ends[0], ends[1], atol=1e-3)
    assert not torch.allclose(ends[1], ends[2], atol=1e-3)


def test_predictor_corrector_step_is_the_formula(gaussian, draw):
    denoiser = gaussian(0.2, 0.5)
    noise = draw(3, 2, 8)
    s, t = 2.0, 0.3
    found = sample("predictor_corrector", denoiser, noise, [s, t, 0.0])
    u = math.sqrt(s**2 + 1) * noise[0]
    u = u + (s**2 - t**2) * (denoiser(u, s) - u) / s**2
    u = u + math.sqrt(s**2 - t**2) * noise[1]
    for molecule in range(2):
        score = (denoiser(u[molecule], t) - u[molecule]) / t**2
        z = noise[2, molecule]
        step = 2 * (0.16 * z.norm() / score.norm()) ** 2
        u[molecule] += step * score + (2 * step).sqrt() * z
    u = u + (denoiser(u, t) - u)
    torch.testing.assert_close(found, u, rtol=1e-12, atol=1e-12)


@pytest.mark.statistical
def test_corrector_widens_small_molecules_as_its_note_says(gaussian, draw):
    levels = karras_noise_levels(100, SIGMA_MIN, SIGMA_MAX)
    found = sample(
        "predictor_corrector", gaussian(0.0, 0.4), draw(199, 2000, 12), levels
    )
    # 12 numbers a molecule. Finite Langevin step: 1/(1 - snr^2) more.
    expected = 0.16 * (1 + 2 / 12) ** 2 / (1 - 0.16**2)
    error = 4 * math.sqrt(2 / found.numel()) + 0.02
    assert found.var().item() == pytest.approx(expected, rel=error), "stochastic"


def test_predictor_corrector_does_not_let_molecules_of_a_batch_meet(gaussian, draw):
    noise = draw(5, 3, 9)
    levels = karras_noise_levels(3, 0.05, 3.0)
    together = sample("predictor_corrector", gaussian(0.2, 0.5), noise, levels)
    for molecule in range(3):
        alone = sample(
            "predictor_corrector",
            gaussian(0.2, 0.5),
            noise[:, molecule : molecule + 1],
            levels,
        )
        torch.testing.assert_close(together[molecule], alone[0], rtol=0, atol=1e-13)


def test_padding_changes_no_norm_of_predictor_corrector(gaussian, draw):
    noise = draw(5, 2, 10)
    padded = torch.nn.functional.pad(noise, (0, 0, 0, 0, 0, 3))
    levels = karras_noise_levels(3, 0.05, 3.0)
    alone = sample("predictor_corrector", gaussian(0.0, 0.5), noise, levels)
    found = sample("predictor_corrector", gaussian(0.0, 0.5), padded, levels)
    torch.testing.assert_close(found[:, :2], alone, rtol=0, atol=1e-13)
    assert (found[:, 2:] == 0).all()


def test_sampling_leaves_the_noise_as_it_was(gaussian, draw):
    noise = draw(3, 2, 11)
    before = noise.clone()
    sample("predictor_corrector", gaussian(0.0, 1.0), noise, [2.0, 0.3, 0.0])
    assert torch.equal(noise, before)


def test_unknown_sampler_is_refused(gaussian, draw):
    with pytest.raises(ValueError, match=r"found sampler 'ddim', expected '"):
        sample("ddim", gaussian(0.0, 1.0), draw(1, 1, 0), [1.0, 0.0])


@pytest.mark.parametrize(
    ("sampler", "given"), [("euler", 2), ("predictor_corrector", 1)]
)
def test_wrong_number_of_draws_is_refused(sampler, given, gaussian, draw):
    with pytest.raises(ValueError, match=f"found {given} noise draws, expected"):
        sample(sampler, gaussian(0.0, 1.0), draw(given, 1, 0), [2.0, 1.0, 0.0])

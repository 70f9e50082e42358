"""A model that heats or cools is balanced by a small change of its weights."""

import copy

import numpy as np
import pytest
import torch

from openmm_diffmd.data.trajectory import Trajectory
from openmm_diffmd.export import balance
from openmm_diffmd.export import heat as heat_module
from openmm_diffmd.export.balance import balance_heat
from openmm_diffmd.export.heat import Modes, heat_slopes, known_heat, take_heat
from openmm_diffmd.models import TransitionModel
from openmm_diffmd.units import BOLTZMANN

TEMPERATURE = 500.0
LAG = 0.01
NOISE = {"sigma_min": 0.05, "sigma_max": 2.0, "rho": 7.0}
# Carbon with two hydrogens and oxygen.
NUMBERS = np.array([6, 1, 1, 8])
MASSES = np.array([12.0, 1.0, 1.0, 16.0])
BONDS = np.array([[0, 1], [0, 2], [0, 3]])
ELEMENTS = (1, 6, 8)
N_PAIRS = 512


@pytest.fixture
def model() -> TransitionModel:
    torch.manual_seed(3)
    made = TransitionModel(
        3, LAG, channels=8, n_heads=2, edge_channels=8, n_layers=2, head_channels=8
    )
    for kick in made.encoder.kick:
        torch.nn.init.normal_(kick.weight, std=0.3)
    made.set_scales(
        torch.tensor([0.005, 0.002, 0.002]),
        torch.tensor([2.0, 0.3, 0.3]),
        torch.tensor([200.0, 30.0, 30.0]),
    )
    return made.eval()


def equilibrium(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Bonds of 0.11 +- 0.004 nm along fixed directions, thermal velocities."""
    generator = np.random.default_rng(seed)
    directions = np.array([[1.0, 0, 0], [-0.5, 0.8, 0], [-0.5, -0.6, 0.6]])
    directions /= np.linalg.norm(directions, axis=1)[:, None]
    lengths = 0.11 + 0.004 * generator.standard_normal((count, 3))
    positions = np.zeros((count, 4, 3))
    positions[:, 1:] = lengths[..., None] * directions
    thermal = np.sqrt(BOLTZMANN * TEMPERATURE / MASSES)[:, None]
    velocities = thermal * generator.standard_normal((count, 4, 3))
    return positions, velocities


def centred(values: np.ndarray) -> np.ndarray:
    return values - np.einsum("tad,a->td", values, MASSES / MASSES.sum())[:, None]


def flow_of(model: TransitionModel, seed: int = 1, count: int = N_PAIRS) -> Trajectory:
    """Segments of two frames, of which the model's mean makes the second."""
    positions, velocities = (centred(x) for x in equilibrium(count, seed))
    state = [torch.from_numpy(x).float() for x in (positions, velocities)]
    species = torch.tensor([1, 0, 0, 2]).repeat(count, 1)
    masses = torch.from_numpy(MASSES).float().repeat(count, 1)
    with torch.no_grad():
        condition = model.encode(
            *state,
            torch.zeros(count, 4, 3),
            torch.zeros(count, dtype=torch.bool),
            species,
            masses,
            torch.zeros(count),
        )
        change = model.decode(torch.zeros(count, 4, 2, 3), condition, False)
    frames = [
        np.stack([before, (now + change[:, :, index]).numpy()], axis=1).reshape(
            -1, 4, 3
        )
        for index, (before, now) in enumerate(
            zip((positions, velocities), state, strict=True)
        )
    ]
    return Trajectory(
        frames[0].astype(np.float32),
        frames[1].astype(np.float32),
        LAG * (np.arange(2 * count) % 2),
        np.repeat(np.arange(count), 2),
        NUMBERS,
        MASSES,
        BONDS,
    )


def balanced(model, trajectories, steps=0, num_pairs=N_PAIRS):
    return balance_heat(
        model,
        trajectories,
        [range(one.n_frames) for one in trajectories],
        ELEMENTS,
        TEMPERATURE,
        num_pairs,
        "exponential",
        steps,
        NOISE,
    )


def test_a_single_pair_has_no_error_and_is_refused(model):
    for count, most in ((N_PAIRS, 1), (1, N_PAIRS)):
        flow = flow_of(model, count=count)
        with pytest.raises(ValueError, match="found 1 pair of CH2O to balance on"):
            balanced(model, [flow], num_pairs=most)


def test_modes_have_the_temperature_of_their_frames():
    positions, velocities = equilibrium(20000, 5)
    modes = Modes(positions, NUMBERS, MASSES, BONDS, TEMPERATURE)
    assert modes.names == ("C-H", "C-O", "C", "H", "O")
    state = torch.from_numpy(np.stack([positions, centred(velocities)], axis=2))
    found = modes.temperatures(state).mean(0)
    # Of chi squares: four standard errors of the one with the fewest coordinates, 2.
    torch.testing.assert_close(
        found, torch.ones(5).double(), rtol=0, atol=4 / 20000**0.5
    )
    twice = state * torch.tensor([1.0, 2.0])[:, None]
    hotter = modes.temperatures(twice).mean(0)
    assert hotter[2:].tolist() == pytest.approx((4 * found[2:]).tolist())


@pytest.mark.parametrize("factor", [0.998, 1.002])
def test_heat_of_kicks_that_are_off_is_taken_away(model, factor):
    trajectory = flow_of(model)
    (true,) = balanced(copy.deepcopy(model), [trajectory])
    assert true["formula"] == "CH2O"
    assert true["pairs"] == N_PAIRS
    # What the model made itself has no heat but rounding to float32.
    assert max(abs(row["before"]) for row in true["heat"].values()) < 1e-5
    with torch.no_grad():
        model.encoder.kick[-1].weight *= factor
    before = copy.deepcopy(model.state_dict())
    (found,) = balanced(model, [trajectory])
    assert max(abs(row["before"]) for row in found["heat"].values()) > 1e-3
    for row in found["heat"].values():
        # What may be chance is left.
        chance = min(row["error"] ** 2 / abs(row["before"]), abs(row["before"]))
        expected = np.copysign(chance, row["before"])
        assert row["after"] == pytest.approx(expected, abs=2e-5)
    after = model.state_dict()
    changed = {name for name in after if not torch.equal(after[name], before[name])}
    assert changed
    assert all(name.startswith("encoder.") for name in changed)
    # On other states of the same equilibrium it holds as well: where chance is small.
    others = flow_of_truth(before, factor)
    spoilt = copy.deepcopy(model)
    spoilt.load_state_dict(before)
    (unbalanced,) = balanced(spoilt, [others])
    (mended,) = balanced(model, [others])
    for element in ("C", "O"):
        heat = [found["heat"][element]["before"] for found in (unbalanced, mended)]
        assert abs(heat[1]) < 0.5 * abs(heat[0])


def flow_of_truth(spoilt, factor):
    """New states, moved by the model that made the first ones."""
    true = TransitionModel(
        3, LAG, channels=8, n_heads=2, edge_channels=8, n_layers=2, head_channels=8
    )
    true.load_state_dict(spoilt)
    with torch.no_grad():
        true.encoder.kick[-1].weight /= factor
    return flow_of(true.eval(), seed=2)


def test_the_mean_gives_back_what_draws_add(model):
    trajectory = flow_of(model)
    model.residual_cholesky *= 0.05
    alone = balanced(copy.deepcopy(model), [trajectory])[0]["heat"]
    (found,) = balanced(model, [trajectory], steps=2)
    for name, row in found["heat"].items():
        # Residuals are drawn about the mean: they can but add.
        assert row["before"] > alone[name]["before"] + 1e-4
        assert abs(row["after"]) < 0.3 * row["before"]
    (mean,) = balanced(copy.deepcopy(model), [trajectory])
    assert all(row["before"] < -1e-4 for row in mean["heat"].values())


@pytest.mark.parametrize("lags", [(0, 1), (1, 3)])
def test_a_small_change_of_weights_takes_the_heat_that_was_asked_for(model, lags):
    with torch.no_grad():
        # Weak kicks: the molecule stays what it is for some lags.
        for kick in model.encoder.kick:
            kick.weight *= 0.01
    positions, velocities = (centred(x) for x in equilibrium(200, 4))
    modes = Modes(positions, NUMBERS, MASSES, BONDS, TEMPERATURE)
    states = (
        torch.from_numpy(positions).float(),
        torch.from_numpy(velocities).float(),
        torch.tensor([1, 0, 0, 2]).expand(200, -1),
        torch.from_numpy(MASSES).float().expand(200, -1),
    )
    heat = torch.tensor([3e-4, 0.0, -2e-4, 1e-4, 0.0]).double()

    @torch.no_grad()
    def temperatures():
        start = torch.stack(states[:2], dim=2)
        first, last = (
            modes.temperatures(heat_module._moved_by_mean(model, start, *states[2:], n))
            for n in lags
        )
        return (last - first).mean(0) / (lags[1] - lags[0])

    slopes = heat_slopes(model, modes, *states, lags)
    before = temperatures()
    take_heat(model, slopes, heat)
    taken = before - temperatures()
    torch.testing.assert_close(taken, heat, rtol=0, atol=2e-5)


def test_chance_is_left_of_heat():
    heat = torch.tensor([4.0, -4.0, 1.0, 0.0, torch.nan])
    error = torch.tensor([2.0, 2.0, 2.0, 1.0, 1.0])
    assert known_heat(heat, error).tolist()[:4] == [3.0, -3.0, 0.0, 0.0]


def test_heat_is_taken_as_far_as_its_error_allows(model):
    weights = sum(w.numel() for w in model.encoder.parameters())
    slopes = torch.zeros(1, weights).double()
    slopes[0, 0] = 2.0

    def taken(heat, error):
        first = next(model.encoder.parameters()).flatten()
        before = first[0].item()
        take_heat(model, slopes, *torch.tensor([[heat], [error]]).double())
        return 2.0 * (before - first[0].item())

    # Of one heat it is h - e^2/h, and nothing within the error.
    assert taken(4e-2, 2e-2) == pytest.approx(3e-2, rel=1e-4)
    assert taken(-4e-2, 2e-2) == pytest.approx(-3e-2, rel=1e-4)
    assert taken(1e-2, 2e-2) == 0.0


def test_files_of_one_molecule_are_taken_together_others_apart(model):
    first, second = flow_of(model, count=40), flow_of(model, seed=2, count=24)
    (joined,) = balanced(copy.deepcopy(model), [first, second])
    assert joined["pairs"] == 64
    assert [one["pairs"] for one in balanced(model, [first, second], num_pairs=10)] == [
        10
    ]
    other = copy.copy(second)
    object.__setattr__(other, "bonds", BONDS[:2])
    apart = balanced(model, [first, other])
    assert [one["pairs"] for one in apart] == [40, 24]
    assert list(apart[1]["heat"]) == ["C-H", "C", "H", "O"]


def test_a_step_that_makes_it_worse_is_taken_back(model, monkeypatch):
    trajectory = flow_of(model)
    with torch.no_grad():
        model.encoder.kick[-1].weight *= 1.02
    slopes = balance.heat_slopes
    # The wrong way.
    monkeypatch.setattr(balance, "heat_slopes", lambda *args: -slopes(*args))
    before = copy.deepcopy(model.state_dict())
    (found,) = balanced(model, [trajectory])
    assert all(row["after"] == row["before"] for row in found["heat"].values())
    for name, weight in model.state_dict().items():
        assert weight.equal(before[name])


def test_frames_that_are_not_numbers_spoil_no_weights(model):
    trajectory = flow_of(model)
    trajectory.positions[7, 1] = np.nan
    before = copy.deepcopy(model.state_dict())
    balanced(model, [trajectory])
    for name, weight in model.state_dict().items():
        assert weight.equal(before[name])

import pytest
import torch
from e3nn import o3

from openmm_diffmd.models.energy import EnergyModel


@pytest.fixture
def make_energy():
    def make(l_max=1, **options):
        sizes = {"n_max": 4, "channels": 6, "n_heads": 2, "edge_channels": 8}
        with torch.random.fork_rng():
            torch.manual_seed(0)
            model = EnergyModel(3, l_max=l_max, n_layers=2, **(sizes | options))
        model.force_scale.fill_(1000.0)
        return model.eval()

    return make


def turned(improper):
    with torch.random.fork_rng():
        torch.manual_seed(11)
        matrix = o3.rand_matrix()
    return -matrix if improper else matrix


@pytest.mark.parametrize("improper", [False, True], ids=["rotation", "reflection"])
@pytest.mark.parametrize("l_max", [1, 2])
def test_energy_stays_and_forces_turn_with_the_molecule(
    l_max, improper, make_energy, make_state
):
    state = make_state(3, 5)
    model, matrix = make_energy(l_max), turned(improper)
    energies, forces = model.energy_and_forces(state.positions, state.species)
    assert forces.abs().amax(dim=(1, 2)).min() > 1
    moved = state.positions @ matrix.T + torch.tensor([1.0, -2.0, 0.5])
    again, rotated = model.energy_and_forces(moved, state.species)
    torch.testing.assert_close(again, energies, rtol=1e-9, atol=1e-6)
    torch.testing.assert_close(rotated, forces @ matrix.T, rtol=1e-8, atol=1e-6)


def test_forces_are_minus_the_gradient_by_finite_differences(make_energy, make_state):
    state, model, step = make_state(2, 4), make_energy(), 1e-6
    _, forces = model.energy_and_forces(state.positions, state.species)
    for atom in range(4):
        for axis in range(3):
            shift = torch.zeros_like(state.positions)
            shift[:, atom, axis] = step
            higher = model(state.positions + shift, state.species)
            lower = model(state.positions - shift, state.species)
            expected = -(higher - lower) / (2 * step)
            torch.testing.assert_close(
                forces[:, atom, axis], expected, rtol=1e-6, atol=1e-4
            )


def test_forces_have_neither_sum_nor_torque(make_energy, make_state):
    state, model = make_state(3, 6), make_energy()
    _, forces = model.energy_and_forces(state.positions, state.species)
    torque = torch.linalg.cross(state.positions, forces).sum(1)
    assert forces.sum(1).abs().max() < 1e-9 * forces.abs().max()
    assert torque.abs().max() < 1e-9 * forces.abs().max()


def test_order_of_atoms_and_padding_do_not_matter(make_energy, make_state):
    state, model = make_state(3, 5), make_energy()
    energies, forces = model.energy_and_forces(state.positions, state.species)
    order = torch.tensor([3, 0, 4, 1, 2])
    pad = torch.nn.functional.pad
    again, padded = model.energy_and_forces(
        pad(state.positions[:, order], (0, 0, 0, 2)),
        pad(state.species[:, order], (0, 2), value=-1),
    )
    torch.testing.assert_close(again, energies)
    torch.testing.assert_close(padded[:, :5], forces[:, order], rtol=1e-8, atol=1e-8)
    assert (padded[:, 5:] == 0).all()


def test_atoms_beyond_the_cutoff_do_not_see_each_other(make_energy):
    model = make_energy()
    far = torch.tensor([[[0.0, 0, 0], [0.1, 0, 0], [0.7, 0, 0]]])
    species = torch.tensor([[0, 1, 2]])
    _, forces = model.energy_and_forces(far, species)
    assert forces[0, 0].abs().max() > 1
    assert (forces[0, 2] == 0).all()


def test_forces_can_be_trained(make_energy, make_state):
    """The gradient of a loss of forces, by finite differences of one weight."""
    state, model, step = make_state(2, 4), make_energy().train(), 1e-5
    weight = model.attention[0].filters.weight

    def loss():
        _, forces = model.energy_and_forces(state.positions, state.species)
        return forces.square().mean()

    loss().backward()
    found = weight.grad[0, 0].item()
    values = []
    for sign in (1, -1):
        with torch.no_grad():
            weight[0, 0] += sign * step
        values.append(loss().item())
        with torch.no_grad():
            weight[0, 0] -= sign * step
    expected = (values[0] - values[1]) / (2 * step)
    assert abs(expected) > 1e-3
    assert found == pytest.approx(expected, rel=1e-4)

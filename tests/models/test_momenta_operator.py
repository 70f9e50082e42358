"""Momenta conserved by the compiled operator, beside plain torch."""

import pytest
import torch

from openmm_diffmd.models.projection import angular_momentum, project_change
from openmm_diffmd.ops.library import is_registered

pytestmark = pytest.mark.skipif(
    not is_registered("diffmd::conserve_momenta"), reason="the library was not built"
)
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-13}


def states(dtype, n_molecules=4, n_atoms=7):
    """Molecules, one of them padded, one a line, one a single atom."""
    generator = torch.Generator().manual_seed(3)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    positions = 0.2 * normal(n_molecules, n_atoms, 3)
    velocities = normal(n_molecules, n_atoms, 3)
    masses = 1.0 + 15.0 * torch.rand(n_molecules, n_atoms, generator=generator)
    masses[1, 4:] = 0.0
    positions[2, :, :2] = 0.0
    masses[3, 1:] = 0.0
    weights = (masses / masses.sum(1, keepdim=True))[..., None]
    for values in (positions, velocities):
        values -= (weights * values).sum(1, keepdim=True)
    change = 0.02 * normal(n_molecules, n_atoms, 2, 3)
    change[2:, :, 0, :2] = 0.0
    change[3] = 0.0
    return [one.to(dtype) for one in (change, positions, velocities, masses)]


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("angular", [False, True])
def test_momenta_equal_those_of_plain_torch(angular, dtype):
    change, positions, velocities, masses = states(dtype)
    expected = project_change(change, positions, velocities, masses, angular)
    found = torch.ops.diffmd.conserve_momenta(
        change, positions, velocities, masses, angular
    )
    tolerance = TOLERANCE[dtype] * float(expected.abs().max())
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)
    assert (found - change).abs().max() > 1e-3
    assert found[1, 4:].abs().max() == 0.0
    momentum = (masses[..., None, None] * found).sum(1)
    assert momentum.abs().max() < 100 * tolerance
    if angular:
        after = angular_momentum(
            positions + found[:, :, 0], velocities + found[:, :, 1], masses
        )
        lost = after - angular_momentum(positions, velocities, masses)
        # Of a line only what is across it can be turned.
        assert lost[:2].abs().max() < 100 * tolerance


@torch.no_grad()
def test_any_number_of_threads_gives_the_same_bits():
    given = states(torch.float32, 2000)
    before = torch.get_num_threads()
    found = []
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(torch.ops.diffmd.conserve_momenta(*given, True))
    finally:
        torch.set_num_threads(before)
    assert all(torch.equal(one, found[0]) for one in found[1:])


def test_gradients_are_refused():
    change, *rest = states(torch.float64)
    found = torch.ops.diffmd.conserve_momenta(change.requires_grad_(), *rest, True)
    with pytest.raises(RuntimeError, match="conserve_momenta is not implemented"):
        found.sum().backward()


@torch.no_grad()
def test_meta_tensors_give_shapes_and_what_does_not_fit_is_refused():
    given = states(torch.float32)
    run = torch.ops.diffmd.conserve_momenta
    found = run(*[one.to("meta") for one in given], True)
    assert found.is_meta
    assert found.shape == given[0].shape
    for index in range(4):
        wrong = list(given)
        wrong[index] = given[index][..., :-1]
        with pytest.raises(ValueError, match=r"expected .* of shape .* got"):
            run(*wrong, True)
        wrong[index] = given[index].double()
        if index:
            with pytest.raises(TypeError, match="dtype Float, got Double"):
                run(*wrong, True)

import pytest
import torch
from e3nn import o3

from openmm_diffmd.ops import spherical_harmonics
from openmm_diffmd.ops.harmonics import MAX_DEGREE


@pytest.mark.parametrize("l_max", range(MAX_DEGREE + 1))
@pytest.mark.parametrize("length", [1e-3, 0.7, 30.0])
def test_harmonics_equal_e3nn_solid_harmonics(l_max, length):
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(50, 3, generator=generator, dtype=torch.float64) * length
    expected = o3.spherical_harmonics(
        list(range(l_max + 1)), vectors, normalize=False, normalization="component"
    )
    found = spherical_harmonics(vectors, l_max)
    assert found.shape == (50, (l_max + 1) ** 2)
    # Each degree against its own size, r^l: no large degree hides a small one.
    for degree in range(l_max + 1):
        block = slice(degree**2, (degree + 1) ** 2)
        error = (found[:, block] - expected[:, block]).abs().max()
        assert error < 1e-12 * expected[:, block].abs().max()


def test_harmonics_of_unit_vectors_have_component_normalisation():
    generator = torch.Generator().manual_seed(2)
    vectors = torch.randn(20, 3, generator=generator, dtype=torch.float64)
    harmonics = spherical_harmonics(torch.nn.functional.normalize(vectors, dim=1), 3)
    for degree in range(4):
        squares = harmonics[:, degree**2 : (degree + 1) ** 2].square().sum(1)
        torch.testing.assert_close(
            squares, torch.full_like(squares, 2 * degree + 1), rtol=0, atol=1e-12
        )


def test_harmonics_gradients_hold_at_zero_length():
    generator = torch.Generator().manual_seed(3)
    vectors = torch.randn(4, 3, generator=generator, dtype=torch.float64)
    vectors[0] = 0.0
    vectors.requires_grad_()
    assert torch.autograd.gradcheck(lambda x: spherical_harmonics(x, 3), vectors)

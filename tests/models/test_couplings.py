import pytest
import torch
from e3nn import o3

from openmm_diffmd.models.couplings import (
    EdgeCouplings,
    coupling_paths,
    coupling_tensors,
)
from openmm_diffmd.ops import solid_harmonics

PATHS = coupling_paths(3)


def natural(degree):
    """Irrep whose parity is that of the harmonics."""
    return o3.Irrep(degree, (-1) ** degree)


def tensor_product(path, channels):
    l_in, l_edge, l_out = path
    return o3.TensorProduct(
        o3.Irreps([(channels, natural(l_in))]),
        o3.Irreps([(1, natural(l_edge))]),
        o3.Irreps([(channels, natural(l_out))]),
        [(0, 0, 0, "uvu", False)],
        irrep_normalization="component",
        path_normalization="element",
    )


def test_paths_are_all_that_keep_natural_parity():
    expected = {
        (l_in, l_edge, l_out)
        for l_in in range(3)
        for l_edge in range(3)
        for l_out in range(3)
        if natural(l_out) in natural(l_in) * natural(l_edge)
    }
    assert set(coupling_paths(2)) == expected
    assert len(coupling_paths(2)) == len(expected)
    # Outputs of degree 0 come first for every input: messages are joined by degree.
    assert [l_out for _, _, l_out in coupling_paths(2)[:3]] == [0, 1, 2]


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_coupling_equals_e3nn_tensor_product(path):
    l_in, l_edge, _ = path
    coefficients = coupling_tensors(3)[PATHS.index(path)]
    generator = torch.Generator().manual_seed(3)
    features = torch.randn(7, 2 * l_in + 1, generator=generator)
    harmonics = torch.randn(7, 2 * l_edge + 1, generator=generator)
    expected = tensor_product(path, 1)(features, harmonics)
    found = torch.einsum("eoi,ne,ni->no", coefficients, harmonics, features)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-13)


@pytest.mark.parametrize("path", PATHS, ids=str)
def test_coupling_keeps_unit_variance(path):
    coefficients = coupling_tensors(3)[PATHS.index(path)]
    # Each component sums as many squares: variance one from inputs of variance one.
    squares = coefficients.square().sum((0, 2))
    torch.testing.assert_close(squares, torch.ones_like(squares), rtol=1e-12, atol=0)


@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_dense_contraction_equals_e3nn_sum_over_neighbours(l_max):
    n_batch, n_atoms, channels = 2, 4, 3
    generator = torch.Generator().manual_seed(4)
    vectors = torch.randn(n_batch, n_atoms, n_atoms, 3, generator=generator)
    harmonics = solid_harmonics(vectors.flatten(0, 2), l_max)
    harmonics = harmonics.unflatten(0, vectors.shape[:3])
    dim = (l_max + 1) ** 2
    features = torch.randn(n_batch, n_atoms, dim, channels, generator=generator)
    module = EdgeCouplings(l_max)
    couplings = module(harmonics)
    assert len(couplings) == len(module.paths)
    for (l_in, l_edge, l_out), coupling in zip(module.paths, couplings, strict=True):
        size = 2 * l_out + 1
        assert coupling.shape == (n_batch, n_atoms, size, n_atoms * (2 * l_in + 1))
        block = features[:, :, l_in**2 : (l_in + 1) ** 2]
        found = coupling @ block.flatten(1, 2)[:, None]
        product = tensor_product((l_in, l_edge, l_out), channels)
        # e3nn keeps (channel, component); edges i <- j over all pairs.
        sent = block.transpose(2, 3).flatten(2)[:, None].expand(-1, n_atoms, -1, -1)
        edges = harmonics[..., l_edge**2 : (l_edge + 1) ** 2]
        expected = product(sent, edges).sum(2)
        expected = expected.unflatten(-1, (channels, size)).transpose(2, 3)
        torch.testing.assert_close(found, expected, rtol=1e-11, atol=1e-12)

"""The denoising head as one compiled operator, beside plain torch."""

import pytest
import torch

from openmm_diffmd.models.denoiser import Denoiser
from openmm_diffmd.models.geometry import EdgeGeometry, edges_of
from openmm_diffmd.ops.library import is_registered
from tests.models.test_operators import TOLERANCE, perturbed

pytestmark = pytest.mark.skipif(
    not is_registered("diffmd::equivariant_denoiser"),
    reason="the library was not built",
)

SIZES = [(1, 48, 24, 4, 48, 1), (1, 8, 8, 2, 6, 2), (2, 9, 5, 1, 7, 1)]
"""l_max, channels of the condition and of the head, heads, edge channels, layers."""


def make(sizes, dtype, n_molecules=3, n_atoms=9):
    """A head, and what it takes."""
    l_max, wide, channels, n_heads, edge_channels, n_layers = sizes
    generator = torch.Generator().manual_seed(2)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64).to(dtype)

    with torch.random.fork_rng():
        torch.manual_seed(l_max)
        geometry = EdgeGeometry(0.5, 16.0, l_max, 3).to(dtype)
        head = Denoiser(
            l_max, geometry.n_invariants, wide, channels, n_heads, edge_channels,
            n_layers,
        )  # fmt: skip
        perturbed(head, dtype)
    species = torch.zeros(n_molecules, n_atoms, dtype=torch.long)
    species[1, n_atoms // 2 :] = -1
    edges = geometry(
        0.25 * normal(n_molecules, n_atoms, 3),
        normal(n_molecules, n_atoms, 3),
        edges_of(species),
    )
    sigma = torch.logspace(-2, 2, n_molecules, dtype=torch.float64).to(dtype)
    return head, [
        normal(n_molecules, n_atoms, 2, 3),
        sigma,
        normal(n_molecules, n_atoms, (l_max + 1) ** 2, wide),
        edges,
        normal(n_molecules, n_atoms),
    ]


def assert_alike(found, expected):
    for one, other in zip(found, expected, strict=True):
        tolerance = 10 * TOLERANCE[other.dtype] * float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0.0, atol=tolerance)


def arguments(head, given):
    residual, sigma, features, edges, log_scale = given
    coefficients = head.attention[0].couplings.coefficients
    matrices = [matrix.detach() for matrix in head.matrices()]
    return [residual, sigma, features, *edges[:3], log_scale, coefficients, matrices]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_denoiser_equals_that_of_plain_torch(sizes, dtype):
    head, given = make(sizes, dtype)
    expected = head(*given)
    with torch.no_grad():
        found = head(*given)
    assert expected.grad_fn is not None
    assert found.grad_fn is None
    assert_alike(found, expected.detach())
    # What the network adds shows beside the residual.
    assert (found[0] - given[0][0]).abs().max() > 1e-3


@torch.no_grad()
def test_any_number_of_threads_gives_the_same_and_so_does_a_molecule_alone():
    head, given = make(SIZES[0], torch.float32, n_molecules=60)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(head(*given))
    finally:
        torch.set_num_threads(before)
    # Products of torch's matrices are summed in an order that sizes and threads decide.
    for one in found[1:]:
        assert_alike(one, found[0])
    residual, sigma, features, edges, log_scale = given
    few = edges._replace(
        invariants=edges.invariants[7:8],
        envelope=edges.envelope[7:8],
        harmonics=edges.harmonics[7:8],
    )
    alone = head(residual[7:8], sigma[7:8], features[7:8], few, log_scale[7:8])
    assert_alike(alone, found[0][7:8])


def test_gradients_are_refused():
    given = arguments(*make(SIZES[1], torch.float32))
    given[0].requires_grad_()
    found = torch.ops.diffmd.equivariant_denoiser(*given, 2)
    with pytest.raises(RuntimeError, match="equivariant_denoiser is not implemented"):
        found.sum().backward()


@torch.no_grad()
def test_autocast_and_no_molecules_are_no_matter():
    head, given = make(SIZES[1], torch.float32)
    expected = head(*given)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(head(*given), expected)
    none = [value[:0] for value in arguments(head, given)[:7]]
    found = torch.ops.diffmd.equivariant_denoiser(
        *none, *arguments(head, given)[7:], head.n_heads
    )
    assert found.shape == (0, 9, 2, 3)


@torch.no_grad()
def test_meta_tensors_give_shapes_and_what_does_not_fit_is_refused():
    given = arguments(*make(SIZES[1], torch.float32))
    run = torch.ops.diffmd.equivariant_denoiser
    assert run(*given, 2).shape == given[0].shape
    on_meta = [
        [one.to("meta") for one in value]
        if isinstance(value, list)
        else value.to("meta")
        for value in given
    ]
    found = run(*on_meta, 2)
    assert found.is_meta
    assert found.shape == given[0].shape
    # A result is never memory that nothing was written to.
    assert run(*given[:8], on_meta[8], 2).is_meta
    for index in range(8):
        wrong = list(given)
        wrong[index] = wrong[index][..., :-1].contiguous()
        with pytest.raises(ValueError, match=r"expected .* got"):
            run(*wrong, 2)
        wrong[index] = given[index].double()
        with pytest.raises(TypeError, match=r"expected .* dtype"):
            run(*wrong, 2)
    for index in range(len(given[8])):
        matrices = list(given[8])
        matrices[index] = matrices[index][:-1]
        with pytest.raises(ValueError, match=r"expected .* got"):
            run(*given[:8], matrices, 2)
    for matrices in (given[8][:-1], given[8][:9], []):
        with pytest.raises(ValueError, match="expected 10 weights and 21 a layer"):
            run(*given[:8], matrices, 2)
    with pytest.raises(ValueError, match="expected features of shape"):
        run(*given[:2], given[2][0], *given[3:], 2)

"""Layers as compiled operators beside the same layers in plain torch."""

import os
import subprocess
import sys

import pytest
import torch

from openmm_diffmd.models import TransitionModel
from openmm_diffmd.models.attention import EquivariantAttention, FeedForward
from openmm_diffmd.models.geometry import EdgeGeometry, edges_of
from openmm_diffmd.ops import is_loaded

pytestmark = pytest.mark.skipif(not is_loaded(), reason="the library was not built")

SIZES = [(1, 48, 4, 48), (1, 24, 4, 48), (1, 5, 3, 9), (2, 12, 2, 10), (3, 9, 1, 7)]
"""l_max, channels, heads, edge channels: vectors of eight and what remains of them."""
TOLERANCE = {torch.float32: 2e-6, torch.float64: 1e-14}


@pytest.fixture(params=[torch.float32, torch.float64], ids=["float32", "float64"])
def dtype(request):
    return request.param


def perturbed(module, dtype):
    """No weight as it was initialised: a bias of 0 or a weight of 1 tests nothing."""
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.add_(0.3 * torch.randn(parameter.shape))
    return module.to(dtype).eval()


def layers(l_max, channels, n_heads, edge_channels, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(l_max)
        geometry = EdgeGeometry(0.5, 16.0, l_max, 3).to(dtype)
        attention = EquivariantAttention(
            l_max, channels, n_heads, geometry.n_invariants, edge_channels
        )
        update = perturbed(FeedForward(l_max, channels), dtype)
        return geometry, perturbed(attention, dtype), update


def inputs(geometry, l_max, channels, dtype, n_molecules=3, n_atoms=11):
    """Molecules with pairs beyond the cutoff, and with padding."""
    generator = torch.Generator().manual_seed(1)
    positions = 0.25 * torch.randn(n_molecules, n_atoms, 3, generator=generator)
    velocities = torch.randn(n_molecules, n_atoms, 3, generator=generator)
    species = torch.zeros(n_molecules, n_atoms, dtype=torch.long)
    species[1:, n_atoms // 2 :] = -1
    edges = geometry(positions.to(dtype), velocities.to(dtype), edges_of(species))
    shape = (n_molecules, n_atoms, (l_max + 1) ** 2, channels)
    return torch.randn(shape, generator=generator).to(dtype), edges


def attend(attention, features, edges):
    return torch.ops.diffmd.equivariant_attention(
        features,
        *edges[:3],
        attention.couplings.coefficients,
        attention.matrices(),
        attention.n_heads,
    )


def feed(update, features):
    return torch.ops.diffmd.equivariant_feed_forward(features, update.matrices())


def assert_same(found, expected):
    expected = expected.detach()
    scale = float(expected.abs().max())
    tolerance = TOLERANCE[expected.dtype] * scale
    torch.testing.assert_close(found, expected, rtol=0.0, atol=tolerance)


@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_layers_equal_those_of_plain_torch(sizes, dtype):
    l_max, channels, *_ = sizes
    geometry, attention, update = layers(*sizes, dtype)
    features, edges = inputs(geometry, l_max, channels, dtype)
    present = edges.envelope != 0
    assert present.any()
    assert not present[0].fill_diagonal_(True).all()
    expected = attention(features, edges), update(features)
    with torch.no_grad():
        found = attend(attention, features, edges), feed(update, features)
    for one, other in zip(found, expected, strict=True):
        assert other.grad_fn is not None
        assert_same(one, other)


def test_large_logits_and_numbers_that_are_none(dtype):
    geometry, attention, update = layers(1, 8, 2, 8, dtype)
    attention.logits.weight.data *= 20.0
    features, edges = inputs(geometry, 1, 8, dtype)
    expected = attention(features, edges)
    with torch.no_grad():
        assert_same(attend(attention, features, edges), expected)
        # All of a molecule's atoms see it, no other molecule's.
        features[0, 2, 1, 3] = float("nan")
        found = attend(attention, features, edges)
        assert found[0].isnan().any()
        assert found[1:].isfinite().all()
        found = feed(update, features)
        assert found[0, 2].isnan().any()
        assert found[0, 3:].isfinite().all()


def test_any_number_of_threads_gives_the_same_bits():
    # Enough of them that each layer is shared among threads.
    n_molecules = 40
    geometry, attention, update = layers(1, 48, 4, 48, torch.float32)
    features, edges = inputs(geometry, 1, 48, torch.float32, n_molecules, 9)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            with torch.no_grad():
                found.append(
                    (attend(attention, features, edges), feed(update, features))
                )
    finally:
        torch.set_num_threads(before)
    for one in found[1:]:
        assert all(map(torch.equal, one, found[0]))


def test_a_molecule_is_the_same_alone_and_among_others():
    geometry, attention, update = layers(1, 24, 4, 48, torch.float32)
    features, edges = inputs(geometry, 1, 24, torch.float32)
    alone = edges._replace(
        invariants=edges.invariants[1:2],
        envelope=edges.envelope[1:2],
        harmonics=edges.harmonics[1:2],
    )
    with torch.no_grad():
        assert torch.equal(
            attend(attention, features, edges)[1:2],
            attend(attention, features[1:2], alone),
        )
        assert torch.equal(feed(update, features)[1:2], feed(update, features[1:2]))


def test_atoms_without_any_neighbour(dtype):
    geometry, attention, _ = layers(1, 8, 2, 8, dtype)
    features, edges = inputs(geometry, 1, 8, dtype, 2, 1)
    assert not edges.envelope.any()
    with torch.no_grad():
        found = attend(attention, features, edges)
    assert_same(found, attention(features, edges))


def test_frozen_module_keeps_matrices_as_constants():
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = TransitionModel(3, 0.01, channels=8, edge_channels=8, n_layers=1).eval()
    for method in ("encode", "denoise"):
        torch.jit.export(getattr(type(model), method))
    frozen = torch.jit.freeze(
        torch.jit.script(model), preserved_attrs=["encode", "denoise"]
    )
    for method in ("encode", "denoise"):
        graph = str(getattr(frozen, method).graph)
        # All is one operator; layers in plain torch are the other branch.
        operator = {"encode": "encoder", "denoise": "denoiser"}[method]
        assert graph.count(f"diffmd::equivariant_{operator}") == 1
        assert "diffmd::equivariant_attention" not in graph
        assert "aten::t(" not in graph


def test_gradients_are_refused():
    geometry, attention, update = layers(1, 8, 2, 8, torch.float32)
    features, edges = inputs(geometry, 1, 8, torch.float32)
    features.requires_grad_()
    matrices = [matrix.detach() for matrix in attention.matrices()]
    found = torch.ops.diffmd.equivariant_attention(
        features, *edges[:3], attention.couplings.coefficients, matrices, 2
    )
    with pytest.raises(RuntimeError, match="equivariant_attention is not implemented"):
        found.sum().backward()
    matrices = [matrix.detach() for matrix in update.matrices()]
    found = torch.ops.diffmd.equivariant_feed_forward(features, matrices)
    with pytest.raises(RuntimeError, match="feed_forward is not implemented"):
        found.sum().backward()


@torch.no_grad()
def test_meta_tensors_give_shapes_and_what_does_not_fit_is_refused():
    geometry, attention, update = layers(1, 8, 2, 8, torch.float32)
    features, edges = inputs(geometry, 1, 8, torch.float32)
    operators = torch.ops.diffmd
    arguments = [features, *edges[:3], attention.couplings.coefficients]
    matrices = attention.matrices()

    def on_meta(tensors):
        return [tensor.to("meta") for tensor in tensors]

    for found in (
        operators.equivariant_attention(*on_meta(arguments), on_meta(matrices), 2),
        operators.equivariant_feed_forward(
            features.to("meta"), on_meta(update.matrices())
        ),
    ):
        assert found.shape == features.shape
        assert found.is_meta
    with pytest.raises(ValueError, match="expected 12 weights, got 11"):
        operators.equivariant_attention(*arguments, matrices[:-1], 2)
    with pytest.raises(ValueError, match="that divides 8, got 3"):
        operators.equivariant_attention(*arguments, matrices, 3)
    for index in range(1, 5):
        wrong = list(arguments)
        wrong[index] = wrong[index][..., :-1].contiguous()
        with pytest.raises(ValueError, match=r"expected .* of shape"):
            operators.equivariant_attention(*wrong, matrices, 2)
    for index in range(12):
        wrong = [*matrices[:index], matrices[index][:-1], *matrices[index + 1 :]]
        with pytest.raises(ValueError, match=r"expected .* got"):
            operators.equivariant_attention(*arguments, wrong, 2)
        wrong[index] = matrices[index].double()
        with pytest.raises(TypeError, match="dtype Float, got Double"):
            operators.equivariant_attention(*arguments, wrong, 2)
    gates = update.matrices()
    for index in range(9):
        wrong = [*gates[:index], gates[index][:-1], *gates[index + 1 :]]
        with pytest.raises(ValueError, match=r"expected .* got"):
            operators.equivariant_feed_forward(features, wrong)
    with pytest.raises(ValueError, match="expected 4, 9 or 16 components, got 3"):
        operators.equivariant_feed_forward(features[:, :, :3], gates)
    with pytest.raises(ValueError, match="expected features of shape"):
        operators.equivariant_feed_forward(features[0], gates)
    for where in ("cpu", "meta"):
        there = features.to(where)
        with pytest.raises(TypeError, match="float32 or float64, got Half"):
            operators.equivariant_feed_forward(there.half(), gates)
        with pytest.raises(ValueError, match="expected features of shape"):
            operators.equivariant_attention(there[0], *arguments[1:], matrices, 2)
    with pytest.raises(ValueError, match="at least one channel"):
        operators.equivariant_feed_forward(features[..., :0], gates)
    none = edges.invariants[..., :0]
    with pytest.raises(ValueError, match="I > 0, got"):
        operators.equivariant_attention(features, none, *arguments[2:], matrices, 2)


@pytest.mark.parametrize("value", [-3e38, -1e30, -100.0, -88.0, 90.0, 1e30])
def test_exponentials_beyond_what_float32_can_tell(value):
    *_, update = layers(1, 8, 2, 8, torch.float32)
    torch.nn.init.zeros_(update.hidden.weight)
    torch.nn.init.constant_(update.hidden.bias, value)
    features = torch.zeros(1, 3, 4, 8, dtype=torch.float32)
    expected = update(features)
    with torch.no_grad():
        assert_same(feed(update, features), expected)


CHILD = """
import torch
import tests.models.test_operators as tests

for sizes in tests.SIZES:
    for dtype in tests.TOLERANCE:
        tests.test_layers_equal_those_of_plain_torch(sizes, dtype)
print("right")
"""


def test_each_instruction_set_is_right(kernels, pytestconfig):
    ran = subprocess.run(
        [sys.executable, "-c", CHILD],
        capture_output=True,
        text=True,
        check=False,
        cwd=pytestconfig.rootpath,
        env={**os.environ, "DIFFMD_CPU_KERNELS": kernels},
    )
    assert ran.stdout == "right\n", ran.stderr

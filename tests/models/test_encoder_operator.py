"""All layers of the encoder as one compiled operator, beside plain torch."""

import os
import subprocess
import sys
from typing import NamedTuple

import pytest
import torch
from torch import Tensor

from openmm_diffmd.models.encoder import Encoder
from openmm_diffmd.ops.library import is_registered
from tests.models.test_operators import TOLERANCE, perturbed

pytestmark = pytest.mark.skipif(
    not is_registered("diffmd::equivariant_encoder"), reason="the library was not built"
)

SIZES = [(1, 48, 4, 48, 2, True), (1, 8, 2, 8, 3, False), (2, 9, 1, 7, 1, True)]
"""l_max, channels, heads, edge channels, layers, velocity features."""


class State(NamedTuple):
    """Arguments of `Encoder`."""

    positions: Tensor
    velocities: Tensor
    species: Tensor
    masses: Tensor
    level: Tensor


def make_encoder(l_max, channels, n_heads, edge_channels, n_layers, waves, dtype):
    with torch.random.fork_rng():
        torch.manual_seed(l_max)
        encoder = Encoder(
            3, 0.01, 0.5, 16.0, l_max, 3, channels, n_heads, edge_channels, n_layers,
            waves,
        )  # fmt: skip
        perturbed(encoder, dtype)
        # Molecules are moved, not blown up.
        for kick in encoder.kick:
            kick.weight.data *= 2.0 / channels
        encoder.position_scale[:] = 1e-3 * (1 + torch.rand(4))
        encoder.velocity_scale[:] = 0.1 * (1 + torch.rand(4))
        encoder.invariant_scale[:] = 0.1 + torch.rand(encoder.geometry.n_invariants)
    return encoder


def make_state(dtype, n_molecules=3, n_atoms=9):
    """Molecules with pairs beyond the cutoff, and with padding."""
    generator = torch.Generator().manual_seed(1)

    def normal(*shape):
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    species = torch.randint(0, 3, (n_molecules, n_atoms), generator=generator)
    species[1:2, n_atoms // 2 :] = -1
    masses = torch.tensor([1.0, 12.0, 16.0, 0.0], dtype=torch.float64)[species]
    return State(
        (0.25 * normal(n_molecules, n_atoms, 3)).to(dtype),
        (1.5 * normal(n_molecules, n_atoms, 3)).to(dtype),
        species,
        masses.to(dtype),
        torch.rand(n_molecules, generator=generator).to(dtype),
    )


def flat(found):
    features, x, v, geometry = found
    return [features, x, v, *geometry[:3]]


def compare(sizes, dtype):
    encoder, state = make_encoder(*sizes, dtype), make_state(dtype)
    kept = [tensor.clone() for tensor in (state.positions, state.velocities)]
    expected = flat(encoder(*state))
    with torch.no_grad():
        found = flat(encoder(*state))
    assert expected[0].grad_fn is not None
    present = expected[4] != 0
    assert present.any()
    assert not present[0].fill_diagonal_(True).all()
    for name, one, other in zip(
        ("features", "positions", "velocities", "invariants", "envelope", "harmonics"),
        found,
        expected,
        strict=True,
    ):
        assert one.shape == other.shape, name
        other = other.detach()
        # Differences grow from layer to layer.
        tolerance = 30 * TOLERANCE[dtype] * float(other.abs().max())
        torch.testing.assert_close(one, other, rtol=0.0, atol=tolerance, msg=name)
    for tensor, before in zip((state.positions, state.velocities), kept, strict=True):
        assert torch.equal(tensor, before)
    # It is moved: what is compared is no identity.
    assert (found[1] - state.positions).abs().max() > 1e-3


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_encoder_equals_that_of_plain_torch(sizes, dtype):
    compare(sizes, dtype)


CHILD = """
import torch
from tests.models.test_encoder_operator import SIZES, compare

for sizes in SIZES:
    for dtype in (torch.float32, torch.float64):
        compare(sizes, dtype)
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


@torch.no_grad()
def test_autocast_and_no_molecules_are_no_matter():
    encoder, state = make_encoder(*SIZES[1], torch.float32), make_state(torch.float32)
    expected = flat(encoder(*state))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        found = flat(encoder(*state))
    assert all(map(torch.equal, found, expected))
    none = flat(encoder(*(value[:0] for value in state)))
    assert [t.shape for t in none] == [(0, *t.shape[1:]) for t in expected]


def test_a_degree_that_the_operators_lack_is_served_by_plain_torch():
    sizes = (4, 8, 2, 8, 1, False)
    encoder, state = make_encoder(*sizes, torch.float64), make_state(torch.float64)
    expected = flat(encoder(*state))
    with torch.no_grad():
        found = flat(encoder(*state))
    assert all(map(torch.equal, found, [tensor.detach() for tensor in expected]))


@torch.no_grad()
def test_any_number_of_threads_gives_the_same_bits():
    # Enough of them that all is shared among threads.
    encoder = make_encoder(*SIZES[0], torch.float32)
    state = make_state(torch.float32, n_molecules=90)
    found = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2, 3):
            torch.set_num_threads(threads)
            found.append(flat(encoder(*state)))
    finally:
        torch.set_num_threads(before)
    for one in found[1:]:
        assert all(map(torch.equal, one, found[0]))


@torch.no_grad()
def test_a_molecule_is_the_same_alone_and_among_others():
    encoder = make_encoder(*SIZES[0], torch.float32)
    state = make_state(torch.float32)
    among = [tensor[2:3] for tensor in flat(encoder(*state))]
    alone = flat(encoder(*[tensor[2:3] for tensor in state]))
    assert all(map(torch.equal, alone, among))


def arguments(encoder, state):
    return [
        *state,
        encoder.position_scale,
        encoder.velocity_scale,
        encoder.invariant_scale,
        encoder.attention[0].couplings.coefficients,
        [matrix.detach() for matrix in encoder.matrices()],
        2,
        0.01,
        0.5,
        16.0,
        3,
    ]


def test_gradients_are_refused():
    encoder, state = make_encoder(*SIZES[1], torch.float32), make_state(torch.float32)
    given = arguments(encoder, state)
    given[0] = given[0].clone().requires_grad_()
    found = torch.ops.diffmd.equivariant_encoder(*given)
    with pytest.raises(RuntimeError, match="equivariant_encoder is not implemented"):
        found[1].sum().backward()


@torch.no_grad()
def test_meta_tensors_give_shapes():
    encoder, state = make_encoder(*SIZES[1], torch.float32), make_state(torch.float32)
    given = arguments(encoder, state)
    on_meta = [
        [one.to("meta") for one in value]
        if isinstance(value, list)
        else value.to("meta")
        if isinstance(value, Tensor)
        else value
        for value in given
    ]
    found = torch.ops.diffmd.equivariant_encoder(*given)
    for one, other in zip(
        torch.ops.diffmd.equivariant_encoder(*on_meta), found, strict=True
    ):
        assert one.is_meta
        assert one.shape == other.shape
        assert one.dtype == other.dtype
        assert one.is_contiguous() == other.is_contiguous()


@torch.no_grad()
def test_what_does_not_fit_is_refused():
    encoder, state = make_encoder(*SIZES[1], torch.float32), make_state(torch.float32)
    given = arguments(encoder, state)
    run = torch.ops.diffmd.equivariant_encoder
    run(*given)
    for index in range(9):
        wrong = list(given)
        wrong[index] = wrong[index][..., :-1].contiguous()
        with pytest.raises(ValueError, match=r"expected .* got"):
            run(*wrong)
        wrong[index] = given[index].half()
        with pytest.raises((TypeError, RuntimeError), match=r"dtype|Half"):
            run(*wrong)
    for value in (-2, 3):
        wrong = list(given)
        wrong[2] = torch.full_like(given[2], value)
        with pytest.raises(ValueError, match=f"species from -1 to 2, got {value}"):
            run(*wrong)
    for matrices in (given[9][:-1], given[9][:3], []):
        with pytest.raises(ValueError, match="3 weights and 22 a layer, got"):
            run(*given[:9], matrices, *given[10:])
    for index in range(len(given[9])):
        matrices = list(given[9])
        matrices[index] = matrices[index][:-1]
        with pytest.raises(ValueError, match=r"expected .* got"):
            run(*given[:9], matrices, *given[10:])
    with pytest.raises(ValueError, match="expected positions of shape"):
        run(given[0][0], *given[1:])
    with pytest.raises(ValueError, match="expected a scale of 4 or 20 invariants"):
        run(*given[:-1], 4)

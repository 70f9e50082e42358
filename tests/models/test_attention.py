import itertools
import math

import pytest
import torch
from e3nn import o3

from openmm_diffmd.models.attention import (
    EquivariantAttention,
    FeedForward,
    attention_weights,
)
from openmm_diffmd.models.couplings import coupling_paths
from openmm_diffmd.models.geometry import EdgeGeometry, edges_of
from openmm_diffmd.ops import spherical_fourier_bessel

CUTOFF = 0.5


def slow_message(layer, l_max, features, positions, geometry):
    """The layer's message, an edge and a head at a time, on e3nn's Wigner symbols."""
    n_batch, n_atoms, dim, channels = features.shape
    heads = layer.n_heads
    paths = coupling_paths(l_max)
    normal = layer.norm(features)
    messages = torch.zeros(n_batch, n_atoms, dim, channels)
    for b, i in itertools.product(range(n_batch), range(n_atoms)):
        hidden, logits = {}, {}
        for j in range(n_atoms):
            if geometry.envelope[b, i, j] == 0:
                continue
            to_i = layer.ends_in(normal[b, i, 0])[: layer.edge_in.out_features]
            from_j = layer.ends_in(normal[b, j, 0])[layer.edge_in.out_features :]
            edge = layer.edge_in(geometry.invariants[b, i, j]) + to_i + from_j
            hidden[j] = torch.nn.functional.silu(edge)
            logits[j] = layer.logits(hidden[j])
        for j, edge in hidden.items():
            weights = []
            for head in range(heads):
                # A place of logit 0 and weight 1 takes part.
                total = 1.0 + sum(
                    geometry.envelope[b, i, k] * logits[k][head].exp() for k in hidden
                )
                share = geometry.envelope[b, i, j] * logits[j][head].exp() / total
                weights.append(share.repeat(len(edge) // heads))
            filters = layer.filters(edge * torch.cat(weights))
            vector = positions[b, j] - positions[b, i]
            harmonics = o3.spherical_harmonics(
                list(range(l_max + 1)), vector, True, normalization="component"
            )
            value = layer.values(normal[b, j])
            for index, (l_in, l_edge, l_out) in enumerate(paths):
                symbol = math.sqrt(2 * l_out + 1) * o3.wigner_3j(l_in, l_edge, l_out)
                messages[b, i, l_out**2 : (l_out + 1) ** 2] += torch.einsum(
                    "imo,ic,m,c->oc",
                    symbol,
                    value[l_in**2 : (l_in + 1) ** 2],
                    harmonics[l_edge**2 : (l_edge + 1) ** 2],
                    filters[index * channels : (index + 1) * channels],
                )
    return layer.out(messages)


@pytest.mark.parametrize("l_max", [1, 2, 3])
def test_message_equals_explicit_loop_over_edges(l_max, make_state):
    state = make_state(2, 4)
    # One pair beyond the cutoff, one padded atom.
    positions = state.positions.clone()
    positions[0, 3] = torch.tensor([0.6, 0.0, 0.0])
    species = torch.tensor([[0, 0, 0, 0], [0, 0, 0, -1]])
    with torch.random.fork_rng():
        torch.manual_seed(l_max)
        geometry = EdgeGeometry(CUTOFF, 16.0, l_max, 3)
        layer = EquivariantAttention(l_max, 4, 2, geometry.n_invariants, 6)
    edges = geometry(positions, state.velocities, edges_of(species))
    assert (edges.envelope == 0).sum() > 4 + 7
    generator = torch.Generator().manual_seed(7)
    features = torch.randn(2, 4, (l_max + 1) ** 2, 4, generator=generator)
    expected = slow_message(layer, l_max, features, positions, edges)
    torch.testing.assert_close(layer(features, edges), expected, rtol=1e-11, atol=1e-12)


def test_invariants_are_the_contractions_of_fourier_bessel_features(make_state):
    state = make_state(1, 3)
    l_max, n_max, velocity_cutoff = 2, 3, 16.0
    geometry = EdgeGeometry(CUTOFF, velocity_cutoff, l_max, n_max)
    edges = edges_of(torch.zeros(1, 3, dtype=torch.int64))
    found = geometry(state.positions, state.velocities, edges).invariants

    def phi(vector, cutoff):
        """Phi_nlm: list over degrees of (2l + 1, n_max)."""
        features = spherical_fourier_bessel(vector[None], cutoff, l_max, n_max)[0]
        return [features[d**2 : (d + 1) ** 2] for d in range(l_max + 1)]

    for i, j in itertools.permutations(range(3), 2):
        edge = phi(state.positions[0, j] - state.positions[0, i], CUTOFF)
        expected = [edge[0][0]]
        at_i, at_j = (
            phi(state.velocities[0, atom], velocity_cutoff) for atom in (i, j)
        )
        for degree in range(l_max + 1):
            expected += [(edge[degree] * at[degree]).sum(0) for at in (at_i, at_j)]
        torch.testing.assert_close(
            found[0, i, j], torch.cat(expected), rtol=1e-10, atol=1e-12
        )


@pytest.mark.parametrize("cutoff", [0.5, 1.5])
def test_edges_are_pairs_within_the_cutoff_only(cutoff, make_state):
    state = make_state(2, 4)
    positions = state.positions.clone()
    positions[:, 3] = torch.tensor([cutoff + 0.8, 0.0, 0.0])
    edges = edges_of(torch.tensor([[0, 0, -1, 0]]).expand(2, -1))
    envelope = EdgeGeometry(cutoff, 16.0, 1, 3)(
        positions, state.velocities, edges
    ).envelope
    distances = torch.cdist(positions, positions)
    assert torch.equal(envelope > 0, edges.pairs & (distances < cutoff))
    assert (envelope > 0).any()


def test_attention_weights_sum_below_one_and_follow_the_envelope():
    generator = torch.Generator().manual_seed(8)
    logits = torch.randn(2, 3, 3, 4, generator=generator)
    envelope = torch.rand(2, 3, 3, generator=generator)
    envelope[0, 1] = 0.0
    weights = attention_weights(logits, envelope)
    assert (weights.sum(2) < 1).all()
    assert (weights >= 0).all()
    assert (weights[0, 1] == 0).all()
    # A vanishing last neighbour vanishes in proportion.
    faint = attention_weights(logits, 1e-6 * envelope)
    torch.testing.assert_close(
        faint, 1e-6 * envelope[..., None] * logits.exp(), rtol=1e-4, atol=0
    )


def test_attention_weights_survive_large_logits():
    logits = torch.tensor([500.0, 800.0, -900.0]).view(1, 1, 3, 1)
    weights = attention_weights(logits, torch.ones(1, 1, 3)).flatten()
    torch.testing.assert_close(weights, torch.tensor([0.0, 1.0, 0.0]))


def test_attention_weights_do_not_see_the_logit_of_an_absent_pair():
    logits = torch.tensor([0.5, 800.0, -0.3]).view(1, 1, 3, 1).requires_grad_()
    envelope = torch.tensor([1.0, 0.0, 0.5]).view(1, 1, 3)
    weights = attention_weights(logits, envelope)
    without = attention_weights(logits[:, :, ::2], envelope[:, :, ::2])
    torch.testing.assert_close(weights[:, :, ::2], without)
    assert weights[0, 0, 1] == 0
    (gradient,) = torch.autograd.grad(weights.square().sum(), logits)
    assert torch.isfinite(gradient).all()
    assert gradient[0, 0, 1] == 0


def test_attention_weights_gradient_is_that_of_the_plain_formula():
    """The subtracted maximum is detached: it must cancel in the gradient too."""
    generator = torch.Generator().manual_seed(9)
    logits = torch.randn(1, 2, 3, 2, generator=generator, requires_grad=True)
    envelope = torch.rand(1, 2, 3, generator=generator, requires_grad=True)
    assert torch.autograd.gradcheck(attention_weights, (logits, envelope))


def test_edge_channels_that_heads_do_not_divide_are_refused():
    with pytest.raises(ValueError, match="found 10 edge_channels, expected a multiple"):
        EquivariantAttention(1, 4, 4, 8, 10)


def test_feed_forward_turns_with_its_input():
    with torch.random.fork_rng():
        torch.manual_seed(1)
        layer = FeedForward(2, 4)
        matrix = o3.Irreps("1x0e+1x1o+1x2e").D_from_matrix(-o3.rand_matrix())
    generator = torch.Generator().manual_seed(2)
    features = torch.randn(2, 3, 9, 4, generator=generator)
    torch.testing.assert_close(
        layer(matrix @ features), matrix @ layer(features), rtol=1e-11, atol=1e-11
    )

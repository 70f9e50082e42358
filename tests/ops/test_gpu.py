"""What only a GPU has: streams, and graphs of kernels."""

import pytest
import torch

from openmm_diffmd.ops import reference

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="found no NVIDIA GPU"),
]
N_EDGES = 20_000


@pytest.fixture
def inputs():
    generator = torch.Generator().manual_seed(1)
    vectors = torch.rand(N_EDGES, 3, generator=generator)
    velocities = torch.rand(500, 3, generator=generator)
    edges = torch.randint(500, (2, N_EDGES), generator=generator)
    return vectors.cuda(), velocities.cuda(), edges.cuda()


def run(compiled, vectors, velocities, edges):
    """Every operator and its gradient."""
    leaves = [v.detach().requires_grad_(True) for v in (vectors, velocities)]
    features = compiled.spherical_fourier_bessel(leaves[0], 1.0, 3, 8)
    harmonics = compiled.solid_harmonics(leaves[0], 3)
    invariants, envelope = compiled.fourier_bessel_invariants(
        *leaves, edges, 1.0, 1.5, 3, 8
    )
    total = features.square().sum() + harmonics.square().sum()
    total = total + invariants.square().sum() + envelope.sum()
    grads = torch.autograd.grad(total, leaves)
    return [t.detach() for t in (features, harmonics, invariants, envelope, *grads)]


def test_work_is_put_on_the_current_stream(compiled, inputs):
    expected = run(compiled, *inputs)
    torch.cuda.synchronize()
    stream = torch.cuda.Stream()
    wanted = inputs[0].clone()
    late = torch.zeros_like(wanted)
    torch.cuda.synchronize()
    with torch.cuda.stream(stream):
        # The numbers arrive a tenth of a second late: on another stream the kernels
        # would be done with zeros by then.
        torch.cuda._sleep(200_000_000)
        late.copy_(wanted)
        found = run(compiled, late, *inputs[1:])
    stream.synchronize()
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


def test_graph_capture_replays_with_new_numbers(compiled, inputs):
    static = [t.clone() for t in inputs]

    def forward():
        features = compiled.spherical_fourier_bessel(static[0], 1.0, 3, 8)
        harmonics = compiled.solid_harmonics(static[0], 3)
        return features, harmonics

    warm_up = torch.cuda.Stream()
    with torch.cuda.stream(warm_up):
        forward()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        found = forward()
    static[0].copy_(0.5 * inputs[0])
    graph.replay()
    torch.cuda.synchronize()
    expected = reference.spherical_fourier_bessel(0.5 * inputs[0], 1.0, 3, 8)
    torch.testing.assert_close(found[0], expected, rtol=0, atol=1e-5)
    expected = reference.solid_harmonics(0.5 * inputs[0], 3)
    torch.testing.assert_close(found[1], expected, rtol=0, atol=1e-5)


def test_two_runs_give_the_same_bits(compiled, inputs):
    # The sums over a node's edges are ordered, not left to atomic additions.
    for one, other in zip(run(compiled, *inputs), run(compiled, *inputs), strict=True):
        assert torch.equal(one, other)

"""Shapes and layouts that must work, and arguments that are refused by name."""

import pytest
import torch

EDGES = torch.tensor([[0, 1, 2], [1, 2, 0]])


def call(ops, which, **changed):
    """One of the operators with valid arguments but for those that are given."""
    device, dtype = changed.pop("device", "cpu"), changed.pop("dtype", torch.float32)
    vectors = changed.pop("vectors", torch.ones(3, 3, dtype=dtype, device=device))
    cutoff, l_max = changed.pop("cutoff", 4.0), changed.pop("l_max", 2)
    n_max = changed.pop("n_max", 3)
    if which == "harmonics":
        return ops.harmonics(vectors, l_max)
    if which == "features":
        return ops.features(vectors, cutoff, l_max, n_max)
    velocities = torch.ones(3, 3, dtype=dtype, device=device)
    return ops.invariants(
        vectors,
        changed.pop("velocities", velocities),
        changed.pop("edge_index", EDGES.to(device)),
        cutoff,
        changed.pop("velocity_cutoff", 4.0),
        l_max,
        n_max,
    )


EVERY = ["features", "invariants", "harmonics"]


@pytest.mark.parametrize("which", EVERY)
def test_vectors_of_other_rank_or_width_are_refused(ops, which, device):
    for shape in ((3,), (3, 2), (3, 3, 3)):
        vectors = torch.ones(shape, device=device)
        with pytest.raises(ValueError, match=r"expected vectors of shape \(\*, 3\)"):
            call(ops, which, vectors=vectors, device=device)


@pytest.mark.parametrize("which", EVERY)
@pytest.mark.parametrize("kind", [torch.float16, torch.int64, torch.complex64])
def test_other_dtypes_are_refused(ops, which, kind, device):
    with pytest.raises(TypeError, match="expected vectors of float32 or float64, got"):
        call(ops, which, dtype=kind, device=device)


@pytest.mark.parametrize("which", EVERY)
@pytest.mark.parametrize("l_max", [-1, 7])
def test_l_max_out_of_range_is_refused(ops, which, l_max):
    with pytest.raises(ValueError, match=f"expected l_max from 0 to 6, got {l_max}"):
        call(ops, which, l_max=l_max)


@pytest.mark.parametrize("which", ["features", "invariants"])
@pytest.mark.parametrize("n_max", [0, 17])
def test_n_max_out_of_range_is_refused(ops, which, n_max):
    with pytest.raises(ValueError, match=f"expected n_max from 1 to 16, got {n_max}"):
        call(ops, which, n_max=n_max)


@pytest.mark.parametrize("which", ["features", "invariants"])
@pytest.mark.parametrize("cutoff", [0.0, -1.0, float("nan"), float("inf")])
def test_cutoff_that_is_no_length_is_refused(ops, which, cutoff):
    with pytest.raises(RuntimeError, match="expected a positive cutoff, got"):
        call(ops, which, cutoff=cutoff)


def test_velocity_cutoff_that_is_none_is_refused(ops):
    with pytest.raises(RuntimeError, match="expected a positive velocity_cutoff"):
        call(ops, "invariants", velocity_cutoff=0.0)


def test_velocities_must_be_like_the_vectors(ops, device):
    with pytest.raises(ValueError, match=r"expected velocities of shape \(\*, 3\)"):
        call(ops, "invariants", velocities=torch.ones(3, 2, device=device))
    with pytest.raises(TypeError, match=r"velocities of the vectors' dtype .*, got"):
        call(ops, "invariants", velocities=torch.ones(3, 3, dtype=torch.float64))
    # Another device: the only one that every machine has.
    elsewhere = torch.ones(3, 3, device="meta")
    named = "expected velocities on the vectors' device"
    words = named if ops.name == "compiled" else None
    with pytest.raises((RuntimeError, NotImplementedError), match=words):
        call(ops, "invariants", velocities=elsewhere)


@pytest.mark.parametrize("shape", [(3,), (3, 2), (2, 4), (1, 2, 3)])
def test_edge_index_of_other_shape_is_refused(ops, shape):
    edges = torch.zeros(shape, dtype=torch.int64)
    with pytest.raises(ValueError, match=r"expected edge_index of shape \(2, 3\), got"):
        call(ops, "invariants", edge_index=edges)


def test_edge_index_of_other_dtype_is_refused(ops):
    with pytest.raises(TypeError, match="expected edge_index of int64, got"):
        call(ops, "invariants", edge_index=EDGES.int())


def test_edge_index_on_another_device_is_refused(compiled):
    vectors = torch.ones(3, 3)
    with pytest.raises(
        RuntimeError, match="edge_index on the vectors' device cpu, got"
    ):
        compiled.fourier_bessel_invariants(
            vectors, vectors, EDGES.to("meta"), 4.0, 4.0, 2, 3
        )


@pytest.mark.parametrize("node", [-1, 3, 2**40])
def test_node_that_does_not_exist_is_refused(ops, node):
    edges = EDGES.clone()
    edges[1, 2] = node
    with pytest.raises(IndexError, match=f"edge_index from 0 to 2, got {node}"):
        call(ops, "invariants", edge_index=edges)


@pytest.mark.parametrize("n_edges", [0, 1, 5])
def test_any_number_of_edges_works(ops, n_edges, dtype, device):
    vectors = torch.rand(n_edges, 3, dtype=dtype, device=device, requires_grad=True)
    velocities = torch.rand(2, 3, dtype=dtype, device=device, requires_grad=True)
    edges = torch.ones(2, n_edges, dtype=torch.int64, device=device)
    features = ops.features(vectors, 2.0, 2, 3)
    harmonics = ops.harmonics(vectors, 2)
    invariants, envelope = ops.invariants(vectors, velocities, edges, 2.0, 2.0, 2, 3)
    assert features.shape == (n_edges, 9, 3)
    assert harmonics.shape == (n_edges, 9)
    assert invariants.shape == (n_edges, 21)
    assert envelope.shape == (n_edges,)
    total = features.sum() + harmonics.sum() + invariants.sum() + envelope.sum()
    grads = torch.autograd.grad(total, (vectors, velocities))
    assert [grad.shape for grad in grads] == [vectors.shape, velocities.shape]
    assert all(grad.isfinite().all() for grad in grads)


def test_no_edge_and_no_node_work(ops):
    empty = torch.zeros(0, 3)
    edges = torch.zeros(2, 0, dtype=torch.int64)
    invariants, envelope = ops.invariants(empty, empty, edges, 2.0, 2.0, 2, 3)
    assert invariants.shape == (0, 21)
    assert envelope.shape == (0,)


def test_layout_does_not_matter(ops, dtype, device):
    def results(vectors, velocities, edges):
        vectors, velocities = (
            v.detach().requires_grad_(True) for v in (vectors, velocities)
        )
        features = ops.features(vectors, 1.5, 3, 5)
        invariants, envelope = ops.invariants(
            vectors, velocities, edges, 1.5, 1.5, 3, 5
        )
        harmonics = ops.harmonics(vectors, 3)
        # Gradients that are expanded, and transposed.
        total = features.mT.square().sum() + envelope.sum() + invariants.sum()
        grads = torch.autograd.grad(
            total + harmonics.T.square().sum(), (vectors, velocities)
        )
        return features, invariants, envelope, harmonics, *grads

    generator = torch.Generator().manual_seed(8)
    vectors = torch.rand(3, 40, generator=generator, dtype=dtype).to(device).T
    velocities = torch.rand(14, 6, generator=generator, dtype=dtype).to(device)[
        ::2, ::2
    ]
    edges = torch.randint(7, (40, 2), generator=generator).to(device).T
    assert not any(t.is_contiguous() for t in (vectors, velocities, edges))
    found = results(vectors, velocities, edges)
    expected = results(*(t.contiguous() for t in (vectors, velocities, edges)))
    for one, other in zip(found, expected, strict=True):
        if ops.name == "compiled":
            assert torch.equal(one, other)
        else:
            # A GPU sums rows of a tensor in an order that its strides choose.
            torch.testing.assert_close(one, other)


def test_inputs_are_left_as_they_were(ops, dtype):
    vectors = torch.rand(5, 3, dtype=dtype)
    before = vectors.clone()
    ops.features(vectors, 0.5, 6, 16)
    ops.harmonics(vectors, 6)
    ops.invariants(vectors, vectors, torch.zeros(2, 5).long(), 0.5, 0.5, 6, 16)
    assert torch.equal(vectors, before)


@pytest.mark.parametrize("which", EVERY)
def test_two_threads_give_what_one_gives(ops, which, dtype):
    generator = torch.Generator().manual_seed(9)
    vectors = torch.rand(5_000, 3, generator=generator, dtype=dtype)
    velocities = torch.rand(500, 3, generator=generator, dtype=dtype)
    edges = torch.randint(500, (2, 5_000), generator=generator)
    results = []
    before = torch.get_num_threads()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            leaves = [v.clone().requires_grad_(True) for v in (vectors, velocities)]
            out = call(
                ops,
                which,
                vectors=leaves[0],
                velocities=leaves[1],
                edge_index=edges,
                cutoff=1.0,
                velocity_cutoff=1.5,
                l_max=3,
                n_max=8,
            )
            first = out[0] if which == "invariants" else out
            first.square().sum().backward()
            results.append([first, *(v.grad for v in leaves if v.grad is not None)])
    finally:
        torch.set_num_threads(before)
    for one, other in zip(*results, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("n_max", [7, 8])
def test_outputs_written_past_the_caches_are_those_of_small_calls(
    compiled, dtype, n_max
):
    # 31 MB or more. With 7 radial functions edges do not begin where cache lines do,
    # and neither do the ranges of the threads.
    generator = torch.Generator().manual_seed(11)
    vectors = torch.rand(70_001, 3, generator=generator, dtype=dtype)
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(2)
        large = compiled.spherical_fourier_bessel(vectors, 1.0, 3, n_max)
    finally:
        torch.set_num_threads(before)
    for part, rows in zip(vectors.split(1_000), large.split(1_000), strict=True):
        assert torch.equal(compiled.spherical_fourier_bessel(part, 1.0, 3, n_max), rows)

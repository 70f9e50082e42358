"""What torch makes of the operators: scripts, exports, compiled and fake graphs."""

import subprocess
import sys
import warnings

import pytest
import torch
from torch import nn

from openmm_diffmd.ops.library import find_library

SIZES = (1.0, 2, 3)


class Energy(nn.Module):
    """A number made of all three operators, as a model would call them."""

    def __init__(self, ops):
        super().__init__()
        self.features = ops.features
        self.invariants = ops.invariants
        self.harmonics = ops.harmonics
        self.weight = nn.Parameter(torch.linspace(-1.0, 1.0, 21))

    def forward(self, vectors, velocities, edges):
        features = self.features(vectors, 1.0, 2, 3)
        out, envelope = self.invariants(vectors, velocities, edges, 1.0, 1.5, 2, 3)
        per_edge = (out * self.weight).sum(1) * envelope
        solid = self.harmonics(velocities, 2)
        return per_edge.sum() + features.square().sum() + solid.square().sum()


@pytest.fixture
def inputs(device):
    generator = torch.Generator().manual_seed(1)
    vectors = 0.4 * torch.randn(6, 3, generator=generator)
    velocities = torch.randn(4, 3, generator=generator)
    edges = torch.tensor([[0, 1, 2, 3, 0, 1], [1, 0, 3, 2, 2, 0]])
    vectors, velocities = vectors.to(device), velocities.to(device)
    return (
        vectors.requires_grad_(True),
        velocities.requires_grad_(True),
        edges.to(device),
    )


def energy_and_forces(module, inputs):
    energy = module(*inputs)
    return energy, *torch.autograd.grad(energy, inputs[:2])


def assert_same(found, expected):
    for one, other in zip(found, expected, strict=True):
        # The order of a sum of 20 numbers may change.
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


def scripted(ops, device, freeze=False):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        module = torch.jit.script(Energy(ops).to(device).eval())
        return torch.jit.freeze(module) if freeze else module


@pytest.mark.parametrize("freeze", [False, True])
def test_scripted_gives_energy_and_forces(ops, device, inputs, freeze):
    expected = energy_and_forces(Energy(ops).to(device), inputs)
    module = scripted(ops, device, freeze)
    # The first two calls profile, the third runs what was optimised.
    for _ in range(3):
        assert_same(energy_and_forces(module, inputs), expected)


CHILD = """
import sys, torch
path, library = sys.argv[1:]
if library:
    torch.ops.load_library(library)
stored = torch.load(path + ".tensors")
module = torch.jit.load(path)
inputs = stored["inputs"]
energy = module(*inputs)
found = (energy, *torch.autograd.grad(energy, inputs[:2]))
for one, other in zip(found, stored["expected"], strict=True):
    torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
assert "openmm_diffmd" not in sys.modules
print("same")
"""


def run_child(path, library):
    return subprocess.run(
        [sys.executable, "-W", "ignore", "-c", CHILD, str(path), str(library)],
        capture_output=True,
        text=True,
        check=False,
    )


@pytest.mark.parametrize("freeze", [False, True])
def test_saved_model_runs_and_differentiates_in_a_fresh_process(
    ops, inputs, device, freeze, tmp_path
):
    module = scripted(ops, device, freeze)
    expected = energy_and_forces(module, inputs)
    path = tmp_path / "energy.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.jit.save(module, str(path))
    torch.save({"inputs": inputs, "expected": expected}, f"{path}.tensors")
    # Nothing but the library is needed, and by the twin not even that.
    library = find_library() if ops.name == "compiled" else ""
    ran = run_child(path, library)
    assert ran.stdout == "same\n", ran.stderr
    if ops.name == "compiled":
        alone = run_child(path, "")
        assert "Unknown builtin op: diffmd::" in alone.stderr


def test_opcheck_passes(compiled, device, dtype):
    vectors = torch.rand(5, 3, dtype=dtype, device=device, requires_grad=True)
    velocities = torch.rand(4, 3, dtype=dtype, device=device, requires_grad=True)
    edges = torch.randint(4, (2, 5), device=device)
    for operator, args in (
        (compiled.spherical_fourier_bessel, (vectors, *SIZES)),
        (compiled.solid_harmonics, (vectors, 3)),
        (
            compiled.fourier_bessel_invariants,
            (vectors, velocities, edges, 1.0, 1.5, 2, 3),
        ),
    ):
        found = torch.library.opcheck(operator.default, args)
        assert set(found.values()) == {"SUCCESS"}


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("ops", ["compiled"], indirect=True)
def test_compiled_graphs_give_energy_and_forces(ops, inputs, device, dynamic):
    module = Energy(ops).to(device)
    expected = energy_and_forces(module, inputs)
    graph = torch.compile(module, backend="aot_eager", fullgraph=True, dynamic=dynamic)
    assert_same(energy_and_forces(graph, inputs), expected)


@pytest.mark.parametrize("ops", ["compiled"], indirect=True)
def test_exported_program_has_the_operators_and_any_number_of_edges(ops, inputs):
    module = Energy(ops).to(inputs[0].device)
    n_edges = torch.export.Dim("n_edges", min=2)
    program = torch.export.export(
        module, inputs, dynamic_shapes=({0: n_edges}, None, {1: n_edges})
    )
    named = {str(node.target) for node in program.graph.nodes}
    assert {
        "diffmd.spherical_fourier_bessel.default",
        "diffmd.fourier_bessel_invariants.default",
        "diffmd.solid_harmonics.default",
    } <= named
    vectors, velocities, edges = inputs
    fewer = vectors[:4], velocities, edges[:, :4]
    assert_same([program.module()(*fewer)], [module(*fewer)])


@pytest.mark.parametrize("ops", ["compiled"], indirect=True)
def test_functional_transforms_differentiate(ops, inputs, device):
    vectors, velocities, edges = inputs
    module = Energy(ops).to(device)

    def squared_force(r):
        force = torch.func.grad(lambda x: ops.features(x, 1.0, 2, 3).square().sum())(r)
        return force.square().sum()

    def energy(r):
        return module(r, velocities, edges)

    _, *forces = energy_and_forces(module, inputs)
    detached = vectors.detach()
    assert_same([torch.func.grad(energy)(detached)], forces[:1])
    features = ops.features(vectors, 1.0, 2, 3).square().sum()
    (force,) = torch.autograd.grad(features, vectors, create_graph=True)
    expected = torch.autograd.grad(force.square().sum(), vectors)
    assert_same([torch.func.grad(squared_force)(detached)], expected)


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")
@pytest.mark.parametrize("unused", [False, True])
@pytest.mark.parametrize("ops", ["compiled"], indirect=True)
def test_compiled_autograd_gives_forces(ops, inputs, device, unused):
    vectors, velocities, edges = inputs
    module = Energy(ops).to(device)

    def energy():
        if unused:
            sizes = (1.0, 1.5, 2, 3)
            return ops.invariants(vectors, velocities, edges, *sizes)[1].sum()
        return module(*inputs)

    expected = torch.autograd.grad(energy(), inputs[:2])
    with torch._dynamo.compiled_autograd._enable(torch.compile(backend="aot_eager")):
        energy().backward()
    assert_same([vectors.grad, velocities.grad], expected)


def test_meta_tensors_give_shapes(compiled, dtype):
    vectors = torch.empty(7, 3, dtype=dtype, device="meta")
    velocities = torch.empty(4, 3, dtype=dtype, device="meta")
    edges = torch.empty(2, 7, dtype=torch.int64, device="meta")
    features = compiled.spherical_fourier_bessel(vectors, *SIZES)
    harmonics = compiled.solid_harmonics(vectors, 6)
    invariants, envelope = compiled.fourier_bessel_invariants(
        vectors, velocities, edges, 1.0, 1.5, 2, 3
    )
    outputs = (features, harmonics, invariants, envelope)
    assert [tuple(t.shape) for t in outputs] == [(7, 9, 3), (7, 49), (7, 21), (7,)]
    assert {(t.dtype, t.device.type) for t in outputs} == {(dtype, "meta")}

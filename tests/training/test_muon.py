import copy

import torch

from openmm_diffmd.training.config import OptimizerConfig
from openmm_diffmd.training.muon import Muon, orthogonalise
from openmm_diffmd.training.optimizer import make_optimizer


def matrices(*shape: int) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(1)
    return [
        torch.nn.Parameter(torch.randn(shape, generator=generator)) for _ in range(3)
    ]


def set_gradients(weights: list[torch.nn.Parameter], seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    for weight in weights:
        weight.grad = torch.randn(weight.shape, generator=generator)


def test_singular_values_become_one_and_vectors_stay() -> None:
    given = torch.stack(matrices(48, 96)).detach()
    found = orthogonalise(given)
    u, _, v = torch.linalg.svd(given, full_matrices=False)
    between = u.mT @ found @ v.mT
    values = between.diagonal(dim1=1, dim2=2)
    assert values.min() > 0.6
    assert values.max() < 1.25
    torch.testing.assert_close(between, torch.diag_embed(values), rtol=0, atol=1e-4)
    torch.testing.assert_close(orthogonalise(given.mT), found.mT)


def test_steps_are_those_of_pytorch() -> None:
    # PyTorch's orthogonalises in bfloat16: 8 bits, through five iterations.
    ours, theirs = matrices(48, 96), matrices(48, 96)
    chosen = Muon(ours, 0.01, 0.1)
    oracle = torch.optim.Muon(
        theirs, lr=0.01, weight_decay=0.1, adjust_lr_fn="match_rms_adamw"
    )
    begun = matrices(48, 96)
    for seed in range(4):
        set_gradients(ours, seed)
        set_gradients(theirs, seed)
        chosen.step()
        oracle.step()
    for mine, other, first in zip(ours, theirs, begun, strict=True):
        assert (mine - other).norm() < 0.02 * (other - first).norm()


def test_other_weights_take_steps_of_adamw() -> None:
    ours, theirs = matrices(4, 48), matrices(4, 48)
    chosen = Muon([*ours, *matrices(48, 48)], 0.01, 0.1)
    oracle = torch.optim.AdamW(theirs, lr=0.01, weight_decay=0.1)
    for seed in range(3):
        set_gradients(ours, seed)
        set_gradients(theirs, seed)
        chosen.step()
        oracle.step()
    torch.testing.assert_close(ours, theirs)


def test_a_saved_state_goes_on() -> None:
    weights = matrices(48, 48)
    chosen = Muon(weights, 0.01)
    set_gradients(weights, 1)
    chosen.step()
    copies = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    other = Muon(copies, 0.01)
    other.load_state_dict(copy.deepcopy(chosen.state_dict()))
    for own, optimizer in ((weights, chosen), (copies, other)):
        set_gradients(own, 2)
        optimizer.step()
    torch.testing.assert_close(weights, copies, rtol=0, atol=0)


def test_it_is_chosen_by_the_configuration() -> None:
    made = make_optimizer(matrices(48, 48), OptimizerConfig())
    assert isinstance(made["optimizer"], Muon)
    made = make_optimizer(matrices(48, 48), OptimizerConfig(algorithm="adamw"))
    assert not isinstance(made["optimizer"], Muon)

import math

import pytest
import torch

from openmm_diffmd.training.datamodule import RandomBatches, validation_loader


class Recorder:
    """Stand-in for pairs that says what it was asked for."""

    def __init__(self, count):
        self.count = count

    def __len__(self):
        return self.count

    def size_groups(self):
        return [(torch.arange(self.count), 1)]

    def batch(self, indices, reverse=None):
        return indices, reverse


def test_random_batches_come_from_their_seed():
    def first(seed, time_reversal=True):
        return next(iter(RandomBatches(Recorder(1000), 16, time_reversal, seed)))

    indices, _ = first(1)
    assert torch.equal(indices, first(1)[0])
    assert not torch.equal(indices, first(2)[0])
    assert len(indices) == 16
    many = next(iter(RandomBatches(Recorder(1000), 10000, True, 1)))[1]
    # Stochastic: 4 standard errors of a share of one half.
    assert many.float().mean().item() == pytest.approx(0.5, abs=0.02)
    assert first(1, time_reversal=False)[1] is None


class Groups(Recorder):
    """Stand-in for pairs of one small molecule with many data and three large ones."""

    def size_groups(self):
        return [(torch.arange(900), 1), (torch.arange(900, 1000), 3)]


def test_random_batches_are_of_one_group_drawn_by_its_molecules():
    batches = iter(RandomBatches(Groups(1000), 4, time_reversal=False, seed=1))
    large = [next(batches)[0] >= 900 for _ in range(400)]
    assert all(chosen.all() or not chosen.any() for chosen in large)
    share = torch.stack(large).float().mean()
    # Four standard errors of a share of 3/4 among 400.
    assert abs(share - 0.75) < 4 * math.sqrt(0.75 * 0.25 / 400)


def test_validation_batch_is_spread_over_all_pairs():
    loaded = next(iter(validation_loader(Recorder(2000))))
    indices, reverse = loaded
    assert reverse is None
    assert indices[0] == 0
    assert indices[-1] == 1999
    assert len(indices.unique()) == 512
    few, _ = next(iter(validation_loader(Recorder(3))))
    assert few.tolist() == [0, 1, 2]

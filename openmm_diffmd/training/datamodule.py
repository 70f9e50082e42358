"""Batches of pairs for Lightning."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset

from openmm_diffmd.data.pairs import LaggedPairs, PairBatch

NUM_VALIDATION_PAIRS = 512


class RandomBatches(IterableDataset[PairBatch]):
    """
    Endless random batches.

    Parameters
    ----------
    pairs : LaggedPairs
        Where to draw from.
    batch_size : int
        Pairs a batch.
    time_reversal : bool
        Run each pair backwards with probability one half.
    seed : int
        Seed of the draws.
    """

    def __init__(
        self, pairs: LaggedPairs, batch_size: int, time_reversal: bool, seed: int
    ) -> None:
        super().__init__()
        self._pairs = pairs
        self._batch_size = batch_size
        self._time_reversal = time_reversal
        self._generator = torch.Generator().manual_seed(seed)

    def __iter__(self) -> Iterator[PairBatch]:
        size = (self._batch_size,)
        while True:
            indices = torch.randint(len(self._pairs), size, generator=self._generator)
            reverse = torch.rand(size, generator=self._generator) < 0.5
            yield self._pairs.batch(indices, reverse if self._time_reversal else None)


def validation_loader(pairs: LaggedPairs) -> DataLoader[PairBatch]:
    """
    Load the same evenly spread pairs each time, in one batch.

    Parameters
    ----------
    pairs : LaggedPairs
        Pairs of a validation split.

    Returns
    -------
    DataLoader
        One batch.
    """
    count = min(NUM_VALIDATION_PAIRS, len(pairs))
    indices = torch.linspace(0, len(pairs) - 1, count).long()
    return DataLoader([pairs.batch(indices)], batch_size=None)  # type: ignore[arg-type]

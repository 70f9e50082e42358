"""Batches of pairs for Lightning."""

from collections.abc import Iterator

import torch
from torch.utils.data import DataLoader, IterableDataset

from openmm_diffmd.data.pairs import LaggedPairs, PairBatch, evenly_spread

NUM_VALIDATION_PAIRS = 512


class RandomBatches(IterableDataset[PairBatch]):
    """
    Endless random batches, each of molecules of like size.

    A batch is of one of the pairs' size groups, drawn with the number of different
    molecules in it as its weight. Within a group pairs are drawn alike, so that
    molecules of one size are seen as long as their data are.

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
        groups = self._pairs.size_groups()
        weights = torch.tensor([float(count) for _, count in groups])
        while True:
            group = 0
            if len(groups) > 1:
                group = int(torch.multinomial(weights, 1, generator=self._generator))
            members = groups[group][0]
            chosen = torch.randint(len(members), size, generator=self._generator)
            indices = members[chosen]
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
    indices = evenly_spread(len(pairs), NUM_VALIDATION_PAIRS)
    return DataLoader([pairs.batch(indices)], batch_size=None)  # type: ignore[arg-type]

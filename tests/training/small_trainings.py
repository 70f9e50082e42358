"""Trainings of a few steps, and what they leave."""

import csv

import torch

from openmm_diffmd.training.config import (
    DataConfig,
    EnergyModelConfig,
    ModelConfig,
    TransitionOptimizerConfig,
)
from openmm_diffmd.training.train import train

MODEL = ModelConfig(
    n_max=3, channels=6, n_heads=2, edge_channels=6, n_layers=2, head_channels=4
)
FORCE = EnergyModelConfig()
DATA = DataConfig(fractions=(0.6, 0.2, 0.2))
OPTIMIZER = TransitionOptimizerConfig(
    num_steps=12,
    batch_size=8,
    warmup_steps=2,
    # All but the last step at one rate: a shorter training is the start of a longer.
    decay_fraction=0.01,
    validation_interval=6,
    checkpoint_interval=6,
)


def run(data, output, model=MODEL, pairs=DATA, optimizer=OPTIMIZER, **options):
    data = data if isinstance(data, list) else [data]
    return train(data, output, model, pairs, optimizer, progress=False, **options)


def load(path):
    # The file is ours: written a moment ago.
    return torch.load(path, weights_only=False)


def metrics(output):
    rows = []
    for path in sorted(output.glob("csv/version_*/metrics.csv")):
        with path.open(newline="") as file:
            rows += list(csv.DictReader(file))
    return rows

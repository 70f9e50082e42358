"""What Lightning is asked for: clipped gradients, averaged weights, on a toy."""

import dataclasses
import itertools
import logging

import lightning
import pytest
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch.utils.data import DataLoader, IterableDataset

from openmm_diffmd.training.config import OptimizerConfig
from openmm_diffmd.training.trainer import fit

OPTIONS = OptimizerConfig(
    num_steps=4,
    ema_decay=0.75,
    gradient_clip=0.5,
    validation_interval=4,
    checkpoint_interval=2,
)


class Endless(IterableDataset):
    """Batches that say nothing."""

    def __iter__(self):
        return itertools.repeat(torch.zeros(1))


class Slope(lightning.LightningModule):
    """A weight that goes down a slope by steps of its clipped gradient."""

    def __init__(self, gradient: float) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.gradient = gradient

    def training_step(self, batch, batch_index):
        return self.gradient * self.weight

    def validation_step(self, batch, batch_index):
        pass

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), lr=1.0)


def test_lightning_says_nothing_but_warnings(tmp_path, caplog):
    for part in ("pytorch", "fabric"):
        logging.getLogger(f"lightning.{part}").setLevel(logging.INFO)
    batches = DataLoader(Endless(), batch_size=None)
    validation = DataLoader([torch.zeros(1)], batch_size=None)
    with caplog.at_level(logging.INFO):
        fit(Slope(0.25), batches, validation, tmp_path, OPTIONS, progress=False)
    assert not caplog.messages
    assert logging.getLogger("lightning.pytorch").level == logging.INFO


@pytest.mark.parametrize(("gradient", "step"), [(0.25, -0.25), (-100.0, 0.5)])
def test_gradients_are_clipped_and_weights_averaged(tmp_path, gradient, step):
    batches = DataLoader(Endless(), batch_size=None)
    validation = DataLoader([torch.zeros(1)], batch_size=None)

    def train(options, resume=False):
        path = fit(
            Slope(gradient),
            batches,
            validation,
            tmp_path,
            options,
            resume,
            progress=False,
        )
        return torch.load(path, weights_only=False)

    checkpoint = train(OPTIONS)
    assert checkpoint["global_step"] == 4
    now = checkpoint["current_model_state"]["weight"].item()
    assert now == pytest.approx(4 * step)
    # The average begins with the first step's weight.
    average = step
    for number in (2, 3, 4):
        average = 0.75 * average + 0.25 * number * step
    assert checkpoint["state_dict"]["weight"].item() == pytest.approx(average)
    # Three more steps, from where the first four ended, checkpoints farther apart.
    more = dataclasses.replace(OPTIONS, num_steps=7, checkpoint_interval=7)
    checkpoint = train(more, resume=True)
    now = checkpoint["current_model_state"]["weight"].item()
    assert now == pytest.approx(7 * step)
    for number in (5, 6, 7):
        average = 0.75 * average + 0.25 * number * step
    assert checkpoint["state_dict"]["weight"].item() == pytest.approx(average)


@pytest.mark.parametrize(
    "accelerator",
    [
        "cpu",
        pytest.param(
            "gpu",
            marks=[
                pytest.mark.gpu,
                pytest.mark.skipif(
                    not torch.cuda.is_available(), reason="found no NVIDIA GPU"
                ),
            ],
        ),
    ],
)
def test_the_average_is_where_the_weights_are(tmp_path, accelerator):
    devices = []

    class Watched(Slope):
        def on_train_end(self):
            devices.append(self.weight.device)
            devices.extend(
                callback._average_model.module.weight.device
                for callback in self.trainer.callbacks
                if isinstance(callback, WeightAveraging)
            )

    batches = DataLoader(Endless(), batch_size=None)
    validation = DataLoader([torch.zeros(1)], batch_size=None)
    fit(
        Watched(0.25),
        batches,
        validation,
        tmp_path,
        OPTIONS,
        accelerator=accelerator,
        progress=False,
    )
    assert len(devices) == 2
    assert devices[0] == devices[1]
    assert (devices[0].type == "cuda") == (accelerator == "gpu")

"""What every training shares: Lightning's Trainer and its checkpoints."""

import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning
import torch
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch.callbacks import (
    ModelCheckpoint,
    TQDMProgressBar,
    WeightAveraging,
)
from lightning.pytorch.loggers import CSVLogger, TensorBoardLogger
from torch.optim.swa_utils import get_ema_multi_avg_fn

from openmm_diffmd.outputs import check_output_folder
from openmm_diffmd.training.config import OptimizerConfig

LAST_CHECKPOINT = "last.ckpt"


def find_checkpoint(output: Path, resume: bool) -> Path:
    """
    Name the last checkpoint of a training that is to begin or to go on.

    Parameters
    ----------
    output : Path
        Folder of the training.
    resume : bool
        Whether it goes on.

    Returns
    -------
    Path
        The checkpoint: there if `resume` is on, else not.

    Raises
    ------
    FileExistsError
        If there is a checkpoint and `resume` is off.
    FileNotFoundError
        If there is none and `resume` is on.
    OSError
        If `output` is a file, or cannot be made or written in.
    """
    checkpoint = output / LAST_CHECKPOINT
    if checkpoint.exists() and not resume:
        raise FileExistsError(
            f"found a training in {output}; set resume, or choose another folder"
        )
    if resume and not checkpoint.exists():
        raise FileNotFoundError(
            f"found no {checkpoint} to resume from, expected one: leave resume out to "
            "begin a training, or name the folder of one"
        )
    check_output_folder(output)
    return checkpoint


def list_files(data: list[Path] | Path) -> list[Path]:
    """
    List the files to train on.

    Parameters
    ----------
    data : list of path-like, or one
        The files.

    Returns
    -------
    list of path-like
        One or more.

    Raises
    ------
    ValueError
        If there are none.
    """
    files = [Path(data)] if isinstance(data, str | Path) else data
    if not files:
        raise ValueError("found no data, expected reference files: give --data")
    return files


def check_num_steps(asked: int, made: int) -> None:
    """
    Refuse to resume a training that is longer already.

    Parameters
    ----------
    asked : int
        Steps to train up to.
    made : int
        Steps made.

    Raises
    ------
    ValueError
        If there are more of these.
    """
    if made > asked:
        raise ValueError(
            f"found num_steps {asked}, but the training to resume has made "
            f"{made}; give more, or choose another folder"
        )


class FinalCheckpoint(lightning.Callback):
    """
    Writes the last checkpoint when the last step is done.

    `ModelCheckpoint` writes at multiples of its interval only, and Lightning writes
    nothing at the end where there is one already: the steps since would be lost.

    Parameters
    ----------
    path : Path
        The checkpoint.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def on_train_batch_end(
        self, trainer: lightning.Trainer, *args: Any, **kwargs: Any
    ) -> None:
        """
        Write after the last step.

        Parameters
        ----------
        trainer : Trainer
            Knows the step.
        *args, **kwargs
            What else Lightning gives.
        """
        if trainer.global_step == trainer.max_steps:
            trainer.save_checkpoint(self._path)


class Describing(lightning.Callback):
    """
    Writes what a training says of itself with its checkpoints, and not before.

    A training that is to go on with other options, and ends before its next checkpoint,
    leaves those that its weights were made with.

    Parameters
    ----------
    write : callable
        Writes it.
    """

    def __init__(self, write: Callable[[], None]) -> None:
        self._write = write

    def on_save_checkpoint(self, *args: Any, **kwargs: Any) -> None:
        """
        Write beside the checkpoint.

        Parameters
        ----------
        *args, **kwargs
            What Lightning gives.
        """
        self._write()


def fit(
    module: lightning.LightningModule,
    batches: Any,
    validation: Any,
    output: Path,
    options: OptimizerConfig,
    resume: bool = False,
    accelerator: str = "cpu",
    progress: bool = True,
    describe: Callable[[], None] | None = None,
) -> Path:
    """
    Train a module, with a running average of its weights, logs and checkpoints.

    Parameters
    ----------
    module : LightningModule
        What to train.
    batches, validation : DataLoader or sequence of DataLoader
        Endless training batches; what to validate on.
    output : Path
        Folder for checkpoints and logs.
    options : OptimizerConfig
        Options of the optimisation.
    resume : bool
        Go on from the last checkpoint in `output`.
    accelerator : str
        Lightning's name of the device, of which one is used.
    progress : bool
        Show a progress bar, if in a terminal.
    describe : callable, optional
        Called with each checkpoint, to write what the training is.

    Returns
    -------
    Path
        The last checkpoint.

    Raises
    ------
    ValueError
        If there is no such device, or the training diverges.
    KeyboardInterrupt
        If the process is interrupted or told to terminate.
    """
    checkpoint = output / LAST_CHECKPOINT
    with _only_warnings_of_lightning(), warnings.catch_warnings():
        # The device was chosen, and batches are cut from what is in memory.
        warnings.filterwarnings("ignore", "GPU available but not used")
        warnings.filterwarnings("ignore", ".* does not have many workers")
        # Logs of a training that ended before its first checkpoint.
        warnings.filterwarnings("ignore", "Checkpoint directory .* is not empty")
        # A training may go on with another interval between its checkpoints.
        warnings.filterwarnings("ignore", ".*when using `ckpt_path`, callbacks used to")
        # Lightning's own use of PyTorch.
        warnings.filterwarnings("ignore", r".*LeafSpec.* is deprecated", FutureWarning)
        try:
            trainer = _make_trainer(output, options, accelerator, progress, describe)
        except (MisconfigurationException, ModuleNotFoundError) as error:
            raise ValueError(
                f"found accelerator {accelerator!r}, which gives: {error}; expected "
                "one that this machine has, such as 'cpu'"
            ) from error
        try:
            trainer.fit(
                module,
                batches,
                validation,
                ckpt_path=str(checkpoint) if resume else None,
                weights_only=False,
            )
        except SystemExit as error:
            # How Lightning leaves after Ctrl-C and SIGTERM, this as if all was well.
            then = f"go on from {checkpoint} with resume"
            if not checkpoint.exists():
                then = "before the first checkpoint: begin anew"
            raise KeyboardInterrupt(
                f"at step {trainer.global_step} of {options.num_steps}, {then}"
            ) from error
    return checkpoint


@contextmanager
def _only_warnings_of_lightning() -> Iterator[None]:
    """Leave out the devices that it does not use, and its advertisements."""
    loggers = [logging.getLogger(f"lightning.{part}") for part in ("pytorch", "fabric")]
    levels = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.WARNING)
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


def _make_trainer(
    output: Path,
    options: OptimizerConfig,
    accelerator: str,
    progress: bool,
    describe: Callable[[], None] | None,
) -> lightning.Trainer:
    # In a log a bar is a line without end.
    shows_progress = progress and sys.stdout.isatty()
    trainer = lightning.Trainer(
        accelerator=accelerator,
        devices=1,
        max_steps=options.num_steps,
        limit_val_batches=1.0,
        val_check_interval=options.validation_interval,
        check_val_every_n_epoch=None,
        gradient_clip_val=options.gradient_clip,
        num_sanity_val_steps=0,
        # A force is a gradient, in validation too.
        inference_mode=False,
        log_every_n_steps=50,
        logger=[CSVLogger(output, name="csv"), TensorBoardLogger(output)],
        callbacks=[
            FinalCheckpoint(output / LAST_CHECKPOINT),
            ModelCheckpoint(
                dirpath=output,
                filename="{step}",
                every_n_train_steps=options.checkpoint_interval,
                save_last=True,
                enable_version_counter=False,
            ),
            *([Describing(describe)] if describe else []),
            *([TQDMProgressBar(refresh_rate=20)] if shows_progress else []),
        ],
        enable_progress_bar=shows_progress,
        enable_model_summary=False,
    )
    average = WeightAveraging(
        # Unless told, it stays where the module is now, on the CPU.
        device=trainer.strategy.root_device,
        # All weights in one call: a tenth of the time of one after the other.
        multi_avg_fn=get_ema_multi_avg_fn(options.ema_decay),
    )
    # Before the checkpoints, which have the average in them.
    trainer.callbacks.insert(0, average)  # type: ignore[attr-defined]
    return trainer


def check_finite(loss: torch.Tensor, step: int) -> None:
    """
    End a training that diverged: its weights are numbers no more.

    Parameters
    ----------
    loss : Tensor, shape ()
        Loss of a batch.
    step : int
        Steps made.

    Raises
    ------
    ValueError
        If the loss is not finite.
    """
    if not loss.isfinite():
        raise ValueError(
            f"found a loss of {loss.item()} after step {step}, expected a number: the "
            "training diverged; begin anew with a smaller --optimizer.learning_rate, "
            "and see that the data are right"
        )

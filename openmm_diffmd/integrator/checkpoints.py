"""Checkpoints of OpenMM, looked at before OpenMM reads them."""

import os
from pathlib import Path

from openmm import Context


def load_checkpoint(
    context: Context, checkpoint: bytes | str | os.PathLike[str]
) -> None:
    """
    Load a checkpoint that `Simulation.saveCheckpoint` or a CheckpointReporter wrote.

    OpenMM reads as many parameters as the head of a checkpoint says. Where that number
    is damaged ``Simulation.loadCheckpoint`` may loop for hours; here the head is
    compared first. What follows it is guarded by the integrator's own checksum.

    Parameters
    ----------
    context : openmm.Context
        Where to.
    checkpoint : bytes, str or path-like
        The checkpoint, or its file.

    Raises
    ------
    TypeError
        If `context` is something else.
    ValueError
        If the head is not what this Context would write.
    openmm.OpenMMException
        If the rest is damaged, or of another integrator.
    """
    if not isinstance(context, Context):
        raise TypeError(
            f"found a {type(context).__name__}, expected a Context: of a Simulation "
            "give simulation.context"
        )
    if isinstance(checkpoint, bytes):
        content = checkpoint
    else:
        content = Path(checkpoint).read_bytes()
    platform = context.getPlatform().getName()
    # The head: who wrote it, the platform, the numbers of particles and of parameters.
    own = context.createCheckpoint()
    end = own.index(platform.encode()) + len(platform) + 2 * 4
    if content[:end] != own[:end]:
        numbers = context.getSystem().getNumParticles(), len(context.getParameters())
        raise ValueError(
            f"found a checkpoint that begins with {content[:end]!r}, expected "
            f"{own[:end]!r}: platform {platform}, {numbers[0]} particles and "
            f"{numbers[1]} parameters; load it into the simulation that wrote it, or "
            "use an undamaged checkpoint"
        )
    context.loadCheckpoint(content)

"""Rollouts that the guards may end."""

from pathlib import Path

import numpy as np
import openmm
from numpy.typing import NDArray
from openmm import app

from openmm_diffmd.export.torchscript import DiffusionModel
from openmm_diffmd.integrator.rollout import RolloutResult, RolloutSettings, roll_out
from openmm_diffmd.sidecar import RolloutSidecar


def roll_out_as_far(
    model: DiffusionModel,
    topology: app.Topology,
    positions: NDArray[np.float64],
    output: Path,
    settings: RolloutSettings,
) -> RolloutResult:
    """
    Roll out; where the guards give up, what was made until then counts.

    Parameters
    ----------
    model, topology, positions, output, settings
        As of `roll_out`.

    Returns
    -------
    RolloutResult
        The sidecar's ``error`` says why it ended early, its ``num_frames`` how many
        frames there are, perhaps none.

    Raises
    ------
    openmm.OpenMMException
        If it never ran: a platform that there is not, say.
    """
    path = output.with_suffix(".json")
    earlier = path.stat().st_mtime_ns if path.is_file() else None
    try:
        return roll_out(model, topology, positions, output, settings)
    except openmm.OpenMMException:
        # An earlier run's sidecar must not pass for this one's.
        if not path.is_file() or path.stat().st_mtime_ns == earlier:
            raise
        return RolloutResult(path, RolloutSidecar.read(path), None)

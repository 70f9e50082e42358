"""Write the model files of the C++ tests, and what the Python step makes of them."""

import shutil
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
from openmm import unit

from openmm_diffmd.export.torchscript import load_model
from openmm_diffmd.integrator.molecules import describe_molecules
from openmm_diffmd.integrator.propagator import Propagator
from openmm_diffmd.integrator.settings import resolve_settings
from openmm_diffmd.testing import (
    FaultyModel,
    HarmonicModel,
    RememberingModel,
    save_stub_model,
)

SAMPLERS = ["exponential", "euler", "heun", "predictor_corrector"]
SEED = 11
NUM_LAGS = 4


def main(folder: Path) -> None:
    """
    Write ``<stub>.pt`` and, for two of them and each sampler, ``<stub>_<sampler>.txt``.

    A copy of the bundled network, ``ethanol.pt``, is written too.

    Parameters
    ----------
    folder : Path
        Where to.
    """
    stubs = {
        "harmonic": HarmonicModel(friction=20.0),
        "faulty": FaultyModel("nan", friction=20.0),
        "broken": FaultyModel("bond", below_level=2.0, friction=20.0),
        "remembering": RememberingModel(friction=20.0),
        "flow": HarmonicModel(),
        "hopeless": FaultyModel("bond", below_level=2.0),
    }
    bundled = load_model("ethanol")
    shutil.copy(bundled.path, folder)
    (folder / "ethanol.sha256").write_text(bundled.sha256)
    for name, stub in stubs.items():
        model = load_model(save_stub_model(folder / f"{name}.pt", stub))
        (folder / f"{name}.sha256").write_text(model.sha256)
        if name not in ("harmonic", "faulty"):
            continue
        topology, positions = model.example()
        # With few steps samplers run hot; here only spoilt draws are to be redrawn.
        molecules = replace(
            describe_molecules(topology, model.metadata),
            kinetic_energy_quantiles=np.array([1e6]),
        )
        for sampler in SAMPLERS:
            settings = resolve_settings(
                model.metadata, sampler=sampler, num_sampling_steps=3
            )
            frame = (
                np.array(positions.value_in_unit(unit.nanometer)),
                np.zeros((9, 3)),
            )
            frames = [frame]
            propagator = Propagator(model, molecules, settings, SEED)
            for _ in range(NUM_LAGS):
                frame = propagator.step(*frame)
                frames.append(frame)
            path = folder / f"{name}_{sampler}.txt"
            np.savetxt(path, np.array(frames).reshape(-1, 3), fmt="%.17g")


if __name__ == "__main__":
    main(Path(sys.argv[1]))

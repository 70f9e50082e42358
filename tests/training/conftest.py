import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from small_trainings import run

from openmm_diffmd.reference.dynamics import ReferenceFrame
from openmm_diffmd.reference.storage import ReferenceWriter
from openmm_diffmd.topologies import make_topology

OMEGA, STEP = 40.0, 0.005
"""Angular frequency of the springs to the centre of mass, 1/ps; frames, ps."""


@pytest.fixture(scope="session")
def write_bursts() -> Callable[..., Path]:
    """
    Write exact frictionless bursts of atoms bound to their centre of mass.

    x' = x cos(omega tau) + v/omega sin(omega tau): what a network can learn.
    """

    def write(
        path: Path,
        symbols: tuple[str, ...] = ("O", "H", "H"),
        n_bursts: int = 12,
        n_frames: int = 12,
        seed: int = 0,
        said: Mapping[str, Any] | None = None,
        **provenance: Any,
    ) -> Path:
        generator = np.random.default_rng(seed)
        bonds = [(0, i) for i in range(1, len(symbols))]
        topology = make_topology(symbols, bonds).to_openmm()
        masses = np.array([atom.element.mass._value for atom in topology.atoms()])
        weights = (masses / masses.sum())[:, None]
        made = {"temperature_K": 500.0, "friction_per_ps": 0.0, **provenance}
        made |= said or {}
        count = n_bursts * n_frames
        with ReferenceWriter(path, topology, masses, made, count) as writer:
            for segment in range(n_bursts):
                x0 = 0.1 * generator.normal(size=(len(symbols), 3))
                v0 = 0.1 * OMEGA * generator.normal(size=(len(symbols), 3))
                x0, v0 = x0 - (weights * x0).sum(0), v0 - (weights * v0).sum(0)
                for frame in range(n_frames):
                    t = STEP * frame
                    c, s = np.cos(OMEGA * t), np.sin(OMEGA * t)
                    x, v = x0 * c + v0 / OMEGA * s, v0 * c - x0 * OMEGA * s
                    forces = -masses[:, None] * OMEGA**2 * x
                    writer.write(segment, ReferenceFrame(t, x, v, forces, 0.0))
        return path

    return write


@pytest.fixture(scope="session")
def bursts(write_bursts, tmp_path_factory) -> Path:
    return write_bursts(tmp_path_factory.mktemp("data") / "bursts.h5")


@pytest.fixture(scope="session")
def trained(bursts, tmp_path_factory) -> Path:
    output = tmp_path_factory.mktemp("training") / "run"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        # TorchScript is deprecated upstream, and e3nn names it.
        warnings.filterwarnings("ignore", ".*torch.jit.*", DeprecationWarning)
        run(bursts, output)
    return output

"""Checkpoints whose head is damaged are refused before OpenMM reads them."""

import numpy as np
import openmm
import pytest

from openmm_diffmd.integrator.checkpoints import load_checkpoint
from openmm_diffmd.testing import read_frame


@pytest.fixture
def simulation(simulate, flow):
    made = simulate(flow)
    made.step(2)
    return made


def test_an_undamaged_one_is_loaded(simulation, tmp_path):
    path = tmp_path / "run.chk"
    simulation.saveCheckpoint(str(path))
    simulation.step(3)
    expected = read_frame(simulation.context)
    for checkpoint in (path, path.read_bytes()):
        load_checkpoint(simulation.context, checkpoint)
        assert simulation.currentStep == 2
        simulation.step(3)
        np.testing.assert_array_equal(read_frame(simulation.context), expected)


def test_a_damaged_head_is_refused_at_once(simulation):
    checkpoint = simulation.context.createCheckpoint()
    end = checkpoint.index(b"Reference") + len("Reference") + 8
    # Of the number of parameters OpenMM believes every bit.
    for place in range(end):
        damaged = bytearray(checkpoint)
        damaged[place] ^= 64
        with pytest.raises(ValueError, match="0 parameters; load it into the simulat"):
            load_checkpoint(simulation.context, bytes(damaged))


def test_damage_behind_the_head_is_refused(simulation):
    damaged = bytearray(simulation.context.createCheckpoint())
    damaged[-1] ^= 1
    with pytest.raises(openmm.OpenMMException, match="not what was written"):
        load_checkpoint(simulation.context, bytes(damaged))

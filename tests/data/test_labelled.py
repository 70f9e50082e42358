import dataclasses

import numpy as np
import pytest
import torch

from openmm_diffmd.data.labelled import LabelledFrames
from openmm_diffmd.data.trajectory import Trajectory

ELEMENTS = [1, 6, 8]
ENERGIES = np.array([-1.0, -100.0, -200.0])


def molecule(numbers, n_frames=6, seed=0):
    generator = np.random.default_rng(seed)
    shape = (n_frames, len(numbers), 3)
    numbers = np.array(numbers)
    total = ENERGIES[[ELEMENTS.index(z) for z in numbers]].sum()
    return Trajectory(
        positions=generator.normal(size=shape),
        velocities=None,
        times=np.arange(n_frames) * 0.001,
        segments=np.zeros(n_frames, dtype=int),
        atomic_numbers=numbers,
        masses=np.ones(len(numbers)),
        bonds=np.zeros((0, 2), dtype=int),
        potential_energies=np.full(n_frames, total),
        forces=generator.normal(size=shape),
    )


def test_energies_of_elements_are_found_and_molecules_padded():
    water, methanol = molecule([8, 1, 1]), molecule([6, 8, 1, 1, 1, 1], 4)
    methane = molecule([6, 1, 1, 1, 1], 5)
    trajectories = [water, methanol, methane]
    frames = LabelledFrames(trajectories, [range(2, 6), range(4), range(5)], ELEMENTS)
    assert len(frames) == 13
    np.testing.assert_allclose(frames.element_energy, ENERGIES, rtol=1e-9)
    batch = frames[[0, 4]]
    assert batch.energies.abs().max() < 1e-4
    assert batch.species.tolist() == [[2, 0, 0, -1, -1, -1], [1, 2, 0, 0, 0, 0]]
    expected = torch.from_numpy(water.forces[2]).float()
    torch.testing.assert_close(batch.forces[0, :3], expected)
    assert (batch.forces[0, 3:] == 0).all()
    assert (batch.positions[0, 3:] == 0).all()
    torch.testing.assert_close(batch.positions[0, :3].mean(0), torch.zeros(3))


def test_given_energies_of_elements_are_taken():
    given = torch.tensor([0.0, 0.0, 0.0], dtype=torch.float64)
    frames = LabelledFrames([molecule([8, 1, 1])], [range(3)], ELEMENTS, given)
    assert frames[[0]].energies.item() == pytest.approx(-202.0)


def test_frames_without_forces_are_refused():
    bare = dataclasses.replace(molecule([8, 1, 1]), forces=None)
    with pytest.raises(ValueError, match="without energies or forces"):
        LabelledFrames([bare], [range(3)], ELEMENTS)
